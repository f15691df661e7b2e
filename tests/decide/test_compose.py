"""What a plan says of each move, against closed forms of a known power law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from closedloop.decide import BudgetDecider
from closedloop.decide.curves import certain_moves
from closedloop.decide.identity import decision_id
from closedloop.records.decision import Constraints
from closedloop.stats.response import ResponsePrior

BETA = 0.6
SURE = {"prior": ResponsePrior(power=(np.log(BETA / (1 - BETA)), 1e-6)), "response": "prior"}


def test_the_next_unit_and_the_price_of_each_move(signals_of):
    """With ``r (s / 100)^b`` a day the next unit of money brings ``b r / 100``; the elasticity is b; tags and figures are the arm's."""
    signals = signals_of([10, 30, 20], [100, 100, 100])
    plan = BudgetDecider(Constraints(gate="evidence"), draws=20_000, **SURE).decide(signals)
    rates = {("google", f"c{i:02d}"): r for i, r in enumerate((10, 30, 20))}
    assert {d.arm for d in plan.decisions} >= {("google", "c00"), ("google", "c01")}
    free = [d for d in plan.decisions if 80.01 < d.after.units < 119.99]
    for d in plan.decisions:
        r, after = rates[d.arm], d.after.units
        assert d.triggers["marginal_value"] == pytest.approx(BETA * r / 100, rel=2e-3)
        assert d.triggers["elasticity"] == pytest.approx(BETA, rel=1e-4)
        assert d.triggers["response_learned"] == pytest.approx(0.0, abs=1e-6)
        assert d.triggers["spend_per_day"] == 100.0
        assert d.triggers["weekly_conversions"] == pytest.approx(7 * r)
        assert d.triggers["effective_volume"] == pytest.approx(28 * r)
        assert ("more than the" in d.reason) == (after > 100)
        assert d.triggers["continuous_optimum"] == pytest.approx(after, abs=0.011)
        draws = np.random.default_rng(3).gamma(28 * r + 1e-3, 1 / 28, 200_000) * ((after / 100) ** BETA - 1)
        np.testing.assert_allclose([d.gain.low, d.gain.estimate, d.gain.high], np.quantile(draws, [0.05, 0.5, 0.95]), rtol=0.02)
    for d in free:
        r = rates[d.arm]
        assert d.triggers["price"] == pytest.approx(BETA * r / 100 * (d.after.units / 100) ** (BETA - 1), rel=5e-3)


def test_what_a_held_arm_misses(signals_of):
    """The gain beside a hold is that of its best budget if nothing were held, and that budget is named."""
    signals = signals_of([10, 30, 60], [100, 100, 100], tagged_share=[1, 1, 0])
    plan = BudgetDecider(Constraints(gate="evidence"), draws=20_000, **SURE).decide(signals)
    (hold,) = [h for h in plan.holds if h.reason == "untagged"]
    assert hold.triggers["best_budget"] == 120.0
    draws = stats.gamma(28 * 60, scale=1 / 28)
    wanted = (1.2**BETA - 1) * draws.ppf([0.05, 0.5, 0.95])
    np.testing.assert_allclose([hold.gain.low, hold.gain.estimate, hold.gain.high], wanted, rtol=0.02)
    assert hold.budget.units == 100
    unknown = BudgetDecider(**SURE).decide(signals_of([10, 30, 0], [100, 100, 0])).holds[-1]
    assert (unknown.gain.low, unknown.gain.high) == (-np.inf, np.inf)


def test_alternatives_are_evaluated_as_they_say(signals_of):
    """Nothing changed brings nothing; an equal split brings what its budgets, clipped to the largest step, bring on average."""
    signals = signals_of([10, 30, 20], [60, 180, 120])
    plan = BudgetDecider(Constraints(gate="evidence"), draws=40_000, **SURE).decide(signals)
    found = {a["name"]: a for a in plan.provenance["alternatives"]}
    assert (found["change nothing"]["gain"], found["change nothing"]["p_gain"]) == ([0.0, 0.0, 0.0], 0.0)
    equal = np.array([10, 30]) @ (np.array([72 / 60, 144 / 180]) ** BETA - 1)
    assert found["towards an equal split"]["gain"][1] == pytest.approx(equal, rel=0.05)
    assert found["towards an equal split"]["p_gain"] < 0.5


def test_ids_are_made_of_the_plan_the_arm_and_the_new_budget(signals_of):
    """Each decision's id is that of its own budget in millionths; totals, prices and what is left are in money, in yen too."""
    signals = signals_of([10, 30, 20], [1000, 1000, 1000], currency="JPY")
    plan = BudgetDecider(Constraints(gate="evidence", rounding=5, total=2900), draws=500, **SURE).decide(signals)
    source = plan.provenance
    assert plan.decisions
    for d in plan.decisions:
        assert d.decision_id == decision_id(source["digest"], d.arm, d.after.micros)
        assert d.after.units % 5 == 0
        assert d.triggers["continuous_optimum"] == pytest.approx(d.after.units, abs=5.0)
    after = sum(a.after.units for a in plan.decisions) + sum(h.budget.units for h in plan.holds)
    assert (source["total_before"], source["total_after"], source["unallocated"]) == (3000.0, pytest.approx(after), 0.0)
    inside = [d for d in plan.decisions if 801 < d.after.units < 1199]
    for d in inside:
        assert source["price"] == pytest.approx(d.triggers["price"])
    assert source["constraints"] == {"total": 2900, "max_step": 0.2, "min_probability": Constraints().min_probability} | {
        "gate": "evidence", "rounding": 5
    }  # fmt: skip


def test_a_move_is_certain_at_the_level_of_the_plan(signals_of):
    """52 closed days of 20 against 23: certain where one false answer in ten is allowed, not where one in a hundred is."""
    signals = signals_of([20, 23], [100, 100], days=60)
    for level, certain in ((0.9, True), (0.99, False)):
        assert certain_moves(signals, np.array([0, 1]), np.array([False, True]), 1 - level) == [certain] * 2
        plan = BudgetDecider(Constraints(gate="evidence"), level=level, draws=500, looks=(), **SURE).decide(signals)
        assert [d.triggers["certain"] for d in plan.decisions] == [certain] * 2
