"""Order of arms, rank intervals, probability of being the best and expected loss, from joint posterior draws.

Law of this file: arrays in, arrays out; arms that cannot be the best are not drawn (probability 0), so cost stays linear in
the number of arms.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray

Cdf = Callable[[FloatArray, npt.NDArray[np.intp]], FloatArray]
Draw = Callable[[np.random.Generator, int, npt.NDArray[np.intp]], FloatArray]

_CONTENDERS = 100
_JOINT_DRAWS = 400
_KNOTS = 4096
_SORTED = 131_072  # points that are sorted at most
_NODES = 48  # points at which distribution functions of contenders are known
_RARE = 1e-4  # probability of the best beyond the points
_REACH = 4.5  # standard deviations of the logarithm that the points span
_JOINT = 100  # up to so many arms ranks are drawn jointly; beyond, each rank is that of the arm's quantile among all arms


@attrs.frozen(kw_only=True, eq=False)
class Ranking:
    """What the ranking found, per arm (A arms).

    Args:
        order: Positions, best first: by the probability of being the better of two arms, the other drawn at random.
        rank, rank_low, rank_high: The arm's rank (1 is best), median and interval.
        p_best: Probability of being the best; sums to 1.
        expected_loss: Expected loss of choosing the arm, as a share of the best's return.
    """

    order: npt.NDArray[np.int64]
    rank: FloatArray
    rank_low: FloatArray
    rank_high: FloatArray
    p_best: FloatArray
    expected_loss: FloatArray


def rank_arms(
    points: FloatArray,
    means: FloatArray,
    draw: Draw,
    comparable: npt.NDArray[np.bool_],
    *,
    level: float,
    seed: int,
    draws: int,
    cdf: Cdf | None = None,
) -> Ranking:
    """Rank arms by the probability of being the better of two.

    Args:
        points: Quantiles 1/6, 1/2 and 5/6 of each arm's return, shape (3, A): the middles of three equal slices.
        means: Mean of each arm's return, shape (A,).
        draw: Returns joint draws of the return, shape (size, M), for M positions.
        comparable: False for arms whose return has no common unit with the others'; they come last, with the whole range of ranks.
        level: Level of the rank intervals.
        seed: Seed of the draws.
        draws: Joint draws of the contenders.
        cdf: Distribution functions of the returns of M positions at increasing values, shape (X,) to (M, X), where the returns are
            independent: what draws would find is then integrated. None draws.
    """
    n = points.shape[1]
    p_better, p_best, loss = np.zeros(n), np.zeros(n), np.ones(n)
    rank, low, high = np.full(n, (n + 1) / 2.0), np.ones(n), np.full(n, float(n))
    at = np.flatnonzero(comparable)
    tail = (1.0 - level) / 2.0
    if len(at):
        mine = points[:, at]
        pool, place = _places(mine)
        p_better[at] = place.mean(axis=0)
        log = np.log(np.maximum(mine, 1e-300))
        contenders = at[highest(2.0 * log[2] - log[1], _CONTENDERS)]  # about the 97th percentile: the uncertain may be best too
        if cdf is None:
            drawn = draw(np.random.default_rng([seed, 1]), draws, contenders)
            p_best[contenders] = np.bincount(drawn.argmax(axis=1), minlength=len(contenders)) / len(drawn)
            own, typical = drawn.mean(axis=0), float(drawn.max(axis=1).mean())
        else:
            p_best[contenders], typical = _integrated(points[:, contenders], cdf, contenders)
            own = means[contenders]
        if typical > 0:
            loss[at] = np.clip(1.0 - means[at] / typical, 0.0, 1.0)
            loss[contenders] = np.clip(1.0 - own / typical, 0.0, 1.0)
        else:
            loss[at] = 0.0
        if len(at) <= _JOINT:
            joint = draw(np.random.default_rng([seed, 2]), _JOINT_DRAWS, at)
            ranks = np.empty(joint.shape, dtype=np.int64)
            np.put_along_axis(ranks, np.argsort(-joint, axis=1), np.arange(1, len(at) + 1)[None, :], axis=1)
            low[at], rank[at], high[at] = np.quantile(ranks, [tail, 0.5, 1.0 - tail], axis=0, method="inverted_cdf")
            p_better[at] = 1.0 - (ranks.mean(axis=0) - 1.0) / max(len(at) - 1, 1)
        else:
            rank[at], low[at], high[at] = _ranks_of_quantiles(mine, pool, tail)
    else:
        p_best[:] = 1.0 / n if n else 0.0
        loss[:] = 0.0
    # The middle of the return, then position, settle ties; what cannot be compared comes last.
    order = np.lexsort((-points[1], np.where(comparable, -p_better, 1.0)))
    return Ranking(order=order.astype(np.int64), rank=rank, rank_low=low, rank_high=high, p_best=p_best, expected_loss=loss)


def _integrated(points: FloatArray, cdf: Cdf, at: npt.NDArray[np.intp]) -> tuple[FloatArray, float]:
    """Return P(best) of each contender, shape (M,), and the mean of the best, from the contenders' distribution functions.

    The best's distribution function is the product of all; an arm is best at x with its own density times the others' product.
    """
    log = np.log(np.maximum(points, 1e-300))
    reach = _REACH * np.maximum(log[2] - log[0], 1e-9) / (2 * 0.9674215661017014)
    x = np.exp(np.linspace((log[1] - reach).max() - 1e-9, (log[1] + reach).max() + 1e-9, _NODES // 3))
    whole = np.prod(cdf(x, at), axis=0)
    first, last = np.searchsorted(whole, [_RARE, 1.0 - _RARE])
    x = np.exp(np.linspace(np.log(x[max(first - 1, 0)]), np.log(x[min(last, len(x) - 1)]), _NODES))
    below = cdf(x, at)
    middle = np.maximum(0.5 * (below[:, 1:] + below[:, :-1]), 1e-300)
    others = np.exp(np.log(middle).sum(axis=0) - np.log(middle))
    wins = (np.diff(below, axis=1) * others).sum(axis=1)
    whole = np.prod(below, axis=0)
    best = x[0] + ((1.0 - 0.5 * (whole[1:] + whole[:-1])) * np.diff(x)).sum()
    total = wins.sum()
    return np.asarray(wins / total if total > 0 else np.full(len(at), 1.0 / len(at))), float(best)


def highest(values: FloatArray, n: int) -> npt.NDArray[np.intp]:
    """Return the positions of the ``n`` highest values in their order of position; of equal ones the first."""
    if len(values) <= n:
        return np.arange(len(values))
    least = np.partition(values, len(values) - n)[len(values) - n]
    above = np.flatnonzero(values > least)
    return np.sort(np.append(above, np.flatnonzero(values == least)[: n - len(above)]))


def _places(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return all points sorted, and each point's place among them in [0, 1]; ties share their middle, so equal arms get one half each.

    Of very many points an even part is sorted, which says where the others lie.
    """
    flat = points.ravel()
    if len(flat) > _SORTED:
        pool = np.sort(points[:, :: -(-len(flat) // _SORTED)].ravel())
        knots = np.linspace(0, len(pool) - 1, _KNOTS).astype(np.intp)
        return pool, np.interp(points, pool[knots], (knots + 0.5) / len(pool))
    order = np.argsort(flat)
    pool = flat[order]
    new = np.append(True, pool[1:] > pool[:-1])
    first = np.flatnonzero(new)
    middle = first + 0.5 * np.diff(np.append(first, len(pool)))
    place = np.empty(len(pool))
    place[order] = middle[np.cumsum(new) - 1] / len(pool)
    return pool, place.reshape(points.shape)


def _ranks_of_quantiles(points: FloatArray, pool: FloatArray, tail: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return rank, best and worst rank of each arm: the rank of its return's quantiles among the returns of all arms.

    With more than a hundred arms the others' returns are as good as known in distribution. The tails are carried out from the
    slices on the log scale, where returns are about normal.
    """
    from scipy import special

    log = np.log(np.maximum(points, 1e-300))
    sd = np.maximum(log[2] - log[0], 1e-12) / (2 * 0.9674215661017014)
    reach = -special.ndtri(tail) * sd
    n = points.shape[1]
    # A few thousand of the sorted returns, evenly spread, say where a return lies; they stay in the processor's cache.
    knots = np.linspace(0, len(pool) - 1, min(len(pool), _KNOTS)).astype(np.intp)
    place, at = (knots + 0.5) / len(pool), pool[knots]

    def rank(value: FloatArray) -> FloatArray:
        return np.asarray(np.clip(np.round(1.0 + n * (1.0 - np.interp(value, at, place))), 1.0, float(n)))

    middle = rank(points[1])
    return middle, np.minimum(rank(np.exp(log[1] + reach)), middle), np.maximum(rank(np.exp(log[1] - reach)), middle)
