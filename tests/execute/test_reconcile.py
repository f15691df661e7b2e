"""What was intended beside what stands, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from closedloop.errors import ConfigurationError
from closedloop.execute import OutboxExecutor
from closedloop.ledger import MemoryLedger
from closedloop.platforms import SimulatedPlatform
from closedloop.records.action import Change
from closedloop.records.decision import Constraints, Plan, Target
from closedloop.records.money import Money

Make = Callable[..., Plan]
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def euros(amount: float) -> Money:
    return Money.of(amount, "EUR")


def run_out(executor: OutboxExecutor, now: datetime) -> datetime:
    due = executor.tick(now)
    while due is not None:
        now = due
        due = executor.tick(now)
    return now


def test_each_difference_is_explained(make_plan: Make, start: datetime) -> None:
    """Every cause of a difference is told from the others, and only what was lost is proposed to be sent again."""
    names = ["fine", "other", "rounded", "paused", "lost", "refused", "late", "gone", "allowed", "over"]
    platform = SimulatedPlatform({n: euros(100) for n in names if n != "gone"})
    platform.daily_overspend = 0.25  # type: ignore[attr-defined]
    platform.fault("ignore", resource="lost")
    platform.fault("refuse", resource="refused")
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", dict.fromkeys(names, (100, 120))), now=start)
    end = run_out(executor, start)
    platform.alter("other", euros(77), at=end)
    platform.alter("rounded", euros(120.5), at=end)
    platform.send(Change(action_id="?", target=Target("simulated", "paused"), kind="pause"), now=end)
    platform.fault("lose_request", resource="late", times=9)
    executor.execute(make_plan("q", {"late": (120, 130)}, made_at=end), now=end)
    spent = {Target("simulated", "allowed"): euros(149), Target("simulated", "over"): euros(151)}
    found = executor.reconcile(now=end + HOUR, spent=spent)
    assert {row.target.resource: row.verdict for row in found.rows} == {
        "fine": "agrees",
        "other": "changed_by_other",
        "rounded": "changed_by_platform",
        "paused": "paused_by_other",
        "lost": "lost",
        "refused": "not_sent",
        "late": "pending",
        "gone": "gone",
        "allowed": "overspend_allowed",
        "over": "overspent",
    }
    assert len(found.differing) == 7
    assert all(row.mend for row in found.differing)
    assert [c.target.resource for c in found.changes] == ["lost"]
    executor.submit("mend", found.changes, now=end + HOUR, reason="reconciliation")
    assert platform.budget_at("lost", end + HOUR) == euros(120)
    assert "7 differ" in repr(found)
    assert "<table" in found._repr_html_()
    assert len(found.to_frame()) == len(names)


def test_duplicates_of_a_creation_are_found(start: datetime) -> None:
    """A creation that came into force twice, by a platform later than it said, is found by its mark."""
    platform = SimulatedPlatform({})
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    change = Change(action_id="c1", target=Target("simulated", "spring"), kind="create", budget=euros(10))
    executor.submit("p", [change], now=start, reason="new")
    assert executor.reconcile(now=start).rows[0].verdict == "agrees"
    platform.send(change, now=start + MINUTE)
    row = executor.reconcile(now=start + HOUR).rows[0]
    assert row.verdict == "duplicate"
    assert row.because.count("spring#") == 2


def test_reading_respects_outages_and_quotas(make_plan: Make, start: datetime) -> None:
    """What cannot be read now is said, and no quota is broken for it."""
    names = [f"r{i}" for i in range(8)]
    platform = SimulatedPlatform({n: euros(100) for n in names}, quota=(10, 60))
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform}, headroom=1.0)
    executor.execute(make_plan("p", dict.fromkeys(names, (100, 120))), now=start)
    end = run_out(executor, start)
    found = executor.reconcile(now=end + MINUTE * 2)
    found = executor.reconcile(now=end + MINUTE * 2)
    assert [row.verdict for row in found.rows].count("unread") == 6
    platform.outage(end + HOUR, end + 2 * HOUR)
    found = executor.reconcile(now=end + HOUR)
    assert {row.verdict for row in found.rows} == {"unread"}
    assert platform.requests("refused") == []


def test_revert_restores_what_stood_before(make_plan: Make, start: datetime) -> None:
    """Reverting takes back what was confirmed and nothing else; a change made since is not overwritten."""
    platform = SimulatedPlatform({n: euros(100) for n in "abcd"})
    platform.fault("refuse", resource="c")
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", {"a": (100, 120), "b": (100, 90), "c": (100, 110), "d": (100, 130)}), now=start)
    platform.alter("d", euros(55), at=start + MINUTE)
    back = executor.revert("p", now=start + HOUR)
    assert {d.target.resource: (d.before, d.after) for d in back.decisions} == {
        "a": (euros(120), euros(100)),
        "b": (euros(90), euros(100)),
        "d": (euros(130), euros(100)),
    }
    states = {r.change.target.resource: r.state for r in executor.execute(back, now=start + HOUR)}
    assert states == {"a": "confirmed", "b": "confirmed", "d": "stale"}
    assert [platform.budget_at(n, start + HOUR).units for n in "abcd"] == [100, 100, 100, 55]


def test_revert_stays_within_the_guardrails(make_plan: Make, start: datetime) -> None:
    """A step back that is too large is made as far as it is allowed, and says so."""
    platform = SimulatedPlatform({"a": euros(100), "b": euros(100)})
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", {"a": (100, 50), "b": (100, 200)}), now=start)
    back = executor.revert("p", now=start + HOUR, constraints=Constraints(max_step=0.2, ceiling=300))
    assert {d.target.resource: d.after for d in back.decisions} == {"a": euros(60), "b": euros(160)}
    assert all("guardrails" in d.reason for d in back.decisions)


def test_revert_of_an_unknown_plan(start: datetime) -> None:
    """The plans that were executed are listed."""
    executor = OutboxExecutor(MemoryLedger(), {"simulated": SimulatedPlatform({})})
    with pytest.raises(ConfigurationError, match="no such plan"):
        executor.revert("p", now=start)
