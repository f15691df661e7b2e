"""What a hold says is missing, against the arithmetic of a Normal and a growing budget."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from closedloop.decide import BudgetDecider
from closedloop.decide.reasons import alike, cannot_fall, out_of_reach, stuck, too_many, wait_for_more, weak_move
from closedloop.records.decision import Constraints

STRICT = {"min_probability": 0.99, "gate": "evidence"}


def test_what_is_missing_until_a_difference_would_pass(signals_of):
    """A z-value grows with the root of the volume: from chance p to 0.99 it takes ``(z(0.99) / z(p))^2`` times the conversions."""
    signals = signals_of([20, 22], [100, 100], days=7)
    plan = BudgetDecider(Constraints(**STRICT), alike=1.0).decide(signals)
    holds = [h for h in plan.holds if h.reason == "thin_evidence"]
    assert len(holds) == 2
    for h in holds:
        i = list(signals.arms).index(h.arm)
        assert 0.55 < h.triggers["p_gain"] < 0.99
        times = (norm.ppf(0.99) / norm.ppf(h.triggers["p_gain"])) ** 2
        missing = (times - 1) * signals.effective_volume[i]
        assert h.triggers["conversions_missing"] == pytest.approx(missing)
        assert h.triggers["days_at_current_pace"] == pytest.approx(missing / [20, 22][i])


def test_a_difference_that_is_none_needs_an_unknown_amount(signals_of):
    """At even odds no number of conversions is named."""
    plan = BudgetDecider(Constraints(**STRICT), alike=1.0).decide(signals_of([20, 20], [100, 100], days=7))
    for h in plan.holds:
        assert h.reason in ("thin_evidence", "no_gain")
        if h.reason == "thin_evidence" and h.triggers["p_gain"] < norm.cdf(0.02):
            assert h.triggers["conversions_missing"] is None


@pytest.mark.parametrize(("total", "plans"), [(100, 3), (400, 3), (199, None), (241, 1)])
def test_how_many_plans_a_total_takes(signals_of, total, plans):
    """From 200 a day in steps of at most a fifth each plan reaches 0.8 (or 1.2) of what it had: counted by going there."""
    plan = BudgetDecider(Constraints(total=total, gate="evidence")).decide(signals_of([20, 22], [100, 100]))
    found = plan.provenance.get("total")
    if plans is None:
        assert found is None
        return
    after, n = 240.0 if total > 200 else 160.0, 0
    while (after < total) if total > 200 else (after > total):
        after, n = after * (1.2 if total > 200 else 0.8), n + 1
    assert found["plans_to_go"] == n == plans
    assert (found["asked"], found["reached"]) == (total, 240 if total > 200 else 160)


def test_amounts_are_in_the_currency(signals_of):
    """What a hold and a total say in words is what budgets are in: 100 and 160 of the currency, not steps or millionths."""
    signals = signals_of([20, 22], [100, 100], days=7)
    for h in BudgetDecider(Constraints(**STRICT), alike=1.0).decide(signals).holds:
        amount = float(re.search(r"moving it to ([\d.,]+) EUR", h.explanation)[1])
        assert 80 <= amount <= 120
    found = BudgetDecider(Constraints(total=100, gate="evidence")).decide(signals).provenance
    assert found["total"]["words"].startswith("100 EUR a day were asked for, 160 EUR is as near as")
    assert "ceilings" not in found["total"]["words"]
    assert (found["total_before"], found["total_after"]) == (200.0, 160.0)


def of(now, *, low=None, budgets=None, known=None, volume=0.0, weekly=0.0, total=0.0, **constraints):
    """What reasons look at: budgets in cents, and the figures that are the same for every arm."""
    now = np.array(now, dtype=float)
    return SimpleNamespace(
        limits=SimpleNamespace(now=now, low=now if low is None else np.array(low, dtype=float), step=10_000, total=total),
        budgets=now * 10_000 if budgets is None else np.array(budgets),
        known=np.ones(len(now), dtype=bool) if known is None else np.array(known),
        constraints=Constraints(**constraints), currency="EUR", unit="EUR",
        signals=SimpleNamespace(effective_volume=np.full(len(now), volume), weekly_conversions=np.full(len(now), weekly)),
    )  # fmt: skip


def plans(moving, kept, asked, step):
    """How many plans it takes, by making them: what may move grows or shrinks by the largest step each time."""
    rise, n = moving + kept < asked, 0
    while moving + kept < asked - 1e-9 if rise else moving + kept > asked + 1e-9:
        moving, n = moving * (1 + step if rise else 1 - step), n + 1
    return n


@pytest.mark.parametrize("seed", range(30))
def test_what_is_missing_of_a_total_by_making_the_plans(seed):
    """Random budgets, some held, some unknown: asked, reached and kept in money, and the plans to go counted one by one."""
    rng = np.random.default_rng(seed)
    now = rng.integers(1_000, 9_000, 5).astype(float)
    step = float(rng.choice([0.1, 0.2, 0.5, 1.0]))
    known, moves = np.array([True, True, True, True, False]), np.array([True, True, rng.random() < 0.5, False, False])
    asked = float(np.round(now[:4].sum() * rng.choice([0.2, 0.6, 1.7, 3.0])))
    up = asked > now[:4].sum()
    after = np.where(moves, np.floor(now * (1 + step if up else 1 - step)), now)
    total, kept = after[:4].sum(), after[:4][~moves[:4]].sum()
    found = out_of_reach(of(now, known=known, max_step=step), after, asked)
    assert (found["asked"], found["reached"], found["kept"]) == pytest.approx((asked / 100, total / 100, kept / 100))
    words = found["words"]
    assert f"{asked / 100:,.2f}".rstrip("0").rstrip(".") in words
    assert ("floors and the largest step" in words) == (total > asked)
    assert ("ceilings and the largest step" in words) == (total < asked)
    moving = after[moves].sum()
    if moving == 0:
        assert (found["plans_to_go"], "nothing may move" in words) == (None, True)
    elif asked <= kept:
        assert (found["plans_to_go"], f"keep {kept / 100:,.2f}".rstrip("0").rstrip(".") in words) == (None, True)
    else:
        n = plans(moving, kept, asked, step)
        assert found["plans_to_go"] == n
        assert f"at least {n} more plan{'' if n == 1 else 's'} like this" in words


def test_a_total_within_a_step_is_reached():
    """One step short is what rounding leaves; over it by one is allowed as a grid's next step, more is said; an unknown budget is none."""
    for after, said in ((10_000, False), (10_001, False), (10_001.5, True), (9_999, True)):
        found = out_of_reach(of([9_000.0, 5_000.0], known=[True, False], max_step=0.2), np.array([after, 5_000.0]), 10_000.0)
        assert (found is not None) == said, after
    one = out_of_reach(of([9_000.0], max_step=1.0), np.array([4_000.0]), 2_000.0)  # a step of all: down to nothing is one plan away
    assert (one["plans_to_go"], "at least" in one["words"]) == (None, False)


