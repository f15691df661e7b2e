"""A loop killed with SIGKILL anywhere resumes from its ledger: same state, no decision lost, none applied twice."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import closedloop as cl

WINDOW = cl.AttributionWindow(click="3d", view="1d")
START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 14
CAMPAIGNS = ("spring", "summer", "brand")
RATES = (0.10, 0.04, 0.07)
BUDGETS = {f"c{i}": cl.Money.of(100, "EUR") for i in range(3)}
ARM = ("platform", "campaign")


def rows_of(day: int) -> dict[str, list[Any]]:
    """Events of one day: about 300 clicks an arm, conversions of today's and yesterday's clicks, spend."""
    columns: dict[str, list[Any]] = {
        n: []
        for n in ("event_id", "kind", "occurred_at", "user_id", "platform", "campaign", "cost", "value", "currency", "conversion_type")
    }

    def add(**row: Any) -> None:
        for name, column in columns.items():
            column.append(row.get(name))

    for source, lag in ((day, 0), (day - 1, 1)):
        for arm, (campaign, rate) in enumerate(zip(CAMPAIGNS, RATES, strict=True)):
            rng = np.random.default_rng([source + 5, arm])
            for click in range(300):
                at = START + timedelta(days=source, seconds=int(rng.integers(0, 70_000)))
                user = f"u{source}-{arm}-{click}"
                if lag == 0:
                    add(event_id=f"k{user}", kind="click", occurred_at=at, user_id=user, platform="sim", campaign=campaign)
                if rng.random() < rate and int(rng.integers(0, 2)) == lag:
                    seen = at + timedelta(hours=1, days=lag)
                    add(
                        event_id=f"c{user}",
                        kind="conversion",
                        occurred_at=seen,
                        user_id=user,
                        value=20.0,
                        currency="EUR",
                        conversion_type="sale",
                    )
            if lag == 0:
                at = START + timedelta(days=source, hours=23)
                add(
                    event_id=f"s{source}-{arm}", kind="spend", occurred_at=at, platform="sim", campaign=campaign, cost=100.0, currency="EUR"
                )
    return columns


def platform_at(folder: Path) -> Any:
    return cl.SimulatedPlatform(BUDGETS, name="sim", latency=timedelta(minutes=20), path=folder / "platform.db")


def loop_at(folder: Path, ledger: Any = None, hook: Any = None, platform: Any = None) -> cl.ClosedLoop:
    targets = {("sim", c): cl.Target("sim", f"c{i}") for i, c in enumerate(CAMPAIGNS)}
    return cl.ClosedLoop(
        window=WINDOW,
        platforms={"sim": platform if platform is not None else platform_at(folder)},
        ledger=ledger if ledger is not None else folder / "loop.db",
        constraints=cl.Constraints(min_probability=0.5, minimum_volume=20),
        tags=cl.TagSchema(arm=ARM),
        targets=targets,
        hook=hook,
    )


def live(folder: Path, days: int = DAYS, **parts: Any) -> None:
    """Run every day that the ledger does not hold yet, as a nightly job would."""
    with loop_at(folder, **parts) as loop:
        for day in range(loop.cycles, days):
            now = START + timedelta(days=day + 1)
            settle(loop, now - timedelta(days=1))
            loop.run_cycle(rows_of(day), now=now)
        settle(loop, START + timedelta(days=days))


def settle(loop: cl.ClosedLoop, since: datetime) -> None:
    """Let the executor work until nothing is open; a kill late in the night leaves time for the look and the second try."""
    for hours in range(1, 22):
        if loop.tick(since + timedelta(hours=hours)) is None:
            return


def facts(folder: Path) -> dict[str, Any]:
    """What the world and the ledger say at the end."""
    with loop_at(folder) as loop:
        loop.verify()
        plans = [r.entry.body["plan"] for r in loop.ledger.entries(kind="plan")]
        platform = loop.platforms["sim"]
        return {
            "state": loop.ledger.state("attribution"),
            "cycles": loop.cycles,
            "plans": plans,
            "open": len(loop.executor.receipts()),
            "applied": platform.applied(),
        }


def child(work: Callable[[], None]) -> int:
    """Run work in a forked process and return its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the child must never return into the test runner
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    return pid


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The facts of a loop that nobody killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    live(folder)
    return facts(folder)


