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

from closedloop.attribute import heuristics
from closedloop.attribute.global_credit import GLOBAL, global_credits
from closedloop.attribute.heuristics import Rule, Touches
from closedloop.attribute.intervals import credit_intervals
from closedloop.attribute.paths import PathCounts, exact_sum
from closedloop.display import frame, html_table, text_table
from closedloop.errors import ConfigurationError
from closedloop.records.arms import IntArray
from closedloop.records.interval import FloatArray, Intervals
from closedloop.stats.bootstrap import percentile_ends

RULES = ("first", "last", "last_non_direct", "linear", "position", "time_decay", "shapley", "ordered_shapley")


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
    lengths, codes = paths.lengths, paths.codes
    if len(at) != len(paths):
        lengths = lengths[at]
        ends = np.cumsum(lengths)
        codes = codes[np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(paths.starts[at] - (ends - lengths), lengths)]
    touches = Touches.of_lengths(lengths, codes.astype(np.int64))
    share = heuristics.shares(touches, rule)
    c = len(paths.channels)
    some = np.flatnonzero(share)
    row, channel, share = touches.journey[some], touches.channel[some], share[some]
    if len(some) != len(at):
        # Touches of one channel in one journey are one credit: only then is the sum of squares that of the journeys' credits.
        row, channel, share = _joined(row, channel, share, len(at), c)
    n, v = paths.conversions[at][row], paths.value[at][row]
    totals = _totals(paths)
    intervals = credit_intervals(channel, share * n, share * share * n, c, level, total=totals[0])
    worth = None
    if totals[1]:
        squares = np.divide((share * v) ** 2, n, out=(share * v) ** 2, where=n > 0)
        worth = credit_intervals(channel, share * v, squares, c, level, total=totals[1])
    return _result(paths, name, intervals, worth, None, totals)


def _joined(row: IntArray, channel: IntArray, share: FloatArray, n: int, c: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the shares with those of one row and channel added."""
    pair = row * c + channel
    if n * c <= 8 * len(pair):
        table = np.bincount(pair, weights=share, minlength=n * c)
        distinct = np.flatnonzero(table)
        return distinct // c, distinct % c, np.asarray(table[distinct], dtype=np.float64)
    distinct, group = np.unique(pair, return_inverse=True)
    return distinct // c, distinct % c, np.bincount(group, weights=share, minlength=len(distinct)).astype(np.float64)


def _totals(paths: PathCounts) -> tuple[float, float]:
    """Return the conversions and the revenue of journeys with a touch."""
    if paths.lengths.all():
        return exact_sum(paths.conversions), exact_sum(paths.value)
    has_touch = paths.lengths > 0
    return exact_sum(paths.conversions[has_touch]), exact_sum(paths.value[has_touch])


def _result(
    paths: PathCounts, name: str, conversions: Intervals, value: Intervals | None, effect: Intervals | None, totals: tuple[float, float]
) -> PathCredits:
    has_touch = paths.lengths > 0
    seen = totals[0] + exact_sum(paths.nulls if has_touch.all() else paths.nulls[has_touch])
    return PathCredits(
        model=name,
        channels=paths.channels,
        conversions=conversions,
        value=value,
        removal_effect=effect,
        conversion_rate=totals[0] / seen if seen > 0 else 0.0,
        uncredited=exact_sum(paths.conversions[~has_touch]),
    )


def _by_global(paths: PathCounts, model: str, order: int, replicates: int, level: float, rng: np.random.Generator) -> PathCredits:
    totals = _totals(paths)
    if not len(paths.codes):  # no touch anywhere: nothing to credit
        none = np.zeros(len(paths.channels))
        empty = Intervals(low=none, estimate=none, high=none, level=level, kind="bootstrap")
        return _result(paths, model, empty, None, None, totals)
    points, draws = global_credits(paths, model, order, replicates, rng)

    def intervals(index: int) -> Intervals:
        point = exactly(points[index], totals[index]) if index < 2 else points[index]
        low, high = percentile_ends(draws[index], level)
        return Intervals(low=np.minimum(low, point), estimate=point, high=np.maximum(high, point), level=level, kind="bootstrap")

    effect = intervals(2) if len(points) > 2 else None
    name = f"{model} order {order}" if model == "markov" else model
    return _result(paths, name, intervals(0), intervals(1) if totals[1] else None, effect, totals)
