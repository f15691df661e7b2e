"""Speed of the ledger beside the disk itself, of the quota gate, and of a tick with much to do later.

Run: ``python benchmarks/ledger.py [folder]``. Every figure is the median of several rounds; what counts are the ratios, since disks
differ. The folder decides which disk is measured.
"""

from __future__ import annotations

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


def raw_rate(folder: Path, seconds: float, size: int = 500, *, preallocated: bool = False) -> float:
    """Writes, each flushed to the disk before the next, a second.

    A file that grows makes the file system write its own journal at each flush; a write-ahead log that is begun again from its start
    does not. So both are measured: writes at the end of a growing file, and into 4 MB that were written before.
    """
    file = os.open(folder / "raw", os.O_CREAT | os.O_WRONLY)
    if preallocated:
        os.write(file, bytes(ROOM))
        os.fsync(file)
    payload, count, at, begin = b"x" * size, 0, 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        os.pwrite(file, payload, at)
        os.fdatasync(file)
        at = (at + size) % (ROOM - size) if preallocated else at + size
        count += 1
    rate = count / (time.perf_counter() - begin)
    os.close(file)
    (folder / "raw").unlink()
    return rate


def append_rate(ledger: SqliteLedger, batch: int, seconds: float, first: int) -> tuple[float, float, int]:
    """Records a second, in batches, each batch durable before the next; microseconds of processor time a record; the next number."""
    number, begin, busy = first, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        ledger.append([entry(number + i) for i in range(batch)])
        number += batch
    count = number - first
    return count / (time.perf_counter() - begin), (time.process_time() - busy) / count * 1e6, number


def disk(folder: Path, rounds: int = 7, seconds: float = 1.0) -> None:
    grown, kept, single, batched = [], [], [], []
    with SqliteLedger(folder / "ledger.db") as ledger:
        number = append_rate(ledger, 100, seconds, 0)[2]  # a log that has its size, pages that are there
        for _ in range(rounds):  # in turns, so that a busy disk is busy for all
            grown.append(raw_rate(folder, seconds))
            kept.append(raw_rate(folder, seconds, preallocated=True))
            *rate, number = append_rate(ledger, 1, seconds, number)
            single.append(rate)
            *rate, number = append_rate(ledger, 100, seconds, number)
            batched.append(rate)
    cpu, cpu_each = (statistics.median(c for _, c in measured) for measured in (single, batched))
    one, many = [rate for rate, _ in single], [rate for rate, _ in batched]
    print(f"raw writes of 500 bytes, each with fdatasync: {statistics.median(grown):,.0f} a second at the end of a growing file,")
    print(f"                                              {statistics.median(kept):,.0f} a second into preallocated room")
    print(
        f"single durable appends       {statistics.median(one):10,.0f} a second   {ratio(one, grown):.2f} of the growing file's rate,"
        f" {ratio(one, kept):.2f} of the preallocated one's (goal 0.7); {cpu:.0f} us of processor time"
    )
    print(
        f"appends in batches of 100    {statistics.median(many):10,.0f} a second   {ratio(many, one):.0f} times single (goal 30);"
        f" {cpu_each:.0f} us of processor time a record"
    )


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


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
