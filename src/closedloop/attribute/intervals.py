"""Exact Gamma intervals of credited conversions.

Law of this file: the estimate is the credit itself; the interval is that of the expected number, never of the credit's own arithmetic.

References:
    Brown, Cai & DasGupta (2001), Interval estimation for a binomial proportion (the Jeffreys interval).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv

from closedloop.records.interval import FloatArray, Intervals


def credit_intervals(
    arm: npt.NDArray[np.integer[Any]], credit: FloatArray, credit_squared: FloatArray, n: int, level: float, *, total: float | None = None
) -> Intervals:
    """Return the credited conversions per arm with exact Gamma intervals for the expected number (Jeffreys prior).

    Fractional credit is tempered: with ``phi = sum w^2 / sum w`` the count ``credit / phi`` is taken as Poisson.

    Args:
        arm: Arm of each cohort, shape (R,).
        credit, credit_squared: Sums of credits and of their squares, shape (R,).
        n: Number of arms.
        level: Level of the intervals.
        total: What the credits sum to, where it is known exactly.

    >>> credit_intervals(np.array([0]), np.array([4.0]), np.array([4.0]), 1, 0.9)[0]
    4 [1.66, 8.46] (90 % credible)
    """
    sums = np.bincount(arm, weights=credit, minlength=n).astype(np.float64)
    if total is not None and n:
        sums[int(np.argmax(sums))] += total - math.fsum(sums)  # the last rounding errors
    squared = np.bincount(arm, weights=credit_squared, minlength=n).astype(np.float64)
    phi = np.divide(squared, sums, out=np.ones(n), where=sums > 0)
    phi = np.where(phi > 0, phi, 1.0)
    tail = (1.0 - level) / 2.0
    shape = sums / phi + 0.5
    low, high = phi * gammaincinv(shape, tail), phi * gammaincinv(shape, 1.0 - tail)
    return Intervals(
        low=np.where(sums > 0, np.minimum(low, sums), 0.0), estimate=sums, high=np.maximum(high, sums), level=level, kind="credible"
    )
