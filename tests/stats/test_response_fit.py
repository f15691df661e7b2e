"""The parts of the fit of curves one by one: derivatives by differences, weekdays and scatter by loops, moments by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, polygamma

from closedloop.stats.response import HILL, LOG, POWER, Response, ResponsePrior
from closedloop.stats.response_fit import (
    DailyCounts,
    _dispersion,
    _log_likelihood,
    _modes,
    _moments,
    _usual,
    _weekdays,
    choose_response,
    fit_response,
    log_curve,
)

X = np.array([0.2, 0.9, 1.0, 1.6, 4.0])


@pytest.mark.parametrize("shape", [POWER, LOG, HILL])
def test_the_log_of_a_curve_and_its_derivatives(shape):
    """Against the curve itself (up to what does not depend on the spend) and against central differences."""
    theta, e = np.full(5, 0.4), 1e-5
    g, g1, g2 = log_curve(shape, X, theta)
    probe = Response(
        shape=np.full(5, shape), location=theta, scale=np.ones(5), common=np.zeros(5), at=np.ones(5), prior_share=np.ones(5)
    )  # fmt: skip
    wanted = np.log(probe.ratio(X, theta[None])[0])
    np.testing.assert_allclose(g - g[2], wanted - wanted[2], atol=1e-12)
    up, down = log_curve(shape, X, theta + e), log_curve(shape, X, theta - e)
    np.testing.assert_allclose(g1, (up[0] - down[0]) / (2 * e), atol=1e-8)
    np.testing.assert_allclose(g2, (up[1] - down[1]) / (2 * e), atol=1e-8)


def counts(seed=0, arms=3, days=20):
    rng = np.random.default_rng(seed)
    arm, day = np.repeat(np.arange(arms), days), np.tile(np.arange(days), arms)
    spend = rng.lognormal(0, 0.5, arms * days)
    return arm, day, spend, rng.poisson(8.0 * spend**0.6).astype(float)


@pytest.mark.parametrize("shape", [POWER, LOG, HILL])
def test_the_likelihood_is_the_multinomial_of_the_days(shape):
    """Differences of it in theta are those of scipy's multinomial given each arm's total."""
    arm, _, x, count = counts()
    exposure = np.linspace(0.5, 1.5, len(arm))
    total = np.bincount(arm, count)
    low, high = (_log_likelihood(shape, x, arm, count, exposure, total, np.full(3, t), 3) for t in (-0.3, 0.9))
    for a in range(3):
        mine, logs = arm == a, []
        for t in (-0.3, 0.9):
            mean = exposure[mine] * np.exp(log_curve(shape, x[mine], np.full(mine.sum(), t))[0])
            logs.append(stats.multinomial.logpmf(count[mine], int(total[a]), mean / mean.sum()))
        assert high[a] - low[a] == pytest.approx(logs[1] - logs[0], abs=1e-8)


def test_the_mode_is_where_the_tempered_posterior_is_flat():
    """Score and information are the slope and the curvature of the tempered likelihood; the mode balances them with the prior."""
    arm, _, x, count = counts(1)
    exposure, temper, centre, own2 = np.ones(len(arm)), np.array([1.0, 0.5, 0.25]), 0.75, 0.6
    total = np.bincount(arm, count)
    theta, score, information = _modes(POWER, x, arm, count, exposure, total, np.full(3, 0.75), centre, own2, temper)
    e = 1e-4
    at = [temper * _log_likelihood(POWER, x, arm, count, exposure, total, theta + d, 3) for d in (-e, 0.0, e)]
    np.testing.assert_allclose(score, (at[2] - at[0]) / (2 * e), atol=1e-5)
    np.testing.assert_allclose(score, (theta - centre) / own2, atol=1e-7)
    np.testing.assert_allclose(information, -(at[2] - 2 * at[1] + at[0]) / e**2, rtol=1e-4)


def test_weekdays_are_shrunk_by_fifty_counts():
    """Seven factors of mean one: what was seen over what was due without the factor, each with fifty counts as expected beside it."""
    day = np.arange(21) % 7
    count, mean, dow = np.linspace(20, 120, 21), np.full(21, 60.0), np.linspace(0.7, 1.3, 7)
    factor = np.array([(count[day == d].sum() + 50) / ((mean[day == d] / dow[d]).sum() + 50) for d in range(7)])
    np.testing.assert_allclose(_weekdays(day, count, mean, dow), factor / factor.mean())


def test_the_usual_spend_is_that_of_the_first_two_weeks():
    """The geometric mean of days 0 to 13 after an arm's first; without days the reference."""
    spend = np.concatenate([np.full(7, 1.0), np.full(7, 100.0), np.full(6, 5000.0)])
    arm, day = np.zeros(20, dtype=np.int64), np.arange(20) + 5
    np.testing.assert_allclose(_usual(arm, day, spend, np.array([3.0, 8.0])), [10.0, 8.0])


