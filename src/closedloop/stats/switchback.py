"""The gain of a rule that is switched on and off in random order, with an interval that holds at every look.

Law of this file: arrays in, numbers out; the only assumption is the coin. In each pair of periods one, chosen by a fair coin, runs the
new rule. Let ``a`` be the count under the new rule and ``b`` under the old. If the rule multiplies counts by ``1 + g``, then
``x = (r a - b / r) / sqrt(r a + b / r)`` with ``r^2 = h = 1 / (1 + g)`` is as likely ``x`` as ``-x``, whatever trends, clusters and
over-dispersion the counts have. So ``prod exp(l x) / cosh(l x)`` is a martingale of mean 1 for every ``l``; its mean over a fixed set of
``l``, inverted in ``g``, gives a confidence sequence that is exact in finite samples. (Dividing by the root makes Poisson ``x`` about 1 in
size; it costs no validity, since the root does not change when the coin falls otherwise.)

References:
    de la Pena (1999), "A general class of exponential inequalities for martingales and ratios", Annals of Probability 27 (symmetric
    increments); Howard, Ramdas, McAuliffe & Sekhon (2020), "Time-uniform Chernoff bounds via nonnegative supermartingales",
    Probability Surveys 17; Robbins (1970) for mixtures; Ville (1939).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from closedloop.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]
_LARGEST = 50.0  # a gain beyond a factor of 50 either way is not told from an unbounded one
_GRID = np.exp(np.linspace(-math.log(_LARGEST), math.log(_LARGEST), 301))
_SLOPES = np.geomspace(0.02, 4.0, 12)
SLOPES = np.concatenate([-_SLOPES, _SLOPES])  # the values of ``l``: from faint to strong evidence, either way


def contrasts(new: FloatArray, old: FloatArray, factor: float = 1.0) -> FloatArray:
    """Return ``x`` of each pair for a factor ``h``; 0 where both counts are 0."""
    one, other = math.sqrt(factor) * new, old / math.sqrt(factor)
    total = one + other
    return np.divide(one - other, np.sqrt(total), out=np.zeros_like(total), where=total > 0)


def steps(x: FloatArray) -> FloatArray:
    """Return ``l x - log cosh(l x)`` for every ``l`` in `SLOPES` (shape: that of ``x``, and one axis more at the end)."""
    z = np.asarray(x)[..., None] * SLOPES
    size = np.abs(z)
    return np.asarray(z - size - np.log1p(np.exp(-2.0 * size)) + math.log(2.0))


def log_evidence(x: FloatArray) -> FloatArray:
    """Return the log of the martingale from the ``x`` of pairs along the last axis.

    It ever reaches ``log(1 / alpha)`` with chance at most ``alpha`` when no gain is the truth (Ville).

    >>> float(log_evidence(np.array([])))
    0.0
    """
    return np.asarray(logsumexp(steps(x).sum(axis=-2), axis=-1) - math.log(len(SLOPES)))


def gain_sequence(new: npt.ArrayLike, old: npt.ArrayLike, *, level: float) -> tuple[float, float, float]:
    """Return (low, estimate, high) of the relative gain ``g`` of the new rule.

    Args:
        new, old: Counts of each pair under the new and the old rule, shape (N,), zero or more, over equally long periods.
        level: The chance that the interval holds the truth at *all* looks together, whatever decided when to look.

    Returns:
        ``low >= -1`` (-1: nothing is known downwards), the ratio estimate, ``high`` (``inf``: nothing is known upwards).

    Raises:
        ConfigurationError: A count is negative or not finite, the shapes differ, or the level is not in (0, 1).

    >>> low, estimate, high = gain_sequence([120.0] * 12, [100.0] * 12, level=0.9)
    >>> round(estimate, 3), low > 0
    (0.2, True)
    >>> gain_sequence([], [], level=0.9)
    (-1.0, 0.0, inf)
    """
    a, b = np.asarray(new, dtype=float), np.asarray(old, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ConfigurationError("each pair has a count under the new and one under the old rule", "new", (a.shape, b.shape))
    for name, values in (("new", a), ("old", b)):
        wrong = np.flatnonzero(~((values >= 0) & (values < np.inf)))
        if len(wrong):
            raise ConfigurationError("a count is zero or more", name, float(values[wrong[0]]))
    if not 0.0 < level < 1.0:
        raise ConfigurationError("a level lies between 0 and 1", "level", level)
    limit = math.log(1.0 / (1.0 - level))

    def kept(h: float) -> bool:
        return bool(log_evidence(contrasts(a, b, h)) < limit)

    sums = np.array([contrasts(a, b, h).sum() for h in _GRID])  # rises with h; where it is 0 nothing speaks against h
    inside = np.array([kept(h) for h in _GRID])
    inside[min(int(np.searchsorted(sums, 0.0)), len(_GRID) - 1)] = True  # the best factor, or the end of the grid next to it
    inside[max(int(np.searchsorted(sums, 0.0, side="right")) - 1, 0)] = True
    at = np.flatnonzero(inside)
    least, most = int(at[0]), int(at[-1])

    def edge(first: int, second: int) -> float:
        """Return the border between a kept and a rejected factor of the grid, on the rejected side."""
        good, bad = math.log(_GRID[first]), math.log(_GRID[second])
        for _ in range(60):
            middle = 0.5 * (good + bad)
            good, bad = (middle, bad) if kept(math.exp(middle)) else (good, middle)
        return math.exp(bad)

    high = math.inf if least == 0 else 1.0 / edge(least, least - 1) - 1.0
    low = -1.0 if most == len(_GRID) - 1 else 1.0 / edge(most, most + 1) - 1.0
    estimate = float(a.sum() / b.sum() - 1.0) if b.sum() > 0 else 0.0
    return low, min(max(estimate, low), high), high
