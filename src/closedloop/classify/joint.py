"""Ranks, probability of the best and expected loss when untagged conversions and spend may be anyone's, but only once.

Law of this file: draws and pools in, bounds out. Each number is the least, or the greatest, over all ways to share the pools out among
the arms: what goes to one is gone for the others.

- Best rank, greatest P(best), least expected loss of an arm: its own share of the conversions' pool is all that it can own, the others
  get none; untagged spend goes where it hurts its rivals most, while it lasts. Sharp where all untagged events lack the same tags and
  all spend is tagged.
- Worst rank: the pool lifts as many rivals over the arm as it can, the cheapest first. Least P(best): some rival that could be lifted
  over it is. Both choose anew for each joint draw, so they are outer bounds of what one way of sharing out, unknown but fixed, can do.

With several patterns of missing tags, arms that agree on the tags that every pattern knows draw on the sum of their pools, each no more
than what could be its own: again an outer bound. An arm's share is spread over the past alike.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.classify.ranking import Ranking, highest
from closedloop.records.interval import FloatArray
from closedloop.records.pool import Pool

Index = npt.NDArray[np.intp]
Draw = Callable[[np.random.Generator, int, Index], tuple[FloatArray, FloatArray]]

_ALL = 100  # up to so many arms ranks are drawn; beyond, each rank is that of the arm's quantiles among all arms
_CELLS = 100_000  # draws times arms
_KNOTS = 64
_PLACES = np.linspace(0.025, 0.975, 20)  # of the returns of arms that are no contenders


@attrs.frozen(kw_only=True, eq=False)
class Ranges:
    """Least and greatest of each number over all ways to share out, shape (A,) each."""

    p_best: tuple[FloatArray, FloatArray]
    loss: tuple[FloatArray, FloatArray]
    rank: tuple[FloatArray, FloatArray]


def met(need: FloatArray, supply: FloatArray, block: Index) -> FloatArray:
    """Return how many needs the supplies can meet at most, shape (D,): the smallest of each block first.

    Args:
        need: Shape (D, A); infinite for what cannot be met.
        supply: Of each block, shape (blocks,).
        block: Shape (A,).
    """
    within = supply[block]
    need = np.minimum(need, 2.0 * within + 1.0)  # more than there is, but finite
    order = np.argsort(need, axis=1)
    order = np.take_along_axis(order, np.argsort(block[order], axis=1, kind="stable"), axis=1)
    spent = np.cumsum(np.take_along_axis(need, order, axis=1), axis=1)
    sizes = np.bincount(block, minlength=len(supply))
    before = np.append(0, np.cumsum(sizes)[:-1])  # where each block begins, once sorted
    begun = np.concatenate([np.zeros((len(need), 1)), spent], axis=1)[:, before]
    sorted_block = np.repeat(np.arange(len(supply)), sizes)
    return np.asarray((spent - begun[:, sorted_block] <= supply[sorted_block] * (1.0 + 1e-12)).sum(axis=1), dtype=np.float64)


@attrs.frozen(kw_only=True, eq=False)
class Arms:
    """Draws of what arms return, and what more they could own.

    Args:
        own, most: Return of the tagged, and with all untagged conversions that could be the arm's, coupled, shape (D, A).
        base: Spend (or exposure) that returns are compared by, shape (A,).
        returns, bases: Pools of untagged conversions, and of the base: what each arm could own (A,), its block (A,), supply (blocks,).
    """

    own: FloatArray
    most: FloatArray
    base: FloatArray
    returns: tuple[FloatArray, Index, FloatArray]
    bases: tuple[FloatArray, Index, FloatArray]

    def lifted(self, bar: FloatArray) -> FloatArray:
        """Return what share of the pool each arm needs so that its return exceeds the bar, shape (D, A); infinite if it cannot."""
        short, more = np.maximum(bar * self.base - self.own, 0.0), self.most - self.own
        share = np.divide(short, more, out=np.where(short > 0, np.inf, 0.0), where=more > 0)
        return np.where(share <= 1.0, np.minimum(share, 1.0) * self.returns[0], np.inf)

    def lowered(self, bar: FloatArray) -> FloatArray:
        """Return how much more base brings each arm down to the bar, shape (D, A); infinite if what could be its own does not."""
        more = np.maximum(self.own / bar - self.base, 0.0)
        return np.where(more <= self.bases[0], more, np.inf)

    def above(self, worst: FloatArray) -> FloatArray:
        """Return how many arms at most can be above a bar, shape (D,), for a bar of shape (D, 1)."""
        return met(self.lifted(worst), self.returns[2], self.returns[1])

    def left(self, best: FloatArray) -> FloatArray:
        """Return how many arms at least are left above a bar, shape (D,), for a bar of shape (D, 1)."""
        rivals = (self.own > best * self.base).sum(axis=1)
        needs = self.lowered(best)
        lowered = met(np.where(self.own > best * self.base, needs, np.inf), self.bases[2], self.bases[1])
        return np.asarray(rivals - lowered, dtype=np.float64)

    def ranks(self, i: int) -> tuple[FloatArray, FloatArray]:
        """Return the best and the worst rank of one arm in each draw, shape (D,) each."""
        best, worst = self.most[:, i] / self.base[i], self.own[:, i] / (self.base[i] + self.bases[0][i])
        others = attrs.evolve(self, own=self.own.copy(), most=self.most.copy())
        others.own[:, i] = others.most[:, i] = -1.0  # no rival of its own
        return 1.0 + others.left(best[:, None]), 1.0 + others.above(worst[:, None])


def ranges(
    ranking: Ranking,
    draw: Draw,
    points: tuple[FloatArray, FloatArray],
    base: FloatArray,
    pools: tuple[Pool, Pool],
    comparable: npt.NDArray[np.bool_],
    *,
    level: float,
    seed: int,
) -> Ranges:
    """Return bounds of every number of a ranking.

    Args:
        ranking: The numbers if tags are lost at random; they lie inside.
        draw: Returns draws of the return (tagged alone; with all that could be the arm's), shape (D, M) each, for M positions.
        points: Quantiles 1/6, 1/2 and 5/6 of both, shape (3, A) each.
        base: Spend or exposure, tagged, shape (A,).
        pools: Of untagged conversions, and of the base.
        comparable: As in `rank_arms`.
        level: Level of the rank intervals.
        seed: Seed of the draws.
    """
    n, at, tail = len(base), np.flatnonzero(comparable), (1.0 - level) / 2.0
    p_low, p_high = np.zeros(n), np.where(comparable, 0.0, ranking.p_best)
    loss_low, loss_high = ranking.expected_loss.copy(), ranking.expected_loss.copy()
    rank_low, rank_high = ranking.rank_low.copy(), ranking.rank_high.copy()
    if len(at):
        log = np.log(np.maximum(points[1][:, at] / base[at], 1e-300))
        chosen = at[highest(2.0 * log[2] - log[1], _ALL)]
        size = int(np.clip(_CELLS // len(chosen), 400, 2000))
        own, most = draw(np.random.default_rng([seed, 5]), size, chosen)
        arms = _arms(own, most, base, pools, chosen)
        per_own, per_most = own / (arms.base + arms.bases[0]), most / arms.base
        top, lower = per_most.max(axis=1), per_own.max(axis=1)
        for i, arm in enumerate(chosen.tolist()):  # contenders, a hundred at most
            best, worst = arms.ranks(i)
            p_low[arm], p_high[arm] = (worst == 1.0).mean(), (best == 1.0).mean()
            rank_low[arm] = min(rank_low[arm], np.quantile(best, tail, method="inverted_cdf"))
            rank_high[arm] = max(rank_high[arm], np.quantile(worst, 1.0 - tail, method="inverted_cdf"))
        highs, lows = per_most.mean(axis=0), per_own.mean(axis=0)
        without = np.array(
            [np.maximum(per_most[:, i], np.delete(per_own, i, axis=1).max(axis=1, initial=0.0)).mean() for i in range(len(chosen))]
        )
        loss_low[chosen] = np.minimum(loss_low[chosen], np.clip(1.0 - highs / np.maximum(without, 1e-300), 0.0, 1.0))
        loss_high[chosen] = np.maximum(loss_high[chosen], np.clip(1.0 - lows / max(float(top.mean()), 1e-300), 0.0, 1.0))
        if len(at) > len(chosen):
            rest = np.setdiff1d(at, chosen)
            few, many = _quantiles(points[0][:, rest] / (base[rest] + pools[1].own[rest])), _quantiles(points[1][:, rest] / base[rest])
            p_high[rest] = (np.searchsorted(np.sort(lower), many) / size).mean(axis=0)
            loss_low[rest] = np.minimum(loss_low[rest], np.clip(1.0 - many.mean(axis=0) / lower.mean(), 0.0, 1.0))
            loss_high[rest] = np.maximum(loss_high[rest], np.clip(1.0 - few.mean(axis=0) / top.mean(), 0.0, 1.0))
            low, high = _ranks_among_many(points, base, pools, at, tail)
            rank_low[at], rank_high[at] = np.minimum(ranking.rank_low[at], low), np.maximum(ranking.rank_high[at], high)
    p_low, p_high = np.minimum(p_low, ranking.p_best), np.maximum(p_high, ranking.p_best)
    return Ranges(p_best=(p_low, p_high), loss=(loss_low, loss_high), rank=(rank_low, rank_high))


def _arms(own: FloatArray, most: FloatArray, base: FloatArray, pools: tuple[Pool, Pool], at: Index) -> Arms:
    returns, bases = ((p.own[at], p.block[at], p.supply) for p in pools)
    return Arms(own=own, most=most, base=base[at], returns=returns, bases=bases)


def _quantiles(points: FloatArray, probits: FloatArray | None = None) -> FloatArray:
    """Return quantiles of returns of which three are known, about Normal in the logarithm, shape (L, A)."""
    from scipy import special

    z = special.ndtri(_PLACES) if probits is None else probits
    log = np.log(np.maximum(points, 1e-300))
    sd = np.maximum(log[2] - log[0], 1e-12) / (2 * 0.9674215661017014)
    return np.asarray(np.exp(log[1] + z[:, None] * sd))


def _ranks_among_many(
    points: tuple[FloatArray, FloatArray], base: FloatArray, pools: tuple[Pool, Pool], at: Index, tail: float
) -> tuple[FloatArray, FloatArray]:
    """Return best and worst rank of each of many arms: of its quantiles among the medians of the others, on a grid of returns."""
    from scipy import special

    own, most = points[0][:, at], points[1][:, at]
    arms = _arms(own[1:2], np.maximum(most[1:2], own[1:2]), base, pools, at)
    reach = np.array([special.ndtri(tail), -special.ndtri(tail)])
    worst = _quantiles(own, reach[:1])[0] / (arms.base + arms.bases[0])
    best = _quantiles(most, reach[1:])[0] / arms.base

    def on_grid(values: FloatArray, count: Callable[[FloatArray], FloatArray]) -> FloatArray:
        knots = np.quantile(values, np.linspace(0.0, 1.0, _KNOTS))
        found = np.array([count(np.array([[x]]))[0] for x in knots])
        return np.asarray(np.interp(values, knots, found))

    low = on_grid(best, arms.left)
    high = on_grid(worst, arms.above)  # the arm itself is among those above
    return np.clip(np.floor(1.0 + low), 1.0, len(at)), np.clip(np.ceil(high), 1.0, len(at))
