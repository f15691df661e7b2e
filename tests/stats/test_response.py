"""Response curves: shapes against differences, posteriors against a grid, ignorance that stays ignorance."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from scipy import integrate
from scipy.special import expit
from scipy.stats import norm

from closedloop.errors import ConfigurationError
from closedloop.stats.response import HILL, LOG, POWER, Response, ResponsePrior
from closedloop.stats.response_fit import DailyCounts, choose_response, fit_response
from closedloop.stats.response_spread import Spread


def three():
    return Response(
        shape=np.array([POWER, LOG, HILL]), location=np.array([0.6, 0.3, 0.6]), scale=np.full(3, 0.5), common=np.full(3, 0.3),
        at=np.array([10.0, 20.0, 30.0]), prior_share=np.ones(3),
    )  # fmt: skip


def daily(rng, arms, days, curve, level, spend_spread=0.4, clicks=1.0, at=100.0):
    """Simulated counts: log-normal spend around ``at``, Poisson counts around ``level * curve(spend / at)``."""
    spend = at * np.exp(spend_spread * rng.standard_normal((arms, days)))
    mean = clicks * level * curve(spend / at)
    return DailyCounts(
        arm=np.repeat(np.arange(arms), days), day=np.tile(np.arange(days), arms), spend=spend.ravel(),
        count=rng.poisson(mean).ravel().astype(float),
        maturity=np.ones(arms * days),
    )  # fmt: skip


def test_shapes_are_their_formulas():
    """Power, log and Hill relative to the reference spend, written out."""
    r = three()
    s, theta = np.array([14.0, 33.0, 12.0]), np.array([[0.2, -0.4, 0.9]])
    beta, h = expit(0.2), np.exp([-0.4, 0.9])
    expected = [1.4**beta, np.log1p(1.65 / h[0]) / np.log1p(1 / h[0]), 0.4 / (0.4 + h[1]) * (1 + h[1])]
    np.testing.assert_allclose(r.ratio(s, theta)[0], expected, rtol=1e-12)


def test_expected_curves_are_means_over_draws():
    """The quadrature is the mean of the curve over its posterior, and the marginal is its derivative."""
    r, s = three(), np.array([13.0, 12.0, 55.0])
    level = np.array([1.0, 2.0, 3.0])
    theta = r.draw(np.random.default_rng(0), 400_000)
    np.testing.assert_allclose(r.curves(level).value(s), level * r.ratio(s, theta).mean(axis=0), rtol=2e-3)
    e = 1e-4
    np.testing.assert_allclose(
        r.curves(level).marginal(s), (r.curves(level).value(s + e) - r.curves(level).value(s - e)) / (2 * e), rtol=1e-6
    )
    theta = r.location
    numeric = (r.ratio(r.at * (1 + 1e-5), theta[None]) - r.ratio(r.at * (1 - 1e-5), theta[None]))[0] / 2e-5
    np.testing.assert_allclose(r.elasticity(), numeric, rtol=1e-6)


@pytest.mark.parametrize("only", [None, POWER, LOG, HILL])
def test_a_change_is_the_difference_of_two_ratios(only):
    """For each shape and for a mix, from nothing too; in single precision a small change keeps six digits."""
    r = three() if only is None else three().take([only, only])
    before, after = r.at * 0.7, r.at * np.linspace(0.9, 1.4, len(r))
    theta = r.draw(np.random.default_rng(2), 50)
    np.testing.assert_allclose(r.change(before, after, theta), r.ratio(after, theta) - r.ratio(before, theta), rtol=1e-9)
    np.testing.assert_allclose(r.change(before * 0.0, after, theta), r.ratio(after, theta), rtol=1e-9)
    near = before * 1.0001
    single = r.change(before, near, theta.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, r.change(before, near, theta), rtol=5e-3)
    np.testing.assert_allclose(r.change(before, after, theta.astype(np.float32)), r.change(before, after, theta), rtol=1e-5)


@pytest.mark.parametrize("shape", [POWER, LOG, HILL])
def test_the_expected_curve_is_an_integral(shape):
    """Of the written-out curve over the Normal density of its parameter, by quadrature, with one shape alone; at nothing it is nothing."""
    r, level = three().take([shape, shape]), np.array([2.0, 5.0])
    curve = (
        lambda x, t: x ** expit(t),
        lambda x, t: np.log1p(x / np.exp(t)) / np.log1p(1 / np.exp(t)),
        lambda x, t: x * (1 + np.exp(t)) / (x + np.exp(t)),
    )[shape]
    for x in (0.3, 1.0, 2.5):
        mean = integrate.quad(lambda t, x=x: curve(x, t) * norm.pdf(t, r.location[0], r.scale[0]), *(r.location[0] + [-4, 4]))[0]
        np.testing.assert_allclose(r.curves(level).value(x * r.at), level * mean, rtol=2e-4)
    np.testing.assert_array_equal(r.curves(level).value(0.0 * r.at), 0.0)


def test_draws_have_the_stated_spread_of_each_arm():
    """Whatever part moves all arms together: means and standard deviations as stated, covariances the products of the common parts."""
    r = attrs.evolve(three(), scale=np.array([0.5, 2.0, 0.7]), common=np.array([0.3, 1.2, 0.7]))
    theta = r.draw(np.random.default_rng(3), 200_000)
    np.testing.assert_allclose(theta.mean(axis=0), r.location, atol=0.02)
    np.testing.assert_allclose(np.cov(theta.T), np.outer(r.common, r.common) + np.diag(r.scale**2 - r.common**2), rtol=0.02)


def test_common_part_correlates_arms():
    """Draws of two arms have the stated variance and correlation."""
    r = Response.from_prior(ResponsePrior(shared=0.6), np.ones(2))
    theta = r.draw(np.random.default_rng(1), 200_000)
    assert np.corrcoef(theta.T)[0, 1] == pytest.approx(0.6, abs=0.01)
    assert theta.std() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("shape", [POWER, LOG, HILL])
def test_without_variation_the_posterior_is_the_prior(shape):
    """Equal spend every day says nothing of the curve: location, scale and joint part are the prior's, to the last digits."""
    rng = np.random.default_rng(0)
    data = daily(rng, 20, 60, np.sqrt, 30.0, spend_spread=0.0)
    prior = ResponsePrior()
    found = fit_response(data, np.full(20, 100.0), prior, shape=shape, today=60).response
    location, scale = prior.of(shape)
    np.testing.assert_allclose(found.location, location, atol=1e-9)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-9)
    np.testing.assert_allclose(found.prior_share, 1.0, rtol=1e-9)


