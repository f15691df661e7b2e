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

    def times(self, share: float) -> Expected:
        """Return what such a day should bring when only a share of it is to be expected."""
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
    days = weekday[-longest - 1 : -1]
    if history.shape[1] < _LEAST_DAYS:
        return None
    usual = np.ones(history.shape, dtype=bool)
    for d in np.unique(days):
        usual[:, days == d] = history[:, days == d] >= 0.5 * np.median(history[:, days == d], axis=1, keepdims=True)
    level = (history * usual).sum(axis=1) / np.maximum(usual.sum(axis=1), 1)
    factor = _weekday_factors(history, days, level, usual)
    fitted = level[:, None] * factor[:, days]
    squares = np.where(usual, (history - fitted) ** 2 / np.maximum(fitted, 1.0), 0.0).sum(axis=1)
    degrees = np.maximum(usual.sum(axis=1) - len(np.unique(days)), 0)
    same = np.maximum((usual & (days == weekday[-1])).sum(axis=1), 1)  # days that the mean itself rests on
    dispersion = np.maximum((squares + _PRIOR_DAYS * _PRIOR_DISPERSION) / (degrees + _PRIOR_DAYS), 1.0) * (1.0 + 1.0 / same)
    mean = level * factor[:, weekday[-1]]
    count = counts[:, -1]
    return Expected(mean=mean, dispersion=dispersion, p_low=p_at_most(count, mean, dispersion), count=count)


def _weekday_factors(history: FloatArray, days: npt.NDArray[np.int64], level: FloatArray, usual: npt.NDArray[np.bool_]) -> FloatArray:
    """Return factors of the seven weekdays, shrunk to 1 by a quarter of a week's worth of data (shape (P, 7))."""
    factor = np.ones((len(history), 7))
    for d in range(7):
        on = (days == d)[None, :] & usual
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
