"""The decider: moves that balance, holds that say why, ids that do not change."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta

import attrs
import numpy as np
import pytest

from closedloop.decide import BudgetDecider
from closedloop.errors import ConfigurationError, InfeasibleError, InputError
from closedloop.interfaces import Decider
from closedloop.records.decision import Constraints, GroupLimit, Target
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow
from closedloop.stats.response import ResponsePrior

NOW = datetime(2024, 10, 4, tzinfo=UTC)


def sums(plan):
    held = sum(h.budget.micros for h in plan.holds if h.budget is not None)
    return sum(d.before.micros for d in plan.decisions) + held, sum(d.after.micros for d in plan.decisions) + held


def reasons(plan):
    return {h.arm[1]: h.reason for h in plan.holds}


def test_is_a_decider():
    """It is what the loop asks for."""
    assert isinstance(BudgetDecider(), Decider)


def test_money_flows_to_the_better_arm_and_the_total_is_kept(signals_of):
    """Two arms, one three times as good: both move by the largest step, and the sum does not."""
    plan = BudgetDecider(Constraints(max_step=0.2)).decide(signals_of([10, 30], [100, 100]))
    after = {d.arm[1]: d.after for d in plan.decisions}
    assert after == {"c00": Money.of(80, "EUR"), "c01": Money.of(120, "EUR")}
    assert sums(plan)[0] == sums(plan)[1]
    assert plan.p_gain > 0.95
    assert plan.gain.low > 0.0
    assert plan.decisions[0].arm[1] == "c01"
    assert plan.decisions[0].gain.estimate > 0.0 > plan.decisions[1].gain.estimate


def test_the_gain_interval_is_that_of_the_joint_draws(signals_of):
    """With an exponent known exactly, the plan's gain is a difference of two Gammas: its quantiles are simulated apart."""
    beta = 0.6
    prior = ResponsePrior(power=(np.log(beta / (1 - beta)), 1e-6))
    plan = BudgetDecider(Constraints(), draws=40_000, prior=prior, response="prior").decide(signals_of([10, 30], [100, 100]))
    rng = np.random.default_rng(123)
    one, other = rng.gamma(280.001, 1 / 28, 400_000), rng.gamma(840.001, 1 / 28, 400_000)
    gain = one * (0.8**beta - 1) + other * (1.2**beta - 1)
    np.testing.assert_allclose([plan.gain.low, plan.gain.estimate, plan.gain.high], np.quantile(gain, [0.05, 0.5, 0.95]), rtol=0.01)


def test_the_probability_of_two_moves_is_that_of_the_plan(signals_of):
    """With one giver and one taker, each move helps exactly when the plan does."""
    plan = BudgetDecider(Constraints(min_probability=0.0, minimum_volume=0), draws=4000).decide(signals_of([3, 4], [100, 100], days=7))
    assert [d.p_gain for d in plan.decisions] == pytest.approx([plan.p_gain] * 2, abs=0.01)
    assert 0.5 < plan.p_gain < 0.95
    assert plan.expected_shortfall > 0.0


def test_same_inputs_same_ids_and_other_inputs_other_ids(signals_of):
    """A replay gives the same keys; a later time, another seed or another limit does not."""
    signals = signals_of([10, 30, 20], [100, 100, 100])
    plan = BudgetDecider().decide(signals, now=NOW)
    again = BudgetDecider().decide(signals_of([10, 30, 20], [100, 100, 100]), now=NOW)
    assert (plan.plan_id, [d.decision_id for d in plan.decisions]) == (again.plan_id, [d.decision_id for d in again.decisions])
    assert plan.gain == again.gain
    others = [
        BudgetDecider(seed=1).decide(signals, now=NOW),
        BudgetDecider(Constraints(max_step=0.1)).decide(signals, now=NOW),
        BudgetDecider().decide(signals, now=NOW + timedelta(days=1)),
        BudgetDecider().decide(signals_of([10, 30, 21], [100, 100, 100]), now=NOW),
        BudgetDecider().decide(signals, now=NOW, rng=np.random.default_rng(5)),
    ]
    assert len({plan.plan_id, *(o.plan_id for o in others)}) == 6
    ids = [d.decision_id for p in (plan, *others) for d in p.decisions]
    assert len(set(ids)) == len(ids)