@pytest.mark.parametrize("shape", [POWER, LOG, HILL])
@pytest.mark.parametrize("seed", range(4))
def test_the_posterior_is_that_of_a_grid(shape, seed):
    """One arm, Poisson counts, level integrated on its own grid: mean and spread of theta agree with brute force."""
    rng = np.random.default_rng(seed)
    data = daily(rng, 1, 40, np.sqrt, 20.0, spend_spread=0.5)
    prior = ResponsePrior(shared=0.0)
    # No over-dispersion in the data: with dispersion at its least the tempering is the observed weight alone, put at 1 here.
    fit = fit_response(data, np.array([100.0]), prior, shape=shape, today=40, half_life=None, observed_weight=1.0)
    location, scale = prior.of(shape)
    theta = np.linspace(location - 6 * scale, location + 6 * scale, 601)
    log_level = np.linspace(np.log(5), np.log(80), 801)
    x = data.spend / 100.0
    probe = Response(
        shape=np.full(40, shape),
        location=np.zeros(40),
        scale=np.ones(40),
        common=np.zeros(40),
        at=np.full(40, 100.0),
        prior_share=np.ones(40),
    )
    curve = probe.ratio(x * 100.0, np.repeat(theta[:, None], 40, axis=1)) * fit.day_of_week[data.day % 7]
    prior_parts = Spread.of(prior, shape)  # how far arms lie apart is not known either: a mixture of Normals
    log_posterior = np.log(norm.pdf(theta[:, None], location, np.sqrt(prior_parts.own)) @ prior_parts.weight)
    mean = np.exp(log_level)[None, :] * curve.sum(axis=1)[:, None]
    log_lik = (data.count[None, :] * np.log(curve)).sum(axis=1)[:, None] + data.count.sum() * log_level[None, :] - mean
    joint = log_posterior[:, None] + log_lik / fit.dispersion[0]
    density = np.exp(joint - joint.max()).sum(axis=1)
    density /= density.sum()
    grid_mean = float((density * theta).sum())
    grid_sd = float(np.sqrt((density * (theta - grid_mean) ** 2).sum()))
    assert fit.response.location[0] == pytest.approx(grid_mean, abs=0.1 * grid_sd)
    assert fit.response.scale[0] == pytest.approx(grid_sd, rel=0.05)


def test_intervals_of_the_exponent_cover():
    """Exponents drawn from the prior lie inside their 90 % intervals about nine times in ten, and the data narrow them."""
    rng = np.random.default_rng(7)
    inside, narrower = [], []
    prior = ResponsePrior(shared=0.5)
    for _ in range(12):
        centre = 0.62 + 0.8 * np.sqrt(0.5) * rng.standard_normal()
        theta = centre + 0.8 * np.sqrt(0.5) * rng.standard_normal(40)
        level = rng.lognormal(3, 0.8, 40)
        data = daily(rng, 40, 60, lambda x, t=theta: x ** expit(t)[:, None], level[:, None])
        found = fit_response(data, np.full(40, 100.0), prior, today=60, half_life=None, observed_weight=1.0).response
        inside.append(np.abs(found.location - theta) <= norm.ppf(0.95) * found.scale)
        narrower.append(found.prior_share)
    assert 0.86 <= np.mean(inside) <= 0.95
    assert np.mean(narrower) < 0.6


