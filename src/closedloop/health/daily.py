"""Daily sums of exposures and spend by arm and by platform, and the days of which all data are in.

Law of this file: reshaping only; what the numbers mean is said where they are used.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.arms import Arms
from closedloop.records.interval import FloatArray
from closedloop.records.moments import US_PER_DAY
from closedloop.records.outcomes import Outcomes

_NEARLY_OVER_US = 22 * 3_600_000_000  # a day counts as over when its data reach 22 h


@attrs.frozen(kw_only=True, eq=False)
class Daily:
    """Sums by arm and day.

    Args:
        arms: All arms, complete or not (A).
        days: Days since 1970-01-01 UTC, all over, without gaps (D).
        clicks: Click exposures, shape (A, D).
        views: View exposures, shape (A, D).
        spend: Units of currency, shape (A, D).
    """

    arms: Arms
    days: npt.NDArray[np.int64]
    clicks: FloatArray
    views: FloatArray
    spend: FloatArray

    def platforms(self) -> tuple[list[str], FloatArray]:
        """Return the platforms' names, and their exposures (clicks, and views where there are no clicks) by day, shape (P, D)."""
        if "platform" not in self.arms.columns:
            return ["account"], self.touches().sum(axis=0, keepdims=True)
        code, names = self.arms.groups(("platform",))
        sums = np.zeros((len(names), len(self.days)))
        np.add.at(sums, code, self.touches())
        return names, sums

    def touches(self) -> FloatArray:
        """Return clicks, or views where there are no clicks at all (shape (A, D))."""
        return self.clicks if self.clicks.sum() > 0 else self.views


def daily(outcomes: Outcomes, longest: int) -> Daily:
    """Return the newest ``longest`` days of an outcome that are over.

    The account's newest watermark says which days are over: a platform that fell silent must not hide its own silence. Where nothing comes
    any more but conversions (an export whose last conversions are days younger than its last clicks), the touches of all platforms end,
    and no day after the last but one is judged: that is old data and no day's loss, and their age is looked at elsewhere.
    """
    cohorts, spend, arms = outcomes.cohorts, outcomes.spend, outcomes.arms
    newest = max(outcomes.watermark.values(), default=0)
    last = newest // US_PER_DAY - (0 if newest % US_PER_DAY >= _NEARLY_OVER_US else 1)
    bought = [d for d in (cohorts.day[cohorts.exposures > 0], spend.day) if len(d)]
    if bought:
        youngest = max(int(d.max()) for d in bought)
        last = last if youngest >= last else youngest - 1
    seen = [int(d.min()) for d in (cohorts.day, spend.day) if len(d)]
    first = max(min(seen, default=last + 1), last - longest + 1)
    days = np.arange(first, last + 1, dtype=np.int64)
    table = []
    for arm, day, value in (
        *((cohorts.arm[cohorts.kind == k], cohorts.day[cohorts.kind == k], cohorts.exposures[cohorts.kind == k]) for k in (0, 1)),
        (spend.arm, spend.day, spend.spend),
    ):
        inside = (day >= first) & (day <= last)
        cell = arm[inside].astype(np.int64) * len(days) + (day[inside] - first)
        table.append(
            np.bincount(cell, weights=value[inside], minlength=len(arms) * len(days)).reshape(len(arms), len(days)).astype(np.float64)
        )
    return Daily(arms=arms, days=days, clicks=table[0], views=table[1], spend=table[2])
