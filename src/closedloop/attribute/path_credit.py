"""`attribute_paths`: credit channels on a table of journeys, by any model, with an interval on every credit.

Law of this file: the credits of a model sum to the conversions (and to the revenue) of all journeys that have a touch, exactly; what has
no touch is said aloud as ``uncredited``. Rules that share each conversion inside its own journey have exact Gamma intervals; models that
look at all journeys at once (Markov, fractribution, coalition games) have intervals of the Poisson bootstrap over journeys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.attribute import coalitions, fractribution, heuristics, markov
from closedloop.attribute.heuristics import Rule, Touches
from closedloop.attribute.intervals import credit_intervals
from closedloop.attribute.paths import PathCounts
from closedloop.display import frame, html_table, text_table
from closedloop.errors import ConfigurationError
from closedloop.records.arms import IntArray
from closedloop.records.interval import FloatArray, Intervals
from closedloop.stats.bootstrap import BLOCKS, block_replicates, percentile_ends, poisson_weights

RULES = ("first", "last", "last_non_direct", "linear", "position", "time_decay", "shapley", "ordered_shapley")
GLOBAL = ("markov", "fractribution", "shapley_rate")
_EXACT = 4_000_000  # Poisson numbers up to which every journey is drawn on its own


@attrs.frozen(kw_only=True, eq=False)
class PathCredits:
    """Credit of C channels.

    Args:
        model: Name of the model.
        channels: Names, shape (C,).
        conversions: Credited conversions.
        value: Credited revenue, None where the journeys have none.
        removal_effect: For Markov: share of conversions lost without the channel.
        conversion_rate: Converted share of all journeys with a touch.
        uncredited: Conversions of journeys without any touch.
    """

    model: str
    channels: npt.NDArray[np.object_]
    conversions: Intervals
    value: Intervals | None
    removal_effect: Intervals | None
    conversion_rate: float
    uncredited: float

    def __len__(self) -> int:
        return len(self.channels)

    def to_columns(self) -> Mapping[str, Any]:
        """Return one row per channel."""
        columns: dict[str, Any] = {"channel": self.channels}
        for name in ("conversions", "value", "removal_effect"):
            intervals: Intervals | None = getattr(self, name)
            if intervals is not None:
                columns |= {name: intervals.estimate, f"{name}_low": intervals.low, f"{name}_high": intervals.high}
        return columns

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the credits as a frame."""
        return frame(self.to_columns(), library)

    def _title(self) -> str:
        total = math.fsum(self.conversions.estimate)
        return (
            f"Credit by {self.model}: {total:,.6g} conversions, {self.uncredited:,.6g} uncredited, {self.conversions.level:.0%} intervals"
        )

    def __repr__(self) -> str:
        return text_table({k: list(v) for k, v in self.to_columns().items()}, title=self._title())

    def _repr_html_(self) -> str:
        return html_table({k: list(v) for k, v in self.to_columns().items()}, title=self._title())


def rule_of(
    model: str | Rule,
    channels: Sequence[str],
    *,
    direct: Sequence[str] = (),
    half_life: float = 7.0,
    ends: tuple[float, float] = (0.4, 0.4),
) -> Rule:
    """Return the rule of a name, or the user's own unchanged.

    Raises:
        ConfigurationError: There is no rule of that name, or ``direct`` names no channel for a model that needs it.
    """
    if callable(model):
        return model
    if model == "last_non_direct":
        if not direct:
            raise ConfigurationError("last_non_direct needs to know what direct is", "direct", None, "name the direct channels")
        return heuristics.last_non_direct(np.isin(np.asarray(channels, dtype=object), list(direct)))
    table: dict[str, Callable[[], Rule]] = {
        "first": lambda: heuristics.first,
        "last": lambda: heuristics.last,
        "linear": lambda: heuristics.linear,
        "position": lambda: heuristics.position_based(ends),
        "time_decay": lambda: heuristics.time_decay(half_life),
        "shapley": lambda: heuristics.shapley,
        "ordered_shapley": lambda: heuristics.shapley,
    }
    if model not in table:
        raise ConfigurationError("unknown attribution model", "model", model, "or give a function of Touches", (*RULES, *GLOBAL))
    return table[model]()