def test_a_plan_is_ready_for_json_and_pickle(signals_of):
    """Triggers and provenance are plain numbers and text."""
    plan = BudgetDecider(Constraints(floors={("google", "c00"): 1.0})).decide(signals_of([10, 30, 2], [100, 100, 100]))
    for mapping in (plan.provenance, *(d.triggers for d in plan.decisions), *(h.triggers for h in plan.holds)):
        assert json.loads(json.dumps(mapping)) == mapping
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert plan.provenance["watermark"] == {"google": 20_000 * 86_400_000_000}


class TestHolds:
    def test_low_volume_counts_the_campaign(self, signals_of):
        """Two audiences of 30 conversions a week make a campaign of 60, which may be steered; one alone may not."""
        arms = [("google", "a", "x"), ("google", "a", "y"), ("google", "b", "x"), ("meta", "a", "x")]
        columns = ("platform", "campaign", "audience")
        signals = signals_of([30 / 7] * 3 + [49 / 7], [100] * 4, arms=arms, columns=columns)
        plan = BudgetDecider(Constraints(minimum_volume=50)).decide(signals)
        held = {h.arm for h in plan.holds if h.reason == "low_volume"}
        assert held == {("google", "b", "x"), ("meta", "a", "x")}

    def test_low_volume_says_what_lifts_it(self, signals_of):
        """The missing conversions, the days to reach them and the fewest campaigns to merge, with numbers."""
        plan = BudgetDecider().decide(signals_of([10, 20, 25, 100], np.array([1.0, 1, 1, 1]) * 100, weekly_conversions=[10, 20, 25, 100]))
        hold = next(h for h in plan.holds if h.arm[1] == "c00")
        assert hold.reason == "low_volume"
        assert hold.triggers["conversions_missing"] == pytest.approx(40)
        assert hold.triggers["days_at_current_pace"] == pytest.approx(35)
        assert hold.triggers["merge_with"] == ["google / c02", "google / c01"]
        assert hold.triggers["weekly_if_merged"] == pytest.approx(55)
        assert "35 days" in hold.lift
        assert "c02" in hold.lift

    def test_the_gate_can_be_the_evidence(self, signals_of):
        """Those who accept pooled evidence let the intervals decide."""
        signals = signals_of([1, 6], [100, 100])
        assert reasons(BudgetDecider().decide(signals)) == {"c00": "low_volume", "c01": "low_volume"}
        assert len(BudgetDecider(Constraints(gate="evidence")).decide(signals).decisions) == 2

    @pytest.mark.parametrize(
        ("column", "values", "reason"),
        [("maturity", [0.1, 1, 1], "immature"), ("tagged_share", [0.5, 1, 1], "untagged"), ("spend_per_day", None, "no_spend")],
    )
    def test_one_reason_each(self, signals_of, column, values, reason):
        """An arm whose data cannot carry a decision keeps its budget; the others balance."""
        spend = [0, 100, 100] if values is None else [100, 100, 100]
        more = {} if values is None else {column: values}
        plan = BudgetDecider().decide(signals_of([20, 10, 30], spend, **more))
        assert reasons(plan)["c00"] == reason
        assert {d.arm[1] for d in plan.decisions} == {"c01", "c02"}
        assert sums(plan)[0] == sums(plan)[1]

    def test_cool_down(self, signals_of):
        """An arm changed a day ago rests for the cool-down, and is free after it."""
        signals = signals_of([10, 30, 20], [100] * 3)
        decider = BudgetDecider(Constraints(cool_down_days=3))
        changed = {("google", "c01"): NOW - timedelta(days=1)}
        plan = decider.decide(signals, now=NOW, last_changed=changed)
        hold = next(h for h in plan.holds if h.arm[1] == "c01")
        assert hold.reason == "learning"
        assert hold.triggers["days"] == pytest.approx(2)
        assert (NOW + timedelta(days=2)).isoformat(timespec="minutes") in hold.lift
        later = decider.decide(signals, now=NOW + timedelta(days=2), last_changed=changed)
        assert ("google", "c01") in {d.arm for d in later.decisions}

    def test_held_from_outside_and_window(self, signals_of):
        """A broken integration holds one arm; evidence under another window holds all."""
        signals = signals_of([10, 30, 20], [100] * 3)
        plan = BudgetDecider().decide(signals, held={("google", "c01"): "integration"})
        assert reasons(plan)["c01"] == "integration"
        plan = BudgetDecider(window=AttributionWindow(click="1d")).decide(signals)
        assert set(reasons(plan).values()) == {"window_mismatch"}
        assert not plan.decisions

    def test_thin_evidence(self, signals_of):
        """Where the joint posterior does not carry the move, it is not made, and the hold says how much more data would."""
        signals = signals_of([4.0, 4.4], [100, 100], days=7)
        plan = BudgetDecider(Constraints(minimum_volume=0, min_probability=0.95)).decide(signals)
        assert set(reasons(plan).values()) == {"thin_evidence"}
        assert all(h.triggers["conversions_missing"] > 0 for h in plan.holds if "conversions_missing" in h.triggers)
        certain = signals_of([4000, 12000], [100, 100], days=7)
        assert len(BudgetDecider(Constraints(minimum_volume=0, min_probability=0.95)).decide(certain).decisions) == 2

    def test_identical_arms_stay(self, signals_of):
        """Nothing to gain, nothing moves."""
        plan = BudgetDecider().decide(signals_of([10] * 5, [100] * 5))
        assert set(reasons(plan).values()) == {"thin_evidence"}
        assert plan.holds[0].triggers["p_value"] == 1.0

    def test_a_hold_shows_what_it_gives_up(self, signals_of):
        """The interval of the best move of a held arm comes from the same draws; an arm without spend has an unbounded one."""
        plan = BudgetDecider().decide(signals_of([40, 10, 3], [100, 100, 0], tagged_share=[0.1, 1, 1]))
        by = {h.arm[1]: h for h in plan.holds}
        assert by["c00"].gain.low > 0.0
        assert by["c00"].triggers["best_budget"] == pytest.approx(120)
        assert by["c02"].gain.high == np.inf


