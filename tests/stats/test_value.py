"""The Gamma-Gamma model against quadrature and simulated truth."""

import numpy as np
import pytest
from scipy import integrate, stats

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


def test_the_mean_is_that_of_the_inverse_gamma():
    """The mean value p / nu is inverse-gamma; so are its mean and quantiles."""
    p = fit_value(np.array([100.0, 40.0, 9.0]), np.array([1500.0, 500.0, 81.0]), np.array([10.0, 5.0, 1.0]))
    same = stats.invgamma(p.shape, scale=p.scale)
    np.testing.assert_allclose(p.mean, same.mean(), rtol=1e-10)
    np.testing.assert_allclose(p.quantile(0.2), same.ppf(0.2), rtol=1e-6)


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
