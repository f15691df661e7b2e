"""Models that look at all journeys at once, and their bootstrap: Markov of any order, fractribution, the rate game.

Law of this file: from path counts to the credit of each channel, and to B replicates of it from the Poisson bootstrap over journeys.
Sums that determine a Markov chain are linear in the journeys, so all replicates are one sparse product (or, of very many journeys, one
product with block sums that has the same covariance).
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.attribute import coalitions, fractribution, markov
from closedloop.attribute.paths import PathCounts
from closedloop.records.interval import FloatArray
from closedloop.stats.bootstrap import BLOCKS, block_replicates, poisson_weights

GLOBAL = ("markov", "fractribution", "shapley_rate")
_EXACT = 4_000_000  # Poisson numbers up to which every journey is drawn on its own
_LIGHT = 8  # rows of at most so many journeys are taken apart when there are very many
Draws = tuple[list[FloatArray], list[FloatArray]]


def global_credits(paths: PathCounts, model: str, order: int, replicates: int, rng: np.random.Generator) -> Draws:
    """Return the credited conversions and revenue of each channel (for Markov also removal effects), and replicates of them.

    Args:
        paths: P journeys over C channels, with at least one touch.
        model: One of `GLOBAL`.
        order: Order of the Markov chain.
        replicates: Number of bootstrap replicates B.
        rng: Where chance comes from.

    Returns:
        Arrays of shape (C,), and arrays of shape (B, C).
    """
    if model == "markov":
        return _markov(paths, order, replicates, rng)
    return (_fractribution if model == "fractribution" else _rate)(paths, replicates, rng)


def _split(effects: FloatArray, total: FloatArray) -> FloatArray:
    """Return totals shared in proportion to effects, evenly over nothing (no effect anywhere means nothing converted)."""
    sums = effects.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(effects, sums, out=np.zeros_like(effects), where=sums != 0) * total[..., None])


def _mean_value(paths: PathCounts) -> FloatArray:
    return np.divide(paths.value, paths.conversions, out=np.zeros(len(paths)), where=paths.conversions > 0)


def _markov(paths: PathCounts, order: int, replicates: int, rng: np.random.Generator) -> Draws:
    links = markov.chain(paths, order)
    steps = markov.steps_of(paths, links)
    c = len(paths.channels)
    won, worth, _ = markov.removal_effects(links, steps, c)
    points = [_split(won, np.asarray(steps.conversions.sum())), _split(worth, np.asarray(steps.value.sum())), won]
    b = markov_replicates(paths, links, replicates, rng)
    won_b, worth_b, _ = markov.removal_effects(links, b, c)
    return points, [_split(won_b, b.conversions.sum(axis=1)), _split(worth_b, b.value.sum(axis=1)), won_b]


def markov_replicates(paths: PathCounts, links: markov.Chain, replicates: int, rng: np.random.Generator) -> markov.Steps:
    """Return the sums that determine the chain for each replicate of the Poisson bootstrap over journeys."""
    n, f = links.n_states, len(links.source)
    total = paths.conversions + paths.nulls
    blocked = np.zeros(len(paths), dtype=np.bool_)
    if 2 * len(paths) * replicates > _EXACT:
        whole = (paths.conversions == np.floor(paths.conversions)) & (paths.nulls == np.floor(paths.nulls))
        blocked = whole & (total <= _LIGHT)
    blocked |= total == 0.0  # no journeys: nothing to draw
    parts = []
    if not blocked.all():
        parts.append(_drawn_one_by_one(paths, links, np.flatnonzero(~blocked), replicates, rng))
    if total[blocked].any():
        parts.append(_drawn_in_blocks(paths, links, blocked & (total > 0.0), replicates, rng))
    drawn = np.maximum(sum(parts[1:], start=parts[0]), 0.0) if parts else np.zeros((replicates, f + 3 * n))
    return markov.Steps(moves=drawn[:, :f], conversions=drawn[:, f : f + n], value=drawn[:, f + n : f + 2 * n], nulls=drawn[:, f + 2 * n :])


def _drawn_one_by_one(
    paths: PathCounts, links: markov.Chain, rows: npt.NDArray[np.int64], replicates: int, rng: np.random.Generator
) -> FloatArray:
    from scipy.sparse import csr_matrix

    final, moves, n = _features(paths, links, rows)
    k = len(rows)
    touched = np.flatnonzero(final >= 0)
    steps = csr_matrix((np.ones(len(moves[0])), moves), shape=(k, len(links.source)))
    exits = csr_matrix((np.ones(len(touched)), (touched, final[touched])), shape=(k, n))
    mean = _mean_value(paths)[rows]
    parts = []
    chunk = max(1, 2_000_000 // max(1, k))
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        won, lost = poisson_weights(paths.conversions[rows], size, rng), poisson_weights(paths.nulls[rows], size, rng)
        products = ((won + lost) @ steps, won @ exits, (won * mean) @ exits, lost @ exits)
        parts.append(np.concatenate([np.asarray(x) for x in products], axis=1))
    return np.concatenate(parts)


def _features(
    paths: PathCounts, links: markov.Chain, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], int]:
    """Return the last state of each row (-1 without touch), and its steps as (position in ``rows``, kind of step)."""
    lengths = paths.lengths[rows]
    ends = np.cumsum(lengths)
    place = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(paths.starts[rows] - (ends - lengths), lengths)
    final = np.where(lengths > 0, links.state[np.maximum(paths.starts[1:][rows] - 1, 0)], -1)
    return final.astype(np.int64), (np.repeat(np.arange(len(rows)), lengths), links.step[place]), links.n_states


def _drawn_in_blocks(
    paths: PathCounts, links: markov.Chain, mask: npt.NDArray[np.bool_], replicates: int, rng: np.random.Generator
) -> FloatArray:
    n, f = links.n_states, len(links.source)
    if not (mask.all() and bool(((paths.conversions + paths.nulls) == 1.0).all())):  # one journey a row
        paths, links = _one_each(paths, links, mask)
    block = rng.integers(0, BLOCKS, len(paths), dtype=np.int32)
    sums = np.zeros((BLOCKS, f + 3 * n))
    of_touch = np.repeat(block.astype(np.int64) * f, paths.lengths)
    of_touch += links.step
    sums[:, :f] = np.bincount(of_touch, minlength=BLOCKS * f).reshape(BLOCKS, f)
    touched = np.flatnonzero(paths.lengths)
    at = block[touched].astype(np.int64) * n + links.state[paths.starts[1:][touched] - 1]
    for i, column in enumerate((paths.conversions, paths.value, paths.nulls)):
        part = np.bincount(at, weights=column[touched], minlength=BLOCKS * n).reshape(BLOCKS, n)
        sums[:, f + i * n : f + (i + 1) * n] = part
    return block_replicates(sums, replicates, rng)


def _one_each(paths: PathCounts, links: markov.Chain, mask: npt.NDArray[np.bool_]) -> tuple[PathCounts, markov.Chain]:
    """Return the journeys of the masked rows one by one, converted ones first."""
    won, lost = (np.where(mask, c, 0.0).astype(np.int64) for c in (paths.conversions, paths.nulls))
    rows = np.concatenate([np.repeat(np.arange(len(paths)), won), np.repeat(np.arange(len(paths)), lost)])
    lengths = paths.lengths[rows]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    place = np.arange(int(starts[-1])) + np.repeat(paths.starts[rows] - starts[:-1], lengths)
    converted = (np.arange(len(rows)) < won.sum()).astype(np.float64)
    single = attrs.evolve(
        paths,
        codes=paths.codes[place],
        starts=starts,
        conversions=converted,
        value=converted * _mean_value(paths)[rows],
        nulls=1.0 - converted,
    )
    return single, attrs.evolve(links, state=links.state[place], step=links.step[place])


def _fractribution(paths: PathCounts, replicates: int, rng: np.random.Generator) -> Draws:
    paths = paths.distinct()
    left = fractribution.without_each(paths)
    c, rows = len(paths.channels), paths.journey
    mean = _mean_value(paths)

    def credits(won: FloatArray, lost: FloatArray, worth: FloatArray) -> list[FloatArray]:
        w = fractribution.touch_weights(paths, left, won, lost)
        share = w / np.bincount(rows, weights=w, minlength=len(paths))[rows]
        return [np.bincount(paths.codes, weights=share * x[rows], minlength=c).astype(np.float64) for x in (won, worth)]

    points = credits(paths.conversions, paths.nulls, paths.value)
    draws: list[list[FloatArray]] = [[], []]
    for _ in range(replicates):
        won, lost = rng.poisson(paths.conversions).astype(np.float64), rng.poisson(paths.nulls).astype(np.float64)
        for store, x in zip(draws, credits(won, lost, won * mean), strict=True):
            store.append(x)
    return points, [np.array(d) for d in draws]


def _rate(paths: PathCounts, replicates: int, rng: np.random.Generator) -> Draws:
    paths = attrs.evolve(paths, **{k: np.where(paths.lengths > 0, getattr(paths, k), 0.0) for k in ("conversions", "value", "nulls")})

    def credits(p: PathCounts) -> list[FloatArray]:
        won = coalitions.shapley_values(coalitions.rate_game(p))
        game = coalitions.rate_game(attrs.evolve(p, conversions=p.value, nulls=p.conversions + p.nulls - p.value))
        worth = coalitions.shapley_values(game)
        return [_split(won, np.asarray(p.conversions.sum())), _split(worth, np.asarray(p.value.sum()))]

    points = credits(paths)
    mean = _mean_value(paths)
    drawn = []
    for _ in range(replicates):
        won, lost = rng.poisson(paths.conversions).astype(np.float64), rng.poisson(paths.nulls).astype(np.float64)
        drawn.append(credits(attrs.evolve(paths, conversions=won, value=won * mean, nulls=lost)))
    return points, [np.array(d) for d in zip(*drawn, strict=True)]
