"""Clock jumps: no quota broken, no quiet period cut short, nothing applied twice."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from closedloop.execute import OutboxExecutor
from closedloop.execute.steady import SteadyClock
from closedloop.ledger import MemoryLedger, SqliteLedger
from closedloop.platforms import SimulatedPlatform
from closedloop.records.action import AttemptResult, Change, TargetState
from closedloop.records.decision import Target
from closedloop.records.money import Money

START = datetime(2026, 3, 1, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


class TrueTime(SimulatedPlatform):
    """A server with a clock of its own, which is right: whatever the client says of the time does not count."""

    true = START

    def find(self, change: Change, *, now: datetime) -> list[TargetState]:
        return super().find(change, now=self.true)

    def read(self, target: Target, *, now: datetime) -> TargetState:
        return super().read(target, now=self.true)

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        return super().send(change, now=self.true, timeout=timeout)


@pytest.mark.parametrize("seed", range(6))
def test_jumps_by_an_hour_break_no_quota(tmp_path: Path, seed: int) -> None:
    """The wall clock jumps by hours, back and forth, with restarts between: the server refuses nothing and applies each change once."""
    chance = random.Random(seed)
    names = [f"new{i}" for i in range(30)]
    platform = TrueTime({}, quota=(12, 300), latency=4 * SECOND, late_by=20 * SECOND, lost_replies=0.3, seed=seed)
    changes = [Change(action_id=n, target=Target("simulated", n), kind="create", budget=Money.of(10, "EUR")) for n in names]
    true, offset = timedelta(0), timedelta(0)

    def now() -> datetime:
        return START + true + offset

    ledger = SqliteLedger(tmp_path / "ledger.db") if seed == 0 else MemoryLedger()  # the same promises, without the disk's time

    def executor() -> OutboxExecutor:
        doors = {"simulated": platform}
        return OutboxExecutor(ledger, doors, monotonic=lambda: true.total_seconds(), expiry=timedelta(days=9), max_attempts=99)

    one = executor()
    one.submit("p", changes, now=now(), reason="test")
    jumps = 0
    due: datetime | None = now()
    while due is not None:
        assert true < timedelta(days=2), "it must end"
        true += max(SECOND, min(due - now(), timedelta(minutes=1)))
        platform.true = START + true
        if chance.random() < 0.1:
            offset, jumps = chance.choice([-HOUR, HOUR, 3 * HOUR, timedelta(0)]), jumps + 1
        due = one.tick(now())
        if chance.random() < 0.1:
            one = executor()
            due = one.tick(now())
    assert jumps > 5
    assert platform.requests("refused") == []
    assert sorted(c.action_id for c in platform.applied()) == sorted(names)
    assert {r.state for r in one.receipts("p")} == {"confirmed"}
    ledger.verify()
    ledger.close()


def test_without_a_steady_clock_every_now_is_believed() -> None:
    """A simulation that skips days needs no clock but ``now``."""
    clock = SteadyClock()
    assert clock.begin(START) is False
    assert clock.begin(START + timedelta(days=400)) is False
    assert clock.moment() == START + timedelta(days=400)


def test_small_corrections_are_believed_and_time_never_runs_back() -> None:
    """A correction below a second is taken over, but the axis does not run back for it."""
    seconds = [0.0]
    clock = SteadyClock(lambda: seconds[0])
    clock.begin(START)
    seconds[0] = 10.0
    assert clock.begin(START + timedelta(seconds=9.5)) is False
    assert clock.moment() == START + timedelta(seconds=9.5)
    seconds[0] = 10.1
    clock.begin(START + timedelta(seconds=9.2))
    assert clock.moment() == START + timedelta(seconds=9.5)


def test_a_restart_after_the_clock_was_set_back(tmp_path: Path) -> None:
    """A new process whose clock lies before the last record goes on from that record, and says due times in its own clock."""
    platform: Any = SimulatedPlatform({"a": Money.of(100, "EUR")}, latency=timedelta(minutes=20))
    change = Change(action_id="x", target=Target("simulated", "a"), budget=Money.of(120, "EUR"))
    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        OutboxExecutor(ledger, {"simulated": platform}, monotonic=lambda: 5.0).submit("p", [change], now=START, reason="test")
        again = OutboxExecutor(ledger, {"simulated": platform}, monotonic=lambda: 99.0)
        due = again.tick(START - HOUR)
        assert due is not None
        assert START - HOUR < due < START
        assert [r.entry.body["offset_us"] for r in ledger.entries(kind="clock")] == [-3_600_000_000]
