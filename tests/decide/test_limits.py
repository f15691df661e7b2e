"""The ends of budgets against a list of all whole steps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from closedloop.decide.limits import find_limits
from closedloop.errors import InfeasibleError
from closedloop.records.arms import Arms
from closedloop.records.decision import Constraints, GroupLimit

STEP = 10_000


def ends(now, floor, ceiling, max_step, capped):
    """The least and the most of the whole steps that are allowed; the nearest reachable one where floor or ceiling is too far."""
    down, up = now * (1 - max_step), now * (1 + max_step)
    reach = [k for k in range(int(up) + 2) if down - 1e-9 <= k <= up + 1e-9]
    if not reach or now <= 0:
        return None
    inside = [k for k in reach if floor - 1e-9 <= k <= ceiling + 1e-9]
    if floor > up:
        inside = [max(reach)]
    if ceiling < down:
        inside = [min(reach)]
    if capped and inside:  # more would not be spent: no rise, unless the floor asks for it
        inside = [k for k in inside if k <= max(math.floor(now), min(inside))]
    return (min(inside), max(inside)) if inside else None


@pytest.mark.parametrize("seed", range(20))
def test_ends_are_those_of_all_whole_steps(seed):
    """For random budgets, floors, ceilings, steps and caps, each arm's ends are the extremes of what a loop over steps allows."""
    rng = np.random.default_rng(seed)
    n = 30
    arms = Arms.of(("platform", "campaign"), [("g", f"{i:02d}") for i in range(n)])
    now = rng.integers(0, 400, n) * STEP // 4 * 1  # some lie between two steps
    max_step = float(rng.choice([0.05, 0.2, 0.5, 1.0]))
    floors, ceilings = {}, {}
    for i, arm in enumerate(arms):
        a, b = np.sort(np.round(now[i] / 1e6 * rng.uniform(0.3, 1.8, 2), 2))
        if rng.random() < 0.5:
            floors[arm] = float(a)
        if rng.random() < 0.5:
            ceilings[arm] = float(b)
    capped = rng.random(n) < 0.3
    c = Constraints(max_step=max_step, floors=floors, ceilings=ceilings)
    found = find_limits(c, arms, now.astype(np.int64), np.ones(n, dtype=bool), capped, STEP)
    for i, arm in enumerate(arms):
        wanted = ends(now[i] / STEP, floors.get(arm, 0.0) * 100, ceilings.get(arm, math.inf) * 100, max_step, capped[i])
        assert bool(found.stuck[i]) == (wanted is None)
        if wanted is not None:
            assert (found.low[i], found.high[i]) == wanted
    assert found.total == pytest.approx(now.sum() / STEP)


def limits_of(**more):
    arms = Arms.of(("platform", "campaign"), [("g", "a"), ("g", "b"), ("m", "c")])
    known = np.array([True, True, True])
    return find_limits(Constraints(**more), arms, np.full(3, 100_000_000), known, np.zeros(3, dtype=bool), STEP)


def test_sums_are_whole_steps():
    """A total and a group's ends that lie between two steps are those inside; a group without members is none."""
    found = limits_of(
        total=250.019, groups=[GroupLimit(tags={"platform": "g"}, floor=100.001, ceiling=210.019), GroupLimit(tags={"platform": "x"})]
    )
    assert found.total == 25_001
    assert [(g.members.tolist(), g.low, g.high) for g in found.groups] == [([0, 1], 10_001, 21_001)]


def test_floors_up_to_the_total_are_no_conflict():
    """Floors of 80 for three arms are 240: a total of 240 is met, one cent less is refused with both figures."""
    assert limits_of(total=240, floor=80).total == 24_000
    with pytest.raises(InfeasibleError, match="floors of 3 arms add up to 240, more than the total"):
        limits_of(total=239.99, floor=80)
    group = [GroupLimit(tags={"platform": "g"}, floor=170)]
    assert limits_of(total=250, floor=80, groups=group).total == 25_000
    with pytest.raises(InfeasibleError, match="floors of arms and groups add up to 250"):
        limits_of(total=249.99, floor=80, groups=group)


def test_a_floor_may_meet_its_ceiling():
    """Both at 100 leave one budget; a floor above is refused with the arm's name."""
    found = limits_of(floors={("g", "a"): 100}, ceilings={("g", "a"): 100})
    assert (found.low[0], found.high[0]) == (10_000, 10_000)
    with pytest.raises(InfeasibleError, match="floor of g / a lies above its ceiling of 100"):
        limits_of(floors={("g", "a"): 100.01}, ceilings={("g", "a"): 100})


def test_a_group_limited_twice_is_one_group():
    """Both floors and both ceilings hold; the floor of 170 is asked for once, so that with the other arm's 60 a total of 230 is met."""
    google = {"platform": "g"}
    twice = [GroupLimit(tags=google, floor=170, ceiling=220), GroupLimit(tags=google, ceiling=210), GroupLimit(tags=google, floor=150)]
    found = limits_of(total=230, floors={("m", "c"): 60}, groups=twice)
    assert [(g.members.tolist(), g.low, g.high) for g in found.groups] == [([0, 1], 17_000, 21_000)]
    with pytest.raises(InfeasibleError, match="add up to 230, more than the total"):
        limits_of(total=229.99, floors={("m", "c"): 60}, groups=twice)
