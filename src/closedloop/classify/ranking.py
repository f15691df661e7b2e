"""Order of arms, probability of being the best and expected loss, from joint posterior draws.

Law of this file: arrays in, arrays out; arms that cannot be the best are not drawn (probability 0), so cost stays linear in
the number of arms.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray

_CONTENDERS = 200


@attrs.frozen(kw_only=True, eq=False)
class Ranking:
    """What the ranking found, per arm (A arms).

    Args:
        order: Positions, best first.
        p_better: Probability of being better than another arm drawn at random.
        p_best: Probability of being the best; sums to 1.
        expected_loss: Expected loss of choosing the arm, as a share of the best's return.
    """

    order: npt.NDArray[np.int64]
    p_better: FloatArray
    p_best: FloatArray
    expected_loss: FloatArray


def rank_arms(
    low: FloatArray,
    middle: FloatArray,
    high: FloatArray,
    draw: Callable[[npt.NDArray[np.intp]], FloatArray],
    comparable: npt.NDArray[np.bool_],
) -> Ranking:
    """Rank arms by the probability of being the better of two.

    Args:
        low, middle, high: Quantiles 1/6, 1/2 and 5/6 of each arm's return, shape (A,): midpoints of three equal slices.
        draw: Returns joint draws of the return, shape (D, M), for M positions.
        comparable: False for arms whose return has no common unit with the others'; they come last.

    Returns:
        A `Ranking`; with no comparable arm all are equal.
    """
    n = len(middle)
    p_better, p_best, loss = np.zeros(n), np.zeros(n), np.ones(n)
    at = np.flatnonzero(comparable)
    if len(at):
        points = np.stack([low[at], middle[at], high[at]])
        pool = np.sort(points, axis=None)
        # Ties count half, so equal arms get one half each.
        place = np.searchsorted(pool, points, side="left") + np.searchsorted(pool, points, side="right")
        p_better[at] = place.mean(axis=0) / (2.0 * len(pool))
        contenders = at[np.sort(np.lexsort((at, -high[at]))[:_CONTENDERS])]
        draws = draw(contenders)
        best = draws.max(axis=1)
        winners = np.bincount(draws.argmax(axis=1), minlength=len(contenders))
        p_best[contenders] = winners / len(draws)
        typical = float(best.mean())
        mean = np.asarray(draws.mean(axis=0))
        if typical > 0:
            loss[at] = np.clip(1.0 - middle[at] / typical, 0.0, 1.0)
            loss[contenders] = np.clip((typical - mean) / typical, 0.0, 1.0)
        else:
            loss[at] = 0.0
    else:
        p_best[:] = 1.0 / n if n else 0.0
        loss[:] = 0.0
    # Middle, then position, settle ties of probability.
    order = np.lexsort((np.arange(n), -middle, -p_better, ~comparable))
    return Ranking(order=order.astype(np.int64), p_better=p_better, p_best=p_best, expected_loss=loss)
