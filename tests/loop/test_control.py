"""The loop's own control: fair turns, only whole pairs, power before it is begun, and harm that stops the loop."""

import math
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

import closedloop as cl
from closedloop.loop import Switchback, plan_holdout

START = date(2026, 3, 2)
UNITS = tuple(f"region {i}" for i in range(10))


def counts(design: Switchback, days: int, gain: float, rng: np.random.Generator) -> list[tuple[str, date, float]]:
    rows = []
    for i, unit in enumerate(design.units):
        for d in range(days):
            day = design.start + timedelta(days=d)
            mean = (20 + 5 * i) * (1 + 0.01 * d) * (1 + (gain if design.rule(unit, day) == "loop" else 0.0))
            rows.append((unit, day, float(rng.poisson(mean))))
    return rows


def test_turns_are_fair_and_reproducible() -> None:
    """Each unit runs both rules once in each pair of blocks, the order is tossed, and another process tosses alike."""
    design = Switchback(units=UNITS, start=START, seed=4)
    orders: Counter[str] = Counter()
    for unit in UNITS:
        for pair in range(20):
            first, second = (design.rule(unit, START + timedelta(days=14 * pair + 7 * block)) for block in (0, 1))
            assert {first, second} == {"loop", "old"}
            orders[first] += 1
    assert abs(orders["loop"] - 100) < 3 * math.sqrt(50)
    assert design.rule("region 3", START) == Switchback(units=UNITS, start=START, seed=4).rule("region 3", START)
    with pytest.raises(cl.ConfigurationError, match="region 0"):
        design.rule("region x", START)
    with pytest.raises(cl.InputError, match="start"):
        design.rule("region 1", START - timedelta(days=1))


def test_a_gain_is_verified_and_none_is_not() -> None:
    """A gain of 15 % on ten regions over 16 weeks is proved with the truth inside; without a gain the verdict stays open."""
    design = Switchback(units=UNITS, start=START, seed=1)
    found = design.gain(counts(design, 112, 0.15, np.random.default_rng(0)))
    assert found.verdict == "gain"
    assert found.gain.low < 0.15 < found.gain.high
    assert (found.gain.kind, found.n_pairs) == ("anytime", 80)
    assert design.gain(counts(design, 112, 0.0, np.random.default_rng(1))).verdict == "open"


def test_only_whole_pairs_and_days_after_the_wash_out_count() -> None:
    """Half a pair is no evidence yet; washed-out days are in no sum."""
    design = Switchback(units=("all",), start=START, washout_days=2)
    rows = [("all", START + timedelta(days=d), 10.0) for d in range(13)]
    assert design.gain(rows).n_pairs == 0
    whole = design.gain([*rows, ("all", START + timedelta(days=13), 10.0)])
    assert (whole.n_pairs, whole.loop, whole.old) == (1, 50.0, 50.0)
    assert whole.gain.low == -1.0
    assert whole.gain.high == math.inf
    with pytest.raises(cl.InputError, match="conversions"):
        design.gain([("all", START, math.nan)])


def test_the_plan_says_what_it_can_see_and_what_it_costs() -> None:
    """Longer controls see smaller gains and cost more; the stated power is reached by fresh simulations."""
    rng = np.random.default_rng(2)
    history = {unit: rng.poisson(30.0, 84).astype(float).tolist() for unit in UNITS}
    plan = plan_holdout(history, weeks=(4, 8, 16), seed=3)
    assert list(plan.detectable) == sorted(plan.detectable, reverse=True)
    assert list(plan.forgone) == sorted(plan.forgone)
    daily = sum(np.mean(days) for days in history.values())
    assert plan.forgone[1] == pytest.approx(0.1 * daily * 56 / 2)
    design = Switchback(units=UNITS, start=START, seed=5)
    proved = 0
    for seed in range(25):
        fresh = np.random.default_rng([9, seed])
        rows = []
        for unit in UNITS:
            for d in range(112):
                day = START + timedelta(days=d)
                mean = 30.0 * (1 + plan.detectable[2] * (design.rule(unit, day) == "loop"))
                rows.append((unit, day, float(fresh.poisson(mean))))
        proved += design.gain(rows).verdict == "gain"
    assert proved / 25 >= 0.8 - 3 * math.sqrt(0.16 / 25)
    with pytest.raises(cl.ConfigurationError, match="two blocks"):
        plan_holdout({"all": [1.0] * 13})


def test_proved_harm_holds_the_loop() -> None:
    """A verified loss, given to the next cycle, turns every move into a hold that says so."""
    design = Switchback(units=UNITS, start=START, seed=1)
    harm = design.gain(counts(design, 112, -0.2, np.random.default_rng(4)))
    assert harm.verdict == "harm"
    loop = cl.ClosedLoop(window=cl.AttributionWindow(), mode="shadow")
    rows = [
        {
            "kind": "click",
            "occurred_at": "2026-03-01T10:00:00Z",
            "user_id": "u",
            **dict.fromkeys(("platform", "campaign", "audience", "creative", "placement"), "x"),
        }
    ]
    report = loop.run_cycle(rows, now=datetime(2026, 3, 2, tzinfo=UTC), findings=[harm.finding()])
    assert report.health.advice != "run"
    assert "verified_gain" in [f.name for f in report.health.findings]
    assert not report.plan.decisions
