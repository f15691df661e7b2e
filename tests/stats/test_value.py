"""The Gamma-Gamma model against quadrature and simulated truth."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from closedloop.stats.value import fit_value, log_evidence


def test_evidence_equals_the_integral_over_nu():
    """The closed form is the integral of the Gamma density of the mean over the unit's nu."""
    p, q, gamma, n, mean = 3.0, 2.5, 15.0, 4.0, 20.0
    integral, _ = integrate.quad(
        lambda nu: stats.gamma.pdf(mean, p * n, scale=1 / (nu * n)) * stats.gamma.pdf(nu, q, scale=1 / gamma), 0, 5
    )
    assert log_evidence(np.array([mean]), np.array([n]), p, q, gamma)[0] == pytest.approx(np.log(integral), rel=1e-6)


def test_intervals_of_the_mean_value_hold_the_truth():
    """Over simulated arms, 90 % intervals hold 90 % of the true mean values, with few and with many conversions."""
    inside = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p, q, gamma, arms = 2.0, 4.0, 60.0, 150
        nu = rng.gamma(q, 1 / gamma, arms)
        n = rng.choice([0, 1, 3, 10, 100], arms)
        single = [rng.gamma(p, 1 / nu[i], n[i]) for i in range(arms)]
        posterior = fit_value(np.array([s.sum() for s in single]), np.array([(s**2).sum() for s in single]), n.astype(float))
        inside.append((posterior.quantile(0.05) <= p / nu) & (p / nu <= posterior.quantile(0.95)))
    assert abs(np.mean(inside) - 0.9) < 0.02


def test_the_currency_unit_only_scales():
    """Cents for euros: a hundred times the value, the same shape."""
    v, s, n = np.array([100.0, 40.0, 7.0]), np.array([1500.0, 500.0, 49.0]), np.array([10.0, 5.0, 1.0])
    one, two = fit_value(v, s, n), fit_value(v * 100, s * 1e4, n)
    np.testing.assert_allclose(two.mean, one.mean * 100, rtol=1e-8)
    np.testing.assert_allclose(two.shape, one.shape, rtol=1e-12)


def test_draws_agree_with_quantiles():
    """Draws are of the same posterior as the quantiles."""
    p = fit_value(np.array([100.0, 40.0]), np.array([1500.0, 500.0]), np.array([10.0, 5.0]))
    draws = p.draws(np.random.default_rng(0), 40_000, np.array([0, 1]))
    assert np.mean(draws < p.quantile(0.9), axis=0) == pytest.approx([0.9, 0.9], abs=0.006)


def test_nothing_to_fit_is_an_error():
    """Without any value there is no posterior."""
    with pytest.raises(ValueError, match="no unit"):
        fit_value(np.zeros(2), np.zeros(2), np.ones(2))


def test_the_shape_inside_units_is_one_over_their_squared_variation():
    """Counted value by value: the squared relative deviations from each unit's own mean, with two of size one beside them."""
    rng = np.random.default_rng(5)
    units = [rng.gamma(4.0, mean / 4.0, size) for mean, size in ((20, 30), (5, 12), (40, 1), (11, 7))]
    squares = sum((((u - u.mean()) / u.mean()) ** 2).sum() for u in units)
    freedom = sum(len(u) - 1 for u in units)
    found = fit_value(*(np.array([f(u) for u in units], dtype=float) for f in (np.sum, lambda u: (u**2).sum(), len)))
    assert found.p == pytest.approx((freedom + 2) / (squares + 2))


def units(seed, n=40, q=4.0):
    rng = np.random.default_rng(seed)
    size = rng.integers(0, 12, n).astype(float)
    mean = 60.0 / rng.gamma(q, 1.0, n)
    single = [rng.gamma(2.0, mean[i] / 2.0, int(size[i])) for i in range(n)]
    return np.array([s.sum() for s in single]), np.array([(s**2).sum() for s in single]), size


@pytest.mark.parametrize("seed", [1, 2])
def test_the_fit_is_the_largest_penalised_likelihood(seed):
    """A free search by scipy over q and gamma finds no more than the grid of q does, and the gamma of each q is the best one."""
    value, squared, n = units(seed)
    found = fit_value(value, squared, n)
    used = n > 0
    m, x = value[used] / n[used], n[used]

    def total(log_q, log_gamma):
        q = np.exp(log_q)
        prior = stats.halfcauchy.logpdf(q**-0.5) + np.log(q**-0.5)  # of the relative spread, as a density of log q
        return log_evidence(m, x, found.p, q, np.exp(log_gamma)).sum() + prior

    best = optimize.minimize(lambda v: -total(*v), [np.log(found.q), np.log(found.gamma)], method="Nelder-Mead", options={"xatol": 1e-6})
    assert total(np.log(found.q), np.log(found.gamma)) >= -best.fun - 0.1
    assert abs(np.log(found.q) - best.x[0]) < 0.6 * np.log(400 / 1.5) / 23
    given = optimize.minimize_scalar(lambda g: -total(np.log(found.q), g), bounds=(-5, 12), method="bounded", options={"xatol": 1e-9})
    assert np.log(found.gamma) == pytest.approx(given.x, abs=1e-5)


def test_the_posterior_is_scipys_inverse_gamma():
    """Mean and quantiles of ``p / nu``, with ``nu`` updated by each unit's conversions; units without take what is common."""
    value, squared, n = units(3)
    found = fit_value(value, squared, n)
    np.testing.assert_allclose(found.shape, found.q + found.p * n)
    np.testing.assert_allclose(found.scale, found.p * (found.gamma + value))
    peer = stats.invgamma(found.shape, scale=found.scale)
    np.testing.assert_allclose(found.mean, peer.mean())
    np.testing.assert_allclose(found.quantile(0.2), peer.ppf(0.2))


def test_spread_ends_where_it_is_as_good_as_none():
    """Equal values: no spread inside units nor between them beyond the ends of what is searched, 400; wild ones: 0.05."""
    n = np.full(60, 900.0)
    alike = fit_value(20.0 * n, 400.0 * n, n)
    assert (alike.p, alike.q) == (400.0, pytest.approx(400.0))
    wild = fit_value(np.array([100.0]), np.array([1e6]), np.array([100.0]))
    assert wild.p == 0.05
    far = fit_value(np.exp(np.linspace(-9, 9, 60)) * 9, np.exp(np.linspace(-18, 18, 60)) * 9.5, np.full(60, 9.0))
    assert far.q == pytest.approx(1.5)


@pytest.mark.parametrize("seed", range(6))
def test_of_few_units_the_prior_of_their_spread_decides(seed):
    """The chosen q is the one of the grid whose likelihood, with the best gamma by scipy, and half-Cauchy prior are the largest."""
    value, squared, n = units(seed, 5)
    found = fit_value(value, squared, n)
    used = n > 0
    m, x = value[used] / n[used], n[used]
    grid = np.exp(np.linspace(np.log(1.5), np.log(400.0), 24))

    def best(q):
        peer = optimize.minimize_scalar(lambda g: -log_evidence(m, x, found.p, q, np.exp(g)).sum(), bounds=(-5, 12), method="bounded")
        return -peer.fun + stats.halfcauchy.logpdf(q**-0.5) + np.log(q**-0.5)

    assert found.q == pytest.approx(max(grid, key=best))
