"""Act now or wait: limits in closed form, and lower regret than always acting or always waiting."""

from __future__ import annotations

import os
from types import SimpleNamespace

import attrs
import numpy as np
import pytest

from closedloop.decide import BudgetDecider
from closedloop.decide.allocate import allocate
from closedloop.decide.evidence import draw_for
from closedloop.decide.timing import share_seen, switching_cost, value_of_timing
from closedloop.records.decision import Constraints
from closedloop.stats.response import ResponsePrior

SURE = ResponsePrior(power=(0.0, 1e-6))
FREE = Constraints(minimum_volume=0, min_probability=0.0, min_change=0.0)


def values(plan):
    acts = [*plan.decisions, *(h for h in plan.holds if h.reason == "waiting")]
    return [(a.triggers["value_of_acting"], a.triggers["value_of_waiting"]) for a in acts]


def test_without_a_switching_cost_nothing_waits(signals_of):
    """Moving early and often costs nothing then, so acting is worth at least as much as waiting, on every decision."""
    for conversions in ([4, 5], [10, 30], [2, 2.5]):
        plan = BudgetDecider(FREE, prior=SURE, response="prior").decide(signals_of(conversions, [100, 100], days=7))
        assert len(plan.decisions) == 2
        assert all(act >= wait - 1e-9 for act, wait in values(plan))


def test_with_certain_evidence_the_values_are_closed_forms(signals_of):
    """Nothing is left to learn: acting is worth ``H g - cost``, waiting ``k`` days ``(H - k) g - cost``."""
    signals = signals_of([10, 30], [100, 100], days=280_000)
    plan = BudgetDecider(FREE, prior=SURE, response="prior", learning_loss=0.01, learning_days=2, looks=(2.0,)).decide(signals, horizon=10)
    cost = np.array([10, 30]) * 0.01 * 2
    root = np.sqrt([0.8, 1.2]) - 1
    change = np.array([10, 30]) * root
    price = plan.provenance["price"]
    g = change - price * np.array([-20, 20])
    for d in plan.decisions:
        i = int(d.arm[1] == "c01")
        assert d.triggers["switching_cost"] == pytest.approx(cost[i], rel=1e-3)
        assert d.triggers["value_of_acting"] == pytest.approx(10 * g[i] - cost[i], rel=2e-2)
        assert d.triggers["value_of_waiting"] == pytest.approx(max(0.0, 8 * g[i] - cost[i]), rel=2e-2, abs=1e-3)


def test_a_costly_change_for_a_small_gain_waits(signals_of):
    """When a change costs half a day's outcome and the difference is unsure, both arms wait, and say for how long and why."""
    signals = signals_of([4, 5], [100, 100], days=7)
    for loss in (0.5, 1.0):
        plan = BudgetDecider(FREE, prior=SURE, response="prior", learning_loss=loss, learning_days=1).decide(signals)
        assert not plan.decisions
        waiting = [h for h in plan.holds if h.reason == "waiting"]
        assert waiting
        assert all(h.triggers["value_of_waiting"] > h.triggers["value_of_acting"] for h in waiting)
        assert all("day" in h.lift for h in waiting)
    clear = BudgetDecider(FREE, prior=SURE, response="prior", learning_loss=0.05, learning_days=1).decide(
        signals_of([10, 60], [100, 100]), horizon=14
    )
    assert len(clear.decisions) == 2


def play(signals_of, budgets_of, policy, truth, seed, *, days=20, prior_days=4, loss=0.08, learning=2):
    """Outcome of one policy in a world of known levels: counts arrive daily, each change costs a share of some days' outcome."""
    rng = np.random.default_rng(seed)
    n = len(truth)
    budgets = np.full(n, 100.0)
    counts = rng.poisson(truth * prior_days).astype(float)
    exposure = np.full(n, float(prior_days))
    decider = BudgetDecider(
        FREE, prior=SURE, response="prior", draws=200, learning_loss=loss if policy == "rule" else 0.0, learning_days=learning,
        looks=(2.0, 5.0) if policy == "rule" else (), scenarios=12,
    )  # fmt: skip
    # The prior of the simulation, Gamma with mean 1 x the mean truth: conjugate, so the posterior is exact.
    shape0, rate0 = 4.0, 4.0 / truth.mean()
    total = 0.0
    for day in range(days):
        if policy != "wait" and day % 2 == 0 and day < days - 2:
            level = (shape0 + counts) / (rate0 + exposure)
            effective = rate0 + exposure
            signals = posterior(signals_of, level, effective, seed)
            plan = decider.decide(signals, budgets_of(signals, budgets.round(2)), horizon=float(days - day))
            new = budgets.copy()
            for d in plan.decisions:
                new[int(d.arm[1][1:])] = d.after.units
            changed = np.abs(new - budgets) > 1e-6
            total -= (loss * learning * truth * np.sqrt(budgets / 100.0))[changed].sum()
            budgets = new
        x = np.sqrt(budgets / 100.0)
        counts += rng.poisson(truth * x)
        exposure += x
        total += (truth * x).sum()
    return total


def posterior(signals_of, level, effective, seed):
    import attrs

    from closedloop.records.signal import GammaMixture

    signals = signals_of(level, np.full(len(level), 100.0))
    gamma = GammaMixture(shape=(level * effective)[:, None], rate=(100.0 * effective)[:, None], weight=np.ones((len(level), 1)))
    return attrs.evolve(signals, posteriors={"click": gamma})


