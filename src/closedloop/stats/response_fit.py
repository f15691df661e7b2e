"""Fitting response curves to daily spend and counts.

Law of this file: arrays in, a `Response` out, no loop over arms. With counts
``c[a, d] ~ Poisson(exp(alpha_a) m[a, d] dow[d] f(s; theta_a))`` the level ``alpha`` drops out given an arm's total: what is left is a
multinomial over its days, one unknown a curve. Days of equal spend then carry no information at all, exactly, and the posterior is the
prior. Modes and the arms' hierarchy come from Laplace approximations; mean and variance of each curve are then taken over a grid, because
the likelihood of a curve that is far from saturated is flat to one side.

The likelihood is tempered: by the over-dispersion of daily counts and of weekly blocks of them (a level that drifts is not a response to
spend), and, because past spend was mostly chosen by looking at past results, by ``observed_weight``. Arms share their prior's common part
(Normal hierarchy in closed form on Laplace approximations, iterated).

References:
    Gelman et al. (2013), Bayesian Data Analysis, ch. 4-5 (Laplace approximation, Normal hierarchy). Wooldridge (1999), Distribution-free
    estimation of some nonlinear panel data models (the multinomial that conditions on totals).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.stats.response import HILL, LOG, POWER, Response, ResponsePrior, beta_of
from closedloop.stats.response_spread import NOTHING, Spread

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_STEPS = 40
_EARLY = 14  # days in which budgets are taken as set by people
_NODES = 31  # of the grid that the moments of a posterior are taken over
_CELLS = 60_000_000  # rows x nodes up to which that is done; Laplace's approximation beyond
_ROUNDS = 60  # of alternating between curves, weekdays and dispersion


@attrs.frozen(kw_only=True, eq=False)
class DailyCounts:
    """Counts by arm and day; rows without spend are left out by the fit.

    Args:
        arm: Position of the arm, shape (R,).
        day: Day number, shape (R,).
        spend: Spend of the day, shape (R,).
        count: Counts seen so far (clicks, or credited conversions), shape (R,).
        maturity: Share of the day's counts expected to be seen by now, shape (R,).
    """

    arm: IntArray
    day: IntArray
    spend: FloatArray
    count: FloatArray
    maturity: FloatArray


@attrs.frozen(kw_only=True, eq=False)
class Fit:
    """One shape fitted to all arms.

    Args:
        response: The posterior.
        log_likelihood: At the modes, before tempering, shape (A,).
        penalty: What Laplace's approximation of the log marginal likelihood takes off, shape (A,).
        dispersion: The factor that the likelihood was tempered by for over-dispersion, shape (A,).
        day_of_week: Multipliers of the seven days (day number modulo 7), of mean 1, shape (7,).
    """

    response: Response
    log_likelihood: FloatArray
    penalty: FloatArray
    dispersion: FloatArray
    day_of_week: FloatArray


def log_curve(shape: int, x: FloatArray, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return ``log f`` and its first two derivatives in ``theta``, up to terms that do not depend on ``x = s / s0``."""
    if shape == POWER:
        beta, log_x = beta_of(theta), np.log(x)
        spread = beta * (1.0 - beta)
        return beta * log_x, spread * log_x, spread * (1.0 - 2.0 * beta) * log_x
    h = np.exp(theta)
    if shape == HILL:
        return np.log(x) - np.log(x + h), -h / (x + h), -h * x / (x + h) ** 2
    u = x / h
    part, log_u = u / (1.0 + u), np.log1p(u)
    return np.log(log_u), -part / log_u, u / ((1.0 + u) ** 2 * log_u) - (part / log_u) ** 2


