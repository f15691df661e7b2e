"""How many conversions the account has a day: the level with which what arms meet by chance rises and falls.

Law of this file: outcomes in, conversions a day out; means of a week, so that weekdays do not matter.

Whom an arm meets without causing anything are users on their way to a conversion, so what it meets per exposure grows with how many of
them there are: two rates of one arm are compared at the levels of their times.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray
from closedloop.records.outcomes import Outcomes

_HALF_LIFE = 14.0  # days: what an arm's rate of late rests on
_NOW = (7, 14, 28)  # days that the present level is a mean of: the fewest with enough conversions
_ENOUGH = 200.0


@attrs.frozen(kw_only=True, eq=False)
class Level:
    """Conversions a day.

    Args:
        first: Day of the first entry.
        by_day: Means of the week around each day, shape (D,); the last day is not over yet and is not among them.
        now: Mean of the last days.
        days: How many days that is.
    """

    first: int
    by_day: FloatArray
    now: float
    days: int

    @classmethod
    def of(cls, outcomes: Outcomes) -> Level | None:
        """Return the account's level, None where its conversions by day are not known."""
        daily = outcomes.daily
        if not len(daily) or int(daily.day.max()) == int(daily.day.min()):
            return None
        first, length = int(daily.day.min()), int(daily.day.max()) - int(daily.day.min())
        counts = np.bincount(daily.day - first, daily.conversions, length + 1)[:length].astype(np.float64)
        known = (~np.isin(np.arange(first, first + length), daily.missing)).astype(np.float64)
        days, now = _present(counts, known)
        return cls(first=first, by_day=smoothed(counts, known), now=now, days=days)

    def at(self, day: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
        """Return the position of each day among `by_day`, the nearest where it is not among them."""
        return np.asarray(np.clip(day - self.first, 0, len(self.by_day) - 1), dtype=np.intp)


def smoothed(counts: FloatArray, known: FloatArray) -> FloatArray:
    """Return means of a week around each day over the days that are known, along the last axis."""
    return np.asarray(_of_week(counts) / np.maximum(_of_week(known), 1.0))


def _of_week(x: FloatArray) -> FloatArray:
    """Return sums over the three days before, the day, and the three after it."""
    upto = np.cumsum(np.pad(x, [(0, 0)] * (x.ndim - 1) + [(4, 3)]), axis=-1)
    return np.asarray(upto[..., 7:] - upto[..., :-7])


def _present(counts: FloatArray, known: FloatArray) -> tuple[int, float]:
    for days in _NOW:
        total = float(counts[-days:].sum())
        if total >= _ENOUGH:
            break
    return days, total / max(float(known[-days:].sum()), 1.0)


def levels_of_late(outcomes: Outcomes) -> FloatArray:
    """Return the account's conversions a day when each arm had the exposures that speak of late, shape (A,); 0 where it is not known."""
    n, c, level = len(outcomes.arms), outcomes.cohorts, Level.of(outcomes)
    if level is None or not len(c):
        return np.zeros(n)
    weight = c.exposures * np.exp2(-(c.day.max() - c.day) / _HALF_LIFE)
    total = np.bincount(c.arm, weight, n)
    met = np.bincount(c.arm, weight * level.by_day[level.at(c.day)], n)
    return np.asarray(np.divide(met, total, out=np.zeros(n), where=total > 0))