class TestLimits:
    def test_a_new_total_is_reached(self, signals_of):
        """More money goes out even between equal arms, less is taken from them."""
        for total in (560.0, 450.0):
            plan = BudgetDecider(Constraints(total=total)).decide(signals_of([10] * 5, [100] * 5))
            assert sums(plan)[1] == round(total * 1e6)

    def test_what_the_steps_do_not_allow_is_left_over_and_said(self, signals_of):
        """A total beyond the largest step leaves the rest unallocated; a total below it is an error that names both limits."""
        plan = BudgetDecider(Constraints(total=1000)).decide(signals_of([10, 30], [100, 100]))
        assert sums(plan)[1] == 240_000_000
        assert plan.provenance["unallocated"] == pytest.approx(760)

    def test_a_total_out_of_reach_is_approached_and_it_is_said(self, signals_of, budgets_of):
        """From 200 to 100 at 20 % a plan: 160, 128, 102.4, 100, and each plan says how many more it takes at least."""
        budgets, totals, to_go = [100.0, 100.0], [], []
        for _ in range(4):
            signals = signals_of([10, 30], budgets)
            plan = BudgetDecider(Constraints(total=100)).decide(signals, budgets_of(signals, budgets))
            for d in plan.decisions:
                budgets[int(d.arm[1][1:])] = d.after.units
            totals.append(round(sum(budgets), 2))
            short = plan.provenance.get("total")
            to_go.append(None if short is None else short["plans_to_go"])
            assert (short is None) == ("out of reach" not in plan.explain())
        assert totals == [160.0, 128.0, 102.4, 100.0]
        assert to_go == [3, 2, 1, None]

    def test_a_falling_total_still_feeds_the_best_arm(self, signals_of):
        """The total falls by 20: what the givers lose to the outside is not charged to the best arm, which rises by its largest step."""
        sure = ResponsePrior(power=(0.0, 1e-6))
        signals = signals_of([10, 12, 40], [100, 100, 60])
        plan = BudgetDecider(Constraints(total=240), prior=sure, response="prior").decide(signals)
        assert {d.arm[1]: d.after.units for d in plan.decisions} == {"c00": 80.0, "c01": 88.0, "c02": 72.0}
        best = next(d for d in plan.decisions if d.arm[1] == "c02")
        assert best.p_gain > 0.99

    def test_a_total_above_reach_says_so_too(self, signals_of):
        """From 200 to 1,000 at 20 % a plan: this one ends at 240; 1.2^8 times 240 is over 1,000."""
        short = BudgetDecider(Constraints(total=1000)).decide(signals_of([10, 30], [100, 100])).provenance["total"]
        assert (short["asked"], short["reached"], short["plans_to_go"]) == (1000.0, 240.0, 8)

    def test_a_total_that_few_changes_cannot_meet(self, signals_of):
        """One change a platform: the one with the most room towards the total is made."""
        arms = [("google", "a"), ("google", "b"), ("meta", "c")]
        signals = signals_of([10, 30, 20], [100, 300, 50], arms=arms)
        plan = BudgetDecider(Constraints(total=100, max_changes=1)).decide(signals)
        assert {d.arm[1]: d.after.units for d in plan.decisions} == {"b": 240.0, "c": 40.0}
        assert plan.provenance["total"]["reached"] == 380.0
        up = BudgetDecider(Constraints(total=2000, max_changes=1)).decide(signals)
        assert {d.arm[1]: d.after.units for d in up.decisions} == {"b": 360.0, "c": 60.0}

    def test_conflicts_are_named(self, signals_of):
        """Floors above the total, and a floor above a ceiling."""
        signals = signals_of([10, 30], [100, 100])
        with pytest.raises(InfeasibleError, match="floors") as error:
            BudgetDecider(Constraints(total=150, floor=80)).decide(signals)
        assert {"total", "floor"} <= set(error.value.valid)
        group = GroupLimit(tags={"platform": "google"}, floor=120)
        more = signals_of([10, 30, 20], [100, 100, 100], arms=[("google", "a"), ("google", "b"), ("meta", "c")])
        with pytest.raises(InfeasibleError, match="arms and groups add up to 170"):
            BudgetDecider(Constraints(total=150, floor=50, groups=[group])).decide(more)
        with pytest.raises(InfeasibleError, match=r"c01.*ceiling"):
            BudgetDecider(Constraints(floors={("google", "c01"): 90}, ceilings={("google", "c01"): 80})).decide(signals)

    def test_holds_that_keep_too_much(self, signals_of):
        """Held arms keep 300 of a total of 350; the free one goes to 80, no further, and it is said why; under 300 nothing else helps."""
        signals = signals_of([10, 10, 10, 30], [100] * 4, tagged_share=[0, 0, 0, 1])
        plan = BudgetDecider(Constraints(total=350)).decide(signals)
        assert [d.after.units for d in plan.decisions] == [80.0]
        assert plan.provenance["total"]["kept"] == 300.0
        assert plan.provenance["total"]["plans_to_go"] == 3  # 80 -> 64 -> 51.2 -> 50
        assert "by hand" in BudgetDecider(Constraints(total=250)).decide(signals).provenance["total"]["words"]
        held = dict.fromkeys(signals.arms, "paused")
        assert "nothing may move" in BudgetDecider(Constraints(total=250)).decide(signals, held=held).provenance["total"]["words"]

    def test_floors_ceilings_groups(self, signals_of):
        """No budget and no group passes its ends."""
        limits = Constraints(
            floors={("google", "c00"): 95}, ceilings={("google", "c03"): 110}, groups=[GroupLimit(tags={"platform": "google"}, ceiling=405)]
        )
        arms = [("google", "c00"), ("google", "c01"), ("google", "c02"), ("google", "c03"), ("meta", "c04")]
        plan = BudgetDecider(limits).decide(signals_of([10, 15, 20, 40, 12], [100] * 5, arms=arms))
        after = {a.arm[1]: (a.after if hasattr(a, "after") else a.budget).units for a in (*plan.decisions, *plan.holds)}
        assert after["c00"] >= 95
        assert after["c03"] <= 110
        assert sum(v for k, v in after.items() if k != "c04") <= 405

    def test_an_arm_that_does_not_spend_its_budget_gets_no_more(self, signals_of, budgets_of):
        """Money that is not spent buys nothing."""
        signals = signals_of([10, 90], [100, 100])
        for budget, rises in ((300, False), (200.01, False), (200, True)):  # half of it is spent, and that is enough
            after = {d.arm[1]: d.after.units for d in BudgetDecider().decide(signals, budgets_of(signals, [100, budget])).decisions}
            assert (after.get("c01", 0.0) > budget) == rises

    def test_at_most_so_many_changes_a_platform(self, signals_of):
        """The limit holds, and the moves that are left balance."""
        plan = BudgetDecider(Constraints(max_changes=2)).decide(signals_of([10, 20, 5, 30, 12], [100] * 5, weekly_conversions=[99] * 5))
        assert len(plan.decisions) == 2
        assert sums(plan)[0] == sums(plan)[1]


