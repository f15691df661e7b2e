"""A loop over many arms: seconds and memory of a cycle, room by room, and whether they grow with arms and with days.

    python benchmarks/scale.py [--arms 1000 10000] [--days 10]

Each day brings about ten clicks, two fifths of a conversion and one row of spend an arm, from two platforms whose budgets are read and
changed. As in accounts of that size few arms are large: clicks and budgets fall with the arm's rank (Zipf). The test that all arms are
alike is off (`BudgetDecider(alike=1.0)`), because thousands of thin arms take its power: what a cycle with moves costs is asked here, not
whether they are right. Printed are CPU seconds of the last cycle by room, the moves of every cycle, the peak memory of the process, the
size of state and ledger, and the ratio of the last cycle to the third. Nothing is asserted.
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
CLICKS, RATE, COST = 10, 0.02, 1.0  # a day and arm on average; of a conversion by click, times 0 to 4; of a click


def clicks_of(arms: int) -> np.ndarray:
    """Return each arm's clicks a day, at least one: they fall with its rank."""
    share = 1.0 / np.arange(1, arms + 1)
    return np.maximum(np.round(CLICKS * arms * share / share.sum()), 1).astype(int)


def rows_of(day: int, clicks: np.ndarray, cost: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a day's rows as columns, from each arm's clicks and cost."""
    arms = len(clicks)
    names = np.array([f"c{i}" for i in range(arms)], dtype=object)
    platform = np.where(np.arange(arms) % 2 == 0, "google", "meta").astype(object)
    start = np.datetime64(START.replace(tzinfo=None), "us") + np.timedelta64(day, "D")
    arm = np.repeat(np.arange(arms), clicks)
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
        "cost": np.concatenate([cost, np.zeros(n_k + n_c)]),
        "currency": np.full(arms + n_k + n_c, "EUR", dtype=object),
    }


def measure(arms: int, days: int, folder: Path) -> None:
    """Run the loop for some days and print the last one's cost."""
    rng = np.random.default_rng(1)
    sizes = clicks_of(arms)
    budgets = {
        name: {f"c{i}": cl.Money.of(float(COST * sizes[i]), "EUR") for i in range(k, arms, 2)} for k, name in enumerate(("google", "meta"))
    }
    platforms = {name: cl.SimulatedPlatform(mine, name=name) for name, mine in budgets.items()}
    spent: dict[str, float] = {}

    @contextmanager
    def around(room: str) -> Iterator[None]:
        before = time.process_time()
        yield
        spent[room] = spent.get(room, 0.0) + time.process_time() - before

    totals: list[float] = []
    moves: list[int] = []
    with cl.ClosedLoop(
        window=cl.AttributionWindow(click="7d", view=None),
        tags=cl.TagSchema(arm=("platform", "campaign")),
        platforms=platforms,
        ledger=folder / f"{arms}.db",
        decider=cl.BudgetDecider(cl.Constraints(gate="evidence", min_probability=0.6, max_changes=200), alike=1.0),
        around=around,
    ) as loop:
        report: Any = None
        for day in range(days):
            noon = START + timedelta(days=day, hours=12)
            money = np.array([platforms["google" if i % 2 == 0 else "meta"].budget_at(f"c{i}", noon).units for i in range(arms)])
            clicks = np.maximum(sizes * (money / (COST * sizes)) ** 0.8, 1.0)  # more money buys fewer clicks for each
            rows = rows_of(day, rng.poisson(clicks), money, rng)
            spent.clear()
            before = time.process_time()
            report = loop.run_cycle(rows, now=START + timedelta(days=day + 1))
            totals.append(time.process_time() - before)
            moves.append(len(report.plan.decisions))
            for hours in (1, 12):
                loop.tick(START + timedelta(days=day + 1, hours=hours))
        size = len(loop.ledger.state("attribution") or b"")
        stored = (folder / f"{arms}.db").stat().st_size / days
    rooms = ", ".join(f"{room} {seconds:.2f}" for room, seconds in spent.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arms:,} arms, day {days}: {totals[-1]:.1f} s of CPU ({rooms}, the rest: the ledger); moves {moves}")
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
