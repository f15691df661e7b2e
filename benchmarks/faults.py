"""What each of the five failures costs a loop with and without the checks, and when the check finds it.

    python benchmarks/faults.py [--seeds 4] [--jobs 2] [--write docs/pages/explanation/faults.md]

The failure begins on day 28 of 63 in the small market. Loss is the share of incremental conversions that the loop misses from that day
on, against the *same* loop on the same seed without the failure; "without the check" is the same loop with `Thresholds.off()`, the
evidence gate and no probability that a move must reach. Found is the first day, from the beginning of the failure, on which health
names it. The last column compares the loss a day of the last two weeks with that of the second week: errors that compound make it
grow. Low volume has no healthy twin: a tenth of the budget from day 0 and arms that are all the same, against holding still.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

import attrs
import numpy as np

from closedloop import AttributionWindow, ClosedLoop, Constraints
from closedloop.health import Thresholds
from closedloop.simulation import (
    Day,
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


def poor() -> Scenario:
    """Return the small market at a tenth of its budget, with arms that are all the same: whoever sees a difference sees noise."""
    same = tuple(attrs.evolve(c, quality=1.0, role="prospecting", size=1.0) for c in small().campaigns)
    return small(
        name="poor", campaigns=same, total=140.0, organic=1.5, rate_spread=(0.0, 0.0), cpc=(0.6, 0.0), half_spend=(4.0, 0.0), view_share={}
    )


# failure, scenario, faults, names of the findings that are about it
FAILURES = (
    ("missing tags (one campaign loses 80 %)", small, lambda c: (MissingTags(0.8, from_day=BEGINS, campaign=c),), ("missing_tags",)),
    ("low volume (all arms the same)", poor, lambda c: (), ("volume",)),
    (
        "attribution mismatch (claims of 28 days added)",
        small,
        lambda c: (WindowMismatch("28d", from_day=BEGINS),),
        ("attribution_mismatch",),
    ),
    (
        "API delay (slow, lost and ignored changes, outage)",
        small,
        lambda c: (SlowChanges("6h", "30h"), LostReplies(0.3), IgnoredChanges(5), Outage(from_day=BEGINS, days=4.0)),
        ("integrations",),
    ),
    (
        "API delay (a platform's data stop)",
        small,
        lambda c: (SilentPlatform("meta", from_day=BEGINS, days=10),),
        ("data_gap", "stale_data", "integrations"),
    ),
    (
        "wrong attribution (a quarter of clicks stamped on one campaign)",
        small,
        lambda c: (WrongAttribution(0.25, campaign=c, from_day=BEGINS),),
        ("wrong_attribution",),
    ),
)


def run(task: tuple[int, int, bool, bool]) -> tuple[np.ndarray, int | None]:
    """Return conversions caused by day, and the first day on which the failure was named."""
    number, seed, faulty, checked = task
    _, scenario, faults, names = FAILURES[number]
    market = scenario()
    # The campaign concerned: for lost tags the market's best arm would be the worst loss, for stolen credit any; the first is as good.
    campaign = str(market.campaigns[seed % len(market.campaigns)].campaign)
    laid = faults(campaign) if faulty else ()
    later = [f for f in laid if isinstance(f, SlowChanges | LostReplies | IgnoredChanges)]  # these know no first day of their own
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
    first = 0 if scenario is poor else BEGINS
    found = next((d - first for d in named if d >= first), None)
    return np.array([d.caused for d in days]), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the failures, from 0")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    lines = [
        "| failure | found on day | loss without the check | loss with the check | loss a day, last 2 weeks / 2nd week, with the check |",
        "|---|---|---|---|---|",
    ]
    for number, (title, scenario, _, _) in enumerate(FAILURES):
        if options.only is not None and number not in options.only:
            continue
        first = 0 if scenario is poor else BEGINS
        kinds = [(False, True), (True, True), (True, False)]  # (faulty, checked)
        tasks = [(number, s, f, c) for s in range(options.seeds) for f, c in kinds]
        with ProcessPoolExecutor(options.jobs) as pool:
            results = list(pool.map(run, tasks))
        loss, found, growth = {True: [], False: []}, [], []
        for s in range(options.seeds):
            clean, with_check, without = (results[3 * s + k] for k in range(3))
            if scenario is poor:  # there is no healthy twin: the reference is holding still, the manual strategy
                market = Simulator(scenario(), s).market
                base = np.array([market.truth(d, market.equal_split()).total for d in range(DAYS)])
            else:
                base = clean[0]
            for checked, (caused, day) in ((True, with_check), (False, without)):
                loss[checked].append(1 - caused[first:].sum() / base[first:].sum())
                if checked:
                    found.append(day)
                    missed = base - caused
                    growth.append((missed[-14:].mean(), missed[first + 7 : first + 14].mean(), base.mean()))
        days = ["never" if d is None else str(d) for d in found]
        late, early, level = (np.mean([g[k] for g in growth]) for k in range(3))
        text = f"{100 * late / level:+.1f} % / {100 * early / level:+.1f} %"
        lines.append(
            f"| {title} | {', '.join(days)} | {100 * np.median(loss[False]):+.1f} % | {100 * np.median(loss[True]):+.1f} % | {text} |"
        )
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("# What the failures cost\n\n" + __doc__.split("\n\n", 2)[2].strip() + "\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
