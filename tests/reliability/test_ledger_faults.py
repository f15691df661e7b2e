"""A ledger that refuses: the executor raises `LedgerError`, sends nothing that is not recorded, and loses nothing."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from closedloop.errors import LedgerError
from closedloop.execute import OutboxExecutor
from closedloop.ledger import SqliteLedger
from closedloop.platforms import SimulatedPlatform
from closedloop.records.action import AttemptResult, Change, Entry
from closedloop.records.decision import Target
from closedloop.records.money import Money

START = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = [f"new{i}" for i in range(20)]
CHANGES = [Change(action_id=n, target=Target("simulated", n), kind="create", budget=Money.of(10, "EUR")) for n in NAMES]


class Refusing:
    """A ledger that refuses to write now and then, before or after it has written."""

    def __init__(self, ledger: SqliteLedger, chance: random.Random) -> None:
        self._ledger, self._chance, self.refusals = ledger, chance, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def append(self, entries: Sequence[Entry], **states: Any) -> int:
        fate = self._chance.random()
        if fate < 0.2:
            self.refusals += 1
            raise LedgerError("the ledger cannot write: database or disk is full")
        written = self._ledger.append(entries, **states)
        if fate < 0.3:
            self.refusals += 1
            raise LedgerError("the ledger cannot write: the reply of the disk was lost")
        return written


class Witness(SimulatedPlatform):
    """A platform that checks at each send that the ledger already says so."""

    ledger: Any = None

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        newest = self.ledger.newest("action", subject=change.action_id)[0].entry.body["action"]["receipt"]
        assert newest["state"] == "sending"
        return super().send(change, now=now, timeout=timeout)


@pytest.mark.parametrize("seed", range(5))
def test_a_ledger_that_refuses_at_random(tmp_path: Path, seed: int) -> None:
    """However often writing fails, every change comes into force once and every action settles."""
    chance = random.Random(seed)
    platform = Witness({}, latency=timedelta(seconds=3), lost_replies=0.2, quota=(30, 60), seed=seed)
    with SqliteLedger(tmp_path / "ledger.db") as inner:
        ledger = Refusing(inner, chance)
        platform.ledger = inner
        executor = OutboxExecutor(ledger, {"simulated": platform}, max_attempts=99)
        now, done, failures = START, False, 0
        while not done:
            assert now < START + timedelta(hours=12), "it must end"
            now += timedelta(seconds=7)
            try:
                executor.submit("p", CHANGES, now=now, reason="test")
                done = executor.tick(now) is None
            except LedgerError:
                failures += 1
        assert failures == ledger.refusals > 10
        assert Counter(r.state for r in executor.receipts("p")) == {"confirmed": len(NAMES)}
        assert sorted(c.action_id for c in platform.applied()) == sorted(NAMES)
        assert platform.requests("refused") == []
        inner.verify()


def test_a_locked_ledger_sends_nothing(tmp_path: Path) -> None:
    """While another process holds the ledger, nothing is sent; afterwards the same call does it."""
    platform = SimulatedPlatform({})
    with SqliteLedger(tmp_path / "ledger.db", busy_timeout=0.05) as ledger:
        holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        executor = OutboxExecutor(ledger, {"simulated": platform})
        with pytest.raises(LedgerError, match="locked"):
            executor.submit("p", CHANGES, now=START, reason="test")
        assert platform.requests() == []
        holder.execute("ROLLBACK")
        holder.close()
        assert {r.state for r in executor.submit("p", CHANGES, now=START, reason="test")} == {"confirmed"}


def _fill(folder: Path, told: Path) -> None:
    """Submit until the ledger refuses, under a limit on the size of files; write how many were sent, and the error."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    ledger = SqliteLedger(folder / "ledger.db")
    executor = OutboxExecutor(ledger, {"simulated": SimulatedPlatform({}, path=folder / "server.db")})
    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))
    for sent in range(10_000):
        change = Change(action_id=f"a{sent}", target=Target("simulated", f"n{sent}"), kind="create", budget=Money.of(10, "EUR"))
        try:
            executor.submit(f"p{sent}", [change], now=START, reason="x" * 5000)
        except LedgerError as error:
            told.write_text(f"{sent} {error}")
            os._exit(7)
    os._exit(0)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on the size of files")
def test_a_file_that_cannot_grow(tmp_path: Path) -> None:
    """When the operating system refuses to let the file grow, the error says so and the ledger stays whole; work goes on later."""
    pid = os.fork()
    if pid == 0:
        try:
            _fill(tmp_path, tmp_path / "told")
        finally:  # the child must never return into the test runner
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    number, _, words = (tmp_path / "told").read_text().partition(" ")
    sent = int(number)
    assert "the ledger cannot write" in words
    assert sent > 3
    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        ledger.verify()
        platform = SimulatedPlatform({}, path=tmp_path / "server.db")
        executor = OutboxExecutor(ledger, {"simulated": platform})
        now = START
        due = executor.tick(now + timedelta(minutes=5))
        assert due is None
        applied = Counter(c.action_id for c in platform.applied())
        assert set(applied.values()) == {1}
        recorded = [r.entry.subject for r in ledger.newest("action")]
        assert set(applied) <= set(recorded), "nothing was sent that is not recorded"
        assert len(applied) >= sent
