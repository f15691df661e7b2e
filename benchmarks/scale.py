"""A loop over many arms: seconds and memory of a cycle, room by room, and whether they grow with arms and with days.

    python benchmarks/scale.py [--arms 1000 10000] [--days 10]

Each day brings ten clicks, half a conversion and one row of spend an arm, from two platforms whose budgets are read and changed. Printed
are CPU seconds of the last cycle by room, the peak memory of the process, the size of state and ledger, and the ratio of the last cycle
to the third. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import closedloop as cl

START = datetime(2026, 3, 2, tzinfo=UTC)
CLICKS, RATE, COST = 10, 0.02, 10.0


def rows_of(day: int, arms: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a day's rows as columns."""
    names = np.array([f"c{i}" for i in range(arms)], dtype=object)
    platform = np.where(np.arange(arms) % 2 == 0, "google", "meta").astype(object)
    start = np.datetime64(START.replace(tzinfo=None), "us") + np.timedelta64(day, "D")
    arm = np.repeat(np.arange(arms), CLICKS)
    at = start + rng.integers(0, 80_000, len(arm)).astype("timedelta64[s]")
    users = np.array([f"u{day}-{i}" for i in range(len(arm))], dtype=object)
    buys = np.flatnonzero(rng.random(len(arm)) < RATE * (arm % 5))
    n_k, n_c = len(arm), len(buys)

    def text(moments: np.ndarray) -> np.ndarray:
        return (np.datetime_as_string(moments.astype("datetime64[s]")).astype(object)) + "Z"

    nothing = np.full(n_c, None, dtype=object)
    return {
        "kind": np.array(["spend"] * arms + ["click"] * n_k + ["conversion"] * n_c, dtype=object),
        "occurred_at": np.concatenate([text(np.full(arms, start)), text(at), text(at[buys] + np.timedelta64(2, "h"))]),
        "platform": np.concatenate([platform, platform[arm], nothing]),
        "campaign": np.concatenate([names, names[arm], nothing]),
        "user_id": np.concatenate([np.full(arms, None, dtype=object), users, users[buys]]),
        "cost": np.concatenate([np.full(arms, COST), np.zeros(n_k + n_c)]),
        "currency": np.full(arms + n_k + n_c, "EUR", dtype=object),
    }


def measure(arms: int, days: int, folder: Path) -> None:
    """Run the loop for some days and print the last one's cost."""
    rng = np.random.default_rng(1)
    budgets = {name: {f"c{i}": cl.Money.of(COST, "EUR") for i in range(k, arms, 2)} for k, name in enumerate(("google", "meta"))}
    platforms = {name: cl.SimulatedPlatform(mine, name=name) for name, mine in budgets.items()}
    spent: dict[str, float] = {}

    @contextmanager
    def around(room: str) -> Iterator[None]:
        before = time.process_time()
        yield
        spent[room] = spent.get(room, 0.0) + time.process_time() - before

    totals: list[float] = []
    with cl.ClosedLoop(
        window=cl.AttributionWindow(click="7d", view=None),
        tags=cl.TagSchema(arm=("platform", "campaign")),
        platforms=platforms,
        ledger=folder / f"{arms}.db",
        constraints=cl.Constraints(gate="evidence", min_probability=0.6, max_changes=200),
        around=around,
    ) as loop:
        report: Any = None
        for day in range(days):
            rows = rows_of(day, arms, rng)
            spent.clear()
            before = time.process_time()
            report = loop.run_cycle(rows, now=START + timedelta(days=day + 1))
            totals.append(time.process_time() - before)
        size = len(loop.ledger.state("attribution") or b"")
        stored = (folder / f"{arms}.db").stat().st_size / days
    rooms = ", ".join(f"{room} {seconds:.2f}" for room, seconds in spent.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arms:,} arms, day {days}: {totals[-1]:.1f} s of CPU ({rooms}, the rest: the ledger); {len(report.plan.decisions)} moves")
    print(f"  peak {peak:,.0f} MB, state {size / 1e6:.1f} MB, ledger {stored / 1e6:.1f} MB a cycle")
    print(f"  last cycle / third {totals[-1] / totals[2]:.2f}; {1e3 * totals[-1] / arms:.2f} ms an arm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--days", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for arms in options.arms:
            measure(arms, options.days, Path(folder))


if __name__ == "__main__":
    main()
