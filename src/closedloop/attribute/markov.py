"""Markov attribution of order k by exact removal effects.

Law of this file: exact, never sampled. The walker starts nowhere, moves between states (its last k channels) with the observed transition
shares, and ends in conversion or null. Removing a channel sends every step into it to null. With ``N = (I - Q)^-1``, ``s`` the first step
and ``h`` the probability of converting, the walks that are lost are those that meet the channel's states ``S`` at all: ``f = (s N)_S
N_SS^-1`` is where they meet it first, and ``P_without = P - f h_S``: one factorisation and a small block per channel instead of one solve
per channel.

Revenue uses the same chain with the mean revenue of a conversion from each state in place of 1.

References:
    Anderl, Becker, von Wangenheim & Schumann (2016), Mapping the customer journey. International Journal of Research in Marketing 33.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.attribute.paths import PathCounts
from closedloop.errors import ConfigurationError
from closedloop.records.arms import IntArray
from closedloop.records.interval import FloatArray

_DENSE = 1500  # states up to which one dense factorisation is used
_FEW = 1000  # kinds of step up to which all possible ones are listed, seen or not


@attrs.frozen(kw_only=True, eq=False)
class Chain:
    """Which steps occur in the journeys, as features that add over journeys.

    Args:
        n_states: Number of states; state ``i`` ends with channel ``ends[i]``.
        ends: Shape (n_states,).
        source: Source state of each kind of step, -1 for the start, shape (F,).
        target: Target state of each kind of step, shape (F,).
        state: State of each touch, shape (T,); ``step``: kind of step that led to it, shape (T,).
    """

    n_states: int
    ends: IntArray
    source: IntArray
    target: IntArray
    state: IntArray
    step: IntArray


def chain(paths: PathCounts, order: int) -> Chain:
    """Return the states and steps of the journeys.

    Raises:
        ConfigurationError: The order is not from 1 to 8.
    """
    if not 1 <= order <= 8:
        raise ConfigurationError("a Markov order lies between 1 and 8", "order", order)
    n, c = len(paths.codes), len(paths.channels)
    begins = paths.starts[:-1][paths.lengths > 0]
    if order == 1:
        state, n_states, ends = paths.codes.astype(np.int64), c, np.arange(c)
    else:
        codes = paths.codes.astype(np.int64)
        position = np.arange(n) - np.repeat(paths.starts[:-1], paths.lengths)
        gram = codes + 1
        for back in range(1, order):  # re-number after each step back, so that no number grows past 2**63
            earlier = np.zeros(n, dtype=np.int64)
            earlier[back:] = codes[:-back] + 1
            earlier[position < back] = 0
            _, gram = np.unique(gram * (c + 1) + earlier, return_inverse=True)
        first_of, state = np.unique(gram, return_index=True, return_inverse=True)[1:]
        n_states, ends = len(first_of), codes[first_of]
    step = np.zeros(n, dtype=np.int64)  # (state before, 0 for none) * n_states + state
    np.add(state[:-1], 1, out=step[1:])
    step[begins] = 0
    step *= max(n_states, 1)
    step += state
    possible = (n_states + 1) * n_states
    if possible <= _FEW:
        kinds = np.arange(possible)
    elif possible <= 4_000_000:
        present = np.zeros(possible, dtype=np.bool_)
        present[step] = True
        kinds = np.flatnonzero(present)
        step = (np.cumsum(present) - 1)[step]
    else:
        kinds, step = np.unique(step, return_inverse=True)
    return Chain(
        n_states=n_states, ends=ends, source=kinds // max(n_states, 1) - 1, target=kinds % max(n_states, 1), state=state, step=step
    )  # fmt: skip


@attrs.frozen(kw_only=True, eq=False)
class Steps:
    """Sums over journeys that determine the chain.

    Args:
        moves: Journeys that took each kind of step, shape (..., F).
        conversions, value: Conversions and revenue from each state, shape (..., n_states).
        nulls: Journeys lost from each state, shape (..., n_states).
    """

    moves: FloatArray
    conversions: FloatArray
    value: FloatArray
    nulls: FloatArray


def steps_of(paths: PathCounts, links: Chain) -> Steps:
    """Return the sums of all journeys."""
    total = paths.conversions + paths.nulls
    uniform = len(total) > 0 and bool((total == 1.0).all())  # one journey a row: whole numbers, counted without weights
    touched = np.flatnonzero(paths.lengths > 0)
    final = links.state[paths.starts[1:][touched] - 1]
    n, f = links.n_states, len(links.source)
    weights = None if uniform else np.repeat(total, paths.lengths)
    moves = np.bincount(links.step, weights=weights, minlength=f).astype(np.float64)

    def leaving(weight: FloatArray) -> FloatArray:
        return np.bincount(final, weights=weight[touched], minlength=n).astype(np.float64)

    return Steps(moves=moves, conversions=leaving(paths.conversions), value=leaving(paths.value), nulls=leaving(paths.nulls))


def removal_effects(links: Chain, steps: Steps, n_channels: int) -> tuple[FloatArray, FloatArray, Any]:
    """Return the removal effect of each channel on conversions and on revenue, and the probability of conversion.

    Args:
        links: The states and steps.
        steps: Sums over journeys, possibly for B replicates (leading axis).
        n_channels: Number of channels C.

    Returns:
        Shapes (..., C), (..., C) and (...): shares of conversions (of revenue) lost without the channel, in [0, 1]; 0 without any.
    """
    one_each = links.n_states == n_channels and bool((links.ends == np.arange(n_channels)).all())  # the states are the channels
    if steps.moves.ndim == 2 and one_each and len(steps.moves) * n_channels**2 <= 4_000_000:
        return _all_at_once(links, steps)
    if steps.moves.ndim == 2:
        parts = [
            removal_effects(links, Steps(moves=m, conversions=c, value=v, nulls=z), n_channels)
            for m, c, v, z in zip(steps.moves, steps.conversions, steps.value, steps.nulls, strict=True)
        ]
        won, worth, rate = zip(*parts, strict=True)
        return np.array(won), np.array(worth), np.array(rate)
    n = links.n_states
    inner = links.source >= 0
    leave = np.bincount(links.source[inner], weights=steps.moves[inner], minlength=n) + steps.conversions + steps.nulls
    weight = np.divide(1.0, leave, out=np.zeros(n), where=leave > 0)
    start = np.bincount(links.target[~inner], weights=steps.moves[~inner], minlength=n)
    if start.sum() <= 0:
        return np.zeros(n_channels), np.zeros(n_channels), np.float64(0.0)
    start = start / start.sum()
    gain = np.stack([steps.conversions * weight, steps.value * weight], axis=1)
    p = steps.moves[inner] * weight[links.source[inner]]
    solve = _lost_dense if n <= _DENSE else _lost_sparse
    total, lost = solve(links.source[inner], links.target[inner], p, start, gain, links.ends, n_channels)
    effect = np.divide(lost, total, out=np.zeros_like(lost), where=total > 0)
    effect = np.clip(effect, 0.0, 1.0)
    return effect[:, 0], effect[:, 1], total[0]


def _all_at_once(links: Chain, steps: Steps) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the removal effects of a chain of order 1 for B replicates, by B small inverses in one call."""
    b, n = len(steps.moves), links.n_states
    inner = links.source >= 0
    between = np.zeros((b, n, n))
    between[:, links.source[inner], links.target[inner]] = steps.moves[:, inner]
    leave = between.sum(axis=2) + steps.conversions + steps.nulls
    weight = np.divide(1.0, leave, out=np.zeros((b, n)), where=leave > 0)
    start = np.zeros((b, n))
    start[:, links.target[~inner]] = steps.moves[:, ~inner]
    begun = start.sum(axis=1, keepdims=True)
    start = np.divide(start, begun, out=np.zeros_like(start), where=begun > 0)
    gain = np.stack([steps.conversions * weight, steps.value * weight], axis=2)
    visits_matrix = np.linalg.inv(np.eye(n) - between * weight[:, :, None])
    reach = visits_matrix @ gain
    visits = (start[:, None, :] @ visits_matrix)[:, 0]
    lost = (visits / np.diagonal(visits_matrix, axis1=1, axis2=2))[:, :, None] * reach
    total = (start[:, :, None] * reach).sum(axis=1)
    effect = np.clip(np.divide(lost, total[:, None, :], out=np.zeros_like(lost), where=total[:, None, :] > 0), 0.0, 1.0)
    return effect[:, :, 0], effect[:, :, 1], total[:, 0]