def fit_response(
    data: DailyCounts,
    at: FloatArray,
    prior: ResponsePrior,
    *,
    shape: int = POWER,
    today: int,
    half_life: float | None = 90.0,
    observed_weight: float = 0.5,
) -> Fit:
    """Return the Laplace posterior of one shape for every arm.

    Args:
        data: Counts by arm and day.
        at: Reference spend a day, above zero, shape (A,).
        prior: Prior of the curves.
        shape: Code of the shape.
        today: Day number that ages are counted from.
        half_life: Days after which a day's weight is halved, None for no forgetting.
        observed_weight: Weight of the likelihood in (0, 1], under 1 because spend was not randomised.
    """
    n = len(at)
    keep = (data.spend > 0.0) & (data.maturity > 0.0) & (data.count >= 0.0)
    arm, day = data.arm[keep], data.day[keep]
    age = np.maximum(today - day, 0)
    weight = np.ones(len(arm)) if half_life is None else 0.5 ** (age / half_life)
    usual = _usual(arm, day, data.spend[keep], at)
    x = data.spend[keep] / usual[arm]
    count, base = data.count[keep] * weight, data.maturity[keep] * weight
    weekday = day % 7
    location, scale = prior.of(shape)
    spread = Spread.of(prior, shape)
    total = _sum(arm, count, n)
    dow, phi, theta = np.ones(7), np.ones(n), np.full(n, location)
    score, information = np.zeros(n), np.zeros(n)
    for _ in range(_ROUNDS):
        centre, own2 = spread.centre, spread.own2
        exposure = base * dow[weekday]
        temper = observed_weight / phi
        before, dow_before = theta.copy(), dow
        theta, score, information = _modes(shape, x, arm, count, exposure, total, theta, centre, own2, temper)
        spread = spread.given(theta, score, information)
        mean = _expected(shape, x, arm, exposure, total, theta)
        dow = _weekdays(weekday, count, mean, dow)
        phi = _dispersion(arm, day, data.count[keep], mean / weight, n)
        if max(float(np.abs(theta - before).max(initial=0.0)), float(np.abs(dow - dow_before).max())) < 1e-5:
            break
    place, variance, common = spread.posterior(theta, score, information)
    if len(arm) * _NODES <= _CELLS:
        informed = information > NOTHING
        exposure, temper = base * dow[weekday], observed_weight / phi

        def log_posterior(t: FloatArray) -> FloatArray:
            return temper * _log_likelihood(shape, x, arm, count, exposure, total, t, n) + spread.log_prior(t, theta, score, information)

        mean, square = _moments(log_posterior, place, np.sqrt(variance))
        ratio = np.sqrt(square / np.maximum(variance, 1e-300))
        place, variance, common = (
            np.where(informed, new, old) for new, old in ((mean, place), (square, variance), (common * np.minimum(ratio, 1.0), common))
        )
    response = Response(
        shape=np.full(n, shape, dtype=np.int64),
        location=place if shape == POWER else place + np.log(usual / at),
        scale=np.sqrt(variance),
        common=common,
        at=at,
        prior_share=np.minimum(variance / scale**2, 1.0),
    )
    log_likelihood = _log_likelihood(shape, x, arm, count, base * dow[weekday], total, theta, n)
    penalty = 0.5 * (theta - spread.centre) ** 2 / spread.own2 + 0.5 * np.log1p(spread.own2 * information)
    return Fit(response=response, log_likelihood=log_likelihood, penalty=penalty, dispersion=phi, day_of_week=dow)


def choose_response(
    data: DailyCounts,
    at: FloatArray,
    prior: ResponsePrior,
    *,
    today: int,
    default: int = POWER,
    lead: float = 3.0,
    observed_weight: float = 0.5,
) -> Fit:
    """Return the fit of the shape that predicts best over all arms; the default one unless another leads clearly.

    Args:
        data, at, prior, today, observed_weight: As in `fit_response`.
        default: Shape that is kept where the data cannot tell.
        lead: Lead in summed log evidence (3 is odds of 20 to 1) that another shape needs.
    """
    fits = {s: fit_response(data, at, prior, shape=s, today=today, observed_weight=observed_weight) for s in (POWER, LOG, HILL)}
    # One dispersion for all shapes, the least: a worse fit must not excuse itself by the noise that it leaves.
    phi = np.min([f.dispersion for f in fits.values()], axis=0)
    scores = {s: float((observed_weight * f.log_likelihood / phi - f.penalty).sum()) for s, f in fits.items()}
    best = max(scores, key=lambda s: scores[s])
    return fits[best] if scores[best] > scores[default] + lead else fits[default]


