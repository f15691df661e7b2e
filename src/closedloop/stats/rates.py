"""Poisson counts: the exact interval of one, and of the ratio of two.

Law of this file: numbers in, numbers out. Given the total of two independent Poisson counts, the first one is binomial, so the
ratio of their rates has an exact interval (Przyborowski & Wilenski 1940, Biometrika 31; Clopper & Pearson 1934). One count has
Garwood's (1936, Biometrika 28).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betaincinv, gammaincinv

from closedloop.errors import ConfigurationError
from closedloop.records.interval import FloatArray


def count_interval(count: float, *, level: float = 0.9) -> tuple[float, float]:
    """Return the exact (conservative) interval of the mean of a Poisson count.

    Raises:
        ConfigurationError: The count is negative or the level not in (0, 1).

    >>> [round(end, 2) for end in count_interval(10)]
    [5.43, 16.96]
    """
    if not 0.0 <= count < math.inf:
        raise ConfigurationError("a count is zero or more", "count", count)
    if not 0.0 < level < 1.0:
        raise ConfigurationError("a level lies between 0 and 1", "level", level)
    tail = (1.0 - level) / 2.0
    low = float(gammaincinv(count, tail)) if count > 0 else 0.0
    return low, float(gammaincinv(count + 1.0, 1.0 - tail))


def ratio_interval(
    count: float, exposure: float, base_count: float, base_exposure: float, *, level: float = 0.9
) -> tuple[float, float, float]:
    """Return (low, estimate, high) of the rate ``count / exposure`` relative to ``base_count / base_exposure``.

    Args:
        count, base_count: Poisson counts, zero or more.
        exposure, base_exposure: Their exposures, above zero.
        level: Coverage of the exact (conservative) equal-tailed interval.

    Raises:
        ConfigurationError: A count is negative, an exposure is not positive, or the level is not in (0, 1).

    >>> low, estimate, high = ratio_interval(120, 1000.0, 100, 1000.0)
    >>> round(low, 2), estimate, round(high, 2)
    (0.95, 1.2, 1.51)
    """
    for name, value in (("exposure", exposure), ("base_exposure", base_exposure)):
        if not 0.0 < value < math.inf:
            raise ConfigurationError("an exposure is above zero", name, value)
    for name, value in (("count", count), ("base_count", base_count)):
        if not 0.0 <= value < math.inf:
            raise ConfigurationError("a count is zero or more", name, value)
    if not 0.0 < level < 1.0:
        raise ConfigurationError("a level lies between 0 and 1", "level", level)
    scale = base_exposure / exposure
    ends = ratio_intervals(np.array([count]), np.array([base_count]), level=level)
    low, estimate, high = (float(end[0]) * scale for end in ends)
    return low, estimate, high


def ratio_intervals(counts: FloatArray, base_counts: FloatArray, *, level: float = 0.9) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (low, estimate, high) of each count relative to its base count, as `ratio_interval` does of equal exposures.

    Args:
        counts, base_counts: Poisson counts, zero or more (shape (A,)).
        level: As there.
    """
    tail = (1.0 - level) / 2.0
    some, base = counts > 0, base_counts > 0
    low_share = np.where(some, betaincinv(np.where(some, counts, 1.0), base_counts + 1.0, tail), 0.0)
    high_share = np.where(base, betaincinv(counts + 1.0, np.where(base, base_counts, 1.0), 1.0 - tail), 1.0)
    with np.errstate(divide="ignore"):
        low, high = low_share / (1.0 - low_share), high_share / (1.0 - high_share)
    estimate = np.divide(counts, base_counts, out=np.full(len(counts), np.inf), where=base)
    return low, np.minimum(np.maximum(estimate, low), high), high
