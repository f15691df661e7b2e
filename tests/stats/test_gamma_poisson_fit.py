"""How the priors of groups are fitted, step by step: against scipy's negative binomial, quadrature and formulas written out."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from closedloop.stats.gamma_poisson import (
    GroupPriors,
    _merged,
    _modes,
    _second_level,
    _weights_of_k,
    fit_group_priors,
    posterior_mixture,
)

COUNT = np.array([3.0, 0.0, 9.0, 2.0, 5.0, 40.0, 1.0])
EXPOSURE = np.array([100.0, 80.0, 250.0, 60.0, 90.0, 700.0, 30.0])
GROUP = np.array([0, 0, 0, 0, 1, 1, 1])
CENTRE, SPREAD = np.array([-3.2, -2.9]), np.array([0.7, 1.5])
LOG_K = np.linspace(np.log(0.03), np.log(3e4), 11)


def log_joint(group, log_mu, k):
    mine = group == GROUP
    mean = np.exp(log_mu) * EXPOSURE[mine]
    return stats.nbinom.logpmf(COUNT[mine], k, k / (k + mean)).sum() + stats.norm.logpdf(log_mu, CENTRE[group], SPREAD[group])


@pytest.mark.parametrize("k", [0.5, 8.0, 2000.0])
def test_the_mode_its_curvature_and_the_evidence_are_the_joint_density_s(k):
    """The mode is scipy's, the information its second difference, and the evidence the density there by Laplace, but for a constant."""
    found = _modes(COUNT, EXPOSURE, GROUP, np.full(2, k), CENTRE, CENTRE, SPREAD)
    base = _modes(COUNT, EXPOSURE, GROUP, np.ones(2), CENTRE, CENTRE, SPREAD)
    e = 1e-4
    for g in range(2):
        peer = optimize.minimize_scalar(lambda m, g=g: -log_joint(g, m, k), bounds=(-8, 1), method="bounded", options={"xatol": 1e-9})
        assert found[0][g] == pytest.approx(peer.x, abs=1e-5)
        curve = -(log_joint(g, peer.x + e, k) - 2 * log_joint(g, peer.x, k) + log_joint(g, peer.x - e, k)) / e**2
        assert found[1][g] == pytest.approx(curve, rel=1e-4)
        laplace = [log_joint(g, f[0][g], kk) - 0.5 * np.log(f[1][g]) for f, kk in ((found, k), (base, 1.0))]
        assert found[2][g] - base[2][g] == pytest.approx(laplace[0] - laplace[1], abs=1e-6)


def test_groups_spread_around_a_common_centre():
    """DerSimonian and Laird, written out; four groups of spread a half beside what is seen; two groups or fewer take the pooled rate."""
    count, exposure = np.array([4.0, 30.0, 9.0, 200.0, 0.0]), np.array([100.0, 400.0, 500.0, 1500.0, 50.0])
    centre, spread = _second_level(count, exposure, np.arange(5), 5, -9.0)
    y, v = np.log(count[:4] / exposure[:4]), 1 / count[:4] + 0.05
    w = 1 / v
    q = (w * (y - (w * y).sum() / w.sum()) ** 2).sum()
    tau2 = max(0.0, (q - 3) / (w.sum() - (w**2).sum() / w.sum()))
    wide = np.sqrt((4 * tau2 + 4 * 0.25) / 8 + 0.05)
    w = 1 / (v + wide**2)
    np.testing.assert_allclose(centre, (w * y).sum() / w.sum())
    np.testing.assert_allclose(spread, wide * np.sqrt(1 + 1 / 4))
    same = np.full(4, 50.0)
    assert _second_level(same, 10 * same, np.arange(4), 4, 0.0)[1][0] == pytest.approx(np.sqrt((4 * 0.25 / 8 + 0.05) * 1.25))
    few = _second_level(count[:2], exposure[:2], np.array([0, 1]), 3, -4.0)
    assert [few[0].tolist(), few[1].tolist()] == [[-4.0] * 3, [2.0] * 3]
    three = _second_level(count[:3], exposure[:3], np.arange(3), 3, -4.0)
    assert three[0][0] != -4.0


def half_cauchy():
    """The prior of the relative spread ``1 / sqrt(k)`` on the nodes of log k."""
    density = stats.halfcauchy.pdf(np.exp(-0.5 * LOG_K), scale=0.8) * np.exp(-0.5 * LOG_K)
    return density / density.sum()


def test_one_group_has_bayes_rule_over_its_concentration():
    """Evidence times the half-Cauchy of scale 0.8; a single group borrows from nobody."""
    evidence = -0.3 * (LOG_K - 2.0)[:, None] ** 2
    weight, log_prior = _weights_of_k(evidence)
    wanted = half_cauchy() * np.exp(evidence[:, 0])
    np.testing.assert_allclose(weight[:, 0], wanted / wanted.sum())
    np.testing.assert_allclose(np.exp(log_prior[:, 0]), half_cauchy())


def test_groups_lend_each_other_what_they_show():
    """Each group's prior is the half-Cauchy, counted as two groups, and the other groups' posteriors: that is what it ends at."""
    evidence = np.stack([-0.3 * (LOG_K - 2.0) ** 2, -0.2 * (LOG_K - 4.0) ** 2, 0.0 * LOG_K], axis=1)
    weight, log_prior = _weights_of_k(evidence)
    for g in range(3):
        others = weight.sum(axis=1) - weight[:, g]
        prior = (2 * half_cauchy() + others) / 4.0
        np.testing.assert_allclose(np.exp(log_prior[:, g]), prior, atol=2e-3)
        posterior = np.exp(log_prior[:, g] + evidence[:, g])
        np.testing.assert_allclose(weight[:, g], posterior / posterior.sum(), atol=1e-12)
    assert weight[:, 2] @ LOG_K == pytest.approx((np.exp(log_prior[:, 2]) * LOG_K).sum(), abs=1e-9)