def _moments(log_density: Callable[[FloatArray], FloatArray], place: FloatArray, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of one-dimensional densities by a grid of five scales either side, shape (A,) each.

    Where an arm is far from saturated the likelihood is flat to one side, and the mode with its curvature would call it too saturated.
    """
    steps = np.linspace(-5.0, 5.0, _NODES)
    logs = np.array([log_density(place + z * scale) for z in steps])
    weight = np.exp(logs - logs.max(axis=0))
    weight /= weight.sum(axis=0)
    mean = steps @ weight
    return place + scale * mean, scale**2 * np.maximum(steps**2 @ weight - mean**2, 1e-4)


def _usual(arm: IntArray, day: IntArray, spend: FloatArray, at: FloatArray) -> FloatArray:
    """Return the spend that an arm's prior speaks of: the geometric mean of its first two weeks, its reference spend without days.

    It is not the reference spend itself: where a loop has moved a budget tenfold, today's spend says nothing of how saturated the arm is.
    """
    n = len(at)
    first = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(first, arm, day)
    early = day - first[arm] < _EARLY
    days = np.bincount(arm[early], minlength=n)
    mean = _sum(arm[early], np.log(spend[early]), n) / np.maximum(days, 1)
    return np.asarray(np.where(days > 0, np.exp(mean), at))


def _sum(arm: IntArray, values: FloatArray, n: int) -> FloatArray:
    return np.bincount(arm, weights=values, minlength=n).astype(np.float64)


def _shares(shape: int, x: FloatArray, arm: IntArray, exposure: FloatArray, theta: FloatArray) -> tuple[FloatArray, ...]:
    """Return each day's expected share of its arm's total, and the curve with its derivatives."""
    g, g1, g2 = log_curve(shape, x, theta[arm])
    top = np.full(len(theta), -np.inf)
    np.maximum.at(top, arm, g)
    each = exposure * np.exp(g - top[arm])
    whole = _sum(arm, each, len(theta))
    return each / np.maximum(whole[arm], 1e-300), g, g1, g2, top + np.log(np.maximum(whole, 1e-300))


def _modes(
    shape: int, x: FloatArray, arm: IntArray, count: FloatArray, exposure: FloatArray, total: FloatArray, theta: FloatArray,
    centre: float, own2: float, temper: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """Return the modes by damped Newton steps, and the score and information of the likelihood there."""
    n = len(theta)
    score, information = np.zeros(n), np.zeros(n)
    for _ in range(_STEPS):
        share, _, g1, g2, _ = _shares(shape, x, arm, exposure, theta)
        mean1 = _sum(arm, share * g1, n)
        centred = g1 - mean1[arm]  # centred first: days of equal spend give zero to the last bit
        spread = _sum(arm, share * centred**2, n)
        score = temper * _sum(arm, count * centred, n)
        fisher = temper * total * spread
        curved = temper * (_sum(arm, count * g2, n) - total * _sum(arm, share * g2, n))
        information = np.maximum(fisher - curved, 0.25 * fisher)
        slope = score - (theta - centre) / own2
        step = np.clip(slope / (information + 1.0 / own2), -1.0, 1.0)
        theta = theta + step
        if float(np.abs(step).max(initial=0.0)) < 1e-9:
            break
    return theta, score, information


def _expected(shape: int, x: FloatArray, arm: IntArray, exposure: FloatArray, total: FloatArray, theta: FloatArray) -> FloatArray:
    share = _shares(shape, x, arm, exposure, theta)[0]
    return np.asarray(share * total[arm])


def _log_likelihood(
    shape: int, x: FloatArray, arm: IntArray, count: FloatArray, exposure: FloatArray, total: FloatArray, theta: FloatArray, n: int
) -> FloatArray:
    _, g, _, _, log_whole = _shares(shape, x, arm, exposure, theta)
    return np.asarray(_sum(arm, count * g, n) - total * np.where(total > 0.0, log_whole, 0.0))


def _weekdays(weekday: IntArray, count: FloatArray, mean: FloatArray, dow: FloatArray) -> FloatArray:
    """Return day-of-week multipliers of mean 1, each shrunk as if 50 more counts had been exactly as expected."""
    seen = np.bincount(weekday, weights=count, minlength=7)
    due = np.bincount(weekday, weights=mean / dow[weekday], minlength=7)
    factor = (seen + 50.0) / (due + 50.0)
    return np.asarray(factor / factor.mean())


def _dispersion(arm: IntArray, day: IntArray, count: FloatArray, mean: FloatArray, n: int) -> FloatArray:
    """Return the over-dispersion, at least 1: the larger one of days and of weekly blocks, shrunk to the arms' pooled value."""
    worst = np.ones(n)
    for blocks in (day, day // 7):
        _, cell = np.unique(arm * (int(blocks.max(initial=0)) + 1) + blocks, return_inverse=True)
        owner = np.zeros(int(cell.max(initial=-1)) + 1, dtype=np.int64)
        owner[cell] = arm
        seen, due = np.bincount(cell, weights=count), np.bincount(cell, weights=mean)
        fit = (seen - due) ** 2 / np.maximum(due, 1e-9)
        fit = np.minimum(fit, np.maximum(seen, 1.0) ** 2)  # one count where none was expected is not infinite evidence
        cells, squares = np.bincount(owner, minlength=n), np.bincount(owner, weights=fit, minlength=n)
        free = np.maximum(cells - 2.0, 0.0)
        pooled = float(squares[free > 0].sum() / free.sum()) if free.sum() > 0.0 else 1.0
        worst = np.maximum(worst, (squares * (free > 0) + 10.0 * pooled) / (free + 10.0))
    return worst
