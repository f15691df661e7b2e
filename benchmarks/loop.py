"""Truth-based cost per incremental conversion of the loop and of its peers, against an equal split, on paired seeds.

    python benchmarks/loop.py [scenario ...] [--seeds 16] [--first-seed 0] [--days 70] [--jobs 2] [--variants ...] [--json FILE]

Every policy starts with 14 days of an equal split (the loop watches in ``shadow``); the 56 days after them count. The same seed gives
the same market, the same noise of a day and the same faults to every policy. Seeds 0-15 are for work; the scenario "untouched" and seeds
1000 and up are kept for the end. Cost is spend over *expected* incremental conversions, both read from the market's own curves.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta

import attrs
import numpy as np
from policies import PEERS

from closedloop import AttributionWindow, BayesClassifier, ClosedLoop, Constraints, HoldoutPolicy
from closedloop.simulation import (
    SCENARIOS,
    Break,
    LostReplies,
    Market,
    MissingTags,
    Outage,
    Scenario,
    Simulator,
    SlowChanges,
    WindowMismatch,
    retargeting,
)

WARM_UP = 14
WINDOW = AttributionWindow(click="7d", view="1d")


def untouched() -> Scenario:
    """Return the scenario that no one looks at before the end: retargeting, drift and a break together, with revenue."""
    return retargeting(name="untouched", drift=0.015, breaks=(Break(day=35, rate=0.4, share=0.3),), value=(60.0, 0.5))


MARKETS = {
    "healthy": (SCENARIOS["healthy"], ()),
    "retargeting": (SCENARIOS["retargeting"], ()),
    "breaks": (SCENARIOS["breaks"], ()),
    "identical": (SCENARIOS["identical"], ()),
    "low_volume": (SCENARIOS["low_volume"], ()),
    "flaky": (SCENARIOS["flaky"], (LostReplies(0.2), SlowChanges("6h", "12h"), Outage(from_day=30, days=2.0))),
    "mismatched": (SCENARIOS["healthy"], (WindowMismatch("28d"),)),
    "untagged": (SCENARIOS["healthy"], (MissingTags(0.2),)),
    "untouched": (untouched, ()),
}


def constraints(total: float, variant: str) -> Constraints:
    """Return the constraints of a variant of the loop."""
    return Constraints(total=total, max_step=0.3, gate="evidence" if variant.startswith("evidence gate") else "volume")


def one_peer(policy: type, market: Market, days: int, seed: int) -> dict[str, object]:
    """Run a peer and return the expected conversions caused, day by day, and how the intervals that it implies stand to the truth."""
    player, history = policy(market, seed), []
    now, caused = np.full(len(market.arms), market.scenario.total / len(market.arms)), []
    spent, by_arm, inside, widths = [], [], [], []
    for day in range(days):
        if day >= WARM_UP:
            now = np.asarray(player.budgets(day, history, now), dtype=float)
        budgets = dict(zip(market.arms, np.maximum(now, 0.0).tolist(), strict=True))
        history.append(market.advance(day, budgets))
        truth = market.truth(day, budgets)
        caused.append(truth.total)
        spent.append(np.array(list(budgets.values())))
        by_arm.append(truth.conversions)
        stated = player.states(day, history) if day >= WARM_UP and day % 7 == 6 else None
        if stated is not None:
            week = sum(spent[-7:])
            for k in np.flatnonzero(week >= 1.0):
                true = sum(by_arm[-7:])[k] / week[k]
                inside.append(bool(stated[0][k] <= true <= stated[1][k]))
                widths.append(float((stated[1][k] - stated[0][k]) / true) if true > 0 else np.inf)
    out: dict[str, object] = {"caused": caused, "spend": [market.scenario.total] * days}
    return {**out, "covered": inside, "width": widths} if inside else out


def one_loop(name: str, variant: str, days: int, seed: int) -> dict[str, object]:
    """Run the loop and return what it caused, and how its intervals of conversions per unit of spend stand to the truth."""
    from closedloop.health import Thresholds

    make, faults = MARKETS[name]
    simulator = Simulator(make(), seed, faults=faults, ticks=(timedelta(hours=1), timedelta(hours=6), timedelta(hours=20)))
    total = simulator.market.scenario.total
    limits = Thresholds(minimum_volume=0.0) if variant.startswith("evidence gate") else Thresholds()
    loop = ClosedLoop(
        window=WINDOW, platforms=simulator.platforms, constraints=constraints(total, variant), seed=seed,
        mode="shadow", thresholds=limits, holdouts=HoldoutPolicy(in_shadow=True) if "holdouts" in variant else None,
        classifier=BayesClassifier(WINDOW, seed=seed, incrementality={} if "credit" in variant else None),
    )  # fmt: skip
    runs, inside, widths, held = [], [], [], 0
    for day in range(days):
        if day == WARM_UP:
            loop.mode = "auto"
        run = simulator.run(loop, 1).days[0]
        runs.append(attrs.evolve(run, report=None))  # a report holds the day's events
        held += run.advice != "run"
        if day >= WARM_UP and day % 7 == 6:
            covered = coverage(simulator, runs[-7:], run.report.signals, seed)
            inside += covered[0]
            widths += covered[1]
    tests = loop.holdouts()
    return {
        "tests": len(tests),
        "tests_cost": sum(t.cost for t in tests) / max(sum(d.caused for d in runs), 1e-9),
        "caused": [d.caused for d in runs], "spend": [d.spend for d in runs], "covered": inside, "width": widths, "held": held,
        "seconds": sum(run.report.timings.values()),
    }  # fmt: skip


def coverage(simulator: Simulator, week: list, signals: object, seed: int) -> tuple[list[bool], list[float]]:
    """Return, arm by arm, whether the loop's 90 % interval of conversions per unit of spend holds the true incremental ones of the week."""
    market = simulator.market
    spend = sum(np.array([d.budgets[a] for a in market.arms]) for d in week)
    caused = sum(market.truth(d.day, d.budgets).conversions for d in week)
    cost = signals.cost_per_conversion
    place = {arm: i for i, arm in enumerate(market.arms)}
    inside, widths = [], []
    for i, arm in enumerate(signals.arms):
        k = place[tuple(arm)]
        if spend[k] < 1.0 or not signals.spend_per_day[i] > 0:
            continue
        low, high = 1.0 / cost.high[i] if cost.high[i] > 0 else np.inf, 1.0 / cost.low[i] if cost.low[i] > 0 else np.inf
        truth = caused[k] / spend[k]
        inside.append(bool(low <= truth <= high))
        widths.append(float((high - low) / truth) if truth > 0 and np.isfinite(high) else np.inf)
    return inside, widths


