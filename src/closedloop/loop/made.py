"""What the rooms of one cycle have made so far, and the report of it, also when one of them raised.

Law of this file: it holds and words what was made and makes nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from closedloop.loop.counters import ReportComparison
from closedloop.loop.cycle import CycleReport, Mode
from closedloop.loop.failure import RoomFailure, held_plan, nothing_ingested, nothing_known
from closedloop.records.action import Receipts
from closedloop.records.arms import Arm
from closedloop.records.decision import Plan
from closedloop.records.feedback import Finding, HealthReport
from closedloop.records.money import Money
from closedloop.records.outcomes import Outcomes
from closedloop.records.quarantine import Ingested
from closedloop.records.signal import Signals
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow


@attrs.define(kw_only=True, eq=False)
class Made:
    """One cycle while it runs; what no room has made yet has no value.

    Args:
        cycle, now: Of the cycle.
        findings: What was found so far.
        room: The room that was entered last.
        is_reading: Whether the caller's own rows are being read.
        read: The rows as ingested, None before.
        states: What is to be kept in the ledger; empty before attribution is done.
        failures: What was raised so far.
        n_told: How many of the failures health has spoken of.
    """

    cycle: int
    now: datetime
    findings: list[Finding]
    room: str = ""
    is_reading: bool = False
    read: Ingested | None = None
    states: Mapping[str, bytes] = attrs.field(factory=dict)
    failures: list[RoomFailure] = attrs.field(factory=list)
    n_told: int = 0
    timings: dict[str, float] = attrs.field(factory=dict)
    recent: Receipts = attrs.field(factory=Receipts)
    receipts: Receipts = attrs.field(factory=Receipts)
    reports: ReportComparison | None = None
    note: str = ""
    evidence: Mapping[str, bytes] = attrs.field(factory=dict)
    rates: Mapping[str, float] = attrs.field(factory=dict)
    budgets: Mapping[Arm, Money] | None = None
    unreadable: Mapping[Arm, str] = attrs.field(factory=dict)
    ingested: Ingested = attrs.field(init=False)
    outcomes: Outcomes = attrs.field(init=False)
    signals: Signals = attrs.field(init=False)
    health: HealthReport = attrs.field(init=False)
    plan: Plan = attrs.field(init=False)

    def report(self, mode: Mode, *, complete: bool = True) -> CycleReport:
        """Return the report of the cycle as it was made."""
        return CycleReport(
            cycle=self.cycle,
            now=self.now,
            mode=mode,
            ingested=self.ingested,
            outcomes=self.outcomes,
            signals=self.signals,
            plan=self.plan,
            receipts=self.receipts,
            health=self.health,
            timings=self.timings,
            note=self.note,
            reports=self.reports,
            failures=tuple(self.failures),
            complete=complete,
        )

    def stopped(self, mode: Mode, newest: Plan | None, window: AttributionWindow, tags: TagSchema, horizon: float) -> CycleReport:
        """Return the report of a cycle that could not decide: every arm held, and nothing where no room had made anything.

        Args:
            mode, window, tags, horizon: The loop's.
            newest: The newest plan of the ledger; its arms are held where none were ranked.
        """
        failure = self.failures[-1]
        outcomes, signals = nothing_known(window, tags, self.now)
        self.ingested = self.read or nothing_ingested()
        self.outcomes = getattr(self, "outcomes", outcomes)
        self.signals = getattr(self, "signals", signals)
        self.plan = held_plan(self.cycle, failure, self.signals, newest, window, horizon, self.now)
        found = [f.finding(level=0.9) for f in self.failures]
        others = [f for f in self.findings if f.name != "failure"]
        self.health = HealthReport(conditions=(), findings=(*found, *others), advice="hold", because=str(failure))
        self.note = f"held, because {failure}"
        return self.report(mode, complete=False)
