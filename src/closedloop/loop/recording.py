"""What the loop writes into its ledger: identity, plans, cycles, pauses and approvals, one function for each entry.

Law of this file: it builds entries and writes none; every key is derived from what is recorded, so that a replayed cycle adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from closedloop.loop.cycle import Mode
from closedloop.records.action import Entry
from closedloop.records.codec import encode
from closedloop.records.decision import Plan
from closedloop.records.feedback import HealthReport
from closedloop.records.lift import LiftResult
from closedloop.records.quarantine import Ingested

_MOST_MEASURED = 100  # findings of one cycle whose values are kept; the four conditions always are


def identity_entry(identity: Mapping[str, Any], now: datetime) -> Entry:
    """Return the entry that says whose ledger this is."""
    return Entry(kind="identity", subject="loop", at=now, body=identity, key="identity")


def plan_entry(cycle: int, plan: Plan, mode: Mode, now: datetime) -> Entry:
    """Return the entry of a cycle's plan; it stays open while it waits for a person."""
    return Entry(
        kind="plan",
        subject=f"cycle {cycle}",
        at=now,
        body={"plan": encode(plan), "plan_id": plan.plan_id, "cycle": cycle, "mode": mode},
        key=f"plan:{cycle}",
        is_open=mode == "approve" and bool(plan.decisions),
    )


def revert_entry(plan: Plan, mode: Mode, now: datetime) -> Entry:
    """Return the entry of a plan that takes another one back; it waits for a person unless the loop is automatic."""
    body = {"plan": encode(plan), "plan_id": plan.plan_id, "cycle": 0, "mode": mode}
    is_open = mode != "auto" and bool(plan.decisions)
    return Entry(kind="plan", subject=plan.plan_id, at=now, body=body, key=f"plan:{plan.plan_id}", is_open=is_open)


def cycle_entry(
    cycle: int,
    plan: Plan,
    mode: Mode,
    ingested: Ingested,
    health: HealthReport,
    versions: Mapping[str, Mapping[str, str]],
    now: datetime,
) -> Entry:
    """Return the entry that closes a cycle; ``versions`` are those of each adapter's SDK and API."""
    body = {
        "cycle": cycle,
        "plan_id": plan.plan_id,
        "mode": mode,
        "rows": ingested.n_rows,
        "accepted": ingested.n_accepted,
        "quarantined": len(ingested.quarantine),
        "advice": health.advice,
        "because": health.because,
        "measured": [
            [f.name, f.scope, f.measured.estimate]
            for f in (*health.conditions, *health.findings[:_MOST_MEASURED])
            if math.isfinite(f.measured.estimate)
        ],
        "versions": {name: dict(found) for name, found in versions.items()},
    }
    return Entry(kind="cycle", subject="loop", at=now, body=body, key=f"cycle:{cycle}")


def mode_entry(number: int, *, paused: bool, reason: str, by: str, now: datetime) -> Entry:
    """Return the entry of the ``number``-th pause or resumption."""
    return Entry(kind="mode", subject="loop", at=now, body={"paused": paused, "reason": reason, "by": by}, key=f"mode:{number}")


def approval_entry(plan_id: str, by: str, now: datetime) -> Entry:
    """Return the entry of a named person's yes."""
    return Entry(kind="approval", subject=plan_id, at=now, body={"by": by}, key=f"approval:{plan_id}")


def lift_entry(number: int, test: LiftResult, by: str, now: datetime) -> Entry:
    """Return the entry of the ``number``-th lift test that the loop was told of."""
    return Entry(kind="lift", subject=f"test {number}", at=now, body={"test": encode(test), "by": by}, key=f"lift:{number}")


def holdout_entry(holdout_id: str, state: str, body: Mapping[str, Any], now: datetime) -> Entry:
    """Return the entry of a holdout in a state; open until it is over."""
    is_open = state in ("asked", "running")
    return Entry(kind="holdout", subject=holdout_id, at=now, body=body, key=f"{holdout_id}:{state}", is_open=is_open)
