"""What must be met whatever the evidence says, on three budgets of 100 that may move by 20."""

from __future__ import annotations

import math

import attrs
import numpy as np
import pytest

from closedloop.decide.choose import Duties, _drop
from closedloop.decide.limits import Limits
from closedloop.stats.waterfill import Group

KNOWN = np.ones(3, dtype=bool)


def limits(total, *groups):
    return Limits(
        now=np.full(3, 100.0),
        low=np.full(3, 80.0),
        high=np.full(3, 120.0),
        stuck=np.zeros(3, dtype=bool),
        total=total,
        groups=groups,
        step=1,
    )


def group(low=0.0, high=math.inf):
    return Group(members=np.array([0, 1]), low=low, high=high, name="g")


def free(*arms):
    return np.isin(np.arange(3), arms)


TOTALS = [
    (300, True, [(), (0,), (0, 1, 2)], []),
    (340, True, [(0, 1), (0, 1, 2)], [(), (0,)]),  # one arm alone reaches 320
    (260, True, [(0, 1), (0, 1, 2)], [(), (0,)]),
    (340, False, [(), (0,), (0, 1)], []),  # a ceiling that nobody has to reach
    (260, False, [(0, 1), (0, 1, 2)], [(), (0,)]),  # but it is not passed
]


@pytest.mark.parametrize(("total", "spend", "met", "missed"), TOTALS)
def test_a_total_is_met_by_enough_free_arms(total, spend, met, missed):
    """As a duty it has to be reached, as a ceiling only not passed."""
    at = limits(total)
    duties = Duties.of(at, at, free(0, 1, 2), KNOWN, total=spend)
    for arms in met:
        assert duties.met(at, free(*arms), KNOWN), arms
    for arms in missed:
        assert not duties.met(at, free(*arms), KNOWN), arms


GROUPS = [
    (group(high=165), [(0, 1), (0, 1, 2)], [(), (2,), (0, 2), (1,)]),  # both fall to 160, one alone to 180
    (group(low=235), [(0, 1, 2)], [(), (2,), (0, 2), (1,)]),
    (group(low=150, high=205), [(), (0,), (0, 1), (2,)], []),
]


@pytest.mark.parametrize(("one", "met", "missed"), GROUPS)
def test_the_ends_of_a_group_are_met_by_enough_free_members(one, met, missed):
    """Whatever arms outside of it do."""
    at = limits(300, one)
    duties = Duties.of(at, at, free(0, 1, 2), KNOWN, total=False)
    for arms in met:
        assert duties.met(at, free(*arms), KNOWN), arms
    for arms in missed:
        assert not duties.met(at, free(*arms), KNOWN), arms


def test_what_is_out_of_reach_at_first_is_no_duty():
    """A group that may not go over 100 can fall to 160 only: that is asked, not more; nor is a total of a thousand."""
    at = limits(1000, group(high=100))
    duties = Duties.of(at, at, free(0, 1, 2), KNOWN, total=True)
    assert duties.groups[0][2] == 160
    assert duties.total == 280  # the group at its least, the third arm at its most
    far = limits(300, group(low=400))
    assert Duties.of(far, far, free(0, 1, 2), KNOWN, total=True).groups[0][1] == 240
    for total, arms, reach in ((100, (0, 1, 2), 240), (100, (0, 1), 260), (1000, (0, 1), 340), (300, (0,), 300)):
        one = limits(total)
        assert Duties.of(one, one, free(*arms), KNOWN, total=True).total == reach


def test_arms_a_step_outside_their_ends_have_to_move():
    """One under its floor and one over its ceiling by a step or more; half a step does not force."""
    asked = attrs.evolve(limits(300), low=np.array([101.0, 100.5, 80.0]), high=np.array([120.0, 120.0, 99.0]))
    assert Duties.of(asked, asked, free(0, 1, 2), KNOWN, total=True).forced.tolist() == [True, False, True]
    assert Duties.of(asked, asked, free(1, 2), KNOWN, total=True).forced.tolist() == [False, False, True]


def test_the_weaker_half_is_dropped_and_fewer_where_a_duty_needs_them():
    """Of three two go, of two one; where only all together reach the total, none does."""
    for total, weak, dropped in ((300, [2, 0, 1], [2, 0]), (300, [1, 0], [1]), (340, [2, 0, 1], [2]), (350, [2, 0, 1], [])):
        at = limits(total)
        duties = Duties.of(at, at, free(0, 1, 2), KNOWN, total=True)
        assert _drop(at, free(0, 1, 2), KNOWN, duties, np.array(weak)).tolist() == dropped
