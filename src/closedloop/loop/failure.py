"""A room, a platform or a hook that raises: what is kept of it, and the report of a cycle that it stopped.

Law of this file: what was raised is said without secrets, by the room's name, the error's class and its message, and with its traceback
for whoever wrote the room; nothing is swallowed. `KeyboardInterrupt`, `SystemExit` and whatever else is no `Exception` never come here.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import attrs

from closedloop.attribute import WindowedAttribution
from closedloop.classify import BayesClassifier
from closedloop.errors import ClosedLoopError
from closedloop.platforms.redaction import redact
from closedloop.records.action import Entry
from closedloop.records.batch import EventBatch
from closedloop.records.decision import Decision, Hold, Plan
from closedloop.records.feedback import Finding
from closedloop.records.interval import Interval
from closedloop.records.moments import to_us
from closedloop.records.outcomes import Outcomes
from closedloop.records.quarantine import Ingested, Quarantine, TagReport
from closedloop.records.signal import Signals
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

_MEND = "look at report.failures[0].traceback, or run it with on_error='raise'"


@attrs.frozen(kw_only=True)
class RoomFailure:
    """What a room, a platform or a hook raised.

    Args:
        room: Where: a room's name, or ``hook after`` and one.
        made_by: Class of the plug-in, "" where it is a function.
        error: Class of what was raised.
        message: Its message, without secrets and on one line.
        traceback: How it came to it, without secrets.
        mend: What to do.
    """

    room: str
    made_by: str
    error: str
    message: str
    traceback: str = attrs.field(repr=False)
    mend: str = _MEND

    @classmethod
    def of(cls, room: str, made_by: object, error: Exception) -> RoomFailure:
        """Return what is kept of an exception."""
        lines = "".join(traceback.format_exception(error)).splitlines()
        own = error.mend if isinstance(error, ClosedLoopError) and error.mend else ""
        return cls(
            room=room,
            made_by="" if made_by is None or callable(made_by) else type(made_by).__name__,
            error=type(error).__name__,
            message=redact(str(error).removesuffix(f"; {own}") if own else error),
            traceback="\n".join(line[: len(line) - len(line.lstrip())] + redact(line) for line in lines),
            mend=redact(own) if own else _MEND,
        )

    def __str__(self) -> str:
        who = f" ({self.made_by})" if self.made_by else ""
        return f"{self.room}{who} raised {self.error}: {self.message}"

    def finding(self, level: float) -> Finding:
        """Return it as a critical finding for the account: the loop holds."""
        done = Interval(low=0.0, estimate=0.0, high=0.0, level=level, kind="credible")  # counted: of its work
        return Finding(
            name="failure", severity="critical", scope="account", measured=done, threshold=1.0, evidence=str(self), mend=self.mend
        )

    def entry(self, cycle: int, now: datetime) -> Entry:
        """Return the ledger's entry of it; the traceback stays out, since it may quote data."""
        body = {"cycle": cycle, "room": self.room, "made_by": self.made_by, "error": self.error, "message": self.message}
        return Entry(kind="failure", subject="loop", at=now, body=body, key=f"failure:{cycle}:{to_us(now)}:{self.room}")


def nothing_ingested() -> Ingested:
    """Return an ingestion of no rows."""
    return Ingested(batch=EventBatch.empty(), quarantine=Quarantine(), tags=TagReport(), n_rows=0, n_accepted=0, n_duplicates=0)


def nothing_known(window: AttributionWindow, tags: TagSchema, now: datetime) -> tuple[Outcomes, Signals]:
    """Return outcomes and signals of no events."""
    outcomes = WindowedAttribution(window, tags=tags).attribute(EventBatch.empty(), now=now)
    return outcomes, BayesClassifier(window).classify(outcomes, now=now)


def together(parts: Sequence[Ingested]) -> Ingested:
    """Return several ingestions as one, oldest first: the events of all, the tags of the newest."""
    if len(parts) == 1:
        return parts[0]
    return Ingested(
        batch=EventBatch.concat([p.batch for p in parts]),
        quarantine=Quarantine.concat([p.quarantine for p in parts]),
        tags=parts[-1].tags,
        n_rows=sum(p.n_rows for p in parts),
        n_accepted=sum(p.n_accepted for p in parts),
        n_duplicates=sum(p.n_duplicates for p in parts),
    )


def can_be_read_again(rows: Any) -> bool:
    """Return whether a table stays readable after an ingestion that raised; what yields its rows once is not."""
    return not isinstance(rows, Iterator)


def held_plan(
    cycle: int, failure: RoomFailure, signals: Signals, newest: Plan | None, window: AttributionWindow, horizon: float, now: datetime
) -> Plan:
    """Return a plan that holds every arm because a room failed: those that are ranked, or else those of the newest plan.

    Args:
        cycle: Number of the cycle.
        failure: Why.
        signals: What was ranked, if anything.
        newest: The newest plan of the ledger.
        window, horizon: The loop's.
        now: Time of the cycle.
    """
    parts: tuple[Hold | Decision, ...] = () if newest is None else (*newest.holds, *newest.decisions)
    targets = {part.arm: part.target for part in parts}
    arms = list(signals.arms) if len(signals) else list(targets)
    unknown = Interval(low=float("-inf"), estimate=0.0, high=float("inf"), level=0.9, kind="credible")
    nothing = Interval(low=0.0, estimate=0.0, high=0.0, level=0.9, kind="credible")
    holds = tuple(
        Hold(
            arm=arm,
            target=targets.get(arm),
            budget=None,
            reason="health",
            explanation=f"{failure}.",
            lift=failure.mend,
            gain=unknown,
        )
        for arm in arms
    )
    return Plan(
        plan_id=f"plan-failed-{cycle}-{to_us(now)}",
        made_at=now,
        window=window,
        decisions=(),
        holds=holds,
        gain=nothing,
        p_gain=0.0,
        expected_shortfall=0.0,
        horizon_days=horizon,
        provenance={"cycle": cycle, "failure": str(failure)},
    )