@pytest.mark.parametrize("chance", [0.3, 0.5, 0.507, 0.51, 0.6, 0.75])
@pytest.mark.parametrize(("needed", "weekly"), [(0.9, 30.0), (0.9, 0.0), (0.9, 0.4), (0.55, 30.0), (0.5, 30.0), (0.4, 30.0)])
def test_what_a_thin_move_needs(chance, needed, weekly):
    """The volume grows by the squared ratio of z-values; no figure where the odds are about even, no days without a pace."""
    found = weak_move(of([10_000.0], volume=200.0, weekly=weekly, min_probability=needed), 0, 11_050.0, chance)
    z = norm.ppf(max(chance, 0.5))
    missing = None if z <= 0.02 else ((max(norm.ppf(needed), 0.0) / z) ** 2 - 1) * 200.0
    assert found.triggers["conversions_missing"] == (missing if missing is None else pytest.approx(missing))
    days = None if missing is None or weekly == 0.0 else missing / weekly * 7
    assert found.triggers["days_at_current_pace"] == (days if days is None else pytest.approx(days))
    assert found.explanation == f"moving it to 110.5 EUR helps with probability {chance:.2f}, {needed:.2f} is needed"
    assert ("days at the current pace" in found.lift) == (days is not None)
    assert found.lift.startswith("more data" if missing is None else "about ")


def test_a_move_too_small_to_make():
    """No chance was asked for: the best budget and the move towards it in money, to six digits."""
    found = weak_move(of([123_456.0], min_change=0.01), 0, 123_556.0, None)
    assert (found.reason, found.triggers) == ("no_gain", {"best_move": 1.0, "min_change": 0.01})
    assert found.explanation == "the best budget, 1,235.56 EUR, is within the smallest change of 1,234.56 EUR now"


def test_reasons_in_words():
    """Days in singular and plural, amounts in the currency, and the trigger of each."""
    assert [wait_for_more(of([1.0]), 2.0, 3.0, days, 7.0).lift for days in (1.0, 3.0, 0.5)] == [
        "wait 1 day",
        "wait 3 days",
        "wait 0.5 days",
    ]
    waiting = wait_for_more(of([1.0]), 2.0, 3.0, 4.0, 7.0)
    assert waiting.explanation == "over 7 days moving now is worth 2 EUR, waiting 4 days and deciding then 3"
    assert waiting.triggers == {"value_of_acting": 2.0, "value_of_waiting": 3.0, "days": 4.0}
    still = cannot_fall(of([10_000.0], low=[11_000.0], total=15_000.0), 0)
    assert "the total is under" in still.explanation
    assert "budget of 100 EUR could only rise to 110 EUR" in still.explanation
    assert still.triggers == {"total": 150.0}
    assert stuck(of([10_050.0]), 0).explanation == "its limits leave no whole step around its budget of 100.5 EUR"
    assert [stuck(of([0.0], budgets=[b]), 0).reason for b in (0, 1)] == ["no_spend", "limits"]
    assert "the 3 most valuable" in too_many(3).explanation
    assert "(p-value 0.20, under 0.05 is needed)" in alike(of([1.0]), 0.2, 0.05).explanation