class TestBadInput:
    def test_no_arms(self, signals_of):
        """An empty signal gives a plan that does nothing."""
        plan = BudgetDecider().decide(signals_of([], []), {})
        assert (len(plan.decisions), len(plan.holds), plan.gain.estimate) == (0, 0, 0.0)
        assert "0 moves" in repr(plan)

    def test_no_signal(self, signals_of):
        """Arms that never converted are held for their volume, with nothing to wait for but conversions; the plan's numbers are zero."""
        plan = BudgetDecider().decide(signals_of([0.0, 0.0], [100, 100]))
        assert set(reasons(plan).values()) == {"low_volume"}
        assert all(h.triggers["days_at_current_pace"] is None or h.triggers["days_at_current_pace"] > 1e5 for h in plan.holds)
        assert (plan.gain.low, plan.gain.high, plan.p_gain) == (0.0, 0.0, 0.0)

    def test_a_total_of_zero(self, signals_of):
        """Budgets go down by the largest step, and to nothing where steps are as large as that."""
        signals = signals_of([10, 30], [100, 100])
        assert {d.after.units for d in BudgetDecider(Constraints(total=0)).decide(signals).decisions} == {80.0}
        assert {d.after.units for d in BudgetDecider(Constraints(total=0, max_step=1)).decide(signals).decisions} == {0.0}

    def test_budgets_below_their_floors(self, signals_of):
        """They rise by the largest step towards them, with the money of the others, though nothing says that it pays."""
        signals = signals_of([10, 20, 20], [50, 100, 100])
        plan = BudgetDecider(Constraints(floors={("google", "c00"): 80})).decide(signals)
        assert {d.arm[1]: d.after.units for d in plan.decisions}["c00"] == 60.0
        assert sums(plan)[0] == sums(plan)[1]

    def test_a_group_above_its_ceiling_comes_down(self, signals_of):
        """Arms that look alike are left alone, but not at the price of a stated ceiling."""
        arms = [("google", "a"), ("google", "b"), ("meta", "c")]
        group = GroupLimit(tags={"platform": "google"}, ceiling=190)
        plan = BudgetDecider(Constraints(groups=[group])).decide(signals_of([20, 20, 20], [100, 100, 100], arms=arms))
        after = {a.arm[1]: (a.after if hasattr(a, "after") else a.budget).units for a in (*plan.decisions, *plan.holds)}
        assert after["a"] + after["b"] == 190.0
        assert after["c"] == 110.0

    def test_all_held(self, signals_of):
        """A plan that does nothing, with a reason for each."""
        signals = signals_of([10, 30], [100, 100])
        plan = BudgetDecider().decide(signals, held=dict.fromkeys(signals.arms, "integration"))
        assert not plan.decisions
        assert set(reasons(plan).values()) == {"integration"}

    def test_one_arm(self, signals_of):
        """One arm has nowhere to send its money."""
        assert reasons(BudgetDecider().decide(signals_of([10], [100]))) == {"c00": "no_gain"}

    def test_zero_budgets(self, signals_of, budgets_of):
        """Nothing can be moved from nothing by a relative step."""
        signals = signals_of([10, 30], [100, 100])
        plan = BudgetDecider().decide(signals, budgets_of(signals, [0, 0]))
        assert set(reasons(plan).values()) == {"no_spend"}

    def test_unknown_budget(self, signals_of):
        """An arm missing from the given budgets is held, not guessed."""
        signals = signals_of([10, 30, 20], [100] * 3)
        plan = BudgetDecider().decide(signals, {("google", f"c0{i}"): Money.of(100, "EUR") for i in (0, 1)})
        assert reasons(plan)["c02"] == "no_spend"
        assert len(plan.decisions) == 2
        problem = BudgetDecider().problem(signals, {("google", f"c0{i}"): Money.of(100, "EUR") for i in (0, 1)})
        assert problem.curves.value(np.full(3, 10_000.0)).round(1).tolist() == [10.0, 30.0, 0.0]  # nor does what it brings count

    def test_wrong_money(self, signals_of, budgets_of):
        """Two currencies or a negative budget are errors with a name."""
        signals = signals_of([10, 30], [100, 100])
        with pytest.raises(InputError, match="USD"):
            BudgetDecider().decide(signals, budgets_of(signals, [100, 100], "USD"))
        with pytest.raises(InputError, match="negative"):
            BudgetDecider().decide(signals, budgets_of(signals, [100, -1]))

    def test_wrong_arguments(self, signals_of):
        """Wrong settings name their field."""
        for wrong in ({"level": 1.5}, {"draws": 3}):
            with pytest.raises(ConfigurationError, match=next(iter(wrong))):
                BudgetDecider(**wrong)
        with pytest.raises(ConfigurationError, match="horizon"):
            BudgetDecider().decide(signals_of([10], [10]), horizon=0)
        with pytest.raises(ConfigurationError, match="max_step"):
            Constraints(max_step=float("nan"))