def exactly(credits: FloatArray, total: float) -> FloatArray:
    """Return the credits with the last rounding errors moved into the largest, so that they sum to ``total``."""
    out = credits.copy()
    for _ in range(4):
        gap = total - math.fsum(out)
        if gap == 0.0 or not len(out):
            break
        out[int(np.argmax(np.abs(out)))] += gap
    return out


def attribute_paths(
    paths: PathCounts | Sequence[str] | Sequence[Sequence[str]],
    model: str | Rule = "markov",
    *,
    conversions: Any = None,
    value: Any = None,
    nulls: Any = None,
    order: int = 1,
    direct: Sequence[str] = (),
    half_life: float = 7.0,
    ends: tuple[float, float] = (0.4, 0.4),
    replicates: int = 200,
    level: float = 0.9,
    rng: np.random.Generator | None = None,
) -> PathCredits:
    """Credit the channels of journeys.

    Args:
        paths: Journeys as `PathCounts`, as text ("a > b") or as sequences of channels.
        model: One of `RULES` or `GLOBAL`, or a function that gives each touch a weight.
        conversions, value, nulls: Counts by path, where ``paths`` is no `PathCounts`.
        order: Order of the Markov chain.
        direct: Channels that ``last_non_direct`` passes over.
        half_life: For ``time_decay``, in touches (journeys on paths have no times).
        ends: Shares of the first and the last touch for ``position``.
        replicates: Bootstrap replicates for global models, at least 20.
        level: Level of the intervals.
        rng: Where the bootstrap takes its chance from; a generator seeded with 0 when None.

    Raises:
        ConfigurationError: The model or an option is not valid.
        InputError: A path or count is not valid.

    >>> credits = attribute_paths(["a > b", "b"], "linear", conversions=[2, 1])
    >>> dict(zip(credits.channels, credits.conversions.estimate.tolist()))
    {'a': 1.0, 'b': 2.0}
    """
    if not isinstance(paths, PathCounts):
        paths = PathCounts.of(paths, conversions=conversions, value=value, nulls=nulls)
    elif conversions is not None or value is not None or nulls is not None:
        raise ConfigurationError("counts are inside PathCounts already", "conversions", None, "give them there")
    if not 0.0 < level < 1.0 or replicates < 20:
        raise ConfigurationError("a level lies between 0 and 1, and a bootstrap has at least 20 replicates", "level", (level, replicates))
    rng = rng if rng is not None else np.random.default_rng(0)
    if not callable(model) and model in GLOBAL:
        return _by_global(paths, model, order, replicates, level, rng)
    rule = rule_of(model, list(paths.channels), direct=direct, half_life=half_life, ends=ends)
    return _by_rule(paths, model if isinstance(model, str) else getattr(model, "__name__", "own"), rule, level)


def _by_rule(paths: PathCounts, name: str, rule: Rule, level: float) -> PathCredits:
    at = np.flatnonzero(((paths.conversions > 0) | (paths.value > 0)) & (paths.lengths > 0))  # most journeys do not convert
    lengths = paths.lengths[at]
    journey = np.repeat(at, lengths)
    ends = np.cumsum(lengths)
    place = np.arange(len(journey)) + np.repeat(paths.starts[at] - (ends - lengths), lengths)
    touches = Touches.of(journey, paths.codes[place].astype(np.int64))
    share = heuristics.shares(touches, rule)
    c = len(paths.channels)
    # Touches of one channel in one journey are one credit: only then is the sum of squares that of the journeys' credits.
    pair, group = np.unique(journey * max(c, 1) + touches.channel, return_inverse=True)
    share = np.bincount(group, weights=share, minlength=len(pair)).astype(np.float64)
    row, channel = pair // max(c, 1), pair % max(c, 1)
    n, v = paths.conversions[row], paths.value[row]
    intervals = credit_intervals(channel, share * n, share * share * n, c, level, total=_totals(paths)[0])
    worth = None
    if paths.value.any():
        squares = np.divide((share * v) ** 2, n, out=(share * v) ** 2, where=n > 0)
        worth = credit_intervals(channel, share * v, squares, c, level, total=_totals(paths)[1])
    return _result(paths, name, intervals, worth, None)


