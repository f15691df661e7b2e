"""A year of daily cycles: do the time of a cycle, the memory of the process and the size of the state stay flat?

    python benchmarks/year.py [--days 365] [--plot year.png]

The small market with slow drift, day after day, in one process with an SQLite ledger. Printed are medians of the days 90 to 120 and of
the last thirty, and their ratio; the ledger grows by design (it is a book of accounts), so for it the bytes and the records of a cycle are
compared; the picture shows its size as well. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from closedloop import AttributionWindow, ClosedLoop, Constraints
from closedloop.simulation import Day, Simulator, small

LABELS = ("cycle, CPU seconds", "memory, MB", "state, kB", "ledger, kB a cycle", "ledger, records a cycle", "ledger, MB in all")
LEDGER = LABELS.index("ledger, kB a cycle")  # its file grows by whole pages, and on many days by none


def resident() -> float:
    """Return the resident memory of this process in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def live(days: int, file: Path) -> list[tuple[float, ...]]:
    """Run the loop and return (seconds, MB, kB of state, kB and records of ledger written, MB of ledger) by day."""
    simulator = Simulator(small(drift=0.01), 5, ticks=(timedelta(hours=1), timedelta(hours=8)))
    lines: list[tuple[float, ...]] = []
    spent = [0.0]

    class Timed(ClosedLoop):
        def run_cycle(self, *words, **named):  # type: ignore[no-untyped-def]
            before = time.process_time()
            report = super().run_cycle(*words, **named)
            spent[0] = time.process_time() - before
            return report

    def size() -> float:
        return sum(p.stat().st_size for p in file.parent.glob(f"{file.name}*")) / 1024

    stood, seen = [0.0], [simulator.market.day_start(0)]
    constraints = Constraints(total=simulator.market.scenario.total, gate="evidence")
    with Timed(
        window=AttributionWindow(click="7d", view="1d"), platforms=simulator.platforms, constraints=constraints, ledger=file
    ) as loop:

        def look(done: int, total: int, day: Day) -> None:
            gc.collect()
            now = size()
            state, records = len(loop.ledger.state("attribution") or b"") / 1024, sum(1 for _ in loop.ledger.entries(since=seen[0]))
            lines.append((spent[0], resident(), state, now - stood[0], float(records), now / 1024))
            stood[0], seen[0] = now, simulator.market.day_start(day.day + 2)  # the night's cycle and its ticks are over by then

        simulator.run(loop, days, progress=look)
    return lines


def middle(k: int, values: list[float]) -> float:
    """Return the median, and of the ledger's growth the mean."""
    return statistics.fmean(values) if k == LEDGER else statistics.median(values)


def draw(lines: list[tuple[float, ...]], path: Path) -> None:
    """Draw the series, one above the other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(LABELS), 1, figsize=(8, 11), sharex=True, layout="constrained")
    for k, (ax, label) in enumerate(zip(axes, LABELS, strict=True)):
        values = [line[k] for line in lines]
        ax.plot(range(1, len(values) + 1), values, ".", ms=2.5, color="#0072b2", alpha=0.6)
        rolling = [middle(k, values[max(0, d - 14) : d + 15]) for d in range(len(values))]
        ax.plot(range(1, len(values) + 1), rolling, color="#d55e00", lw=1.5)
        ax.set_ylim(0, 1.15 * sorted(values)[int(0.99 * (len(values) - 1))])
        ax.set_title(label, loc="left", fontsize=10)
        ax.grid(axis="y", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("day (points: days; line: median of four weeks, of the kB of the ledger the mean)")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = live(options.days, Path(folder) / "loop.db")
    early, late = lines[90:120] or lines[:30], lines[-30:]
    for k, label in enumerate(LABELS[:-1]):
        first, last = (middle(k, [line[k] for line in part]) for part in (early, late))
        print(f"{label:<24} days 90-120 {first:8.2f}   last thirty {last:8.2f}   ratio {last / first:.2f}")
    print(f"{LABELS[-1]}: {lines[-1][-1]:.1f} after {len(lines)} days")
    if options.plot:
        draw(lines, options.plot)


if __name__ == "__main__":
    main()
