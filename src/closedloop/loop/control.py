"""The loop's own verified gain: the loop against the old rule, on units that take turns in random order.

Law of this file: the coin is the proof. Every unit (a region, a market, a group of users, or the whole account) runs the loop in one
block of each pair of blocks and the old rule in the other, with the same budget; a seeded hash tosses. All conversions count, credited
or not. A slice of *budget* is no control: on a concave curve a small slice earns far more than the average return.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from closedloop.display import frame, html_table, text_table
from closedloop.errors import ConfigurationError, InputError
from closedloop.records.feedback import Finding
from closedloop.records.interval import Interval
from closedloop.stats.switchback import SLOPES, contrasts, gain_sequence, steps

Rule = Literal["loop", "old"]


@attrs.frozen(kw_only=True)
class VerifiedGain:
    """What the loop brings, proved by its own control.

    Args:
        gain: Relative gain of conversions at the same budget (0.1 is 10 % more), an anytime interval.
        n_pairs: Pairs of blocks behind it.
        loop, old: Conversions counted under each rule.
    """

    gain: Interval
    n_pairs: int
    loop: float
    old: float

    @property
    def verdict(self) -> Literal["gain", "harm", "open"]:
        """``gain`` or ``harm`` once the interval lies on one side of zero, else ``open``."""
        return "gain" if self.gain.low > 0 else "harm" if self.gain.high < 0 else "open"

    def finding(self) -> Finding:
        """Return it as a health finding: credible harm is critical, and holds the loop when given to ``run_cycle``."""
        evidence = f"{self.loop:,.0f} conversions under the loop, {self.old:,.0f} under the old rule, {self.n_pairs} randomised pairs"
        harm = self.verdict == "harm"
        mend = "go back to the old rule, and look for what the loop learned wrong" if harm else ""
        severity: Literal["ok", "critical"] = "critical" if harm else "ok"
        return Finding(
            name="verified_gain", severity=severity, scope="account", measured=self.gain, threshold=0.0, evidence=evidence, mend=mend
        )

    def __repr__(self) -> str:
        return f"VerifiedGain({self.gain!r}, {self.verdict}, {self.n_pairs} pairs)"


@attrs.frozen(kw_only=True)
class Switchback:
    """Who runs which rule on which day.

    Args:
        units: Names of the units that can carry their own rule; one name for the whole account is allowed.
        start: First day.
        block_days: Length of a block; whole weeks keep weekdays equal.
        washout_days: First days of each block that are not counted, for what the other rule still brings.
        seed: Seed of the coin; keep it secret from those who plan budgets.

    >>> design = Switchback(units=("north", "south"), start=date(2026, 3, 2), seed=1)
    >>> {design.rule("north", date(2026, 3, 3)), design.rule("north", date(2026, 3, 10))} == {"loop", "old"}
    True
    """

    units: tuple[str, ...] = attrs.field(converter=tuple)
    start: date
    block_days: int = 7
    washout_days: int = 0
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        if not self.units or len(set(self.units)) != len(self.units):
            raise ConfigurationError("a design needs distinct units", "units", self.units)
        if self.block_days < 1 or not 0 <= self.washout_days < self.block_days:
            raise ConfigurationError("a block is longer than its wash-out", "washout_days", (self.block_days, self.washout_days))

    def _place(self, unit: str, day: date) -> tuple[int, int, int]:
        """Return the pair, the block within it, and the day within the block."""
        if unit not in self.units:
            raise ConfigurationError("no such unit", "unit", unit, None, self.units[:20])
        since = (day - self.start).days
        if since < 0:
            raise InputError("the day lies before the start", "day", day.isoformat(), f"the design starts on {self.start.isoformat()}")
        block, inside = divmod(since, self.block_days)
        return block // 2, block % 2, inside

    def _first_is_loop(self, unit: str, pair: int) -> bool:
        return hashlib.blake2b(f"{self.seed}\x1f{unit}\x1f{pair}".encode(), digest_size=1).digest()[0] % 2 == 0

    def rule(self, unit: str, day: date) -> Rule:
        """Return the rule of a unit on a day.

        Raises:
            ConfigurationError: There is no such unit.
            InputError: The day lies before the start.
        """
        pair, block, _ = self._place(unit, day)
        return "loop" if self._first_is_loop(unit, pair) == (block == 0) else "old"

    def gain(self, counts: Iterable[tuple[str, date, float]], *, level: float = 0.9) -> VerifiedGain:
        """Return the verified gain from (unit, day, conversions); only pairs whose both blocks are complete count.

        Args:
            counts: All conversions of a unit on a day, closed (no more to come); several rows of a day are summed.
            level: Level of the anytime interval.

        Raises:
            InputError: A count is negative or not finite.
        """
        sums: dict[tuple[str, int, Rule], float] = {}
        days: dict[tuple[str, int], set[date]] = {}
        for unit, day, conversions in counts:
            if not 0 <= conversions < math.inf:
                raise InputError("a count is zero or more", "conversions", conversions)
            pair, _, inside = self._place(unit, day)
            days.setdefault((unit, pair), set()).add(day)
            if inside >= self.washout_days:
                key = (unit, pair, self.rule(unit, day))
                sums[key] = sums.get(key, 0.0) + conversions
        complete = sorted(key for key, seen in days.items() if len(seen) == 2 * self.block_days)
        loop = np.array([sums.get((*key, "loop"), 0.0) for key in complete])
        old = np.array([sums.get((*key, "old"), 0.0) for key in complete])
        low, estimate, high = gain_sequence(loop, old, level=level)
        interval = Interval(low=low, estimate=estimate, high=high, level=level, kind="anytime")
        return VerifiedGain(gain=interval, n_pairs=len(complete), loop=float(loop.sum()), old=float(old.sum()))


@attrs.frozen(kw_only=True)
class HoldoutPlan:
    """What a control costs and what it can see.

    Args:
        weeks: For each length considered.
        detectable: Smallest relative gain that is proved with the asked power within that many weeks; ``inf`` where none below 200 % is.
        forgone: Conversions given up if the loop's gain is ``assumed``, because half of the time runs the old rule.
        power, level, assumed: As asked.
    """

    weeks: tuple[int, ...]
    detectable: tuple[float, ...]
    forgone: tuple[float, ...]
    power: float
    level: float
    assumed: float

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per length."""
        return {"weeks": list(self.weeks), "detectable gain": list(self.detectable), "conversions forgone": list(self.forgone)}

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the plan as a frame."""
        return frame(self.to_columns(), library)

    def _title(self) -> str:
        return f"Holdout: power {self.power:.0%}, level {self.level:.0%}; cost if the loop gains {self.assumed:.0%}"

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=self._title())


def plan_holdout(
    history: Mapping[str, Sequence[float]],
    *,
    weeks: Sequence[int] = (4, 8, 16, 26, 52),
    power: float = 0.8,
    level: float = 0.9,
    assumed: float = 0.1,
    block_days: int = 7,
    washout_days: int = 0,
    seed: int = 0,
    simulations: int = 200,
) -> HoldoutPlan:
    """Return what a switchback of these units can see, and what it costs, before it is begun.

    Past blocks are drawn in neighbouring pairs, the coin is tossed, and the block under the loop is multiplied by the gain; so noise, trend
    and over-dispersion are those of the history.

    Args:
        history: Per unit, conversions of past days, at least two blocks.
        weeks: Lengths to consider.
        power: Chance of proving the gain.
        level: Level of the anytime interval.
        assumed: Gain assumed for the cost.
        block_days, washout_days: Of the design.
        seed, simulations: Of the simulation.

    Raises:
        ConfigurationError: The history is shorter than two blocks, or power, level or a length is out of range.
    """
    if not 0.0 < power < 1.0 or not 0.0 < level < 1.0:
        raise ConfigurationError("power and level lie between 0 and 1", "power", (power, level))
    lengths = [int(w) for w in weeks]
    if not lengths or min(lengths) * 7 < 2 * block_days:
        raise ConfigurationError("a control needs at least one pair of blocks", "weeks", tuple(weeks))
    blocks = [_blocks(unit, days, block_days, washout_days) for unit, days in history.items()]
    if not blocks:
        raise ConfigurationError("a holdout needs the history of at least one unit", "history", 0)
    rng = np.random.default_rng(seed)
    n_pairs = [w * 7 // (2 * block_days) for w in lengths]
    first, second = _pairs(blocks, max(n_pairs), simulations, rng)
    limit = math.log(1.0 / (1.0 - level)) + math.log(len(SLOPES))

    def proved(gain: float) -> npt.NDArray[np.bool_]:
        """Whether each simulation has proved the gain after 1, 2, ... pairs, shape (simulations, pairs)."""
        x = contrasts(first * (1.0 + gain), second)
        evidence = logsumexp(steps(x).sum(axis=2).cumsum(axis=1), axis=-1)
        hit = (evidence >= limit) & (x.sum(axis=2).cumsum(axis=1) > 0)
        return np.asarray(np.logical_or.accumulate(hit, axis=1))

    grid = np.geomspace(0.005, 2.0, 30)
    chance = np.stack([proved(float(g)).mean(axis=0) for g in grid])  # (gains, pairs)
    detectable = [float(grid[np.argmax(chance[:, n - 1] >= power)]) if (chance[:, n - 1] >= power).any() else math.inf for n in n_pairs]
    a_day = sum(float(np.mean(days)) for days in history.values())
    forgone = [0.5 * 7 * w * a_day * assumed for w in lengths]
    return HoldoutPlan(
        weeks=tuple(lengths), detectable=tuple(detectable), forgone=tuple(forgone), power=power, level=level, assumed=assumed
    )


def _blocks(unit: str, days: Sequence[float], block_days: int, washout_days: int) -> npt.NDArray[np.float64]:
    values = np.asarray(days, dtype=float)
    n = len(values) // block_days
    if n < 2:
        raise ConfigurationError(
            f"the history of unit {unit!r} is shorter than two blocks", "history", len(values), f"give {2 * block_days} days"
        )
    if not ((values >= 0) & (values < np.inf)).all():
        raise InputError("a count is zero or more", "history", unit)
    return np.asarray(values[len(values) - n * block_days :].reshape(n, block_days)[:, washout_days:].sum(axis=1))


def _pairs(
    blocks: Sequence[npt.NDArray[np.float64]], n_pairs: int, simulations: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Draw neighbouring blocks of every unit in a tossed order, shape (simulations, n_pairs, units) each."""
    one, other = [], []
    for values in blocks:
        at = rng.integers(0, len(values) - 1, (simulations, n_pairs))
        swap = rng.random((simulations, n_pairs)) < 0.5
        one.append(values[at + swap])
        other.append(values[at + ~swap])
    return np.stack(one, axis=2), np.stack(other, axis=2)
