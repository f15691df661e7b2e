"""``demo``: the closed loop over some simulated weeks, on a small market whose truth is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from closedloop.cli.progress import say
from closedloop.decide import default_target
from closedloop.display import number, text_table
from closedloop.errors import ConfigurationError
from closedloop.loop import ClosedLoop, CycleReport, render
from closedloop.platforms.simulated import SimulatedPlatform
from closedloop.records.arms import TAG_COLUMNS, Arm
from closedloop.records.decision import Constraints
from closedloop.records.interval import Interval
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow
from closedloop.simulation import Market, export, small
from closedloop.stats.rates import count_interval, ratio_interval

WINDOW = AttributionWindow(click="7d", view="1d")
_COMPARED_DAYS = 14  # before and after are two whole weeks each, so that weekdays do not matter
_SOURCES_CLOSE = timedelta(hours=2)  # the last events of a day are recorded within two hours
_NOON = timedelta(hours=12)
_SETTLE_HOURS = (1, 3, 6)


def _budget_of(platforms: Mapping[str, SimulatedPlatform], arm: Arm, at: datetime) -> float:
    target = default_target(TAG_COLUMNS, arm)
    return platforms[target.platform].budget_at(target.resource, at).units


def _fresh(out: Path) -> None:
    """Remove what an earlier demo left: its ledger belongs to another run."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("loop.db", "loop.db-wal", "loop.db-shm", "events.csv", "report.html"):
        (out / name).unlink(missing_ok=True)


def demo(*, weeks: int, seed: int, out: Path) -> None:
    """Run the loop day by day, then say what it did, how sure it is, and what the truth was.

    Args:
        weeks: Simulated weeks, at least 1.
        seed: Seed of market and loop.
        out: Folder for report, ledger and events; files of an earlier demo in it are replaced.

    Raises:
        ConfigurationError: ``weeks`` or ``seed`` is out of range.
    """
    if not 1 <= weeks <= 520:
        raise ConfigurationError("the demo runs 1 to 520 weeks", "--weeks", weeks)
    if seed < 0:
        raise ConfigurationError("a seed is zero or more", "--seed", seed)
    _fresh(out)
    scenario = small()
    market = Market(scenario, seed)
    currency = scenario.currency
    start_budgets = market.equal_split()
    platforms: dict[str, SimulatedPlatform] = {}
    for name in sorted({str(arm[0]) for arm in market.arms}):
        targets = [(default_target(TAG_COLUMNS, arm), start_budgets[arm]) for arm in market.arms]
        budgets = {t.resource: Money.of(round(b, 2), currency) for t, b in targets if t.platform == name}
        platforms[name] = SimulatedPlatform(budgets, name=name, latency=timedelta(minutes=40), quota=(60, 3600.0), seed=seed)

    days: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    constraints = Constraints(total=sum(start_budgets.values()), max_step=0.2)
    with ClosedLoop(
        window=WINDOW, platforms=platforms, ledger=out / "loop.db", constraints=constraints, name="demo", seed=seed, on_error="raise"
    ) as loop:
        for day in range(7 * weeks):
            closes = market.day_start(day + 1) + _SOURCES_CLOSE  # the night's cycle; its changes are in force by noon
            in_force = {arm: _budget_of(platforms, arm, market.day_start(day) + _NOON) for arm in market.arms}
            rows = market.day(day, in_force)
            days.append(rows)
            report = loop.run_cycle(rows, now=closes)
            for hours in _SETTLE_HOURS:
                loop.tick(closes + timedelta(hours=hours))
            history.append(_line(day, rows, market, in_force))
            say(f"day {day + 1} of {7 * weeks}: {len(report.plan.decisions)} moves, {len(report.plan.holds)} holds")
        say("")
        last = {arm: _budget_of(platforms, arm, market.day_start(7 * weeks) + _NOON) for arm in market.arms}
        export(days, out / "events.csv")
        _tell(loop, report, market, history, start_budgets, last, out)