def _totals(paths: PathCounts) -> tuple[float, float]:
    has_touch = paths.lengths > 0
    return math.fsum(paths.conversions[has_touch]), math.fsum(paths.value[has_touch])


def _result(paths: PathCounts, name: str, conversions: Intervals, value: Intervals | None, effect: Intervals | None) -> PathCredits:
    has_touch = paths.lengths > 0
    won, seen = _totals(paths)[0], math.fsum((paths.conversions + paths.nulls)[has_touch])
    return PathCredits(
        model=name,
        channels=paths.channels,
        conversions=conversions,
        value=value,
        removal_effect=effect,
        conversion_rate=won / seen if seen > 0 else 0.0,
        uncredited=math.fsum(paths.conversions[~has_touch]),
    )


def _by_global(paths: PathCounts, model: str, order: int, replicates: int, level: float, rng: np.random.Generator) -> PathCredits:
    compute = {"markov": _markov, "fractribution": _fractribution, "shapley_rate": _rate}[model]
    if not len(paths.codes):  # no touch anywhere: nothing to credit
        none = np.zeros(len(paths.channels))
        empty = Intervals(low=none, estimate=none, high=none, level=level, kind="bootstrap")
        return _result(paths, model, empty, None, None)
    points, draws = compute(paths, order, replicates, rng)
    total = _totals(paths)

    def intervals(index: int) -> Intervals:
        point = exactly(points[index], total[index]) if index < 2 else points[index]
        low, high = percentile_ends(draws[index], level)
        return Intervals(low=np.minimum(low, point), estimate=point, high=np.maximum(high, point), level=level, kind="bootstrap")

    effect = intervals(2) if len(points) > 2 else None
    name = f"{model} order {order}" if model == "markov" else model
    return _result(paths, name, intervals(0), intervals(1) if paths.value.any() else None, effect)


def _split(effects: FloatArray, total: FloatArray) -> FloatArray:
    """Return totals shared in proportion to effects, evenly over nothing (no effect anywhere means nothing converted)."""
    sums = effects.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(effects, sums, out=np.zeros_like(effects), where=sums != 0) * total[..., None])


def _markov(paths: PathCounts, order: int, replicates: int, rng: np.random.Generator) -> tuple[list[FloatArray], list[FloatArray]]:
    links = markov.chain(paths, order)
    steps = markov.steps_of(paths, links)
    c = len(paths.channels)
    won, worth, _ = markov.removal_effects(links, steps, c)
    points = [_split(won, np.asarray(steps.conversions.sum())), _split(worth, np.asarray(steps.value.sum())), won]
    b = _markov_replicates(paths, links, replicates, rng)
    won_b, worth_b, _ = markov.removal_effects(links, b, c)
    return points, [_split(won_b, b.conversions.sum(axis=1)), _split(worth_b, b.value.sum(axis=1)), won_b]