def test_weekdays_and_maturity_are_not_mistaken_for_response():
    """Spend that is high on strong weekdays, and low on days whose conversions are still to come, does not bend the curve."""
    rng = np.random.default_rng(2)
    arms, days = 30, 84
    dow = np.array([1.5, 1.2, 1.0, 0.9, 0.8, 0.8, 0.8])
    day = np.arange(days)
    spend = 100.0 * dow[day % 7] ** 1.5 * np.exp(0.2 * rng.standard_normal((arms, days)))
    mature = np.clip((days - day) / 10.0, 0.05, 1.0)
    count = rng.poisson(40.0 * dow[day % 7] * mature * (spend / 100.0) ** 0.4)
    data = DailyCounts(
        arm=np.repeat(np.arange(arms), days), day=np.tile(day, arms), spend=spend.ravel(), count=count.ravel().astype(float),
        maturity=np.tile(mature, arms),
    )  # fmt: skip
    fit = fit_response(data, np.full(arms, 100.0), ResponsePrior(), today=days, observed_weight=1.0)
    assert expit(np.median(fit.response.location)) == pytest.approx(0.4, abs=0.06)
    assert np.corrcoef(fit.day_of_week, dow)[0, 1] > 0.98


def test_dispersion_widens():
    """The same spend with doubled noise leaves a wider posterior."""
    rng = np.random.default_rng(3)
    calm = daily(rng, 30, 60, np.sqrt, 100.0)
    wild = DailyCounts(
        arm=calm.arm, day=calm.day, spend=calm.spend, maturity=calm.maturity,
        count=rng.poisson(100.0 * np.sqrt(calm.spend / 100.0) * rng.gamma(5.0, 0.2, len(calm.arm))).astype(float),
    )  # fmt: skip
    one, other = (fit_response(d, np.full(30, 100.0), ResponsePrior(), today=60) for d in (calm, wild))
    assert one.dispersion.mean() == pytest.approx(1.0, abs=0.25)
    assert other.dispersion.mean() > 5.0
    assert other.response.scale.mean() > one.response.scale.mean()


def test_the_shape_is_chosen_where_the_data_can_tell():
    """A saturating truth is found with wide spend; with a steady spend the default stays."""
    rng = np.random.default_rng(4)
    hill = daily(rng, 40, 90, lambda x: x / (x + 0.3) * 1.3, 300.0, spend_spread=0.8)
    assert choose_response(hill, np.full(40, 100.0), ResponsePrior(), today=90).response.shape[0] == HILL
    steady = daily(rng, 40, 90, lambda x: x / (x + 0.3) * 1.3, 300.0, spend_spread=0.01)
    assert choose_response(steady, np.full(40, 100.0), ResponsePrior(), today=90).response.shape[0] == POWER
    power = daily(rng, 40, 90, lambda x: x**0.6, 300.0, spend_spread=0.8)
    assert choose_response(power, np.full(40, 100.0), ResponsePrior(), today=90, default=HILL).response.shape[0] == POWER


def test_wrong_priors_are_refused():
    """A scale of zero or a share above one is named."""
    with pytest.raises(ConfigurationError, match="power"):
        ResponsePrior(power=(0.0, 0.0))
    with pytest.raises(ConfigurationError, match="shared"):
        ResponsePrior(shared=1.5)


def test_rows_without_spend_are_left_out():
    """Counts on days without spend do not enter; arms without any row keep the prior."""
    data = DailyCounts(
        arm=np.array([0, 0]), day=np.array([1, 2]), spend=np.array([0.0, 0.0]), count=np.array([3.0, 4.0]), maturity=np.ones(2)
    )  # fmt: skip
    found = fit_response(data, np.ones(2), ResponsePrior(), today=5)
    np.testing.assert_allclose(found.response.location, 0.75)


def test_beyond_the_grid_laplace_says_nearly_the_same(monkeypatch):
    """Where there are too many rows for quadrature, mode and curvature stand in: within a fifth of a standard deviation of the moments."""
    from closedloop.stats import response_fit

    data = daily(np.random.default_rng(4), 6, 60, lambda x: x**0.6, 200.0, spend_spread=0.5)
    exact = fit_response(data, np.full(6, 100.0), ResponsePrior(), today=60).response
    monkeypatch.setattr(response_fit, "_CELLS", 0)
    rough = fit_response(data, np.full(6, 100.0), ResponsePrior(), today=60).response
    assert np.abs(rough.location - exact.location).max() < 0.2 * exact.scale.min()
    np.testing.assert_allclose(rough.scale, exact.scale, rtol=0.1)
    assert not np.array_equal(rough.location, exact.location)
