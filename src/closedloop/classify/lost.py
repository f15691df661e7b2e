"""Days on which a source was out: how many of them lie among the recent ones that amounts a day and a week are means of.

Law of this file: a lost day is missing, never zero, so it counts in no denominator.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from closedloop.classify.ages import RECENT_DAYS
from closedloop.records.interval import FloatArray
from closedloop.records.outcomes import Outcomes

RECENT = np.append(0.0, np.ones(RECENT_DAYS))


def lost_days(
    outcomes: Outcomes, ranked: npt.NDArray[np.intp], watermark: FloatArray, first: FloatArray, worth: FloatArray, *, blind: bool = False
) -> FloatArray:
    """Return how many days each ranked arm lost since its first one, shape (A,).

    Args:
        outcomes: With the days that were taken out.
        ranked: Positions of the arms.
        watermark, first: First day that is not over, and oldest day with evidence, by arm, shape (A,).
        worth: What a lost day of each age in days counts for, shape (D,); older ones count nothing.
        blind: Whether days whose conversions alone were lost count too.
    """
    out = np.zeros(len(ranked))
    everywhere = outcomes.blind if blind else outcomes.blind[:0]
    if not outcomes.missing and not len(everywhere):
        return out
    arms = outcomes.arms.take(ranked)
    code, names = arms.groups(("platform",)) if "platform" in arms.columns else (np.zeros(len(arms), dtype=np.int32), ["account"])
    for i, name in enumerate(names):
        mine = code == i
        days = np.union1d(outcomes.missing.get(name, everywhere[:0]), everywhere)
        age = watermark[mine][:, None] - days
        counted = (age >= 0) & (age < len(worth)) & (days >= first[mine][:, None])
        out[mine] = np.where(counted, worth[np.clip(age, 0, len(worth) - 1).astype(np.intp)], 0.0).sum(axis=1)
    return out


def per_day(recent: FloatArray, today: FloatArray, watermark: FloatArray, first: FloatArray, lost: FloatArray) -> FloatArray:
    """Return amounts a day over the last whole days before the watermark, lost ones apart; over the first day for what began on it."""
    days = np.clip(np.where(np.isfinite(first), watermark - first, 1.0), 0.0, float(RECENT_DAYS)) - lost
    return np.asarray(np.where(days >= 1.0, recent, today) / np.maximum(days, 1.0))