def job(task: tuple[str, int, int, tuple[str, ...]]) -> tuple[str, int, dict[str, dict]]:
    """Run every policy on one seed of one market."""
    name, seed, days, variants = task
    out = {}
    for policy in PEERS:
        out[policy.name] = one_peer(policy, Market(MARKETS[name][0](), seed), days, seed)
    for variant in variants:
        out[f"closedloop, {variant}"] = one_loop(name, variant, days, seed)
    return name, seed, out


def gains(runs: list[dict[str, dict]], policy: str) -> np.ndarray:
    """Return reductions of cost per incremental conversion against the equal split of the same seed, after the warm-up."""
    cost = [sum(r[policy]["spend"][WARM_UP:]) / sum(r[policy]["caused"][WARM_UP:]) for r in runs]
    equal = [sum(r["equal split"]["spend"][WARM_UP:]) / sum(r["equal split"]["caused"][WARM_UP:]) for r in runs]
    return 1.0 - np.array(cost) / np.array(equal)


def worst_week(runs: list[dict[str, dict]], policy: str) -> float:
    """Return the largest ratio of a week's cost to that of the equal split in the same week and seed."""
    ratios = []
    for run in runs:
        mine, equal = run[policy], run["equal split"]
        for first in range(WARM_UP, len(mine["caused"]) - 6, 7):
            week = slice(first, first + 7)
            cost = sum(mine["spend"][week]) / max(sum(mine["caused"][week]), 1e-9)
            ratios.append(cost / (sum(equal["spend"][week]) / sum(equal["caused"][week])))
    return float(np.max(ratios))


def show(name: str, runs: list[dict[str, dict]]) -> None:
    """Print one scenario's table."""
    oracle = np.median(gains(runs, "oracle (knows the truth)"))
    print(f"\n{name}: {len(runs)} paired seeds; reduction of cost per incremental conversion against the equal split, %")
    print(f"{'policy':38s} {'worst':>7s} {'25 %':>7s} {'median':>7s} {'75 %':>7s} {'best':>7s}  {'of oracle':>9s}  {'worst week':>10s}")
    for policy in runs[0]:
        g = gains(runs, policy)
        q = 100 * np.quantile(g, [0, 0.25, 0.5, 0.75, 1])
        share = f"{100 * np.median(g) / oracle:8.0f}%" if oracle > 0.005 else "        -"
        print(f"{policy:38s} " + " ".join(f"{v:7.1f}" for v in q) + f"  {share}  {worst_week(runs, policy):9.2f}x")
        if "covered" in runs[0][policy]:
            inside = [c for r in runs for c in r[policy]["covered"]]
            widths = [w for r in runs for w in r[policy]["width"]]
            said = (
                f"90 % intervals hold the truth {100 * np.mean(inside):.0f} % of {len(inside)}, median width {np.median(widths):.2f} of it"
            )
            if "held" in runs[0][policy]:
                held = sum(r[policy]["held"] for r in runs) / sum(len(r[policy]["caused"]) for r in runs)
                tests, cost = (np.median([r[policy][name] for r in runs]) for name in ("tests", "tests_cost"))
                said += f"; held for health {100 * held:.0f} % of days; {tests:.0f} tests, {100 * cost:.1f} % of the conversions"
            print(f"{'':4s}{said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=[n for n in MARKETS if n != "untouched"])
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--days", type=int, default=70)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--variants", nargs="*", default=["volume gate", "evidence gate"])
    parser.add_argument("--json")
    options = parser.parse_args()
    started, found = time.time(), {}
    for name in options.scenarios:
        tasks = [(name, options.first_seed + s, options.days, tuple(options.variants)) for s in range(options.seeds)]
        with ProcessPoolExecutor(options.jobs) as pool:
            runs = [out for _, _, out in pool.map(job, tasks)]
        show(name, runs)
        found[name] = runs
        print(f"({time.time() - started:.0f} s)", flush=True)
        if options.json:
            with open(options.json, "w") as file:
                json.dump(found, file)


if __name__ == "__main__":
    main()