@pytest.mark.parametrize("nodes", [1, 3])
def test_merging_nodes_keeps_mass_mean_and_variance(nodes):
    """Over all bins the mean of log k, the mean of log mu and its variance with what lies between bins are those of the fine nodes."""
    rng = np.random.default_rng(0)
    weight = rng.dirichlet(np.ones(9), 2).T
    log_k, log_mu, variance = np.sort(rng.normal(2, 1, (9, 2)), axis=0), rng.normal(-3, 0.4, (9, 2)), rng.uniform(0.01, 0.1, (9, 2))
    found = _merged(weight, log_k, log_mu, variance, nodes)
    assert found.k.shape == (2, nodes)
    assert found.informed.all()
    np.testing.assert_allclose(found.weight.sum(axis=1), 1.0)
    for g in range(2):
        w = found.weight[g]
        assert w @ np.log(found.k[g]) == pytest.approx(weight[:, g] @ log_k[:, g])
        mean = weight[:, g] @ log_mu[:, g]
        assert w @ found.log_mu[g] == pytest.approx(mean)
        second = w @ (found.sd_log_mu[g] ** 2 + found.log_mu[g] ** 2)
        assert second == pytest.approx(weight[:, g] @ (variance[:, g] + log_mu[:, g] ** 2))
    if nodes == 3:  # a node belongs to the bin that its middle lies in
        middle = np.cumsum(weight[:, 0]) - 0.5 * weight[:, 0]
        for b in range(3):
            inside = (middle >= b / 3) & (middle < (b + 1) / 3)
            assert found.weight[0, b] == pytest.approx(weight[inside, 0].sum())


@pytest.mark.parametrize("error", [None, 0.04])
def test_the_posterior_has_the_moments_of_quadrature(error):
    """Given k, log mu is Normal: mean and variance of the rate over it (and an uncertain exposure), by scipy; and the prior's share."""
    priors = GroupPriors(
        k=np.array([[1.5, 20.0]]), weight=np.array([[0.4, 0.6]]), log_mu=np.array([[-3.0, -3.2]]), sd_log_mu=np.array([[0.2, 0.1]]),
        informed=np.ones(1, dtype=bool),
    )  # fmt: skip
    count, exposure = np.array([7.0]), np.array([150.0])
    given = None if error is None else np.array([error])
    shape, rate, weight, borrowed = posterior_mixture(count, exposure, np.zeros(1, dtype=int), priors, exposure_variance=given)
    np.testing.assert_allclose(weight, [[0.4, 0.6]])
    share = 0.0
    for j, (k, w, centre, sd) in enumerate(zip(priors.k[0], priors.weight[0], priors.log_mu[0], priors.sd_log_mu[0], strict=True)):

        def over(value, centre=centre, sd=sd):
            return integrate.quad(lambda z: stats.norm.pdf(z) * value(np.exp(centre + sd * z)), -7, 7)[0]

        mean = over(lambda mu, k=k: (k + 7) / (k / mu + 150))
        second = over(lambda mu, k=k: ((k + 7) + (k + 7) ** 2 * (1 + (error or 0.0))) / (k / mu + 150) ** 2)
        assert shape[0, j] / rate[0, j] == pytest.approx(mean, rel=2e-4)
        assert shape[0, j] / rate[0, j] ** 2 == pytest.approx(second - mean**2, rel=2e-3)
        share += w * over(lambda mu, k=k: (k / mu) / (k / mu + 150))
    assert borrowed[0] == pytest.approx(share, rel=1e-3)


def test_the_concentration_of_a_group_is_that_of_an_integral():
    """Mean and spread of log k over the nodes, against two integrals over log k and log mu; a large sure group needs one node."""
    rng = np.random.default_rng(3)
    exposure = rng.uniform(100, 900, 60)
    count = rng.poisson(rng.gamma(3.0, 0.02 / 3.0, 60) * exposure).astype(float)
    found = fit_group_priors(count, exposure, np.zeros(60, dtype=int), 1, nodes=9)
    log_k, log_mu = np.meshgrid(np.linspace(LOG_K[0], LOG_K[-1], 260), np.linspace(-4.6, -3.2, 120), indexing="ij")
    cv = np.exp(-0.5 * log_k)
    log_p = np.log(stats.halfcauchy.pdf(cv, scale=0.8) * cv) + stats.norm.logpdf(log_mu, np.log((count.sum() + 0.5) / exposure.sum()), 2.0)
    for c, x in zip(count, exposure, strict=True):
        log_p += stats.nbinom.logpmf(c, np.exp(log_k), 1 / (1 + np.exp(log_mu - log_k) * x))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = (p * log_k).sum()
    assert (found.weight * np.log(found.k)).sum() == pytest.approx(mean, abs=0.02)
    sd = np.sqrt((p * (log_k - mean) ** 2).sum())
    own = np.log(found.k[0])
    assert np.sqrt(found.weight[0] @ (own - found.weight[0] @ own) ** 2) == pytest.approx(sd, rel=0.1)
    assert (found.weight * found.log_mu).sum() == pytest.approx((p * log_mu).sum(), abs=2e-3)
    exposure = rng.uniform(100, 900, 4000)
    count = rng.poisson(rng.gamma(3.0, 0.02 / 3.0, 4000) * exposure).astype(float)
    sure = fit_group_priors(count, exposure, np.zeros(4000, dtype=int), 1)
    assert sure.k.shape == (1, 1)
    assert sure.k[0, 0] == pytest.approx(3.0, rel=0.15)
