"""Days on which an integration brought far less than it should: a count model by day of the week.

Law of this file: a day is compared with the same platform's days before it. Counts of clicks scatter more than Poisson counts do, so the
scatter is measured (Pearson) and the prediction is negative binomial. A day is a gap when so low a count would come once in ten
thousand days *and* is less than half of what was expected: budgets may move by a fifth, integrations fail by more.

References:
    Farrington, Andrews, Beale & Catchpole (1996), A statistical algorithm for the early detection of outbreaks, JRSS A 159: quasi-Poisson
    prediction from comparable earlier days, past outliers weighed down. Here the mirror image: too few, not too many.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from scipy.special import betainc, pdtr

from closedloop.records.interval import FloatArray

_LEAST_DAYS = 7  # before that nothing is usual
_PRIOR_DAYS, _PRIOR_DISPERSION = 2.0, 4.0  # what scatter is taken to be before there are two days of each weekday to measure it on


@attrs.frozen(kw_only=True, eq=False)
class Expected:
    """What a day should bring (all shape (P,)).

    Args:
        mean: Expected count.
        dispersion: Variance over mean, at least 1.
        p_low: Probability of a count so low or lower.
        count: The count itself.
    """

    mean: FloatArray
    dispersion: FloatArray
    p_low: FloatArray
    count: FloatArray

    def times(self, share: FloatArray) -> Expected:
        """Return what such days should bring when only a share of it is to be expected, shape (P,)."""
        mean = self.mean * share
        return attrs.evolve(self, mean=mean, p_low=p_at_most(self.count, mean, self.dispersion))

    def is_gap(self, rarity: float = 1e-4, share: float = 0.5) -> npt.NDArray[np.bool_]:
        """Return where the count is rarer than ``rarity`` and under ``share`` of what was expected."""
        return np.asarray((self.p_low < rarity) & (self.count < share * self.mean))


def expected_last_day(counts: FloatArray, weekday: npt.NDArray[np.int64], longest: int = 28) -> Expected | None:
    """Return what the last day should have brought, from the days before it; None with too few of them.

    Days that were gaps themselves (under half of the median of their day of the week) are left out of what is usual; a shop that rests at
    the weekend is not out.

    Args:
        counts: Counts by platform and day, shape (P, D).
        weekday: Day of the week of each day, shape (D,).
        longest: How many days before the last one count.

    >>> counts = np.array([[100.0, 110.0, 90.0, 105.0, 95.0, 100.0, 100.0, 102.0, 98.0, 3.0]])
    >>> found = expected_last_day(counts, np.arange(10) % 7)
    >>> found.mean.round(), found.is_gap()
    (array([92.]), array([ True]))
    """
    history = counts[:, -longest - 1 : -1]
    if history.shape[1] < _LEAST_DAYS:
        return None
    days = np.broadcast_to(weekday[-longest - 1 : -1], history.shape)
    return expected(counts[:, -1], np.full(len(counts), weekday[-1]), history, days, np.ones(history.shape, dtype=bool))


def expected(
    count: FloatArray,
    on: npt.NDArray[np.int64],
    history: FloatArray,
    weekday: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
) -> Expected:
    """Return what each of M days should have brought, each from its own W earlier days, as `expected_last_day` does for one.

    Args:
        count: What it brought, shape (M,).
        on: Its day of the week, shape (M,).
        history, weekday: The earlier days' counts and days of the week, shape (M, W).
        known: Which of these there are, shape (M, W).
    """
    usual = known.copy()
    of_day = [known & (weekday == d) for d in range(7)]
    present = np.stack([mine.any(axis=1) for mine in of_day])
    for mine in of_day:
        usual &= ~mine | (history >= 0.5 * _median(history, mine)[:, None])
    n = usual.sum(axis=1)
    level = (history * usual).sum(axis=1) / np.maximum(n, 1)
    factor = _weekday_factors(history, [mine & usual for mine in of_day], level)
    fitted = level[:, None] * np.take_along_axis(factor, weekday, axis=1)
    squares = np.where(usual, (history - fitted) ** 2 / np.maximum(fitted, 1.0), 0.0).sum(axis=1)
    degrees = np.maximum(n - present.sum(axis=0), 0)
    same = np.maximum((usual & (weekday == on[:, None])).sum(axis=1), 1)  # days that the mean itself rests on
    dispersion = np.maximum((squares + _PRIOR_DAYS * _PRIOR_DISPERSION) / (degrees + _PRIOR_DAYS), 1.0) * (1.0 + 1.0 / same)
    mean = level * factor[np.arange(len(on)), on]
    return Expected(mean=mean, dispersion=dispersion, p_low=p_at_most(count, mean, dispersion), count=count)


def _median(values: FloatArray, chosen: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the median of the chosen values of each row, infinity where there are none (shape (M,))."""
    ordered, n = np.sort(np.where(chosen, values, np.inf), axis=1), chosen.sum(axis=1)
    row, last = np.arange(len(values)), values.shape[1] - 1
    return np.asarray((ordered[row, np.clip((n - 1) // 2, 0, last)] + ordered[row, np.clip(n // 2, 0, last)]) / 2.0)


def _weekday_factors(history: FloatArray, on_day: list[npt.NDArray[np.bool_]], level: FloatArray) -> FloatArray:
    """Return factors of the seven weekdays, shrunk to 1 by a quarter of a week's worth of data (shape (M, 7))."""
    factor = np.ones((len(history), 7))
    for d, on in enumerate(on_day):
        n = on.sum(axis=1)
        mean = np.where(on, history, 0.0).sum(axis=1) / np.maximum(n, 1)
        relative = np.where((n > 0) & (level > 0), mean / np.maximum(level, 1e-12), 1.0)
        factor[:, d] = (n * relative + 0.25) / (n + 0.25)
    return factor


def p_at_most(count: FloatArray, mean: FloatArray, dispersion: FloatArray) -> FloatArray:
    """Return P(X <= count) of a negative binomial with this mean and variance ``dispersion * mean`` (Poisson at dispersion 1)."""
    low = np.floor(np.maximum(count, 0.0))
    safe = np.maximum(mean, 1e-12)
    shape = safe / np.maximum(dispersion - 1.0, 1e-9)
    return np.asarray(np.where(dispersion > 1.0 + 1e-6, betainc(shape, low + 1.0, 1.0 / dispersion), pdtr(low, safe)))
