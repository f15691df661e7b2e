"""Totals that a target leaves, ends of what can be met and few changes on several platforms: closed forms and brute force."""

from __future__ import annotations

from itertools import combinations, product

import attrs
import numpy as np
import pytest

from closedloop.decide.allocate import affordable_total, allocate, can_meet, free_groups, keep_few, to_steps, worth
from closedloop.decide.limits import Limits
from closedloop.stats.concave import Curves
from closedloop.stats.waterfill import Group


def roots(level, at=100.0):
    n = len(level)
    return Curves.power_law(level=np.array(level, dtype=float), at=np.full(n, at), exponent=np.full((n, 1), 0.5))


def limits(now, low, high, total, groups=()):
    now, low, high = (np.array(x, dtype=float) for x in (now, low, high))
    return Limits(now=now, low=low, high=high, stuck=low >= high, total=float(total), groups=tuple(groups), step=1)


ALL = np.ones(2, dtype=bool)


def largest(curves, counted, at, free, known, ratio, most):
    """Every whole total tried: the last one whose best outcome is good enough."""
    held = known & ~free
    totals = np.arange(np.ceil(at.low[free].sum()), np.floor(at.high[free].sum()) + 1) + at.now[held].sum()
    good = []
    for total in totals[totals <= most]:
        spend = allocate(curves, attrs.evolve(at, total=total), free, known, whole=False).continuous
        if (curves.value(spend) * counted)[known].sum() >= ratio * total:
            good.append(total)
    return max(good, default=totals[0])


@pytest.mark.parametrize("ratio", [0.05, 0.151, 0.16, 0.2, 0.9])
@pytest.mark.parametrize("known", [[True, True, True], [True, True, False]])
@pytest.mark.parametrize("most", [np.inf, 250.0])
def test_the_largest_total_is_that_of_trying_all(ratio, known, most):
    """With a held arm and one whose budget is not known: outcome of the known ones per unit of money, each counted in its own way."""
    curves, at = roots([10.0, 30.0, 20.0]), limits([100, 100, 100], [40, 40, 100], [220, 220, 100], 300)
    counted, free = np.array([1.0, 0.5, 2.0]), np.array([True, True, False])
    given = np.array(known)
    found = affordable_total(curves, counted, at, free, given, ratio=ratio, most=most)
    assert found == largest(curves, counted, at, free, given, ratio, most)


def test_a_ceiling_under_what_must_be_spent_is_no_ceiling():
    """Where even the least is dear the least is spent, also under a smaller ceiling; a fraction of a step of it stays."""
    at = limits([100, 100], [80.5, 80], [120, 120], 200)
    for most in (100.0, np.inf):
        assert affordable_total(roots([1.0, 1.0]), np.ones(2), at, ALL, ALL, ratio=9.0, most=most) == 160.5


@pytest.mark.parametrize(("total", "met"), [(159.9, False), (160, True), (200, True), (240, True), (240.9, True), (241.2, False)])
def test_a_total_can_be_met_to_less_than_a_step(total, met):
    """Free arms from 160 to 240 meet what is at most a step above; without free arms only what stands there already."""
    at = limits([100, 100], [80, 80], [120, 120], 200)
    assert can_meet(at, ALL, ALL, total) is met
    assert can_meet(at, ~ALL, ALL, 200.0)
    assert not can_meet(at, ~ALL, ALL, 200.1)
    assert can_meet(at, np.array([True, False]), ALL, total) is (180 <= total <= 221)
    assert can_meet(at, np.array([True, False]), np.array([True, False]), 100.0)  # what is not known does not count


def test_groups_of_free_arms_leave_out_what_held_ones_take():
    """Ends less the held members' budgets; what is then out of reach is approached, and groups without free members are none."""
    at = limits([100, 50, 30, 20], [80, 40, 24, 16], [120, 60, 36, 24], 200, [
        Group(members=np.array([0, 1, 2]), low=100.0, high=190.0, name="a"),
        Group(members=np.array([0, 1]), low=20.0, high=130.0, name="b"),
        Group(members=np.array([2]), low=0.0, high=9.0, name="c"),
    ])  # fmt: skip
    free = np.array([True, True, False, True])
    found = {g.name: (g.members.tolist(), g.low, g.high) for g in free_groups(at, free)}
    assert found == {"b": ([0, 1], 20.0, 130.0), "a": ([0, 1], 70.0, 160.0)}
    tight = limits([100, 50], [80, 40], [120, 60], 150, [Group(members=np.array([0, 1]), low=500.0, high=510.0, name="x")])
    assert [(g.low, g.high) for g in free_groups(tight, ALL)] == [(180.0, 510.0)]
    under = limits([100, 50], [80, 40], [120, 60], 150, [Group(members=np.array([0, 1]), low=0.0, high=10.0, name="x")])
    assert [(g.low, g.high) for g in free_groups(under, ALL)] == [(0.0, 120.0)]


