"""What one cycle of the loop leaves behind: every record that crossed a door, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import attrs

from closedloop.display import frame, html_table, text_table
from closedloop.loop.counters import ReportComparison
from closedloop.loop.failure import RoomFailure
from closedloop.records.action import Receipts
from closedloop.records.decision import Plan
from closedloop.records.feedback import HealthReport
from closedloop.records.outcomes import Outcomes
from closedloop.records.quarantine import Ingested
from closedloop.records.signal import Signals

Mode = Literal["shadow", "approve", "auto"]


@attrs.frozen(kw_only=True, eq=False)
class CycleReport:
    """One cycle, from raw rows to receipts.

    Args:
        cycle: Number of the cycle, from 1.
        now: When it ran (aware UTC).
        mode: ``shadow`` (sent nothing), ``approve`` (waits for a person) or ``auto``.
        ingested, outcomes, signals, plan, receipts, health: What the rooms handed on.
        timings: Seconds spent in each room.
        note: What the loop has to say about the cycle ("" when nothing).
        reports: What platforms report of conversions that the loop counts itself, beside its own credit; None where none do.
        failures: What rooms, platforms and hooks raised; the loop held because of it.
        complete: Whether the cycle was recorded as complete; if not, its rows wait in the loop, or what was learned of them stands in the
            ledger, and the next call goes on with the same cycle.
    """

    cycle: int
    now: datetime
    mode: Mode
    ingested: Ingested
    outcomes: Outcomes
    signals: Signals
    plan: Plan
    receipts: Receipts
    health: HealthReport
    timings: Mapping[str, float] = attrs.field(factory=dict)
    note: str = ""
    reports: ReportComparison | None = None
    failures: tuple[RoomFailure, ...] = ()
    complete: bool = True

    def to_columns(self) -> dict[str, list[Any]]:
        """Return what was done, one row per room."""
        lines = [
            (
                "ingest",
                f"{self.ingested.n_accepted:,} of {self.ingested.n_rows:,} rows accepted, {len(self.ingested.quarantine):,} quarantined",
            ),
            ("attribute", f"{self.outcomes.n_conversions:,} conversions, {self.outcomes.n_uncredited:,} uncredited, {self.outcomes.model}"),
            ("classify", f"{len(self.signals):,} arms ranked"),
            ("decide", f"{len(self.plan.decisions)} moves, {len(self.plan.holds)} holds, gain a day {self.plan.gain}"),
            ("execute", f"{len(self.receipts)} actions, " + (", ".join(sorted({r.state for r in self.receipts})) or "none open")),
            ("health", f"{self.health.advice}: {self.health.because}"),
        ]
        return {
            "room": [name for name, _ in lines],
            "result": [text for _, text in lines],
            "seconds": [round(self.timings.get(name, 0.0), 3) for name, _ in lines],
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the summary as a frame."""
        return frame(self.to_columns(), library)

    def save_html(self, path: str | Path) -> Path:
        """Write the report as one self-contained HTML file and return its path."""
        from closedloop.loop.report import render

        destination = Path(path)
        destination.write_text(render(self), encoding="utf-8")
        return destination

    def _title(self) -> str:
        return f"Cycle {self.cycle} at {self.now.isoformat(timespec='minutes')} ({self.mode}){' - ' + self.note if self.note else ''}"

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=self._title())
