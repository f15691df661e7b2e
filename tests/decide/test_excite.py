"""Excitation: off by default, neutral in total, bounded in cost, silent where arms look alike; its power by simulation."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit

from closedloop.decide import BudgetDecider, Excitation
from closedloop.decide.excite import power
from closedloop.errors import ConfigurationError
from closedloop.records.decision import Constraints, GroupLimit
from closedloop.stats.response import ResponsePrior
from closedloop.stats.response_fit import DailyCounts, fit_response

QUIET = {"minimum_volume": 0, "min_probability": 0.999}  # no moves but random ones


def decide(signals, **more):
    # The signals of the factory were made on day 20,000; a block of 8 days begins there.
    return BudgetDecider(Constraints(**QUIET), excitation=Excitation(block_days=8, **more), looks=()).decide(signals)


def test_off_by_default(signals_of):
    """No random change without being asked."""
    plan = BudgetDecider(Constraints(**QUIET)).decide(signals_of([20, 30, 25, 40], [100] * 4))
    assert "excitation" not in plan.provenance


def test_pairs_keep_the_total_and_are_logged(signals_of):
    """What one gives another gets; the log names every change, and the same seed and block repeat it."""
    signals = signals_of([20, 30, 25, 40], [100] * 4)
    plan = decide(signals, max_cost=0.1)
    log = plan.provenance["excitation"]
    assert len(log["changes"]) == len(plan.decisions) == 4
    assert sum(log["changes"].values()) == pytest.approx(0.0)
    assert {abs(v) for v in log["changes"].values()} == {10.0}
    for d in plan.decisions:
        assert d.after.units - d.before.units == pytest.approx(log["changes"][" / ".join(d.arm)])
    assert decide(signals, max_cost=0.1).decisions == plan.decisions
    other = {tuple(sorted(decide(signals, max_cost=0.1, seed=s).provenance["excitation"]["changes"].items())) for s in range(12)}
    assert len(other) > 3


def test_cost_is_bounded_and_data_holds_stay(signals_of):
    """A small cost bound leaves arms out; an arm on hold for its data never moves."""
    signals = signals_of([20, 30, 25, 40], [100] * 4, tagged_share=[0, 1, 1, 1])
    plan = decide(signals, max_cost=0.1)
    assert ("google", "c00") not in {d.arm for d in plan.decisions}
    assert decide(signals_of([20, 30, 25, 40], [100] * 4), max_cost=0.0).provenance["excitation"]["changes"] == {}


def test_silent_where_arms_look_alike(signals_of):
    """Equal returns leave nothing to learn for."""
    assert decide(signals_of([20, 20.3, 20.1, 19.8], [100] * 4), max_cost=0.1).provenance["excitation"]["proposed"] == 0


def test_only_on_the_first_day_of_a_block(signals_of):
    """A change stands for its block: on the second day nothing is drawn."""
    plan = BudgetDecider(Constraints(**QUIET), excitation=Excitation(block_days=8, max_cost=0.1), looks=()).decide(
        signals_of([20, 30, 25, 40], [100] * 4), now=datetime(2024, 10, 5, tzinfo=UTC)
    )
    assert plan.provenance["excitation"]["changes"] == {}


def test_the_stated_power_is_what_a_fit_finds(signals_of):
    """Simulated: days at plus and minus the amplitude narrow the exponent as far as was computed before."""
    signals = signals_of([400.0], [100.0])
    decider = BudgetDecider(Constraints(**QUIET), prior=ResponsePrior(shared=0.0), response="prior")
    problem = decider.problem(signals, None)
    stated = power(problem, problem.known, Excitation(amplitude=0.3, block_days=56))
    rng = np.random.default_rng(0)
    sign = np.tile([1.0, -1.0], 28)
    spend = 100.0 * (1.0 + 0.3 * sign)
    found = []
    for _ in range(20):
        count = rng.poisson(400.0 * (spend / 100.0) ** 0.65).astype(float)
        data = DailyCounts(arm=np.zeros(56, dtype=np.int64), day=np.arange(56), spend=spend, count=count, maturity=np.ones(56))
        fit = fit_response(data, np.array([100.0]), ResponsePrior(shared=0.0), today=56, half_life=None, observed_weight=1.0).response
        beta = expit(fit.location[0])
        found.append(fit.scale[0] * beta * (1 - beta))
    assert np.median(found) == pytest.approx(stated.sd_after[0], rel=0.25)
    assert stated.sd_after[0] < 0.25 * stated.sd_before[0]


def test_cost_and_worth_are_those_of_a_power_law(signals_of):
    """By going there: days above and below lose by the bend of the curve; a better exponent is worth what the best budget then gains."""
    problem = BudgetDecider(Constraints(**QUIET), prior=ResponsePrior(shared=0.0), response="prior").problem(
        signals_of([400.0], [100.0]), None
    )
    stated = power(problem, problem.known, Excitation(amplitude=0.1, block_days=4))
    beta, level = float(problem.response.elasticity()[0]), 400.0
    assert stated.cost[0] == pytest.approx(level * (1.0 - 0.5 * (1.1**beta + 0.9**beta)), rel=0.02)
    learned = float(np.sqrt(stated.sd_before[0] ** 2 - stated.sd_after[0] ** 2))

    def gain(exponent):  # against staying, at a price of money under which today's budget is best for the exponent believed
        best = minimize_scalar(
            lambda x: level * beta * x - level * x**exponent, bounds=(0.1, 10.0), method="bounded", options={"xatol": 1e-9}
        )
        return level * beta - level - best.fun

    small = 0.1 * learned  # the statement is of second order
    assert stated.worth[0] == pytest.approx(100.0 * 0.5 * (gain(beta + small) + gain(beta - small)), rel=0.05)


def test_wrong_settings():
    """Each wrong setting is named."""
    for wrong in ({"amplitude": 0.9}, {"block_days": 0}, {"max_cost": 2.0}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            Excitation(**wrong)
    with pytest.raises(ConfigurationError, match="excitation"):
        BudgetDecider(Constraints(max_changes=3), excitation=Excitation())


def test_pairs_stay_inside_their_group(signals_of):
    """Where a group has a ceiling, one of its arms never gives to one outside: each group keeps its sum, whatever the draw."""
    arms = [("google", "a"), ("google", "b"), ("meta", "c"), ("meta", "d")]
    signals = signals_of([20, 30, 25, 40], [100] * 4, arms=arms)
    limits = Constraints(groups=[GroupLimit(tags={"platform": "google"}, ceiling=200)], **QUIET)
    changed = []
    for seed in range(6):
        plan = BudgetDecider(limits, excitation=Excitation(block_days=8, max_cost=0.1, seed=seed), looks=(), draws=500).decide(signals)
        moves = {d.arm: d.after.units - d.before.units for d in plan.decisions}
        assert sum(v for arm, v in moves.items() if arm[0] == "google") == pytest.approx(0.0)
        changed.append(len(moves))
    assert set(changed) == {0, 4}


def test_gains_of_random_changes_are_those_of_their_own_arms(signals_of):
    """Beside an arm without a budget, each gain is about its own arm's rate times the change of a power law; the plan's is their sum."""
    plan = decide(signals_of([0, 20, 30, 25, 40], [0, 100, 100, 100, 100]), max_cost=0.1)
    rates = {("google", f"c{i:02d}"): r for i, r in enumerate((0, 20, 30, 25, 40))}
    assert len(plan.provenance["excitation"]["changes"]) == len(plan.decisions) == 4
    for d in plan.decisions:
        assert d.gain.estimate == pytest.approx(rates[d.arm] * ((d.after.units / d.before.units) ** 0.68 - 1), rel=0.1)
    assert plan.gain.estimate == pytest.approx(sum(d.gain.estimate for d in plan.decisions), abs=0.2)


def test_power_is_what_its_expansion_says(signals_of):
    """Against the curve itself: what days at plus and minus the amplitude lose, what a Poisson count tells of an exponent, and what
    an optimum moved by the error wins."""
    signals = attrs.evolve(signals_of([20.0, 60.0], [100.0, 100.0], value=[3.0, 1.0]), dispersion=np.array([1.0, 2.0]))
    p = BudgetDecider(Constraints(**QUIET), prior=ResponsePrior(power=(0.5, 1.2)), response="prior").problem(signals, None)
    e = Excitation(amplitude=0.01, block_days=9, use_days=30.0, alike=1.0)
    found = power(p, p.known, e)
    beta, level = expit(0.5), p.curves.value(p.limits.now)
    np.testing.assert_allclose(level, [60.0, 60.0], rtol=1e-3)
    lost = level * (1 - 0.5 * ((1 + 0.01) ** beta + (1 - 0.01) ** beta))
    np.testing.assert_allclose(found.cost, lost, rtol=1e-3)
    before = 1.2 * beta * (1 - beta)
    np.testing.assert_allclose(found.sd_before, before, rtol=1e-6)
    counts = level / np.array([3.0, 1.0]) / np.array([1.0, 2.0]) * 9
    np.testing.assert_allclose(found.sd_after, (1 / before**2 + counts * 0.01**2) ** -0.5, rtol=1e-3)
    marginal = (found.sd_before**2 - found.sd_after**2) / beta**2  # variance of the log marginal value that is removed
    moved = np.sqrt(marginal) / (1 - beta)  # relative error of a budget that misses its optimum by so much
    missed = 0.5 * beta * (1 - beta) * level * moved**2
    np.testing.assert_allclose(found.worth, missed, rtol=1e-3)
    np.testing.assert_array_equal(found.proposed, found.worth * 30 > found.cost * 9)
    assert not power(p, np.array([False, False]), e).proposed.any()


def test_defaults_are_those_that_are_written_down():
    """A tenth for a week, used for eight weeks, at half a hundredth of all outcomes; seed 0."""
    assert Excitation() == Excitation(amplitude=0.1, block_days=7, use_days=56.0, max_cost=0.005, alike=0.05, seed=0)
    Excitation(amplitude=0.5, block_days=1, max_cost=1.0)
    for wrong in ({"amplitude": 0.0}, {"amplitude": 0.51}, {"use_days": 0.0}, {"max_cost": -0.01}):
        with pytest.raises(ConfigurationError):
            Excitation(**wrong)


def test_no_more_is_spent_than_the_largest_cost(signals_of):
    """Pairs are made as long as the sum of their costs stays within the share of all outcomes: none, one or two of two."""
    signals = signals_of([20, 30, 25, 40], [100] * 4)
    whole = decide(signals, max_cost=1.0).provenance["excitation"]
    outcome = 20 + 30 + 25 + 40
    assert len(whole["changes"]) == 4
    problem = BudgetDecider(Constraints(**QUIET)).problem(signals, None)
    table = power(problem, problem.known, Excitation(block_days=8))
    assert whole["cost_a_day"] == pytest.approx(table.cost.sum())
    assert table.cost.sum() == pytest.approx(0.5 * 0.68 * 0.32 * outcome * 0.01, rel=0.02)
    share = whole["cost_a_day"] / outcome
    for factor, changes in ((1.01, 4), (0.99, 2), (0.3, 0)):
        found = decide(signals, max_cost=share * factor).provenance["excitation"]
        assert len(found["changes"]) == changes, factor


def test_a_pair_moves_by_the_smaller_budget_and_inside_the_ends(signals_of):
    """A tenth of 47.33 in whole cents, or less where the one that rises meets its ceiling or the one that falls its floor."""
    signals = signals_of([20, 30], [100.0, 47.33])

    def change(**ends):  # of the second arm, by seed
        found = set()
        for seed in (0, 3):  # one of each sign
            limits = Constraints(**QUIET, **{k: {("google", arm): v for arm, v in each.items()} for k, each in ends.items()})
            excitation = Excitation(block_days=8, max_cost=0.1, seed=seed)
            decider = BudgetDecider(limits, excitation=excitation, looks=(), draws=100, response="prior")
            log = decider.decide(signals).provenance["excitation"]["changes"]
            assert sum(log.values()) == 0.0
            found.add(round(log.get("google / c01", 0.0), 2))
        return found

    assert change() == {4.73, -4.73}
    assert change(ceilings={"c00": 102.0}) == {4.73, -2.0}
    assert change(floors={"c01": 45.0}) == {4.73, -2.33}
    assert change(ceilings={"c01": 48.0}, floors={"c00": 99.5}) == {0.5, -4.73}
    assert change(ceilings={"c01": 47.34}) == {0.01, -4.73}
    assert change(ceilings={"c01": 47.33}) == {0.0, -4.73}


def test_the_two_moves_of_a_pair_help_together(signals_of):
    """With one giver and one taker each helps exactly when the plan does: money entered or saved plays no part."""
    plan = decide(signals_of([20, 40], [100, 100]), max_cost=0.1)
    assert len(plan.decisions) == 2
    assert [d.p_gain for d in plan.decisions] == pytest.approx([plan.p_gain] * 2, abs=0.01)
    assert plan.p_gain > 0.9 or plan.p_gain < 0.1
