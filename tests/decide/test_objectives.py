"""Objectives and flexible totals, against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from closedloop.decide import BudgetDecider
from closedloop.decide.allocate import allocate
from closedloop.decide.evidence import Draws
from closedloop.decide.objectives import objective
from closedloop.errors import ConfigurationError
from closedloop.records.decision import Constraints
from closedloop.stats.response import ResponsePrior

FREE = {"minimum_volume": 0, "min_probability": 0.0, "min_change": 0.0}
SURE = ResponsePrior(power=(0.0, 1e-6))  # beta is 1/2 for all


def after(plan):
    return {a.arm[1]: (a.after if hasattr(a, "after") else a.budget).units for a in (*plan.decisions, *plan.holds)}


def test_thompson_explores_as_often_as_an_arm_is_better(signals_of):
    """Over many generators, the weaker-looking arm gets the money as often as a draw of it beats the other."""
    signals = signals_of([4.0, 5.0], [100, 100], days=7)
    decider = BudgetDecider(Constraints(**FREE), objective="thompson", prior=SURE, response="prior", draws=100)
    won = [after(decider.decide(signals, rng=np.random.default_rng(s)))["c00"] > 100 for s in range(250)]
    rng = np.random.default_rng(0)
    chance = (rng.gamma(28.0, 1.0, 100_000) > rng.gamma(35.0, 1.0, 100_000)).mean()
    assert np.mean(won) == pytest.approx(chance, abs=0.08)


def test_lower_moves_nothing_where_the_evidence_overlaps(signals_of):
    """At a tail of 10 %, 28 against 35 conversions stay, 280 against 840 move; the expected objective moves both."""
    close, apart = signals_of([4.0, 5.0], [100, 100], days=7), signals_of([10, 30], [100, 100])
    lower = BudgetDecider(Constraints(**FREE), objective="lower", prior=SURE, response="prior")
    assert after(lower.decide(close)) == {"c00": 100.0, "c01": 100.0}
    assert after(lower.decide(apart)) == {"c00": 80.0, "c01": 120.0}
    assert after(BudgetDecider(Constraints(**FREE), prior=SURE, response="prior").decide(close))["c01"] > 100


def test_lower_is_the_best_in_the_worst_case(signals_of):
    """Brute force over three budgets: the largest gain when a rise is worth its low level and a cut costs its high one."""
    signals = signals_of([3, 6, 14], [100, 100, 100], days=7)
    plan = BudgetDecider(Constraints(**FREE, rounding=1), objective="lower", prior=SURE, response="prior", draws=20_000, risk=0.2).decide(
        signals
    )
    rng = np.random.default_rng(3)
    low, high = np.quantile(rng.gamma([21.0, 42.0, 98.0], 1 / 7, (200_000, 3)), [0.2, 0.8], axis=0)
    grid = np.arange(80, 121)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    c = 300 - a - b
    fine = (c >= 80) & (c <= 120)

    def gain(s, i):
        change = np.sqrt(s / 100.0) - 1.0
        return np.where(change > 0, low[i], high[i]) * change

    value = np.where(fine, gain(a, 0) + gain(b, 1) + gain(c, 2), -np.inf)
    found = after(plan)
    mine = sum(float(gain(np.array(found[f"c0{i}"]), i)) for i in range(3))
    assert mine == pytest.approx(value.max(), abs=0.01 * abs(value.max()))


def test_cvar_is_close_to_the_best_tail(signals_of):
    """Brute force over two arms: the mean of the worst draws of the found budgets is that of the best ones."""
    signals = signals_of([3.0, 3.4], [100, 100], days=14)
    decider = BudgetDecider(Constraints(**FREE, rounding=1), objective="cvar", prior=SURE, response="prior", draws=200, risk=0.2)
    moved = after(decider.decide(signals))["c01"] - 100.0
    level = signals.draw_conversions_per_day(np.random.default_rng(0), 200)  # the decider's own draws, from the same seed
    steps = np.arange(-20, 21)
    tails = []
    for m in steps:
        gain = level[:, 0] * (np.sqrt(1 - m / 100) - 1) + level[:, 1] * (np.sqrt(1 + m / 100) - 1)
        tails.append(np.sort(gain)[:40].mean())
    best = max(tails)
    assert tails[int(moved) + 20] >= best - 0.02 * (best - min(tails)) - 1e-9
    expected = after(BudgetDecider(Constraints(**FREE), prior=SURE, response="prior").decide(signals))["c01"] - 100.0
    assert moved < expected  # more careful than the mean


def test_the_worst_case_is_at_least_one_draw(signals_of):
    """Of two draws any move loses in one: nothing moves to speak of. Where both count, it is the best for their mean: ``s ~ level^2``."""
    signals = signals_of([10, 20], [100, 100])
    p = BudgetDecider(Constraints(**FREE, max_step=0.5), prior=SURE, response="prior").problem(signals, None)
    draws = Draws(level=np.array([[10, 30], [20, 10]], np.float32), theta=np.zeros((2, 2), np.float32), response=p.response)
    for risk, best, within in ((0.01, 10_000, 200), (0.5, 10_000, 200), (0.8, 20_000 * 15**2 / (15**2 + 20**2), 1)):
        curves, limits = objective("cvar", p, draws, p.known, risk, np.random.default_rng(0))
        assert allocate(curves, limits, p.known, p.known, whole=False).continuous[0] == pytest.approx(best, abs=within)


def test_a_target_cost_sets_the_total(signals_of):
    """One arm, ``10 sqrt(s/100)`` conversions: an average cost of 10.5 is reached at ``s = 110.25``, above the ceiling it stops there."""
    signals = signals_of([10.0], [100.0], days=2800)
    plan = BudgetDecider(Constraints(**FREE, target_cost=10.5), prior=SURE, response="prior").decide(signals)
    assert after(plan)["c00"] == pytest.approx(110.25, abs=0.02)
    capped = BudgetDecider(Constraints(**FREE, target_cost=10.5, total=105), prior=SURE, response="prior").decide(signals)
    assert after(capped)["c00"] == pytest.approx(105)
    lower = BudgetDecider(Constraints(**FREE, target_cost=9.5), prior=SURE, response="prior").decide(signals)
    assert after(lower)["c00"] == pytest.approx(90.25, abs=0.02)
    steps = BudgetDecider(Constraints(**FREE, target_cost=1.0), prior=SURE, response="prior").decide(signals)
    assert after(steps)["c00"] == pytest.approx(80)


def test_a_target_return_sets_the_total(signals_of):
    """The same with revenue: 10 conversions worth 20 a day for 100; a return of 1.9 allows ``s = 100 (2 / 1.9)^2``."""
    signals = signals_of([10.0], [100.0], days=2800, value=[20.0])
    plan = BudgetDecider(Constraints(**FREE, target_roas=1.9), prior=SURE, response="prior").decide(signals)
    assert after(plan)["c00"] == pytest.approx(100 * (2 / 1.9) ** 2, abs=0.02)
    with pytest.raises(ConfigurationError, match="target_roas"):
        BudgetDecider(Constraints(target_roas=2.0)).decide(signals_of([10], [100]))


def test_several_arms_share_a_target_cost(signals_of):
    """With two arms the average over both meets the target, and the better one takes more."""
    signals = signals_of([10.0, 20.0], [100.0, 100.0], days=2800)
    plan = BudgetDecider(Constraints(**FREE, target_cost=6.9), prior=SURE, response="prior").decide(signals)
    s = after(plan)
    outcome = 10 * np.sqrt(s["c00"] / 100) + 20 * np.sqrt(s["c01"] / 100)
    assert (s["c00"] + s["c01"]) / outcome == pytest.approx(6.9, rel=1e-3)
    assert s["c01"] == 120.0


def test_unknown_objectives_are_named(signals_of):
    """A wrong name lists the valid ones."""
    with pytest.raises(ConfigurationError, match="thompson"):
        BudgetDecider(objective="best")