def _lost_dense(
    source: IntArray, target: IntArray, p: FloatArray, start: FloatArray, gain: FloatArray, ends: IntArray, n_channels: int
) -> tuple[FloatArray, FloatArray]:
    n = len(start)
    a = np.eye(n)
    np.subtract.at(a, (source, target), p)
    visits_matrix = np.linalg.inv(a)
    reach = visits_matrix @ gain  # expected conversions and revenue from each state
    visits = start @ visits_matrix
    lost = np.zeros((n_channels, gain.shape[1]))
    if len(ends) == n_channels and (ends == np.arange(n_channels)).all():
        return start @ reach, (visits / np.diag(visits_matrix))[:, None] * reach
    order = np.argsort(ends, kind="stable")
    bounds = np.searchsorted(ends[order], np.arange(n_channels + 1))
    for channel in range(n_channels):
        s = order[bounds[channel] : bounds[channel + 1]]
        if len(s):
            first_met = np.linalg.solve(visits_matrix[np.ix_(s, s)].T, visits[s])
            lost[channel] = first_met @ reach[s]
    return start @ reach, lost


def _lost_sparse(
    source: IntArray, target: IntArray, p: FloatArray, start: FloatArray, gain: FloatArray, ends: IntArray, n_channels: int
) -> tuple[FloatArray, FloatArray]:
    from scipy.sparse import csc_matrix, identity
    from scipy.sparse.linalg import splu

    n = len(start)

    def expected(keep: npt.NDArray[np.bool_]) -> FloatArray:
        kept = keep[source] & keep[target]
        q = csc_matrix((p[kept], (source[kept], target[kept])), shape=(n, n))
        reach = splu((identity(n, format="csc") - q).tocsc()).solve(gain * keep[:, None])
        return np.asarray((start * keep) @ reach)

    total = expected(np.ones(n, dtype=np.bool_))
    lost = np.array([total - expected(ends != channel) for channel in range(n_channels)])
    return total, lost
