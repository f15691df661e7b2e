"""Several workers on one PostgreSQL ledger: nothing is sent twice, no quota is broken, the dead are replaced."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from closedloop.errors import LedgerError
from closedloop.execute import OutboxExecutor
from closedloop.interfaces import Claims
from closedloop.ledger import PostgresLedger
from closedloop.platforms import SimulatedPlatform
from closedloop.records.action import AttemptResult, Change, Entry, TargetState
from closedloop.records.decision import Target
from closedloop.records.money import Money

NAMES = [f"new{i}" for i in range(40)]
QUOTA = (60.0, 1.0)
FULL = pytest.mark.skipif(os.environ.get("CLOSEDLOOP_FULL") != "1", reason="set CLOSEDLOOP_FULL=1 for the longer run")


class Distant(SimulatedPlatform):
    """A server with a clock of its own that takes its time, so that workers meet."""

    def find(self, change: Change, *, now: datetime) -> list[TargetState]:
        return super().find(change, now=utc())

    def read(self, target: Target, *, now: datetime) -> TargetState:
        return super().read(target, now=utc())

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        time.sleep(0.01)
        return super().send(change, now=utc(), timeout=timeout)


def utc() -> datetime:
    return datetime.now(UTC)


def server(folder: Path) -> Distant:
    budgets = {f"r{i}": Money.of(100, "EUR") for i in range(20)}
    return Distant(budgets, quota=QUOTA, late_by=timedelta(seconds=0.2), path=folder / "server.db")


def changes() -> list[Change]:
    made = [Change(action_id=n, target=Target("simulated", n), kind="create", budget=Money.of(10, "EUR")) for n in NAMES]
    return made + [Change(action_id=f"b{i}", target=Target("simulated", f"r{i}"), budget=Money.of(120, "EUR")) for i in range(20)]


def live(conninfo: str, schema: str, folder: Path, name: str) -> None:
    """Work until nothing is open."""
    with PostgresLedger(conninfo, schema=schema) as ledger:
        executor = OutboxExecutor(
            ledger,
            {"simulated": server(folder)},
            worker=name,
            timeout=timedelta(seconds=0.3),
            poll_interval=timedelta(seconds=0.1),
            monotonic=time.monotonic,
        )
        executor.submit("p", changes(), now=utc(), reason="test")
        due: datetime | None = utc()
        while due is not None:
            time.sleep(min(max((due - utc()).total_seconds(), 0.0), 0.05))
            due = executor.tick(utc())


def child(job: Callable[[], None]) -> int:
    """Run a job in a forked process and return its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 (the child must never return into the test runner)
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    return pid


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [0, 1, pytest.param(25, marks=FULL)])
def test_workers_never_send_twice(postgres: str, schema: str, tmp_path: Path, kills: int) -> None:
    """Three workers, some of them killed at work and begun anew under their names, share the actions: each is applied once, in quota."""
    server(tmp_path).close()
    PostgresLedger(postgres, schema=schema).close()
    pids = {n: child(lambda n=n: live(postgres, schema, tmp_path, f"w{n}")) for n in range(3)}
    chance = random.Random(kills)
    killed = 0
    for _ in range(kills):
        time.sleep(chance.uniform(0.5, 0.9) if kills == 1 else chance.uniform(0.1, 0.5))
        n = chance.randrange(3)
        os.kill(pids[n], signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(pids[n], 0)[1]) == -signal.SIGKILL
        pids[n] = child(lambda n=n: live(postgres, schema, tmp_path, f"w{n}"))
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids.values()] == [0, 0, 0]
    assert killed >= kills / 4, "they were killed at work"
    with PostgresLedger(postgres, schema=schema) as ledger:
        ledger.verify()
        receipts = OutboxExecutor(ledger, {"simulated": server(tmp_path)}).receipts("p")
        assert Counter(r.state for r in receipts) == {"confirmed": len(changes())}
        applied = server(tmp_path).applied()
        assert Counter(c.action_id for c in applied) == {c.action_id: 1 for c in changes()}
        assert server(tmp_path).requests("refused") == []
        senders = [
            r.entry.body["action"]["worker"]
            for r in ledger.entries(kind="action")
            if r.entry.body["action"]["receipt"]["state"] == "sending"
        ]
        assert len(set(senders)) >= 2, "the work was shared"


def test_claims_hold_against_others_and_end_with_the_connection(postgres: str, schema: str) -> None:
    """A claim is refused to another worker until it is given up, or until its holder's connection is gone."""
    one, two = PostgresLedger(postgres, schema=schema), PostgresLedger(postgres, schema=schema, lock_timeout=0.2)
    assert isinstance(one, Claims)
    with one.claim("target a") as mine, two.claim("target a") as theirs, two.claim("target b") as other:
        assert (mine, theirs, other) == (True, False, True)
        with pytest.raises(LedgerError, match="lock timeout"), two.claim("target a", wait=True):
            pass
    with two.claim("target a") as mine:
        assert mine
    holding = one.claim("target a")
    assert holding.__enter__()
    one.close()
    with two.claim("target a", wait=True) as mine:
        assert mine
    two.close()


def test_errors_show_no_connection_string(postgres: str, schema: str) -> None:
    """A server that is not there, or that went away, gives a LedgerError without the password."""
    with pytest.raises(LedgerError) as caught:
        PostgresLedger("host=127.0.0.1 port=1 user=u password=geheim123 connect_timeout=2")
    assert "geheim123" not in str(caught.value) + repr(caught.value)
    ledger = PostgresLedger(postgres, schema=schema)
    ledger._db.close()
    with pytest.raises(LedgerError):
        ledger.append([Entry(kind="k", subject="s", at=utc(), body={}, key="k")])


def test_tampering_in_the_database_is_found(postgres: str, schema: str) -> None:
    """An edited, removed or reordered record, a wrong index or an edited state makes `verify` raise."""
    entries = [
        Entry(kind="k", subject=f"s{i}", at=datetime(2026, 1, 1, tzinfo=UTC), body={"n": i}, key=f"k{i}", is_open=True) for i in range(30)
    ]
    for number, tampering in enumerate(
        [
            "UPDATE {s}.entries SET body = '{{\"n\":99}}' WHERE sequence = 9",
            "UPDATE {s}.entries SET body = 'no json' WHERE sequence = 9",
            "DELETE FROM {s}.entries WHERE sequence = 9",
            "UPDATE {s}.newest SET is_open = false WHERE subject = 's3'",
            "DELETE FROM {s}.newest WHERE subject = 's3'",
            "UPDATE {s}.states SET value = '\\x00'",
        ]
    ):
        name = f"{schema}_{number}"
        with PostgresLedger(postgres, schema=name) as ledger:
            ledger.append(entries, states={"s": b"state"})
            assert ledger.verify().sequence == 30
            ledger._db.execute(tampering.format(s=name))
            with pytest.raises(LedgerError):
                ledger.verify()