def _markov_replicates(paths: PathCounts, links: markov.Chain, replicates: int, rng: np.random.Generator) -> markov.Steps:
    touched = np.flatnonzero(paths.lengths > 0)
    final = np.zeros(len(paths), dtype=np.int64)
    final[touched] = links.state[paths.starts[1:][touched] - 1]
    n, f = links.n_states, len(links.source)
    single = bool((paths.conversions + paths.nulls <= 1.0).all())
    if 2 * len(paths) * replicates > _EXACT and single:
        return _block_replicates(paths, links, touched, final, replicates, rng)
    from scipy.sparse import csr_matrix

    rows = paths.journey
    moves = csr_matrix((np.ones(len(rows)), (rows, links.step)), shape=(len(paths), f))
    exits = csr_matrix((np.ones(len(touched)), (touched, final[touched])), shape=(len(paths), n))
    mean = np.divide(paths.value, paths.conversions, out=np.zeros(len(paths)), where=paths.conversions > 0)
    parts: list[tuple[FloatArray, ...]] = []
    chunk = max(1, 2_000_000 // max(1, len(paths)))
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        won, lost = poisson_weights(paths.conversions, size, rng), poisson_weights(paths.nulls, size, rng)
        parts.append(tuple(np.asarray(x) for x in ((won + lost) @ moves, won @ exits, (won * mean) @ exits, lost @ exits)))
    m, won_sum, worth_sum, lost_sum = (np.concatenate([np.asarray(p[i]) for p in parts]) for i in range(4))
    return markov.Steps(moves=m, conversions=won_sum, value=worth_sum, nulls=lost_sum)


def _block_replicates(
    paths: PathCounts, links: markov.Chain, touched: IntArray, final: IntArray, replicates: int, rng: np.random.Generator
) -> markov.Steps:
    n, f = links.n_states, len(links.source)
    width = f + 3 * n
    block = rng.integers(0, BLOCKS, len(paths), dtype=np.int32)
    sums = np.zeros((BLOCKS, width))
    weights = paths.conversions + paths.nulls
    active = None if weights.all() else np.repeat(weights > 0, paths.lengths)
    of_touch = np.repeat(block.astype(np.int64) * f, paths.lengths) + links.step
    sums[:, :f] = np.bincount(of_touch if active is None else of_touch[active], minlength=BLOCKS * f).reshape(BLOCKS, f)
    at = block[touched].astype(np.int64) * n + final[touched]
    for i, column in enumerate((paths.conversions, paths.value, paths.nulls)):
        part = np.bincount(at, weights=column[touched], minlength=BLOCKS * n).reshape(BLOCKS, n)
        sums[:, f + i * n : f + (i + 1) * n] = part
    drawn = block_replicates(sums, float(weights.sum()), replicates, rng)
    return markov.Steps(moves=drawn[:, :f], conversions=drawn[:, f : f + n], value=drawn[:, f + n : f + 2 * n], nulls=drawn[:, f + 2 * n :])


def _fractribution(paths: PathCounts, _: int, replicates: int, rng: np.random.Generator) -> tuple[list[FloatArray], list[FloatArray]]:
    paths = paths.distinct()
    left = fractribution.without_each(paths)
    c, rows = len(paths.channels), paths.journey
    mean = np.divide(paths.value, paths.conversions, out=np.zeros(len(paths)), where=paths.conversions > 0)

    def credits(won: FloatArray, lost: FloatArray, worth: FloatArray) -> tuple[FloatArray, FloatArray]:
        w = fractribution.touch_weights(paths, left, won, lost)
        share = w / np.bincount(rows, weights=w, minlength=len(paths))[rows]
        return tuple(np.bincount(paths.codes, weights=share * x[rows], minlength=c) for x in (won, worth))  # type: ignore[return-value]

    points = list(credits(paths.conversions, paths.nulls, paths.value))
    draws: list[list[FloatArray]] = [[], []]
    for _i in range(replicates):
        won, lost = rng.poisson(paths.conversions).astype(np.float64), rng.poisson(paths.nulls).astype(np.float64)
        for store, x in zip(draws, credits(won, lost, won * mean), strict=True):
            store.append(x)
    return points, [np.array(d) for d in draws]


def _rate(paths: PathCounts, _: int, replicates: int, rng: np.random.Generator) -> tuple[list[FloatArray], list[FloatArray]]:
    paths = attrs.evolve(paths, **{k: np.where(paths.lengths > 0, getattr(paths, k), 0.0) for k in ("conversions", "value", "nulls")})

    def credits(p: PathCounts) -> tuple[FloatArray, FloatArray]:
        won, worth = coalitions.shapley_values(coalitions.rate_game(p)), np.zeros(0)
        game = coalitions.rate_game(attrs.evolve(p, conversions=p.value, nulls=p.conversions + p.nulls - p.value))
        worth = coalitions.shapley_values(game)
        return _split(won, np.asarray(p.conversions.sum())), _split(worth, np.asarray(p.value.sum()))

    points = list(credits(paths))
    mean = np.divide(paths.value, paths.conversions, out=np.zeros(len(paths)), where=paths.conversions > 0)
    drawn = []
    for _i in range(replicates):
        won, lost = rng.poisson(paths.conversions).astype(np.float64), rng.poisson(paths.nulls).astype(np.float64)
        drawn.append(credits(attrs.evolve(paths, conversions=won, value=won * mean, nulls=lost)))
    return points, [np.array(d) for d in zip(*drawn, strict=True)]
