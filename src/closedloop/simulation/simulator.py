"""A loop in a market: day after day, with faults, and the truth beside what the loop believes.

Law of this file: the loop is an argument and is used as any user would: rows in, ``run_cycle`` and ``tick`` called by the clock. It never
sees the truth. Nothing the loop raises is swallowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

import attrs
import numpy as np

from closedloop.decide import default_target
from closedloop.display import frame, html_table, text_table
from closedloop.errors import ConfigurationError
from closedloop.platforms.simulated import SimulatedPlatform
from closedloop.records.arms import TAG_COLUMNS, Arm
from closedloop.records.decision import Target
from closedloop.records.interval import FloatArray
from closedloop.records.money import Money
from closedloop.simulation.faults import Fault
from closedloop.simulation.market import Columns, Market
from closedloop.simulation.scenarios import Scenario

_NOON = timedelta(hours=12)  # what is in force then counts for the whole day
Progress = Callable[[int, int, "Day"], None]


class Loop(Protocol):
    """What a loop needs to be tried here; `closedloop.ClosedLoop` is one."""

    def run_cycle(self, rows: Any, *, now: datetime) -> Any:
        """Take the new rows and act on them."""
        ...

    def tick(self, now: datetime) -> Any:
        """Do what is due between cycles."""
        ...


@attrs.frozen(kw_only=True, eq=False)
class Day:
    """One simulated day.

    Args:
        day: Number of the day.
        budgets: Budgets in force at noon, by arm.
        caused: Expected incremental conversions of the day's spend (the truth).
        best: Those that the best split of the same spend would have caused.
        equal: Those of an equal split of the same spend.
        counted: Conversions in the rows delivered, whatever caused them.
        advice: The loop's health advice ("" where it gives none).
        moves: Budgets that the loop decided to move.
        report: What ``run_cycle`` returned, None where it was not kept.
    """

    day: int
    budgets: Mapping[Arm, float]
    caused: float
    best: float
    equal: float
    counted: int
    advice: str
    moves: int
    report: Any

    @property
    def spend(self) -> float:
        """Budgets of all arms."""
        return float(sum(self.budgets.values()))


@attrs.frozen(kw_only=True, eq=False)
class Simulation:
    """What a loop did in a market, day by day.

    Args:
        scenario: Name of the scenario.
        currency: ISO code of the money.
        days: The days.
    """

    scenario: str
    currency: str
    days: tuple[Day, ...]

    def cost_per_incremental(self, since: int = 0, until: int | None = None) -> float:
        """Return spend per conversion caused, over the days in [since, until); infinite when none were."""
        chosen = [d for d in self.days if since <= d.day and (until is None or d.day < until)]
        caused = sum(d.caused for d in chosen)
        return sum(d.spend for d in chosen) / caused if caused > 0 else float("inf")

    def gain(self, since: int = 0, until: int | None = None) -> float:
        """Return the reduction of cost per incremental conversion against an equal split of the same spend, over the same days."""
        chosen = [d for d in self.days if since <= d.day and (until is None or d.day < until)]
        caused, equal = sum(d.caused for d in chosen), sum(d.equal for d in chosen)
        return 1.0 - equal / caused if caused > 0 else float("-inf")

    def regret(self) -> FloatArray:
        """Return the share of the best split's conversions that was missed, by day (shape (D,))."""
        return np.array([1.0 - d.caused / d.best if d.best > 0 else 0.0 for d in self.days])

    def to_columns(self) -> dict[str, Any]:
        """Return one row per day."""
        return {
            "day": [d.day for d in self.days],
            "spend": [d.spend for d in self.days],
            "counted": [d.counted for d in self.days],
            "caused": [d.caused for d in self.days],
            "cost_per_incremental": [d.spend / d.caused if d.caused > 0 else float("inf") for d in self.days],
            "missed_share": self.regret().tolist(),
            "moves": [d.moves for d in self.days],
            "advice": [d.advice for d in self.days],
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the days as a frame."""
        return frame(self.to_columns(), library)

    def _title(self) -> str:
        cost = f"{self.cost_per_incremental():,.2f} {self.currency} per incremental conversion"
        return f"Simulation of {self.scenario}: {len(self.days)} days, {cost}"

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=self._title(), limit=100)

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=self._title(), limit=100)


class Simulator:
    """A market, its platforms, and what goes wrong with them.

    Args:
        scenario: The market's parameters.
        seed: Of market, platforms and faults.
        faults: Laid over one another, in this order.
        budgets: Budgets at the start, an equal split by default.
        closes: How long after midnight the loop runs.
        ticks: When the loop is called again, after it ran.
        latency: How long a change takes to come into force on a platform.
        quota: Requests, and the seconds in which they may be made, by platform; None for no limit.

    >>> from closedloop.simulation import MissingTags, small
    >>> simulator = Simulator(small(), seed=3, faults=[MissingTags(0.2, from_day=1)])
    >>> sorted(simulator.platforms)
    ['google', 'meta']
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int = 0,
        *,
        faults: Sequence[Fault] = (),
        budgets: Mapping[Arm, float] | None = None,
        closes: timedelta = timedelta(hours=2),
        ticks: Sequence[timedelta] = (timedelta(hours=1), timedelta(hours=3), timedelta(hours=6)),
        latency: timedelta = timedelta(minutes=40),
        quota: tuple[float, float] | None = (120.0, 3600.0),
    ) -> None:
        self.market = Market(scenario, seed)
        self.holdouts: dict[Arm, float] = {}  # share of users held out of an arm from the next day on; set and cleared while it runs
        self.seed = int(seed)
        self.faults = tuple(faults)
        self._closes, self._ticks = closes, tuple(sorted(ticks))
        start = dict(self.market.equal_split() if budgets is None else budgets)
        self.market.vector(start)
        self.targets: dict[Arm, Target] = {arm: default_target(TAG_COLUMNS, arm) for arm in self.market.arms}
        self._arms = {(t.platform, t.resource): arm for arm, t in self.targets.items()}
        self.platforms: dict[str, SimulatedPlatform] = {}
        for name in sorted({t.platform for t in self.targets.values()}):
            mine = {
                t.resource: Money.of(round(start.get(arm, 0.0), 2), scenario.currency)
                for arm, t in self.targets.items()
                if t.platform == name
            }
            self.platforms[name] = SimulatedPlatform(mine, name=name, latency=latency, quota=quota, seed=seed)
        for fault in self.faults:
            fault.platforms(self.platforms, self.market)

    def budgets_at(self, at: datetime) -> dict[Arm, float]:
        """Return the budgets in force on the platforms."""
        return {arm: self.platforms[t.platform].budget_at(t.resource, at).units for arm, t in self.targets.items()}

    def held_out_on(self, day: int) -> dict[Arm, float]:
        """Return the share of users held out of an arm on a day, by ``holdouts`` or by a platform's holdout in force at noon."""
        noon = self.market.day_start(day) + _NOON
        asked = {
            self._arms[name, resource]: share
            for name, platform in self.platforms.items()
            for resource, share in platform.holdouts_at(noon).items()
        }
        return {**asked, **self.holdouts}

    def rows(self, day: int, budgets: Mapping[Arm, float]) -> Columns:
        """Return a day's rows as the loop gets them, faults and all; the platforms learn what the groups of their holdouts did."""
        rows = self.market.day(day, budgets, holdouts=self.held_out_on(day))
        noon, midnight = self.market.day_start(day) + _NOON, self.market.day_start(day + 1)
        for name, platform in self.platforms.items():
            arms = {self._arms[name, resource]: resource for resource in platform.holdouts_at(noon)}
            platform.count_holdouts({r: self.market.holdout_counts(arm) for arm, r in arms.items()}, at=noon, known_at=midnight)
        for number, fault in enumerate(self.faults):
            rows = fault.rows(rows, day, np.random.default_rng([self.seed, 4, number, day]), self.market)
        return rows

    def run(self, loop: Loop, days: int, progress: Progress | None = None, *, keep_reports: bool = False) -> Simulation:
        """Run the loop for a number of days and return what it did, beside the truth.

        Args:
            loop: Made with this simulator's ``platforms`` (and ``targets``, where it wants them by arm).
            days: How many days, at least 1; a second call goes on where the first stopped.
            progress: Called after each day as ``progress(done, days, day)``; this day has its report.
            keep_reports: Keep what ``run_cycle`` returned of every day, not of the last one only: a report holds the day's events.

        Raises:
            ConfigurationError: ``days`` is less than 1.
        """
        if days < 1:
            raise ConfigurationError("a run takes at least one day", "days", days)
        market = self.market
        done: list[Day] = []
        for day in range(market.next_day, market.next_day + days):
            budgets = self.budgets_at(market.day_start(day) + _NOON)
            rows = self.rows(day, budgets)
            now = market.day_start(day + 1) + self._closes
            report = loop.run_cycle(rows, now=now)
            for wait in self._ticks:
                loop.tick(now + wait)
            if done and not keep_reports:
                done[-1] = attrs.evolve(done[-1], report=None)
            done.append(self._day(day, budgets, rows, report))
            if progress is not None:
                progress(len(done), days, done[-1])
        return Simulation(scenario=market.scenario.name, currency=market.scenario.currency, days=tuple(done))

    def _day(self, day: int, budgets: Mapping[Arm, float], rows: Columns, report: Any) -> Day:
        market, total = self.market, sum(budgets.values())
        shown = 1.0 - market.vector(self.held_out_on(day))  # nobody who is held out is convinced
        return Day(
            day=day,
            budgets=budgets,
            caused=float((market.truth(day, budgets).conversions * shown).sum()),
            best=market.truth(day, market.best_budgets(total, day)).total,
            equal=market.truth(day, market.equal_split(total)).total,
            counted=int((rows["kind"] == "conversion").sum()),
            advice=str(getattr(getattr(report, "health", None), "advice", "")),
            moves=len(getattr(getattr(report, "plan", None), "decisions", ())),
            report=report,
        )
