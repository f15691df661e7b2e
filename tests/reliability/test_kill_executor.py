"""The executor killed with SIGKILL at random moments: every action settles, no value is wrong, nothing is made twice.

The server keeps its books in its own file and puts changes into force up to `LATE` seconds after it took them, also when the
client that sent them is dead by then. Set CLOSEDLOOP_FULL=1 for the longer run.
"""

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

from closedloop.execute import OutboxExecutor
from closedloop.ledger import SqliteLedger
from closedloop.platforms import SimulatedPlatform
from closedloop.records.action import Change
from closedloop.records.decision import Target
from closedloop.records.money import Money

FULL = os.environ.get("CLOSEDLOOP_FULL") == "1"
ACTIONS = 400 if FULL else 160
KILLS = 75 if FULL else 50
LATE = 1.5 if FULL else 0.4
QUOTA = (60.0, 1.0)  # three requests an action: keeps the work going for longer than a few lives


def now() -> datetime:
    return datetime.now(UTC)


def server(folder: Path) -> SimulatedPlatform:
    budgets = {f"r{i}": Money.of(100, "EUR") for i in range(ACTIONS // 2)}
    return SimulatedPlatform(budgets, late_by=timedelta(seconds=LATE), quota=QUOTA, seed=3, path=folder / "server.db")


def work() -> list[Change]:
    budgets = [
        Change(action_id=f"b{i}", target=Target("simulated", f"r{i}"), kind="set_budget", budget=Money.of(100 + i, "EUR"))
        for i in range(1, ACTIONS // 2)
    ]
    creations = [
        Change(action_id=f"c{i}", target=Target("simulated", f"new{i}"), kind="create", budget=Money.of(10 + i, "EUR"))
        for i in range(ACTIONS - len(budgets))
    ]
    return budgets + creations


def live(folder: Path) -> None:
    """Submit everything (again, after each death) and tick until nothing is open."""
    with SqliteLedger(folder / "ledger.db") as ledger:
        executor = OutboxExecutor(
            ledger,
            {"simulated": server(folder)},
            timeout=timedelta(seconds=0.2),
            poll_interval=timedelta(seconds=0.1),
            confirm_within=timedelta(seconds=5),
            clock=now,
        )
        executor.submit("work", work(), now=now(), reason="test")
        due: datetime | None = now()
        while due is not None:
            time.sleep(min(max((due - now()).total_seconds(), 0.0), 0.05))
            due = executor.tick(now())


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Half budgets and half creations, killed at random: all confirmed, right values, no duplicate, no quota broken, chain intact."""
    chance = random.Random(5)
    kills, folder, lives = 0, tmp_path / "0", 0
    folder.mkdir()
    folders = [folder]
    while kills < KILLS:
        pid = child(lambda at=folder: live(at))
        time.sleep(chance.uniform(0.02, 0.5))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        lives += 1
        if os.WIFSIGNALED(status):
            kills += 1
        else:
            assert os.WEXITSTATUS(status) == 0
            folder = tmp_path / str(lives)
            folder.mkdir()
            folders.append(folder)
    for one in folders:
        live(one)
        check(one)


def check(folder: Path) -> None:
    wanted = {change.action_id: change for change in work()}
    with SqliteLedger(folder / "ledger.db") as ledger:
        ledger.verify()
        platform = server(folder)
        receipts = OutboxExecutor(ledger, {"simulated": platform}).receipts("work")
        assert Counter(r.state for r in receipts) == {"confirmed": ACTIONS}
        applied = platform.applied()
        assert Counter(c.action_id for c in applied) == dict.fromkeys(wanted, 1), "each change came into force once"
        for change in applied:
            assert change.budget == wanted[change.action_id].budget
        for change in wanted.values():
            if change.kind == "set_budget":
                assert platform.budget_at(change.target.resource, now() + timedelta(days=1)) == change.budget
        assert platform.requests("refused") == []
        print(f"actions {ACTIONS}, settled by a look alone {sum(1 for r in receipts if r.accepted_at is None)}")  # noqa: T201
