"""Guardrails: nothing outside them reaches an executor, whatever a Decider returns."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.decide import BudgetDecider, Guardrails
from closedloop.errors import ClosedLoopError, ConfigurationError, InvariantError
from closedloop.interfaces import Decider
from closedloop.records.decision import Constraints, Decision, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.money import MICROS, Money

ARMS = [("google", "c00"), ("google", "c01"), ("meta", "c02"), ("meta", "c03")]
NOW = datetime(2024, 10, 4, 12, tzinfo=UTC)
ZERO = Interval(low=0, estimate=0, high=0, level=0.9, kind="credible")


class Returns:
    """A decider that returns what it was told to."""

    def __init__(self, plan):
        self.plan = plan

    def decide(self, signals, current_budgets=None, *, horizon=7.0, now=None, rng=None):
        return self.plan


def plan_of(signals, decisions):
    made = Plan(
        plan_id="p",
        made_at=NOW,
        window=signals.window,
        decisions=(),
        holds=(),
        gain=ZERO,
        p_gain=1.0,
        expected_shortfall=0.0,
        horizon_days=7.0,
    )
    object.__setattr__(made, "decisions", tuple(decisions))  # past every check of the record
    return made


def decision(arm, before, after, *, target=None, p_gain=0.9, key="d"):
    amount = Money(0, "EUR")
    object.__setattr__(amount, "micros", after)
    return Decision(
        decision_id=key,
        arm=arm,
        target=target or Target(arm[0], str(arm[1])),
        before=Money(before, "EUR"),
        after=amount,
        gain=ZERO,
        p_gain=p_gain,
        reason="",
    )


amounts = st.one_of(
    st.integers(-(10**9), 10**9),
    st.integers(50 * MICROS, 200 * MICROS),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e30, 2**70, True, None, "12", 100.5 * MICROS]),
)
odd = st.sampled_from([None, 3, "x", SimpleNamespace(arm=ARMS[0], after=None), SimpleNamespace()])
moves = st.builds(
    lambda arm, before, after, p, key, where: decision(
        arm, before, after, p_gain=p, key=key, target=Target(where or arm[0], str(arm[1]) if where is None else "other")
    ),
    st.sampled_from([*ARMS, ("google", "unknown"), ("google", ("x",)), ("google", 3)]),
    st.sampled_from([100 * MICROS, 90 * MICROS]),
    amounts,
    st.sampled_from([0.9, math.nan, 7.0]),
    st.text(max_size=3),
    st.sampled_from([None, None, None, "evil"]),
)


@settings(max_examples=300, deadline=None)
@given(
    decisions=st.lists(st.one_of(moves, moves, moves, odd), max_size=7),
    caps=st.fixed_dictionaries(
        {},
        optional={
            "max_budget": st.floats(0, 200),
            "max_budgets": st.dictionaries(st.sampled_from(ARMS), st.floats(0, 200)),
            "platform_caps": st.dictionaries(st.sampled_from(["google", "meta"]), st.floats(0, 400)),
            "total_cap": st.floats(0, 800),
            "max_step": st.floats(0, 1),
            "max_daily_move": st.floats(0, 300),
            "allow": st.sets(st.sampled_from(ARMS)),
            "deny": st.sets(st.sampled_from(ARMS)),
            "targets": st.just({a: Target(*a) for a in ARMS}),
            "approve_above": st.floats(0, 100),
            "blackouts": st.sampled_from([((NOW - timedelta(hours=1), NOW + timedelta(hours=1)),), ((NOW, NOW + timedelta(1)),), ()]),
        },
    ),
    moved_today=st.floats(0, 100),
    own_budgets=st.booleans(),
)
def test_nothing_outside_gets_through(signals_of, budgets_of, decisions, caps, moved_today, own_budgets):
    """NaN, infinity, negative and huge amounts, wrong arms, targets, currencies and objects: what is left respects every guardrail."""
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    budgets = None if own_budgets else budgets_of(signals, [100] * 4)
    guarded = Guardrails(Returns(plan_of(signals, decisions)), **caps)
    plan = guarded.decide(signals, budgets, now=NOW, moved_today=moved_today)

    after = dict.fromkeys(ARMS, 100 * MICROS)
    for d in plan.decisions:
        assert isinstance(d, Decision)
        assert type(d.after.micros) is int
        assert 0 <= d.after.micros < 2**62
        assert d.before.micros == 100 * MICROS
        after[d.arm] = d.after.micros
    assert len({d.arm for d in plan.decisions}) == len(plan.decisions) == len({d.target for d in plan.decisions})
    rises = {a for a in ARMS if after[a] > 100 * MICROS}
    moved = {d.arm for d in plan.decisions}
    total = sum(after.values())
    for a in rises:
        assert after[a] <= round(caps.get("max_budget", 1e9) * MICROS)
        assert after[a] <= round(caps.get("max_budgets", {}).get(a, 1e9) * MICROS)
    for platform, cap in caps.get("platform_caps", {}).items():
        mine = sum(v for a, v in after.items() if a[0] == platform)
        assert mine <= max(round(cap * MICROS), 200 * MICROS)
        assert mine <= round(cap * MICROS) or not any(a[0] == platform for a in rises)
    assert total <= round(caps.get("total_cap", 1e9) * MICROS) or not rises
    assert (
        not moved
        or sum(abs(v - 100 * MICROS) for v in after.values()) + moved_today * MICROS <= caps.get("max_daily_move", 1e9) * MICROS + 1
    )
    assert all(abs(v - 100 * MICROS) <= caps.get("max_step", 1e9) * 100 * MICROS * (1 + 1e-9) for v in after.values())
    assert moved <= caps.get("allow", set(ARMS))
    assert not moved & caps.get("deny", set())
    assert all(abs(v - 100 * MICROS) <= round(caps.get("approve_above", 1e9) * MICROS) for v in after.values())
    assert not moved or not any(a <= NOW < b for a, b in caps.get("blackouts", ()))
    if "targets" in caps:
        assert all(d.target == caps["targets"][d.arm] for d in plan.decisions)
    assert len(plan.decisions) + len(plan.holds) <= len(decisions)


def test_is_a_decider_and_leaves_a_good_plan_alone(signals_of):
    """A plan inside every guardrail comes through as it is."""
    signals = signals_of([10, 30], [100, 100])
    guarded = Guardrails(BudgetDecider(), max_budget=1000, total_cap=200)
    assert isinstance(guarded, Decider)
    assert guarded.decide(signals) == BudgetDecider().decide(signals)


def test_a_refused_cut_takes_its_rise_with_it(signals_of):
    """When the cut that pays is denied, the rise is not made: the total cannot grow by a guardrail."""
    plan = Guardrails(BudgetDecider(), deny=[("google", "c00")]).decide(signals_of([10, 30], [100, 100]))
    assert not plan.decisions
    assert {h.reason for h in plan.holds} == {"guardrail"}
    assert plan.gain.low == plan.gain.high == 0.0


def test_what_is_left_is_restated(signals_of):
    """The gain of a cut-down plan is that of the moves that are left, by the decider's own draws; the id is another one."""
    signals = signals_of([10, 30, 12, 28], [100] * 4)
    whole = BudgetDecider().decide(signals)
    plan = Guardrails(BudgetDecider(), max_daily_move=40).decide(signals)
    assert 0 < len(plan.decisions) < len(whole.decisions)
    assert plan.plan_id != whole.plan_id
    assert plan.gain == BudgetDecider().evaluate(signals, None, {d.arm: d.after for d in plan.decisions})[0]