def _line(day: int, rows: Mapping[str, Any], market: Market, budgets: Mapping[Arm, float]) -> dict[str, Any]:
    kinds = np.asarray(rows["kind"], dtype=object)
    spend = float(np.asarray(rows["cost"], dtype=float)[kinds == "spend"].sum())
    conversions = int((kinds == "conversion").sum())
    low, high = count_interval(conversions)
    cost = Interval(
        low=spend / high,
        estimate=spend / conversions if conversions else math.inf,
        high=spend / low if low else math.inf,
        level=0.9,
        kind="credible",
    )
    return {
        "day": market.day_start(day).date().isoformat(),
        "spend": spend,
        "conversions": conversions,
        "cost_per_conversion": cost,
        "truth": market.cost_per_incremental(budgets, day),
        "note": "",
    }


def _before_and_after(history: Sequence[Mapping[str, Any]]) -> tuple[Interval, float, float, int]:
    """Return the ratio of cost per conversion, last days against first, with the two costs and the days in each."""
    days = min(_COMPARED_DAYS, max(7 * (len(history) // 14), len(history) // 2 if len(history) < 14 else 0))
    sums = []
    for part in (history[:days], history[-days:]):
        sums.append((sum(line["conversions"] for line in part), sum(line["spend"] for line in part)))
    (first, first_spend), (last, last_spend) = sums
    low, estimate, high = ratio_interval(last, last_spend, first, first_spend)  # conversions per unit of spend, after / before
    ratio = Interval(low=low, estimate=estimate, high=high, level=0.9, kind="credible").map(lambda r: 1 / r if r else math.inf)
    return ratio, first_spend / first if first else math.inf, last_spend / last if last else math.inf, days


def _tell(
    loop: ClosedLoop,
    report: CycleReport,
    market: Market,
    history: Sequence[Mapping[str, Any]],
    start: Mapping[Arm, float],
    last: Mapping[Arm, float],
    out: Path,
) -> None:
    currency = market.scenario.currency
    ratio, before, after, days = _before_and_after(history)
    day = len(history) - 1
    true_before, true_after = market.cost_per_incremental(start, day), market.cost_per_incremental(last, day)
    best = market.cost_per_incremental(market.best_budgets(sum(last.values()), day), day)
    receipts = loop.receipts()
    delays = receipts.delay()

    for part in (report.signals, report.plan, report.health):
        print(part)
        print()
    lines = {
        "cost per conversion": [
            f"all conversions, first {days} days",
            f"all conversions, last {days} days",
            "after / before, 90 % interval",
            "truth: per incremental conversion, budgets at start",
            "truth: per incremental conversion, budgets now",
            "truth: the best split of the same money",
        ],
        currency: [number(before), number(after), str(ratio), number(true_before), number(true_after), number(best)],
    }
    print(text_table(lines, title="Before and after (a comparison over time, not an experiment: nobody was held out)"))
    print(
        "Arms are ranked by what they are estimated to cause: what they took part in, less a background that rests on stated priors here."
    )
    print("The truth counts what is caused. Only a lift test measures it.")
    print()
    minutes = [round(seconds / 60, 1) for seconds in delays.values()]
    states = Counter(r.state for r in receipts)
    title = f"Where the delay went, mean minutes of {len(receipts)} actions ({', '.join(f'{n} {s}' for s, n in states.most_common())})"
    print(text_table({"step": list(delays), "minutes": minutes}, title=title))
    print()
    truth = {arm: _true_cost(market, arm, last, day) for arm in market.arms}
    html = render(report, title="closedloop demo", history=history, delay=delays, truth=truth)
    path = out / "report.html"
    path.write_text(html, encoding="utf-8")
    print(f"Report: {path}   Ledger: {out / 'loop.db'}   Events: {out / 'events.csv'}")
    print(f"The same events again: python -m closedloop run {out / 'events.csv'} --window-click 7d --window-view 1d --seed {market.seed}")


def _true_cost(market: Market, arm: Arm, budgets: Mapping[Arm, float], day: int) -> float:
    return market.cost_per_incremental({a: (b if a == arm else 0.0) for a, b in budgets.items()}, day)