def test_yen_move_in_whole_yen(signals_of):
    """Budgets are whole minor units of their currency."""
    plan = BudgetDecider(Constraints(max_step=0.137)).decide(signals_of([10, 30, 22], [101, 99, 105], currency="JPY"))
    assert plan.decisions
    assert all(d.after.micros % 1_000_000 == 0 for d in plan.decisions)


def test_targets(signals_of):
    """A target is given, or made of the tags."""
    signals = signals_of([10, 30], [100, 100])
    plan = BudgetDecider(targets={("google", "c00"): Target("google", "customers/1/budgets/2")}).decide(signals)
    assert {str(d.target) for d in plan.decisions} == {"google:customers/1/budgets/2", "google:c01"}


def test_value_is_what_counts_where_it_is_given(signals_of):
    """Fewer conversions of a higher value win, and the unit is money."""
    plan = BudgetDecider().decide(signals_of([30, 10], [100, 100], value=[1.0, 100.0]))
    assert next(d for d in plan.decisions if d.arm[1] == "c01").after.units == 120
    assert plan.unit == "EUR"


def test_explain_says_every_decision_with_its_numbers(signals_of):
    """Each move and hold by name, with before, after, interval, triggers, what lifts it, alternatives, seed, version and data."""
    plan = BudgetDecider(seed=11).decide(signals_of([10, 30, 3], [100, 100, 100]))
    text = plan.explain()
    for d in plan.decisions:
        assert f"{d.before!r} -> {d.after!r}" in text
        assert repr(d.gain) in text
    for h in plan.holds:
        assert h.explanation in text
        assert h.lift in text
    for needed in (
        "change nothing",
        "equal split",
        "seed: 11",
        "version: ",
        "google until ",
        "made by hand",
        "max step 0.2",
        "conversions missing 29",
    ):
        assert needed in text, needed