@pytest.mark.parametrize("seed", range(6))
def test_whole_steps_are_the_best_of_all_neighbours(seed):
    """Every whole budget is tried, under a floor and a ceiling of a group: none of the same sum is worth more."""
    rng = np.random.default_rng(seed)
    curves = roots(rng.uniform(5, 30, 3), 10.0)
    low, high = np.zeros(3), np.full(3, 12.0)
    group = Group(members=np.array([0, 1]), low=float(rng.integers(3, 6)), high=float(rng.integers(8, 12)), name="g")
    at = limits([8, 8, 8], low, high, 20, [group])
    found = allocate(curves, at, np.ones(3, dtype=bool), np.ones(3, dtype=bool))
    best = max(
        curves.value(np.array(s, dtype=float)).sum()
        for s in product(range(13), repeat=3)
        if sum(s) == 20 and group.low <= s[0] + s[1] <= group.high
    )
    assert found.after.sum() == 20
    assert curves.value(found.after).sum() == pytest.approx(best, rel=1e-9)
    assert found.unallocated == 0.0


def test_what_nobody_may_take_is_said():
    """Over the ceilings nothing is given; the price is at most the first step's worth; and moves have a worth."""
    at = limits([100, 100], [80, 80], [120, 120], 300)
    found = allocate(roots([10.0, 20.0]), at, ALL, ALL)
    assert (found.after.tolist(), found.unallocated) == ([120.0, 120.0], 60.0)
    none = allocate(roots([10.0, 20.0]), at, ~ALL, ALL)
    assert (none.after.tolist(), none.unallocated, none.price) == ([100.0, 100.0], 100.0, 0.0)
    assert allocate(roots([10.0, 20.0]), attrs.evolve(at, total=150.0), ~ALL, ALL).unallocated == 0.0
    moved = allocate(roots([10.0, 20.0]), attrs.evolve(at, total=200.0), ALL, ALL)
    assert moved.after.tolist() == [80.0, 120.0]
    gain = np.array([10.0, 20.0]) * (np.sqrt([0.8, 1.2]) - 1)
    np.testing.assert_allclose(worth(roots([10.0, 20.0]), at, moved), gain - moved.prices * np.array([-20, 20]))
    tiny = allocate(roots([10.0, 20.0]), limits([0.5, 0.5], [0, 0], [0, 1], 1), ALL, ALL)
    assert tiny.prices.max() <= 20.0 * 0.5 / np.sqrt(100.0) + 1e-9  # the marginal value at one step
    assert to_steps(roots([1.0, 1.0]), np.array([3.0 - 1e-9, 4.2]), np.zeros(2), np.full(2, 9.0), 7).tolist() == [3.0, 4.0]


@pytest.mark.parametrize("seed", range(4))
def test_few_changes_on_two_platforms_are_nearly_the_best_few(seed):
    """All choices of at most one change a platform are tried: the found one keeps the total and is within a hundredth of the best."""
    rng = np.random.default_rng(seed)
    curves = roots(rng.uniform(5, 40, 5))
    at, platform = limits([100] * 5, [80] * 5, [120] * 5, 500), np.array([0, 0, 1, 1, 1])
    every = np.ones(5, dtype=bool)
    found, free = keep_few(curves, at, every, every, platform, 1)
    moved = found.after != at.now
    assert np.bincount(platform[moved], minlength=2).max() <= 1
    assert found.after.sum() == 500
    assert free[moved].all()

    def value(chosen):
        mask = np.isin(np.arange(5), chosen)
        return curves.value(allocate(curves, at, mask, every).after).sum() if can_meet(at, mask, every, 500.0) else -np.inf

    choices = [c for k in range(3) for c in combinations(range(5), k) if np.bincount(platform[list(c)], minlength=2).max(initial=0) <= 1]
    start = curves.value(at.now).sum()
    best = max(value(c) for c in choices) - start
    assert curves.value(found.after).sum() - start >= 0.99 * best