def same_facts(found: dict[str, Any], expected: dict[str, Any], days: int = DAYS) -> None:
    assert found["cycles"] == expected["cycles"] == days
    assert found["state"] == expected["state"]
    assert found["plans"] == expected["plans"]
    assert found["open"] == expected["open"] == 0
    ids = [change.action_id for change in found["applied"]]
    assert len(ids) == len(set(ids)) > 0, "an action was applied twice"
    assert by_resource(found["applied"]) == by_resource(expected["applied"])


def by_resource(applied: list[Any]) -> dict[str, list[tuple[str, Any]]]:
    """The changes of each budget in their order; a kill may let another budget go first within a night."""
    return {name: [(c.action_id, c.budget) for c in applied if c.resource == name] for name in BUDGETS}


def test_undisturbed_loop_moves_budgets(undisturbed: dict[str, Any]) -> None:
    """The reference run is worth comparing with: it acts, and every action ends."""
    assert undisturbed["open"] == 0
    assert len(undisturbed["applied"]) >= 5


def test_killed_at_random_moments(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    """At least 50 kills at random moments change nothing in what is remembered, decided and applied."""
    chance = random.Random(11)
    kills = 0
    folder = tmp_path
    round_number = 0
    while kills < 50:
        folder = tmp_path / f"round{round_number}"
        folder.mkdir()
        round_number += 1
        while True:
            pid = child(lambda at=folder: live(at))
            time.sleep(chance.uniform(0.0, 0.6))
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                kills += 1
            else:
                assert os.WEXITSTATUS(status) == 0
                break
            if kills >= 50:
                live(folder)
                break
        same_facts(facts(folder), undisturbed)
    assert kills >= 50


class Countdown:
    """Kill this process at the n-th step of any kind, before or after it is done."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Watched:
    """A part whose every call counts as two steps: about to happen, and just done."""

    def __init__(self, part: Any, names: tuple[str, ...], step: Countdown) -> None:
        self._part, self._names, self._step = part, names, step

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


def test_killed_at_every_step(tmp_path: Path) -> None:
    """One kill at each of the first 40 steps that leave a trace (ledger write, platform call, room left) of busy days.

    Two days after the last of them the whole state is that of a loop that nobody killed: equal states have equal days to come.
    """
    days = 10
    base = tmp_path / "base"
    base.mkdir()
    with loop_at(base) as loop:  # six days pass undisturbed, so that the plan has moves in it; then the countdown begins
        for day in range(6):
            now = START + timedelta(days=day + 1)
            settle(loop, now - timedelta(days=1))
            loop.run_cycle(rows_of(day), now=now)
        loop.platforms["sim"].close()

    def some_days(folder: Path, step: Countdown) -> None:
        platform = Watched(platform_at(folder), ("send", "read"), step)
        ledger = Watched(cl.SqliteLedger(folder / "loop.db"), ("append",), step)
        live(folder, days, ledger=ledger, platform=platform, hook=lambda *_: step())

    whole = tmp_path / "undisturbed"
    shutil.copytree(base, whole)
    live(whole, days)
    undisturbed = facts(whole)
    kills = 0
    for steps in range(1, 41):
        folder = tmp_path / f"step{steps}"
        shutil.copytree(base, folder)
        pid = child(lambda at=folder, n=steps: some_days(at, Countdown(n)))
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status)
        kills += 1
        with loop_at(folder) as loop:
            assert loop.cycles <= days - 2
        live(folder, days)
        same_facts(facts(folder), undisturbed, days)
    assert kills == 40
