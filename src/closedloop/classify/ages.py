"""What each age of the evidence counts for: recency, the price of late, the recent days, and blocks of days.

Law of this file: ages in days in, weights out; tables of rows by age (see `grid`) are multiplied by them.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray

RECENT_DAYS = 7  # days over which exposure and spend a day are measured
VOLUME_DAYS = 28  # most days over which conversions a week are counted
_BLOCK_EDGES = np.array([1, 2, 4, 8, 14, 28, 56, 112])  # ages in days between which a break can be placed


@attrs.frozen(kw_only=True, eq=False)
class AgeWeights:
    """What each age counts for, D ages: columns by which tables of rows are multiplied.

    Args:
        age: In days, shape (D,).
        recency, cost, recent, today, month: Weights, shape (D,).
        member: Which block each age belongs to, shape (D, B) of zeros and ones.
        ends: Greatest age of each block, oldest block first, shape (B,).
        half_life_days: Of the recency.
    """

    age: FloatArray
    recency: FloatArray
    cost: FloatArray
    recent: FloatArray
    today: FloatArray
    month: FloatArray
    member: FloatArray
    ends: FloatArray
    half_life_days: float | None

    @classmethod
    def of(cls, age: FloatArray, oldest: float, half_life_days: float | None, cost_half_life_days: float) -> AgeWeights:
        """Return the weights of some ages, blocks cut by the oldest age of all."""
        edges = _BLOCK_EDGES[oldest > _BLOCK_EDGES]
        block = _block(age, edges)
        ends = np.concatenate([edges, [max(oldest, float(edges[-1]) + 1.0) if len(edges) else max(oldest, 1.0)]])[::-1].astype(np.float64)
        return cls(
            age=age,
            recency=_recency(age, half_life_days),
            cost=_recency(age, cost_half_life_days),
            recent=((age >= 1.0) & (age <= RECENT_DAYS)).astype(np.float64),
            today=(age <= 0.0).astype(np.float64),
            month=((age >= 1.0) & (age <= VOLUME_DAYS)).astype(np.float64),
            member=(block[:, None] == np.arange(len(ends))).astype(np.float64),
            ends=ends,
            half_life_days=half_life_days,
        )


def _recency(age: FloatArray, half_life_days: float | None) -> FloatArray:
    """Return the weight of each age in whole days."""
    if half_life_days is None:
        return np.ones_like(age)
    whole = np.maximum(age, 0.0).astype(np.intp)
    return np.asarray(np.exp2(-np.arange(whole.max(initial=0) + 1) / half_life_days)[whole])


def _block(age: FloatArray, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Return the block of each age in whole days, counted from the oldest block."""
    whole = np.clip(age, 0, edges[-1] + 1 if len(edges) else 0).astype(np.intp)
    table = len(edges) - np.searchsorted(edges, np.arange(whole.max(initial=0) + 1), side="left")
    return np.asarray(table[whole])
