"""What nested groups of arms let their sums be.

Law of this file: any two groups are nested or disjoint; it knows ends and nothing else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from closedloop.stats.waterfill import Group

FloatArray = npt.NDArray[np.float64]


def within(amount: float, groups: tuple[Group, ...], low: FloatArray, high: FloatArray) -> float:
    """Return the amount, or the most or least that groups and ends let the arms take."""
    least, most = float(low.sum()), float(high.sum())
    outer = [g for g in groups if not any(h is not g and _inside(g, h) for h in groups)]
    for g in outer:
        g_least, g_most = room_of(g, groups, low, high)
        least += g_least - float(low[g.members].sum())
        most += g_most - float(high[g.members].sum())
    return min(max(amount, least), most)


def _inside(inner: Group, outer: Group) -> bool:
    same = len(inner.members) == len(outer.members)
    return bool(np.isin(inner.members, outer.members).all()) and not (same and inner.name <= outer.name)


def room_of(group: Group, groups: tuple[Group, ...], low: FloatArray, high: FloatArray) -> tuple[float, float]:
    """Return the least and the most that the arms of a group can add up to, given its own ends and those of the groups inside it."""
    below = [g for g in groups if g is not group and _inside(g, group)]
    children = [g for g in below if not any(h is not g and _inside(g, h) for h in below)]
    least, most = float(low[group.members].sum()), float(high[group.members].sum())
    for child in children:
        c_least, c_most = room_of(child, groups, low, high)
        least += c_least - float(low[child.members].sum())
        most += c_most - float(high[child.members].sum())
    return min(max(least, group.low), most), max(min(most, group.high), least)
