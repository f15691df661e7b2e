"""Measured shares and counts with their intervals: Jeffreys posteriors of a share and of a rate.

Law of this file: counts in, `Interval` out. A share of ``k`` in ``n`` has the posterior Beta(k + 1/2, n - k + 1/2), a rate of ``c`` events
in ``t`` units the posterior Gamma(c + 1/2, t) (Jeffreys). Without data a share lies anywhere in [0, 1] and a rate is unbounded, aloud.

References:
    Brown, Cai & DasGupta (2001), Interval estimation for a binomial proportion, Statistical Science 16.
"""

from __future__ import annotations

import math

from scipy.special import betaincinv, gammaincinv

from closedloop.records.interval import Interval


def share(part: float, whole: float, level: float) -> Interval:
    """Return the credible interval of a share.

    Args:
        part: Successes, in [0, whole].
        whole: Trials.
        level: In (0, 1).

    >>> share(95, 100, 0.9)
    0.948 [0.904, 0.977] (90 % credible)
    """
    if whole <= 0:
        return Interval(low=0.0, estimate=1.0, high=1.0, level=level, kind="credible")
    tail = (1.0 - level) / 2.0
    low, middle, high = (float(betaincinv(part + 0.5, whole - part + 0.5, q)) for q in (tail, 0.5, 1.0 - tail))
    # At the ends of the range the one-sided interval is the honest one (Brown, Cai & DasGupta 2001, section 4.1).
    return Interval(low=0.0 if part <= 0 else low, estimate=middle, high=1.0 if part >= whole else high, level=level, kind="credible")


def rate(count: float, duration: float, level: float) -> Interval:
    """Return the credible interval of events per unit of time.

    Args:
        count: Events (may be fractional), zero or more.
        duration: Units of time observed.
        level: In (0, 1).

    >>> rate(0, 0, 0.9)
    0 [0, ∞] (90 % credible)
    """
    if duration <= 0:
        return Interval(low=0.0, estimate=0.0, high=math.inf, level=level, kind="credible")
    tail = (1.0 - level) / 2.0
    low, middle, high = (float(gammaincinv(count + 0.5, q)) / duration for q in (tail, 0.5, 1.0 - tail))
    return Interval(low=0.0 if count <= 0 else low, estimate=middle, high=high, level=level, kind="credible")


def exact(value: float, level: float) -> Interval:
    """Return a value that is known without error."""
    return Interval(low=value, estimate=value, high=value, level=level, kind="credible")