def test_alternatives_come_from_the_same_draws(signals_of):
    """The plan is at least as good as the alternatives that respect its holds, and the one without holds is better."""
    plan = BudgetDecider(draws=4000).decide(signals_of([10, 30, 60], [100, 100, 100], tagged_share=[1, 1, 0]))
    gains = {a["name"]: a["gain"][1] for a in plan.provenance["alternatives"]}
    assert gains["the same without holds"] > plan.gain.estimate > gains["towards an equal split"] == 0.0


def test_plot(signals_of):
    """A picture of budgets before and after, with the gains beside."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    plan = BudgetDecider().decide(signals_of([10, 30, 3], [100, 100, 0]))
    axes = plan.plot()
    assert len(axes.figure.axes) == 2
    pyplot.close(axes.figure)
    empty = BudgetDecider().decide(signals_of([], [])).plot()
    pyplot.close(empty.figure)


def test_a_budget_that_is_not_spent_counts_towards_the_total(signals_of, budgets_of):
    """An arm with a budget and no spend stays on hold, and what it holds is not given to others."""
    signals = signals_of([10, 30, 0], [100, 100, 0])
    budgets = budgets_of(signals, [100, 100, 50])
    plan = BudgetDecider(Constraints(total=270)).decide(signals, budgets)
    assert sums(plan)[1] == 270_000_000
    plan = BudgetDecider(Constraints(total=200)).decide(signals, budgets)  # 150 are left, the least is 160
    assert sums(plan)[1] == 210_000_000
    assert {h.reason for h in plan.holds} == {"no_spend"}


GOOGLE = {"platform": "google"}
IMPOSSIBLE = [
    ({"floor": 51, "groups": [GroupLimit(tags=GOOGLE, ceiling=100)]}, "floors of the arms of .* add up to more than its ceiling of 100"),
    ({"ceiling": 49, "groups": [GroupLimit(tags=GOOGLE, floor=100)]}, "ceilings of the arms of .* add up to less than its floor of 100"),
    ({"total": 99, "groups": [GroupLimit(tags=GOOGLE, floor=100)]}, "floor of .* lies above the total of 99"),
    (
        {"groups": [GroupLimit(tags=GOOGLE, ceiling=99), GroupLimit(tags={**GOOGLE, "campaign": "c00"}, floor=100)]},
        "floor of .*c00.* lies above the ceiling of .* around it",
    ),
]


@pytest.mark.parametrize(("limits", "says"), IMPOSSIBLE)
def test_limits_of_groups_that_contradict_others_are_named(signals_of, limits, says):
    """What no budgets can satisfy is refused by name; one unit less of it, where both ends meet, is allowed."""
    signals = signals_of([30, 20], [60, 60])
    with pytest.raises(InfeasibleError, match=says):
        BudgetDecider(Constraints(gate="evidence", **limits)).decide(signals)
    one = {"floor": -1, "ceiling": 1, "total": 1}
    met = {k: v + one[k] for k, v in limits.items() if k in one}
    groups = limits["groups"] if met else [attrs.evolve(limits["groups"][0], ceiling=100), limits["groups"][1]]
    BudgetDecider(Constraints(gate="evidence", **{**limits, **met, "groups": groups})).decide(signals)


def test_an_arm_at_the_smallest_tagged_share_may_be_decided(signals_of):
    """The limit itself is enough; a hair under it is not."""
    for share, held in ((0.7, False), (0.6999, True)):
        plan = BudgetDecider().decide(signals_of([20, 10, 30], [100, 100, 100], tagged_share=[share, 1, 1]))
        assert ("untagged" in reasons(plan).values()) == held
