"""Speed of the ledger beside the disk itself, of the quota gate, and of a tick with much to do later.

Run: ``python benchmarks/ledger.py [folder]``. Every figure is the median of several rounds; what counts are the ratios, since disks
differ. The folder decides which disk is measured.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from closedloop.execute import OutboxExecutor, QuotaGate
from closedloop.ledger import MemoryLedger, SqliteLedger
from closedloop.platforms import SimulatedPlatform
from closedloop.records.action import Change, Entry
from closedloop.records.decision import Target
from closedloop.records.money import Money

START = datetime(2026, 1, 1, tzinfo=UTC)
ROOM = 4 << 20
BODY = {"text": "x" * 440, "n": 1}  # about 500 bytes, as an action's record


def entry(number: int) -> Entry:
    return Entry(kind="action", subject=f"s{number}", at=START, body={**BODY, "n": number}, key=f"k{number}", is_open=True, due_at=START)


class Raw:
    """Writes of 500 bytes, each flushed to the disk before the next.

    A file that grows makes the file system write its own journal at each flush; a write-ahead log that is begun again from its start
    does not. So both are measured: writes at the end of a growing file, and into 4 MB that were written before.
    """

    def __init__(self, path: Path, *, preallocated: bool, size: int = 500) -> None:
        self.file, self.at, self.size, self.preallocated = os.open(path, os.O_CREAT | os.O_WRONLY), 0, size, preallocated
        if preallocated:
            os.write(self.file, bytes(ROOM))
            os.fsync(self.file)

    def write(self) -> None:
        os.pwrite(self.file, b"x" * self.size, self.at)
        os.fdatasync(self.file)
        self.at = (self.at + self.size) % (ROOM - self.size) if self.preallocated else self.at + self.size


def disk(folder: Path, rounds: int = 120, calls: int = 15) -> None:
    """Take turns of a few calls each, so that a disk that is busy, or slow, is so for all."""
    grown, kept = (Raw(folder / name, preallocated=name == "kept") for name in ("grown", "kept"))
    with SqliteLedger(folder / "ledger.db") as ledger:
        numbers = itertools.count()

        def append(batch: int) -> None:
            ledger.append([entry(next(numbers)) for _ in range(batch)])

        doers = {
            "raw writes of 500 bytes, growing file": (grown.write, calls, 1),
            "raw writes of 500 bytes, preallocated": (kept.write, calls, 1),
            "single durable appends": (lambda: append(1), calls, 1),
            "appends in batches of 100": (lambda: append(100), 3, 100),
        }
        for _ in range(300):
            append(100)  # a log that has its size, pages that are there
        times: dict[str, list[float]] = {name: [] for name in doers}
        busy = dict.fromkeys(doers, 0.0)
        for _ in range(rounds):
            for name, (do, count, each) in doers.items():
                begin, work = time.perf_counter(), time.process_time()
                for _ in range(count):
                    do()
                times[name].append((time.perf_counter() - begin) / count / each)
                busy[name] += (time.process_time() - work) / count / each / rounds
    names = list(doers)
    for name in names:
        print(f"{name:40s}{1 / statistics.median(times[name]):10,.0f} a second{busy[name] * 1e6:8.0f} us of processor time each")
    for raw in names[:2]:
        print(f"single against {raw:40s}{quartiles(times[raw], times[names[2]])} (goal 0.7)")
    print(f"batches of 100 against single            {quartiles(times[names[2]], times[names[3]])} (goal 30)")


def quartiles(theirs: list[float], ours: list[float]) -> str:
    """Quartiles of the ratio of rates, turn by turn."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(theirs, ours, strict=True)], n=4)
    return f"{middle:7.2f} times (quartiles {low:.2f} to {high:.2f})"


def gate(checks: int = 200_000) -> None:
    limits = [("account", 1e6, 60.0), ("account", 1e8, 86400.0), ("project", 1e7, 3600.0)]
    costs = {"account": 1.0, "project": 1.0}
    one = QuotaGate()
    now, begin = 10**15, time.process_time()
    for _ in range(checks):
        now += 10_000
        if one.wait(now, limits, costs) <= now:
            one.charge(now, limits, costs)
    print(
        f"quota gate, three windows    {(time.process_time() - begin) / checks * 1e6:10.2f} microseconds a check with its charge (goal 10)"
    )


def tick_seconds(pending: int, ticks: int = 60) -> float:
    """Median seconds of a tick in which the quota lets one of many waiting actions through."""
    budgets = {f"r{i}": Money.of(100, "EUR") for i in range(pending)}
    platform = SimulatedPlatform(budgets, quota=(3, 60))
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform}, expiry=timedelta(days=9999), headroom=1.0)
    changes = [Change(action_id=f"a{i}", target=Target("simulated", r), budget=Money.of(101, "EUR")) for i, r in enumerate(budgets)]
    executor.submit("p", changes, now=START, reason="benchmark")
    now, spent = START, []
    for _ in range(ticks):
        now += timedelta(seconds=61)
        begin = time.perf_counter()
        executor.tick(now)
        spent.append(time.perf_counter() - begin)
    assert len(platform.applied()) == ticks + 1
    return statistics.median(spent)


def ticks() -> None:
    few, many = tick_seconds(100), tick_seconds(100_000)
    print(f"tick with 100 pending        {few * 1e3:10.2f} ms")
    print(f"tick with 100,000 pending    {many * 1e3:10.2f} ms          {many / few:.2f} times (goal below 2)")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as name:
        disk(Path(name))
    gate()
    ticks()


if __name__ == "__main__":
    main()