def test_approval(signals_of):
    """A large move waits for a person, and passes with its id."""
    signals = signals_of([10, 30], [100, 100])
    guarded = Guardrails(BudgetDecider(), approve_above=10)
    plan = guarded.decide(signals)
    assert {h.reason for h in plan.holds} == {"approval"}
    ids = [h.triggers["decision_id"] for h in plan.holds]
    assert [d.decision_id for d in guarded.decide(signals, approved=ids).decisions] == ids


def test_wrong_set_up_is_an_error(signals_of):
    """Bad guardrails and things that are no plan are refused aloud."""
    for wrong in ({"max_budget": -1}, {"total_cap": math.nan}, {"max_step": math.inf}, {"blackouts": [(NOW, NOW)]}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            Guardrails(BudgetDecider(), **wrong)
    with pytest.raises(InvariantError, match="NoneType"):
        Guardrails(Returns(None)).decide(signals_of([1], [1]))
    with pytest.raises(ClosedLoopError, match="moved_today"):
        Guardrails(BudgetDecider()).decide(signals_of([10], [10]), moved_today=-1)


def test_a_strange_platform_cap_does_not_confuse(signals_of):
    """Caps apply by platform tag; an arm of another platform is not touched."""
    signals = signals_of([10, 30, 12, 28], [100] * 4, arms=ARMS)
    plan = Guardrails(BudgetDecider(Constraints(minimum_volume=0)), platform_caps={"meta": 200}).decide(signals)
    after = {d.arm: d.after.units for d in plan.decisions}
    assert sum(after.get(a, 100.0) for a in ARMS if a[0] == "meta") <= 200
    assert attrs.asdict(plan, recurse=False)["provenance"].get("guardrails", {}).get("platform_caps", {"meta": 200.0}) == {"meta": 200.0}


C00 = ARMS[0]
REFUSED = [
    ({}, {"before": 90}, "the current budget is 100.00"),
    ({"targets": {C00: Target("google", "other")}}, {}, "is not the arm's"),
    ({"blackouts": [(NOW, NOW + timedelta(hours=1))]}, {}, "blackout until 2024-10-04T13:00"),
    ({"allow": [ARMS[1]]}, {}, "not on the allow list"),
    ({"deny": [C00]}, {}, "on the deny list"),
    ({"max_step": 0.04}, {}, "larger than 4%"),
    ({"approve_above": 4.9}, {}, "needs a person's approval"),
    ({"max_budget": 104}, {"after": 105}, "above the cap of 104.00"),
    ({"max_budgets": {C00: 103}, "max_budget": 110}, {"after": 105}, "above the cap of 103.00"),
    ({}, {"key": ""}, "no target or no id"),
    ({}, {"p_gain": 1.01}, "no valid interval or probability"),
    ({}, {"after": -1}, "no amount of zero or more"),
]
PASSED = [
    {"targets": {C00: Target("google", "c00")}},
    {"blackouts": [(NOW - timedelta(hours=1), NOW), (NOW + timedelta(seconds=1), NOW + timedelta(hours=1))]},
    {"allow": [C00]},
    {"deny": [ARMS[1]]},
    {"max_step": 0.05},
    {"approve_above": 5},
    {"max_budget": 90},
]


@pytest.mark.parametrize(("caps", "made", "says"), REFUSED)
def test_each_guardrail_refuses_in_its_own_words(signals_of, caps, made, says):
    """A cut from 100 to 95 (or the rise named) is held by the one guardrail that it breaks, and the hold says which."""
    amounts = {"before": 100, "after": 95, **made}
    before, after = amounts.pop("before") * MICROS, amounts.pop("after") * MICROS
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    plan = Guardrails(Returns(plan_of(signals, [decision(C00, before, after, **amounts)])), **caps).decide(signals, now=NOW)
    assert not plan.decisions
    assert [h.arm for h in plan.holds] == [C00]
    assert says in plan.holds[0].explanation


@pytest.mark.parametrize("caps", PASSED)
def test_a_move_at_the_edge_of_a_guardrail_passes(signals_of, caps):
    """The same cut passes where a guardrail allows exactly it; a cut passes even above a cap, for it comes nearer to it."""
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    plan = Guardrails(Returns(plan_of(signals, [decision(C00, 100 * MICROS, 95 * MICROS)])), **caps).decide(signals, now=NOW)
    assert [d.after.units for d in plan.decisions] == [95]
    assert not plan.holds


def test_an_amount_in_another_currency_is_refused(signals_of):
    """Before and after in dollars where budgets are euros: held, whatever the figures."""
    wrong = attrs.evolve(decision(C00, 0, 0), before=Money(100 * MICROS, "USD"), after=Money(95 * MICROS, "USD"))
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    plan = Guardrails(Returns(plan_of(signals, [wrong]))).decide(signals, now=NOW)
    assert [h.explanation for h in plan.holds] == ["its amounts are in another currency"]


def test_platform_caps_need_a_platform_tag(signals_of):
    """Arms by campaign alone cannot be capped by platform: an error, not a cap that silently holds nothing."""
    signals = signals_of([10, 30], [100, 100], arms=[("x",), ("y",)], columns=("campaign",))
    with pytest.raises(ConfigurationError, match="platform_caps"):
        Guardrails(BudgetDecider(), platform_caps={"google": 100}).decide(signals)


def test_one_target_moves_once(signals_of):
    """Two arms whose decisions name one budget: the first passes, the second is held, for a budget has one new amount."""
    first, second = (
        decision(C00, 100 * MICROS, 95 * MICROS, key="1"),
        decision(ARMS[1], 100 * MICROS, 96 * MICROS, key="2", target=Target(*C00)),
    )
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    plan = Guardrails(Returns(plan_of(signals, [first, second]))).decide(signals, now=NOW)
    assert [d.arm for d in plan.decisions] == [C00]
    assert [(h.arm, h.explanation) for h in plan.holds] == [(ARMS[1], "its target is moved already")]


def test_budgets_say_the_currency(signals_of, budgets_of):
    """Budgets in dollars: a decision in dollars passes, whatever currency the outcomes are in; one in euros does not."""
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    euros = decision(C00, 100 * MICROS, 95 * MICROS)
    dollars = attrs.evolve(euros, before=Money(100 * MICROS, "USD"), after=Money(95 * MICROS, "USD"))
    for made, passes in ((dollars, True), (euros, False)):
        plan = Guardrails(Returns(plan_of(signals, [made]))).decide(signals, budgets_of(signals, [100] * 4, "USD"), now=NOW)
        assert bool(plan.decisions) == passes


FOUR = [(0, 110, "a"), (1, 94, "b"), (2, 108, "c"), (3, 95, "d")]  # rises of 10 and 8, cuts of 6 and 5: the sum grows by 7
SUMS = [
    ({}, "abcd", ""),
    ({"total_cap": 407}, "abcd", ""),
    ({"total_cap": 406.99}, "abd", "all budgets would pass the cap of 406.99"),
    ({"platform_caps": {"google": 204}}, "abcd", ""),
    ({"platform_caps": {"google": 203.99}}, "bcd", "google would pass its cap of 203.99"),
    ({"platform_caps": {"meta": 203, "google": 300}}, "abcd", ""),
    ({"platform_caps": {"meta": 202}}, "abd", "meta would pass its cap of 202.00"),
    ({"max_daily_move": 29}, "abcd", ""),
    ({"max_daily_move": 28.99}, "abd", "the day's moves would pass 28.99"),
    ({"max_daily_move": 16}, "b", "the day's moves would pass 16.00"),
]


@pytest.mark.parametrize(("caps", "left", "says"), SUMS)
def test_sums_are_cut_to_their_limit_and_no_further(signals_of, caps, left, says):
    """Of four moves the most valuable that fit stay, less rises that refused cuts would have paid for; at its limit a sum loses none."""
    made = [decision(ARMS[i], 100 * MICROS, after * MICROS, key=key) for i, after, key in FOUR]
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    plan = Guardrails(Returns(plan_of(signals, made)), **caps).decide(signals, now=NOW)
    assert "".join(d.decision_id for d in plan.decisions) == left
    assert {d.decision_id for d in plan.decisions} | {h.triggers["decision_id"] for h in plan.holds} == set("abcd")
    assert all(h.explanation == says or "cuts that would pay" in h.explanation for h in plan.holds)
    assert says in {h.explanation for h in plan.holds} | {""}
    assert [h.triggers["wanted"] for h in plan.holds if h.triggers["decision_id"] == "a"] in ([], [110.0])


def test_of_moves_that_balance_the_last_goes_first(signals_of):
    """Two rises pay for two cuts, 30 in all: over a daily limit of 29 the least valuable is left out, though it is a rise."""
    made = [
        decision(ARMS[i], 100 * MICROS, after * MICROS, key=key)
        for i, after, key in [(0, 110, "a"), (1, 94, "b"), (3, 91, "c"), (2, 105, "d")]
    ]
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    for most, left in ((30, "abcd"), (29.99, "abc")):
        plan = Guardrails(Returns(plan_of(signals, made)), max_daily_move=most).decide(signals, now=NOW)
        assert "".join(d.decision_id for d in plan.decisions) == left


def test_what_moved_earlier_today_counts(signals_of):
    """With 8 moved already, 21 of 29 are left, which three of the four moves take; with all 29 moved nothing is left."""
    made = [decision(ARMS[i], 100 * MICROS, after * MICROS, key=key) for i, after, key in FOUR]
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    for moved, left in ((0, "abcd"), (8, "abd"), (29, "")):
        plan = Guardrails(Returns(plan_of(signals, made)), max_daily_move=29).decide(signals, now=NOW, moved_today=moved)
        assert "".join(d.decision_id for d in plan.decisions) == left


def test_zero_is_an_amount(signals_of):
    """A budget may be taken to nothing; an amount beyond any budget, or below nothing, is none."""
    signals = signals_of([10] * 4, [100] * 4, arms=ARMS)
    for after, passes in ((0, True), (2**62, False), (-1, False)):
        plan = Guardrails(Returns(plan_of(signals, [decision(ARMS[0], 100 * MICROS, after)]))).decide(signals, now=NOW)
        assert bool(plan.decisions) is passes, after


def test_a_rise_however_small_needs_its_cut(signals_of):
    """A cut of six is denied: a rise of one millionth is not made either, one of nothing changes nothing and stays."""
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    for rise, left in ((1, ""), (0, "a")):
        made = [decision(ARMS[0], 100 * MICROS, 100 * MICROS + rise, key="a"), decision(ARMS[1], 100 * MICROS, 94 * MICROS, key="b")]
        plan = Guardrails(Returns(plan_of(signals, made)), deny=[ARMS[1]]).decide(signals, now=NOW)
        assert "".join(d.decision_id for d in plan.decisions) == left


def test_a_move_of_nothing_is_never_what_a_limit_leaves_out(signals_of):
    """Leaving it out would bring no sum nearer to its limit, last in the list or not."""
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    for first, second, caps, left in (
        (110, 94, {"max_daily_move": 15}, "bc"),
        (90, 106, {"max_daily_move": 15}, "c"),  # the cut goes, and the rise that it pays for
        (110, 106, {"total_cap": 410}, "ac"),
    ):
        amounts = ((0, first, "a"), (1, second, "b"), (2, 100, "c"))
        made = [decision(ARMS[i], 100 * MICROS, after * MICROS, key=key) for i, after, key in amounts]
        plan = Guardrails(Returns(plan_of(signals, made)), **caps).decide(signals, now=NOW)
        assert "".join(d.decision_id for d in plan.decisions) == left


def test_what_nobody_can_evaluate_is_unknown(signals_of):
    """A decider that cannot say what the moves that are left would bring: anything may; without moves it is nothing, for sure."""
    signals = signals_of([20] * 4, [100] * 4, arms=ARMS)
    made = [decision(ARMS[0], 100 * MICROS, 95 * MICROS, key="a"), decision(ARMS[1], 100 * MICROS, 94 * MICROS, key="b")]
    some = Guardrails(Returns(plan_of(signals, made)), deny=[ARMS[1]]).decide(signals, now=NOW)
    assert (some.gain.low, some.gain.high, some.p_gain, some.expected_shortfall) == (-math.inf, math.inf, 0.0, math.inf)
    none = Guardrails(Returns(plan_of(signals, made)), deny=ARMS).decide(signals, now=NOW)
    assert (none.gain.low, none.gain.high, none.p_gain, none.expected_shortfall) == (0.0, 0.0, 0.0, 0.0)
