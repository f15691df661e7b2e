"""What each of the five failures costs a loop with and without the checks, and when the check finds it.

    python benchmarks/faults.py [--seeds 3] [--jobs 2] [--keep FILE] [--write docs/pages/explanation/faults.md]

The failure begins on day 28 of 63 in the small market, where a row does not say otherwise: a loop that has begun to gain has something to
lose. Loss is the share of incremental conversions that the loop misses from that day on, against the *same* loop on the same seed without
the failure; "without the check" is the same loop with `Thresholds.off()`, the evidence gate and no probability that a move must reach.
Found is the first day, from the beginning of the failure, on which health names it; losses are medians with the smallest and the largest
in brackets. The last columns compare the loss a day of the second week with that of the last two weeks: errors that compound make it grow.
The API's delays are measured from the first day on as well, because a loop that never saw a punctual platform has less to fall back on.
Low volume has no healthy twin: a tenth of the budget from day 0 and arms that are all the same, against holding still.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date, timedelta
from pathlib import Path

import attrs
import numpy as np

from closedloop import AttributionWindow, ClosedLoop, Constraints
from closedloop.health import Thresholds
from closedloop.simulation import (
    Day,
    Fault,
    IgnoredChanges,
    LostReplies,
    MissingTags,
    Outage,
    Scenario,
    SilentPlatform,
    Simulator,
    SlowChanges,
    WindowMismatch,
    WrongAttribution,
    small,
)

BEGINS, DAYS = 28, 63
HEADER = (
    "| failure | found on day | loss without the check | loss with the check | loss a day, 2nd week / last two, without | with |",
    "|---|---|---|---|---|---|",
)
READING = "## How to read it"  # from here on the page is written by hand, and kept


def poor() -> Scenario:
    """Return the small market at a tenth of its budget, with arms that are all the same: whoever sees a difference sees noise."""
    same = tuple(attrs.evolve(c, quality=1.0, role="prospecting", size=1.0) for c in small().campaigns)
    return small(
        name="poor", campaigns=same, total=140.0, organic=1.5, rate_spread=(0.0, 0.0), cpc=(0.6, 0.0), half_spend=(4.0, 0.0), view_share={}
    )


def _delays(begins: int) -> tuple[Fault, ...]:
    return (SlowChanges("6h", "30h"), LostReplies(0.3), IgnoredChanges(5), Outage(from_day=begins, days=4.0))


# failure, first day, scenario, faults (campaign and platform concerned), names of the findings that are about it
FAILURES: tuple[tuple[str, int, Callable[[], Scenario], Callable[[str, str], tuple[Fault, ...]], tuple[str, ...]], ...] = (
    (
        "missing tags (one campaign loses 80 %)",
        BEGINS,
        small,
        lambda c, p: (MissingTags(0.8, from_day=BEGINS, campaign=c),),
        ("missing_tags",),
    ),
    ("low volume (all arms the same)", 0, poor, lambda c, p: (), ("volume",)),
    (
        "attribution mismatch (every platform's claims of 28 days added)",
        BEGINS,
        small,
        lambda c, p: (WindowMismatch("28d", from_day=BEGINS),),
        ("attribution_mismatch",),
    ),
    (
        "attribution mismatch (one platform's claims of 28 days added)",
        BEGINS,
        small,
        lambda c, p: (WindowMismatch("28d", platform=p, from_day=BEGINS),),
        ("attribution_mismatch",),
    ),
    ("API delay (slow, lost and ignored changes, outage)", BEGINS, small, lambda c, p: _delays(BEGINS), ("integrations",)),
    ("API delay (the same from the first day)", 0, small, lambda c, p: _delays(0), ("integrations",)),
    (
        "API delay (a platform's data stop for 10 days)",
        BEGINS,
        small,
        lambda c, p: (SilentPlatform(p, from_day=BEGINS, days=10),),
        ("data_gap", "stale_data", "integrations", "lost_days"),
    ),
    (
        "wrong attribution (a quarter of clicks stamped on one campaign)",
        BEGINS,
        small,
        lambda c, p: (WrongAttribution(0.25, campaign=c, from_day=BEGINS),),
        ("wrong_attribution",),
    ),
)
HEALTHY = -1  # number of the runs without a failure


def run(task: tuple[int, int, bool]) -> tuple[list[float], int | None]:
    """Return conversions caused by day, and the first day on which the failure was named."""
    number, seed, checked = task
    _, first, scenario, faults, names = FAILURES[number] if number != HEALTHY else ("", 0, small, lambda c, p: (), ())
    market = scenario()
    # The campaign concerned: for lost tags the market's best arm would be the worst loss, for stolen credit any; the first is as good.
    campaign = market.campaigns[seed % len(market.campaigns)]
    laid = faults(campaign.campaign, campaign.platform)
    later = [f for f in laid if first and isinstance(f, SlowChanges | LostReplies | IgnoredChanges)]  # these know no first day of their own
    others = [f for f in laid if f not in later]
    simulator = Simulator(market, seed, faults=others, ticks=(timedelta(hours=1), timedelta(hours=8)))
    gate = "volume" if checked and scenario is poor else "evidence"
    limits = (Thresholds() if scenario is poor else Thresholds(minimum_volume=0.0)) if checked else Thresholds.off()
    loop = ClosedLoop(
        window=AttributionWindow(click="7d", view="1d"),
        platforms=simulator.platforms,
        constraints=Constraints(total=market.total, max_step=0.3, gate=gate, min_probability=0.8 if checked else 0.0),
        thresholds=limits,
        seed=seed,
    )
    named: list[int] = []

    def look(done: int, total: int, day: Day) -> None:
        if day.day == BEGINS - 1:
            for fault in later:
                fault.platforms(simulator.platforms, simulator.market)
        report = day.report.health
        if any(f.severity != "ok" and f.name in names for f in (*report.conditions, *report.findings)):
            named.append(day.day)

    days = simulator.run(loop, DAYS, progress=look).days
    return [d.caused for d in days], next((d - first for d in named if d >= first), None)


Runs = dict[tuple[int, int, bool], tuple[list[float], int | None]]


def row(number: int, results: Runs, seeds: int) -> str:
    """Return one line of the table; results by failure, seed and whether the checks were on."""
    title, first, scenario, _, _ = FAILURES[number]
    loss: dict[bool, list[float]] = {True: [], False: []}
    early: dict[bool, list[float]] = {True: [], False: []}
    late: dict[bool, list[float]] = {True: [], False: []}
    for s in range(seeds):
        if scenario is poor:  # there is no healthy twin: the reference is holding still, the manual strategy
            market = Simulator(scenario(), s).market
            clean = np.array([market.truth(d, market.equal_split()).total for d in range(DAYS)])
        else:
            clean = np.array(results[HEALTHY, s, True][0])
        for checked in (True, False):
            missed = clean - np.array(results[number, s, checked][0])
            loss[checked].append(missed[first:].sum() / clean[first:].sum())
            early[checked].append(missed[first + 7 : first + 14].mean() / clean.mean())
            late[checked].append(missed[-14:].mean() / clean.mean())

    def cell(values: list[float]) -> str:
        low, middle, high = (100 * q for q in np.quantile(values, (0.0, 0.5, 1.0)))
        return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"

    found = [results[number, s, True][1] for s in range(seeds)]
    days = ", ".join("never" if day is None else str(day) for day in found)
    growth = (f"{100 * np.median(early[c]):+.1f} % / {100 * np.median(late[c]):+.1f} %" for c in (False, True))
    return f"| {title} | {days} | {cell(loss[False])} | {cell(loss[True])} | " + " | ".join(growth) + " |"


def page(lines: list[str], seeds: int, before: str) -> str:
    """Return the documents' page, with what a person wrote on it before."""
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    command = f"`python benchmarks/faults.py --seeds {seeds}`"
    ran = f"Printed by {command} on {date.today()}, commit {asked.stdout.strip() or 'unknown'}, {seeds} paired seeds."  # noqa: DTZ011
    said = (__doc__ or "").split("\n\n", 2)[2].strip()
    written = before[before.index(READING) :] if READING in before else READING + "\n"
    return "\n\n".join(["# What the failures cost", said, "\n".join(lines), ran, written])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, nargs="*", default=range(len(FAILURES)), help="numbers of the failures, from 0")
    parser.add_argument("--keep", type=Path, help="a file that keeps every run as it is done, and is gone on from")
    parser.add_argument("--write", type=Path, help="the page of the documents to write")
    options = parser.parse_args()
    results: Runs = {}
    if options.keep and options.keep.exists():
        for line in options.keep.read_text(encoding="utf-8").splitlines():
            task, result = json.loads(line)
            results[tuple(task)] = tuple(result)
    wanted = [(HEALTHY, s, True) for s in range(options.seeds)]
    wanted += [(number, s, checked) for number in options.only for s in range(options.seeds) for checked in (True, False)]
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = {pool.submit(run, task): task for task in wanted if task not in results}
        for done in as_completed(waiting):
            results[waiting[done]] = done.result()
            if options.keep:
                with options.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([waiting[done], done.result()]) + "\n")
    lines = [*HEADER, *(row(number, results, options.seeds) for number in options.only)]
    print("\n".join(lines), flush=True)
    if options.write:
        before = options.write.read_text(encoding="utf-8") if options.write.exists() else ""
        options.write.write_text(page(lines, options.seeds, before), encoding="utf-8")


if __name__ == "__main__":
    main()
