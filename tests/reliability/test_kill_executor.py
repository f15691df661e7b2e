"""The executor killed with SIGKILL: every action settles, no value is wrong, nothing is made twice, no quota is broken.

The server keeps its books in its own file and puts changes into force up to some time after it took them, also when the client
that sent them is dead by then. Set CLOSEDLOOP_FULL=1 for the longer run.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from closedloop.execute import OutboxExecutor
from closedloop.ledger import SqliteLedger
from closedloop.platforms import SimulatedPlatform
from closedloop.records.action import AttemptResult, Change, TargetState
from closedloop.records.decision import Target
from closedloop.records.money import Money

FULL = os.environ.get("CLOSEDLOOP_FULL") == "1"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@attrs.frozen
class World:
    """How much there is to do, and how the server behaves: seconds of a change's lateness, seconds of a request's travel, quota."""

    actions: int
    late: float
    travel: float = 0.0
    quota: tuple[float, float] | None = None

    def server(self, folder: Path) -> Distant:
        budgets = {f"r{i}": Money.of(100, "EUR") for i in range(self.actions)}
        return Distant(budgets, late_by=timedelta(seconds=self.late), quota=self.quota, seed=3, path=folder / "server.db").at(self.travel)

    def work(self) -> list[Change]:
        def change(i: int) -> Change:
            if i % 2:
                return Change(action_id=f"b{i}", target=Target("simulated", f"r{i}"), budget=Money.of(101 + i, "EUR"))
            return Change(action_id=f"c{i}", target=Target("simulated", f"new{i}"), kind="create", budget=Money.of(10 + i, "EUR"))

        return [change(i) for i in range(self.actions)]


class Distant(SimulatedPlatform):
    """A server with a clock of its own, to which every change travels for a while, and its reply back."""

    def at(self, travel: float) -> Distant:
        self.travel = travel
        return self

    def find(self, change: Change, *, now: datetime) -> list[TargetState]:
        return super().find(change, now=utc())

    def read(self, target: Target, *, now: datetime) -> TargetState:
        return super().read(target, now=utc())

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        time.sleep(self.travel)
        result = super().send(change, now=utc(), timeout=timeout)
        time.sleep(self.travel)
        return result


class Watched:
    """A part whose every call of some methods counts as two steps: about to happen, and just done; at the last step it dies."""

    def __init__(self, part: Any, names: tuple[str, ...], steps: list[int]) -> None:
        self._part, self._names, self._steps = part, names, steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name not in self._names:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._step()
            result = found(*args, **kwargs)
            self._step()
            return result

        return call

    def _step(self) -> None:
        self._steps[0] -= 1
        if self._steps[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def utc() -> datetime:
    return datetime.now(UTC)


def live(world: World, folder: Path, steps: int = 0) -> None:
    """Submit everything (again, after each death) and tick until nothing is open; die at a step when one is given."""
    countdown = [steps]
    with SqliteLedger(folder / "ledger.db") as ledger:
        executor = OutboxExecutor(
            Watched(ledger, ("append",), countdown),
            {"simulated": Watched(world.server(folder), ("read", "find", "send"), countdown)},
            timeout=timedelta(seconds=0.1),
            poll_interval=timedelta(seconds=0.1),
            confirm_within=timedelta(seconds=5),
            monotonic=time.monotonic,
        )
        executor.submit("work", world.work(), now=utc(), reason="test")
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


def was_killed(pid: int) -> bool:
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def requests(folder: Path) -> int:
    """Return how many requests the server has counted so far."""
    try:
        with closing(sqlite3.connect(folder / "server.db")) as books:
            return int(books.execute("SELECT count(*) FROM requests").fetchone()[0])
    except sqlite3.OperationalError:  # it has not opened yet
        return 0


def wait_for_a_moment(pid: int, folder: Path, chance: random.Random) -> None:
    """Wait for any moment of a third of the lives, and in the others for one in which requests are made, however slow the machine is."""
    if chance.random() < 1 / 3:
        time.sleep(chance.uniform(0.05, 0.5))
        return
    wanted, last = requests(folder) + chance.randint(1, 8), time.monotonic() + 20.0
    while requests(folder) < wanted and time.monotonic() < last:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.005)
    time.sleep(chance.uniform(0.0, 0.03))


def settled_by_a_look(world: World, folder: Path) -> int:
    """Check every promise; return how many actions whose reply was never heard were settled by a look alone."""
    wanted = {change.action_id: change for change in world.work()}
    with SqliteLedger(folder / "ledger.db") as ledger:
        ledger.verify()
        platform = world.server(folder)
        receipts = OutboxExecutor(ledger, {"simulated": platform}).receipts("work")
        assert Counter(r.state for r in receipts) == {"confirmed": world.actions}
        applied = platform.applied()
        assert Counter(c.action_id for c in applied) == dict.fromkeys(wanted, 1), "each change came into force once"
        for change in applied:
            assert change.budget == wanted[change.action_id].budget
        for change in wanted.values():
            if change.kind == "set_budget":
                assert platform.budget_at(change.target.resource, utc() + timedelta(days=1)) == change.budget
        assert platform.requests("refused") == []
        return sum(1 for r in receipts if r.accepted_at is None)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Half budgets, half creations, killed at random moments of a busy time under a quota."""
    world = (
        World(actions=400, late=1.5, travel=0.01, quota=(90.0, 1.0))
        if FULL
        else World(actions=120, late=0.4, travel=0.01, quota=(90.0, 1.0))
    )
    chance = random.Random(5)
    kills = looked = 0
    folders: list[Path] = []
    while (kills < (75 if FULL else 25) or not looked) and kills < 300:  # until some kills fell between a send and its reply
        folders.append(tmp_path / str(len(folders)))
        folders[-1].mkdir()
        for _ in range(75 if FULL else 25):
            pid = child(lambda at=folders[-1]: live(world, at))
            wait_for_a_moment(pid, folders[-1], chance)
            os.kill(pid, signal.SIGKILL)
            if not was_killed(pid):
                break
            kills += 1
        live(world, folders[-1])
        looked += settled_by_a_look(world, folders[-1])
    assert looked > 0, "some kills fell between a send and its reply"
    print(f"{kills} kills, {world.actions * len(folders)} actions, {looked} settled by a look alone")  # noqa: T201


def test_killed_at_critical_points(tmp_path: Path) -> None:
    """Killed again and again just before or just after a record is written or a request is made."""
    world = World(actions=4, late=0.4)
    chance = random.Random(6)
    kills = looked = rounds = 0
    while kills < (300 if FULL else 40):
        folder = tmp_path / str(rounds)
        folder.mkdir()
        rounds += 1
        while True:
            steps = chance.randint(1, 24)
            if not was_killed(child(lambda at=folder, steps=steps: live(world, at, steps))):
                break
            kills += 1
        looked += settled_by_a_look(world, folder)
    assert looked > 0, "some kills fell between a send and its reply"
    print(f"{kills} kills, {world.actions * rounds} actions, {looked} settled by a look alone")  # noqa: T201
