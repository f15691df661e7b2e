"""Confidence sequences: intervals that hold at every look at once, and a correction over many of them.

Law of this file: arrays in, arrays out; counts must be whole, final and not tempered, or the guarantee is void.

References:
    Howard, Ramdas, McAuliffe & Sekhon (2021), "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
    Statistics 49; Robbins (1970) for mixtures; Ville (1939) for the inequality; Wang & Ramdas (2022) for e-BH.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]


def _edges(
    excess: Callable[[FloatArray], FloatArray], inside: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return where a convex function that is at most 0 at ``inside`` rises above 0, left and right, by bisection."""
    left_out, left_in = low.copy(), inside.copy()
    right_in, right_out = inside.copy(), high.copy()
    for _ in range(100):
        left, right = 0.5 * (left_out + left_in), 0.5 * (right_in + right_out)
        out = excess(left) > 0
        left_out, left_in = np.where(out, left, left_out), np.where(out, left_in, left)
        out = excess(right) > 0
        right_out, right_in = np.where(out, right, right_out), np.where(out, right_in, right)
    return left_out, right_out


def poisson_rate_sequence(count: FloatArray, exposure: FloatArray, *, level: float, expected_rate: float) -> tuple[FloatArray, FloatArray]:
    """Return the gamma-mixture confidence sequence of a Poisson rate.

    Over all looks together the true rate leaves the interval with probability at most ``1 - level``, whatever rule decided when to
    look, stop, or how much to expose next. ``expected_rate`` must be chosen before the data; a poor choice costs width, not validity.

    Args:
        count: Whole counts so far, shape (A,).
        exposure: Exposure so far, shape (A,).
        level: In (0, 1).
        expected_rate: The rate around which the sequence is tightest.

    Returns:
        low and high, shape (A,); without exposure 0 and infinity.

    >>> low, high = poisson_rate_sequence(np.array([20.0, 0.0]), np.array([1000.0, 0.0]), level=0.9, expected_rate=0.02)
    >>> bool(0.005 < low[0] < 0.02 < high[0] < 0.05), high[1]
    (True, np.float64(inf))
    """
    c, x = np.asarray(count, dtype=np.float64), np.asarray(exposure, dtype=np.float64)
    a, b = 1.0, 1.0 / expected_rate
    seen = x > 0
    safe = np.where(seen, x, 1.0)
    mixture = a * np.log(b) - special.gammaln(a) + special.gammaln(a + c) - (a + c) * np.log(b + safe)
    limit = -np.log1p(-level)

    def excess(rate: FloatArray) -> FloatArray:
        """Log of the mixture likelihood ratio against ``rate``, less the limit."""
        return np.asarray(mixture - special.xlogy(c, rate) + rate * safe - limit)

    top = (c + 1.0) / safe
    while bool((seen & (excess(top) <= 0)).any()):
        top = 2.0 * top
    low, high = _edges(excess, c / safe, np.zeros_like(c), top)
    low = np.where(c > 0, low, 0.0)
    return np.where(seen, low, 0.0), np.where(seen, high, np.inf)


def share_sequence(
    count: FloatArray, total: FloatArray, *, level: float, expected_share: float = 0.5, strength: float = 20.0
) -> tuple[FloatArray, FloatArray]:
    """Return the beta-mixture confidence sequence of a share, such as the treated share of all conversions of a randomised test.

    Given the total of two Poisson counts with exposures n1 and n2, the first is binomial with share ``r n1 / (r n1 + n2)``, ``r`` the ratio
    of rates: an interval of the share maps to one of ``r``.

    Args:
        count, total: Whole counts so far, ``count <= total``, shape (A,).
        level: In (0, 1).
        expected_share, strength: Mean and weight of the mixing Beta; choose before the data.

    Returns:
        low and high, shape (A,), in [0, 1].
    """
    k, n = np.asarray(count, dtype=np.float64), np.asarray(total, dtype=np.float64)
    a, b = strength * expected_share, strength * (1.0 - expected_share)
    mixture = special.betaln(a + k, b + n - k) - special.betaln(a, b)
    limit = -np.log1p(-level)

    def excess(p: FloatArray) -> FloatArray:
        return np.asarray(mixture - special.xlogy(k, p) - special.xlog1py(n - k, -p) - limit)

    inside = k / np.maximum(n, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _edges(excess, inside, np.zeros_like(k), np.ones_like(k))
    return np.where(k > 0, low, 0.0), np.where(k < n, high, 1.0)


def e_bh(e_values: FloatArray, *, rate: float) -> npt.NDArray[np.bool_]:
    """Return which hypotheses are rejected with false discovery rate at most ``rate``, however the e-values depend on each other.

    >>> e_bh(np.array([100.0, 1.0, 30.0]), rate=0.1).tolist()
    [True, False, True]
    """
    n = len(e_values)
    order = np.argsort(-e_values, kind="stable")
    enough = e_values[order] * np.arange(1, n + 1) >= n / rate
    rejected = np.zeros(n, dtype=bool)
    if enough.any():
        rejected[order[: int(np.flatnonzero(enough)[-1]) + 1]] = True
    return rejected
