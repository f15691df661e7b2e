"""What nested groups let sums be, against linear programming."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from closedloop.decide import BudgetDecider
from closedloop.decide.groups import room_of, within
from closedloop.records.decision import Constraints, GroupLimit
from closedloop.stats.waterfill import Group


def extremes(members, groups, low, high):
    """Least and most sum of the members over all quantities inside the ends and the groups (HiGHS); None where there are none."""
    rows = [np.isin(np.arange(len(low)), g.members).astype(float) for g in groups]
    limits = [*rows, *(-r for r in rows)]
    bounds = [*(g.high for g in groups), *(-g.low for g in groups)]
    kept = [(a, b) for a, b in zip(limits, bounds, strict=True) if np.isfinite(b)]
    cost = np.isin(np.arange(len(low)), members).astype(float)
    ends = list(zip(low, high, strict=True))
    more = {"A_ub": [a for a, _ in kept], "b_ub": [b for _, b in kept]} if kept else {}
    found = [linprog(s * cost, bounds=ends, **more) for s in (1, -1)]
    return None if any(f.status for f in found) else (found[0].fun, -found[1].fun)


@pytest.mark.parametrize("seed", range(20))
def test_room_is_that_of_linear_programming(seed):
    """For random nested groups that can be met, the room of each group and of all arms is that of an exact solver."""
    rng = np.random.default_rng(seed)
    while True:
        low = rng.integers(0, 4, 8).astype(float)
        high = low + rng.integers(0, 9, 8)
        groups = []
        for name, members in (("pair", [0, 1]), ("other", [2, 3]), ("four", range(4)), ("last", [5, 6, 7])):
            at = np.array(members)
            ends = np.sort(rng.uniform(0, high[at].sum(), 2))
            low_end, high_end = ends[0] * (rng.random() < 0.6), ends[1] if rng.random() < 0.7 else np.inf
            if rng.random() < 0.7:
                groups.append(Group(members=at, low=low_end, high=high_end, name=name))
        every = extremes(np.arange(8), groups, low, high)
        if every is not None and any(np.isfinite(g.high) or g.low for g in groups):
            break
    groups = tuple(groups[i] for i in rng.permutation(len(groups)))
    for g in groups:
        inside = [h for h in groups if set(h.members) <= set(g.members)]
        assert room_of(g, groups, low, high) == pytest.approx(extremes(g.members, inside, low, high))
    assert (within(-1e9, groups, low, high), within(1e9, groups, low, high)) == pytest.approx(every)
    middle = 0.5 * sum(every)
    assert within(middle, groups, low, high) == pytest.approx(middle)


def test_two_groups_of_the_same_arms_are_nested_by_name():
    """Both ends hold, whichever is asked; neither counts twice."""
    one, two = Group(members=np.array([0, 1]), low=3.0, high=9.0, name="a"), Group(members=np.array([0, 1]), low=0.0, high=5.0, name="b")
    low, high = np.zeros(3), np.full(3, 10.0)
    for groups in ((one, two), (two, one)):
        assert within(0.0, groups, low, high) == 3.0
        assert within(100.0, groups, low, high) == 15.0


@pytest.mark.parametrize(("ceiling", "rises"), [(195, True), (190, True), (185, False)])
def test_no_budget_rises_to_its_floor_in_a_group_that_has_to_fall(signals_of, ceiling, rises):
    """A floor of 110 needs 190 of the group: with room for them it is met, and the sum is; with less the arm stays and says why."""
    signals = signals_of([20, 20, 20], [100, 100, 100], arms=[("google", "a"), ("google", "b"), ("meta", "c")])
    limits = Constraints(floors={("google", "a"): 110}, groups=[GroupLimit(tags={"platform": "google"}, ceiling=ceiling)], gate="evidence")
    plan = BudgetDecider(limits, looks=(), draws=500).decide(signals)
    after = dict.fromkeys(signals.arms, 100.0) | {d.arm: d.after.units for d in plan.decisions}
    assert after["google", "a"] == (110 if rises else 100)
    assert after["google", "a"] + after["google", "b"] <= ceiling
    words = " ".join(h.explanation for h in plan.holds)
    assert ("this budget of 100 EUR could only rise to 110 EUR" in words) != rises
