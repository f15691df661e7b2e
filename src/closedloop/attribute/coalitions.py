"""Shapley values by exact enumeration of coalitions, for any value function.

Law of this file: exact up to 20 channels, refused above. The closed form for "conversions of journeys inside the coalition" is a rule of
``heuristics``; here any function of coalitions is served, among them the *conversion rate* inside the coalition. Peers disagree on which
game is played; ours are named, and efficient: values sum to ``v(all) - v(none)``.

References:
    Shapley (1953), A value for n-person games.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from closedloop.attribute.paths import PathCounts
from closedloop.errors import ConfigurationError, InputError
from closedloop.records.interval import FloatArray

MOST_CHANNELS = 20


def inside(paths: PathCounts, weights: FloatArray) -> FloatArray:
    """Return, for each coalition, the summed weights of journeys whose channels all lie in it (bit ``c`` stands for channel ``c``).

    Args:
        paths: P journeys over C channels.
        weights: Shape (P,).

    Returns:
        Shape (2**C,).

    Raises:
        ConfigurationError: There are more than 20 channels.
    """
    c = len(paths.channels)
    if c > MOST_CHANNELS:
        mend = f"use at most {MOST_CHANNELS}, or model='shapley'"
        raise ConfigurationError("too many channels to enumerate coalitions", "channels", c, mend)
    sets = np.zeros(len(paths), dtype=np.int64)
    touched = paths.lengths > 0
    if touched.any():
        sets[touched] = np.bitwise_or.reduceat(np.int64(1) << paths.codes.astype(np.int64), paths.starts[:-1][touched])
    v = np.bincount(sets, weights=weights, minlength=1 << c).astype(np.float64)
    for bit in range(c):  # sums over subsets, one channel at a time
        halves = v.reshape(-1, 2, 1 << bit)
        halves[:, 1, :] += halves[:, 0, :]
    return v


def shapley_values(v: npt.ArrayLike) -> FloatArray:
    """Return the Shapley value of each player of a game given by the values of all coalitions.

    Args:
        v: Shape (2**C,); bit ``c`` of the position says whether player ``c`` takes part.

    Raises:
        InputError: The length is no power of two up to 2**20, or a value is not finite.

    >>> shapley_values([0, 1, 2, 4]).tolist()
    [1.5, 2.5]
    """
    game = np.asarray(v, dtype=np.float64)
    c = len(game).bit_length() - 1
    if game.ndim != 1 or len(game) != 1 << c or c > MOST_CHANNELS:
        raise InputError("a game needs a value for each of 2**C coalitions", "v", game.shape, f"use C up to {MOST_CHANNELS}")
    if not np.isfinite(game).all():
        raise InputError("values of coalitions must be finite", "v", float(game[~np.isfinite(game)][0]))
    size = np.zeros(1 << c, dtype=np.int64)
    for bit in range(c):
        size.reshape(-1, 2, 1 << bit)[:, 1, :] += 1
    weight = np.array([1.0 / (c * math.comb(c - 1, s)) for s in range(c)]) if c else np.zeros(0)
    out = np.zeros(c)
    for bit in range(c):
        g, s = game.reshape(-1, 2, 1 << bit), size.reshape(-1, 2, 1 << bit)
        out[bit] = ((g[:, 1, :] - g[:, 0, :]) * weight[s[:, 0, :]]).sum()
    return out


def rate_game(paths: PathCounts) -> FloatArray:
    """Return the conversion rate among journeys inside each coalition, 0 where there are none, shape (2**C,)."""
    won, seen = inside(paths, paths.conversions), inside(paths, paths.conversions + paths.nulls)
    return np.divide(won, seen, out=np.zeros_like(won), where=seen > 0)