@pytest.mark.parametrize("volume", [2.0, 20.0, 200.0] if os.environ.get("CLOSEDLOOP_FULL") else [8.0])
def test_the_rule_has_less_regret_than_always_acting_and_always_waiting(signals_of, budgets_of, volume):
    """Over simulated worlds, and over volumes: more outcome than moving at every look, and than never moving."""
    worlds = 6 if os.environ.get("CLOSEDLOOP_FULL") else 2
    rng = np.random.default_rng(11)
    outcomes = dict.fromkeys(("rule", "act", "wait"), 0.0)
    for world in range(worlds):
        truth = volume * rng.gamma(4.0, 1 / 4.0, 5)
        for policy in outcomes:
            outcomes[policy] += play(signals_of, budgets_of, policy, truth, world)
    assert outcomes["rule"] > outcomes["act"]
    assert outcomes["rule"] >= outcomes["wait"] * (1 - 1e-9)


def test_what_days_of_waiting_show(signals_of):
    """Of the cohorts of ``k`` days, each is seen for its age: the mean of the curve's first k shares; all of it where no delay is known."""
    signals = signals_of([10, 30], [100, 100])  # a window of 7 days, an eighth more each day
    seen = next(iter(signals.outcomes.delay.values())).share_seen
    for days, whole in ((0.4, 1), (1.0, 1), (3.0, 3), (20.0, 20)):
        ages = [seen[min(a, len(seen) - 1)] for a in range(whole)]
        assert share_seen(SimpleNamespace(signals=signals), days) == pytest.approx(np.mean(ages))
    bare = attrs.evolve(signals.outcomes, delay={})
    assert share_seen(SimpleNamespace(signals=attrs.evolve(signals, outcomes=bare)), 3.0) == 1.0


def test_worth_is_in_the_unit_of_the_value_and_waiting_is_not(signals_of):
    """With each conversion worth seven, acting and waiting are worth seven times as much: what is learned comes from counts."""
    decider = BudgetDecider(FREE, prior=SURE, response="prior", learning_loss=0.1, learning_days=1, draws=8_000, scenarios=16)
    one, seven = (values(decider.decide(signals_of([3, 5], [100, 100], days=7, value=[v, v]), horizon=14)) for v in (1.0, 7.0))
    assert np.array(one).min() > 0.5
    np.testing.assert_allclose(seven, 7 * np.array(one), rtol=5e-3)


def test_values_under_doubt_are_those_of_conjugate_futures(signals_of):
    """Future by future: counts update Gamma levels, roots split a total as the squares of their levels, each value is written out."""
    signals = attrs.evolve(signals_of([4.0, 6.0], [100, 100], days=7), dispersion=np.array([1.0, 1.5]))
    p = BudgetDecider(Constraints(minimum_volume=0, max_step=0.9), prior=SURE, response="prior").problem(signals, None)
    joint = draw_for(p, np.arange(2), np.random.default_rng(4), 300)
    allocation = allocate(p.curves, p.limits, p.known, p.known)
    cost, looks, horizon, scenarios = np.array([0.3, 0.2]), (1.0, 3.0), 8.0, 5
    found = value_of_timing(
        p, p.limits, p.known, allocation, joint, horizon=horizon, cost=cost, looks=looks, scenarios=scenarios, rng=np.random.default_rng(7)
    )
    conversions = joint.level.astype(float)
    mean, variance = conversions.mean(axis=0), conversions.var(axis=0)
    level, now, after, phi = p.curves.value(p.limits.now), p.limits.now, allocation.after, np.array([1.0, 1.5])
    rng = np.random.default_rng(7)
    truths, noise = conversions[rng.integers(0, 300, scenarios)], int(rng.integers(0, 2**62))

    def root(scale, s):
        return scale * np.sqrt(s / now)

    def gain(scale, s, price):
        return root(scale, s) - root(scale, now) - price * (s - now)

    first = gain(level, after, allocation.prices)
    act, wait = np.zeros((2, scenarios, 2)), np.zeros((2, scenarios, 2))
    for j, k in enumerate(looks):
        for s in range(scenarios):
            for out, at in ((act, after), (wait, now)):
                days = k * share_seen(p, k) * np.sqrt(at / now)  # of evidence at the recent spend
                seen = np.random.default_rng([noise, j, s]).poisson(truths[s] * days) / phi
                new = level * (mean**2 / variance + seen) / (mean / variance + days / phi) / mean
                best = now.sum() * new**2 / (new**2).sum()
                price = 0.5 * new / np.sqrt(best * now)
                change = gain(new, best, price) - cost / (horizon - k)
                keep = gain(new, after, price) if out is act else 0.0
                out[j, s] = (horizon - k) * np.maximum(keep, change)
        act[j] += k * first - cost
    look = wait.mean(axis=1).argmax(axis=0)
    one = np.arange(2)
    np.testing.assert_allclose(found.act, act.mean(axis=1)[look, one], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.wait, wait.mean(axis=1)[look, one], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(found.days, np.array(looks)[look])
    paired = (wait - act)[look, :, one]
    np.testing.assert_array_equal(found.waits, paired.mean(axis=1) > 2 * paired.std(axis=1) / np.sqrt(scenarios))
    np.testing.assert_allclose(switching_cost(p, np.array([1]), 0.2, 3.0), 0.2 * 3.0 * level[1:])


def test_only_looks_inside_the_horizon_are_weighed(signals_of):
    """Waiting no day, or as long as the plan is meant for, is no choice: without another look the plan is not timed."""
    signals = signals_of([10, 30], [100, 100])
    for looks, timed in (((), False), ((0.0, -1.0), False), ((7.0, 9.0), False), ((0.0, 6.5, 7.0), True)):
        plan = BudgetDecider(FREE, prior=SURE, response="prior", looks=looks, draws=100, scenarios=2).decide(signals, horizon=7.0)
        assert ("timing" in plan.provenance) == timed
        assert all(d.triggers.get("days_of_waiting") == (6.5 if timed else None) for d in plan.decisions)