@pytest.mark.parametrize("late", [0.0, 6.0])
def test_scatter_is_that_of_days_or_of_weeks(late):
    """Cell by cell: Pearson's sums over cells less two, shrunk by ten to the pooled value; the larger of days and weeks, 1 at least."""
    rng = np.random.default_rng(2)
    arm, day = np.repeat(np.arange(3), 28), np.tile(np.arange(28), 3)
    mean = np.full(84, 12.0)
    count = rng.negative_binomial(6, 6 / (6 + mean + late * (day // 7 % 2))).astype(float)
    count[:28] = rng.poisson(12.0, 28)
    worst = np.ones(3)
    for blocks in (day, day // 7):
        squares, free = np.zeros(3), np.zeros(3)
        for a in range(3):
            for b in np.unique(blocks):
                cell = (arm == a) & (blocks == b)
                squares[a] += (count[cell].sum() - mean[cell].sum()) ** 2 / mean[cell].sum()
            free[a] = len(np.unique(blocks)) - 2
        worst = np.maximum(worst, (squares + 10 * squares.sum() / free.sum()) / (free + 10))
    np.testing.assert_allclose(_dispersion(arm, day, count, mean, 3), worst)


def test_scatter_of_hardly_any_days_is_one_or_the_others():
    """One count where none was due is no infinite evidence; two days leave no freedom and take the pooled value."""
    arm, day = np.array([0, 0, *[1] * 10]), np.array([0, 1, *range(10)])
    calm = np.full(12, 5.0)
    assert _dispersion(arm, day, calm, calm, 2).tolist() == [1.0, 1.0]
    odd = calm.copy()
    odd[2] = 25.0
    pooled = (20**2 / 5) / 8
    found = _dispersion(arm, day, odd, calm, 2)
    assert found[0] == pytest.approx(pooled)
    assert found[1] == pytest.approx((80 + 10 * pooled) / 18)
    tiny = _dispersion(np.zeros(5, dtype=np.int64), np.arange(5), np.array([1.0, 0, 0, 0, 0]), np.full(5, 1e-30), 1)
    assert tiny[0] == pytest.approx(max(1.0, (1 + 10 / 3) / 13))
    assert _dispersion(np.zeros(2, dtype=np.int64), np.arange(2), np.array([9.0, 1.0]), np.full(2, 5.0), 1).tolist() == [1.0]


def test_moments_of_a_skewed_density_are_scipys():
    """Over a grid of five scales either side: a gamma's logarithm has the digamma's mean and the trigamma's variance."""
    mean, variance = _moments(lambda t: 9.0 * t - np.exp(t), np.array([np.log(9.0)]), np.array([1.0 / 3.0]))
    assert mean[0] == pytest.approx(digamma(9.0), abs=2e-4)
    assert variance[0] == pytest.approx(polygamma(1, 9.0), rel=5e-3)
    flat = _moments(lambda t: np.zeros_like(t), np.array([2.0]), np.array([0.5]))  # nothing but the ends of the grid
    assert flat[0][0] == pytest.approx(2.0)
    assert flat[1][0] == pytest.approx(0.25 * (np.linspace(-5, 5, 31) ** 2).mean())


def test_old_days_count_half_after_their_half_life():
    """Days ninety days old weigh half by default: the same as halving their counts and exposure by hand, up to scatter."""
    arm, day, spend, count = counts(4, 1, 40)
    at, prior = np.array([1.0]), ResponsePrior()

    def fit(**more):
        data = DailyCounts(arm=arm, day=day, spend=spend, count=count, maturity=np.ones(40))
        return fit_response(data, at, prior, **more).response.scale[0]

    young, old, oldest = (fit(today=t) for t in (40, 130, 4000))
    assert young < old < oldest
    assert oldest == pytest.approx(1.0, abs=1e-3)  # the prior's
    assert fit(today=4000, half_life=None) == pytest.approx(fit(today=40, half_life=None))
    assert fit(today=130, half_life=90.0) == old
    assert fit(today=40, observed_weight=0.5) == young  # the default
    assert fit(today=40, observed_weight=1.0) < young


def test_another_shape_needs_a_lead():
    """The choice changes where the lead passes the difference of the summed log evidences, and only there."""
    rng = np.random.default_rng(4)
    spend = 100 * np.exp(0.8 * rng.standard_normal(360))
    x = spend / 100
    data = DailyCounts(
        arm=np.repeat(np.arange(6), 60), day=np.tile(np.arange(60), 6), spend=spend,
        count=rng.poisson(80 * 1.3 * x / (x + 0.3)).astype(float), maturity=np.ones(360),
    )  # fmt: skip
    at, prior = np.full(6, 100.0), ResponsePrior()
    fits = {s: fit_response(data, at, prior, shape=s, today=60) for s in (POWER, LOG, HILL)}
    phi = np.min([f.dispersion for f in fits.values()], axis=0)
    score = {s: float((0.5 * f.log_likelihood / phi - f.penalty).sum()) for s, f in fits.items()}
    assert max(score, key=score.get) == HILL
    gap = score[HILL] - score[POWER]
    assert gap > 1.0
    for lead, wanted in ((gap - 1e-6, HILL), (gap + 1e-6, POWER)):
        assert choose_response(data, at, prior, today=60, lead=lead).response.shape[0] == wanted
    assert choose_response(data, at, prior, today=60).response.shape[0] == (HILL if gap > 3.0 else POWER)


@pytest.mark.parametrize("shape", [POWER, LOG, HILL])
def test_the_currency_does_not_matter(shape):
    """Spend and reference in another unit of money, a thousandth of it: the same curves."""
    arm, day, spend, count = counts(7)
    fits = []
    for unit in (1.0, 1e-3, 1e3):
        data = DailyCounts(arm=arm, day=day, spend=unit * spend, count=count, maturity=np.ones(60))
        fits.append(fit_response(data, unit * np.array([0.5, 1.0, 4.0]), ResponsePrior(), shape=shape, today=20))
    for other in fits[1:]:
        np.testing.assert_allclose(other.response.location, fits[0].response.location, atol=1e-5)
        np.testing.assert_allclose(other.response.scale, fits[0].response.scale, rtol=1e-5)
        np.testing.assert_allclose(other.day_of_week, fits[0].day_of_week, rtol=1e-5)


def test_a_day_of_spend_without_a_count_is_evidence_and_one_that_shows_nothing_yet_is_none():
    """Low days that brought nothing say that the curve is steep; rows of no maturity, or of no known count, change nothing."""
    day = np.arange(40)
    spend, count = np.where(day % 2 == 0, 20.0, 100.0), np.where(day % 2 == 0, 0.0, 4.0)

    def fit(keep, count=count, maturity=day**0.0):
        data = DailyCounts(
            arm=np.zeros(40, dtype=np.int64)[keep], day=day[keep], spend=spend[keep], count=count[keep], maturity=maturity[keep]
        )  # fmt: skip
        return fit_response(data, np.array([100.0]), ResponsePrior(), today=40).response.location[0]

    every, high = day >= 0, day % 2 == 1
    assert fit(every) > fit(high) + 0.2
    assert fit(every, count=np.where(high, count, -1.0)) == fit(high)
    assert fit(every, count=np.full(40, 4.0), maturity=np.where(high, 1.0, 0.0)) == fit(high)
