"""Holds at their edges, and the partners of thin campaigns against all subsets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import combinations

import numpy as np
import pytest

from closedloop.decide import BudgetDecider
from closedloop.records.decision import Constraints

NOW = datetime(2024, 10, 4, tzinfo=UTC)


def held(plan, reason):
    return {h.arm[1]: h for h in plan.holds if h.reason == reason}


@pytest.mark.parametrize("seed", range(12))
def test_partners_are_the_fewest_that_reach_the_volume(signals_of, seed):
    """Of all subsets of thin campaigns on the platform, none smaller reaches 50 a week with the held one; none is named where all fail."""
    rng = np.random.default_rng(seed)
    weekly = rng.integers(1, 70, 7).astype(float) if seed % 3 else rng.integers(1, 8, 7).astype(float)
    arms = [("google" if i < 5 else "meta", f"c{i:02d}") for i in range(7)]
    plan = BudgetDecider(Constraints()).decide(signals_of(weekly / 7, [100] * 7, arms=arms))
    found = held(plan, "low_volume")
    assert set(found) == {f"c{i:02d}" for i in range(7) if weekly[i] < 50}
    for name, hold in found.items():
        i = int(name[1:])
        others = [j for j in range(7) if j != i and weekly[j] < 50 and (j < 5) == (i < 5)]
        sizes = [k for k in range(1, len(others) + 1) if any(weekly[i] + weekly[list(s)].sum() >= 50 for s in combinations(others, k))]
        merge = hold.triggers["merge_with"]
        assert len(merge) == min(sizes, default=0)
        assert hold.triggers["conversions_missing"] == pytest.approx(50 - weekly[i])
        assert hold.triggers["days_at_current_pace"] == pytest.approx(7 * 50 / weekly[i])
        if merge:
            named = [j for j in others if any(f"c{j:02d}" in words for words in merge)]
            assert len(named) == len(merge)
            assert hold.triggers["weekly_if_merged"] == pytest.approx(weekly[i] + weekly[named].sum())
            assert hold.triggers["weekly_if_merged"] >= 50


def test_three_partners_are_named_and_the_others_counted(signals_of):
    """Of equal campaigns as many as reach 50 a week are partners; words name three, and say how many more there are."""
    for weekly, others in ((8.0, 6), (11.0, 4), (13.0, 3), (17.0, 2)):
        found = held(BudgetDecider(Constraints()).decide(signals_of([weekly / 7] * 7, [100] * 7)), "low_volume")
        lift = found["c00"].lift
        assert len(found["c00"].triggers["merge_with"]) == others
        assert [f"c{i:02d}" in lift for i in range(1, 7)] == [i <= min(others, 3) for i in range(1, 7)]
        assert (f"and {others - 3} more" in lift) == ("more (" in lift) == (others > 3)


def test_the_smallest_volume_itself_is_enough(signals_of):
    """Fifty a week is not held; a little less is."""
    plan = BudgetDecider(Constraints()).decide(signals_of([50 / 7, 49.9 / 7, 30], [100, 100, 100]))
    assert set(held(plan, "low_volume")) == {"c01"}


def test_a_cool_down_ends_on_time(signals_of):
    """Two days after a change an arm with a cool-down of two days is free; a second before it is held, and told until when."""
    signals = signals_of([10, 30], [100, 100])
    decider = BudgetDecider(Constraints(cool_down_days=2))
    at = NOW - timedelta(days=2)
    assert not held(decider.decide(signals, now=NOW, last_changed={("google", "c00"): at}), "learning")
    late = at + timedelta(hours=12)
    found = held(decider.decide(signals, now=NOW, last_changed={("google", "c00"): late}), "learning")
    assert list(found) == ["c00"]
    assert found["c00"].triggers["days"] == pytest.approx(0.5)
    assert (late + timedelta(days=2)).isoformat(timespec="minutes") in found["c00"].lift
    assert "1.5 days ago" in found["c00"].explanation


def test_an_immature_arm_waits_until_its_share_is_seen(signals_of):
    """The curve of the window shows 3/8 on the third day and 4/8 on the fourth; evidence a day old misses the days between."""
    signals = signals_of([10, 30, 20], [100, 100, 100], maturity=[0.2, 0.45, 1.0], evidence_age=[1.0, 3.5, 14.0])
    steps = len(next(iter(signals.outcomes.delay.values())).share_seen)
    found = held(BudgetDecider(Constraints(min_maturity=0.45)).decide(signals), "immature")
    assert list(found) == ["c00"]  # the least share itself is enough
    needed = next(k + 1 for k in range(steps) if (k + 1) / steps >= 0.45)
    assert found["c00"].triggers["days"] == needed - 1
    assert "about 20% of its conversions" in found["c00"].explanation


def test_no_spend_and_no_budget_are_told_apart(signals_of, budgets_of):
    """An arm without spend needs some by hand, one that spends without a known budget needs that budget named."""
    signals = signals_of([10, 30, 20], [100, 100, 0])
    known = budgets_of(signals, [100, 100, 100])
    del known["google", "c01"]
    found = held(BudgetDecider().decide(signals), "no_spend")
    assert [(n, h.explanation, h.lift) for n, h in found.items()] == [
        ("c02", "no spend in the recent days", "spend on it for some days, by hand")
    ]
    found = held(BudgetDecider().decide(signals, known), "no_spend")
    assert (found["c01"].explanation, found["c01"].lift) == ("no current budget is known", "give its current budget")
    assert found["c01"].triggers["spend_per_day"] == 100
