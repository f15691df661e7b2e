"""Mixtures against scipy and quadrature; group priors against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from closedloop.stats.gamma_mixture import mixture_cdf, mixture_quantile
from closedloop.stats.gamma_poisson import _thinned, fit_group_priors, pearson_dispersion, pearson_sums, posterior_mixture

component = st.tuples(st.floats(0.05, 5000), st.floats(1e-2, 1e6), st.floats(0.01, 1.0))


@settings(max_examples=150, deadline=None)
@given(st.lists(component, min_size=1, max_size=5), st.sampled_from([0.01, 0.05, 0.25, 0.5, 0.9, 0.95, 0.999]))
def test_quantile_inverts_the_mixture(parts, level):
    """The distribution function (scipy's, summed) at the quantile is the level, whatever the components."""
    shape, rate, weight = (np.array([column]) for column in zip(*parts, strict=True))
    weight = weight / weight.sum()
    x = mixture_quantile(level, shape, rate, weight)
    found = (weight * stats.gamma.cdf(x[:, None], shape, scale=1 / rate)).sum()
    assert abs(found - level) < 1e-4 * min(level, 1 - level) + 1e-9


def test_levels_may_differ_by_unit():
    """One level per unit gives what one call per level gives."""
    shape, rate, weight = np.array([[2.0, 30.0]] * 3), np.array([[10.0, 200.0]] * 3), np.array([[0.3, 0.7]] * 3)
    levels = np.array([0.05, 0.5, 0.95])
    each = [mixture_quantile(float(p), shape[:1], rate[:1], weight[:1])[0] for p in levels]
    np.testing.assert_allclose(mixture_quantile(levels, shape, rate, weight), each, rtol=1e-6)


def test_posterior_of_few_units_agrees_with_brute_force():
    """With four units, each quantile is within two points of probability of a two-dimensional integral over log k and log mu."""
    count, exposure = np.array([3.0, 0.0, 9.0, 2.0]), np.array([100.0, 80.0, 250.0, 60.0])
    priors = fit_group_priors(count, exposure, np.zeros(4, dtype=np.intp), 1)
    shape, rate, weight, _ = posterior_mixture(count, exposure, np.zeros(4, dtype=np.intp), priors)
    log_k, log_mu = np.meshgrid(np.linspace(np.log(0.03), np.log(3e4), 240), np.linspace(-8, 1, 300), indexing="ij")
    k, mu = np.exp(log_k), np.exp(log_mu)
    centre = np.log(14.5 / 490)
    cv = k**-0.5
    log_p = stats.norm.logpdf(log_mu, centre, 2.0) + np.log(cv / (1 + (cv / 0.8) ** 2))
    for c, x in zip(count, exposure, strict=True):
        log_p = log_p + stats.nbinom.logpmf(c, k, 1 / (1 + mu * x / k))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    for i in range(4):
        for level in (0.05, 0.5, 0.95):
            ours = mixture_quantile(level, shape[i : i + 1], rate[i : i + 1], weight[i : i + 1])[0]
            found = (p * stats.gamma.cdf(ours, k + count[i], scale=1 / (k / mu + exposure[i]))).sum()
            assert found == pytest.approx(level, abs=0.02)


def test_exposure_uncertainty_widens():
    """A log exposure with standard deviation 0.2 gives the variance of the integral over it."""
    count, exposure, group = np.array([200.0]), np.array([1e4]), np.zeros(1, dtype=np.intp)
    priors = fit_group_priors(count, exposure, group, 1)
    shape, rate, weight, _ = posterior_mixture(count, exposure, group, priors, exposure_variance=np.array([0.04]))
    mean = (weight * shape / rate).sum()
    variance = (weight * (shape / rate**2 + (shape / rate - mean) ** 2)).sum()
    second, _ = integrate.quad(lambda z: stats.norm.pdf(z) * 200 * 201 / (1e4 * np.exp(0.2 * z)) ** 2, -6, 6)
    first, _ = integrate.quad(lambda z: stats.norm.pdf(z) * 200 / (1e4 * np.exp(0.2 * z)), -6, 6)
    assert variance == pytest.approx(second - first**2, rel=0.15)


@pytest.mark.parametrize("phi", [1.0, 2.5])
@pytest.mark.parametrize("mean", [0.3, 20.0])
def test_dispersion_is_found_for_sparse_and_dense_counts(phi, mean):
    """Counts with variance phi x mean give phi back; far under one count a cell, units without any count drop out and pull it to 1."""
    rng = np.random.default_rng(0)
    units, cells = 400, 25
    if phi == 1.0:
        count = rng.poisson(mean, (units, cells)).astype(float)
    else:
        count = rng.negative_binomial(mean / (phi - 1), 1 / phi, (units, cells)).astype(float)
    exposure, whole = np.full((units, cells), 3.0), (count.sum(axis=1, keepdims=True), np.full((units, 1), 3.0 * cells))
    found = pearson_dispersion(pearson_sums(count, exposure, np.ones((cells, 1)), *whole), np.zeros(units, dtype=np.intp), 1)[0]
    if mean < 1 and phi > 1:
        assert 0.85 * phi < found <= phi
    else:
        assert found == pytest.approx(phi, rel=0.08)


def test_residuals_are_summed_as_written_out():
    """Against a loop over units, blocks and cells, some cells without exposure."""
    rng = np.random.default_rng(4)
    exposure, member = rng.integers(0, 4, (5, 6)).astype(float), np.repeat(np.eye(2), 3, axis=0)
    count = rng.poisson(exposure).astype(float)
    count[0, np.flatnonzero(exposure[0] == 0)[:1]] = 1.0  # credit where nothing was shown
    found = pearson_sums(count, exposure, member, count @ member, exposure @ member)
    for i in range(5):
        squares, residual, cells, means = 0.0, 0.0, 0, 0
        for block in (slice(0, 3), slice(3, 6)):
            x = exposure[i, block]
            c = count[i, block][x > 0]
            x = x[x > 0]
            if c.sum() > 0:
                expected = c.sum() / x.sum() * x
                squares += ((c - expected) ** 2 / expected).sum()
                residual += ((c - expected) / expected).sum()
                cells += len(c)
                means += 1
        assert [found.squares[i], found.residual[i], found.cells[i], found.means[i]] == pytest.approx([squares, residual, cells, means])


def test_prior_does_not_depend_on_the_order_of_units():
    """Shuffled units give the same prior, also where a large group is thinned; over four groups the concentration is found."""
    log_k = []
    for seed in range(3, 7):
        rng = np.random.default_rng(seed)
        exposure = rng.lognormal(4, 1, 9000)
        count = rng.poisson(rng.gamma(2, 0.01, 9000) * exposure).astype(float)
        perm, group = rng.permutation(9000), np.zeros(9000, dtype=np.intp)
        one, two = fit_group_priors(count, exposure, group, 1), fit_group_priors(count[perm], exposure[perm], group, 1)
        np.testing.assert_allclose(one.k, two.k, rtol=1e-9)
        log_k.append((one.weight * np.log(one.k)).sum())
    assert np.exp(np.mean(log_k)) == pytest.approx(2.0, rel=0.08)


def test_nothing_known_is_said():
    """Without any exposure the prior is a placeholder and says so."""
    found = fit_group_priors(np.array([3.0]), np.array([0.0]), np.zeros(1, dtype=np.intp), 2)
    assert not found.informed.any()
    assert found.k.shape == found.weight.shape == (2, 1)


def test_cdf_is_a_distribution_function():
    """From 0 to 1, increasing."""
    shape, rate, weight = np.array([[0.5, 9.0]] * 50), np.array([[3.0, 100.0]] * 50), np.array([[0.4, 0.6]] * 50)
    values = mixture_cdf(np.linspace(0, 20, 50), shape, rate, weight)
    assert values[0] == 0
    assert values[-1] == pytest.approx(1)
    assert (np.diff(values) >= 0).all()


def test_quantile_of_a_mixture_of_far_apart_rates():
    """A case that random search found: where one Newton step is not enough, another is taken."""
    shape, rate = np.array([[1.0, 1.0, 1.0, 2.0]]), np.array([[142.0, 196.0, 0.5, 1.0]])
    weight = np.array([[0.08984375, 0.57421875, 0.03515625, 0.62890625]])
    weight = weight / weight.sum()
    x = mixture_quantile(0.5, shape, rate, weight)
    found = (weight * stats.gamma.cdf(x[:, None], shape, scale=1 / rate)).sum()
    assert abs(found - 0.5) < 0.5e-4


@pytest.mark.parametrize("size", [50, 51, 200, 201, 5000])
def test_a_large_group_is_thinned_evenly(size):
    """About the limit is kept of a large group, spread evenly over its exposures (by Kolmogorov and Smirnov); a small one stays whole."""
    rng = np.random.default_rng(size)
    exposure, group = rng.lognormal(4, 1, size + 20), np.repeat([0, 1], [size, 20])
    kept = _thinned(np.ones(size + 20), exposure, group, 50)
    assert len(set(kept.tolist())) == len(kept)
    large = kept[group[kept] == 0]
    assert len(kept) - len(large) == 20
    assert len(large) == 50 if size <= 50 else 25 <= len(large) <= 51
    assert stats.ks_2samp(exposure[large], exposure[:size]).statistic < (0.06 if size <= 200 else 0.2)
