"""Rolling holdouts that the loop plans itself: asked of platforms, read back, learned from once, and not for ever."""

from datetime import timedelta

import attrs
import numpy as np
import pytest

import closedloop as cl
from closedloop.errors import NotSentError
from closedloop.loop.holdouts import Holdout, learned
from closedloop.records.holdout import HoldoutCounts
from closedloop.simulation import Simulator, small

WINDOW = cl.AttributionWindow(click="7d", view="1d")
POLICY = cl.HoldoutPolicy(days=2, least_days=1, share=0.3)


def loop_of(simulator, **more):
    limits = cl.Constraints(total=simulator.market.scenario.total, gate="evidence")
    return cl.ClosedLoop(window=WINDOW, platforms=simulator.platforms, constraints=limits, **{"holdouts": POLICY, **more})


def test_the_loop_tests_where_it_knows_least_and_learns_from_both_groups():
    """Over six days tests are asked for, run, and stand as lift tests; plans replay bit for bit; what each costs is said."""
    simulator = Simulator(small(), seed=3)
    with loop_of(simulator) as loop:
        simulator.run(loop, 6)
        asked = loop.holdouts()
        done = [h for h in asked if h.state == "learned"]
        assert len(done) >= 2
        assert len(loop.lift_tests()) == len(done)
        assert sum(h.state in ("asked", "running") for h in asked) <= POLICY.at_once
        assert len({h.arm for h in asked}) == len(asked)  # none again so soon
        assert all(h.cost > 0 and h.uncertainty > POLICY.stop for h in asked)
        test = loop.lift_tests()[0]
        assert test.where["creative"] == done[0].arm[3]
        assert test.treated_users / test.control_users == pytest.approx(0.7 / 0.3)
        assert test.treated >= 0.5 * test.attributed
        assert cl.replay(loop).identical
        loop.verify()


def test_nothing_is_tested_in_shadow_or_without_being_asked_to():
    """A loop that only watches holds no one out unless the policy says so; neither does one without a policy."""
    for more, some in (({"mode": "shadow"}, False), ({"holdouts": None}, False), ({"mode": "shadow", "holdouts": "in shadow"}, True)):
        if more.get("holdouts") == "in shadow":
            more["holdouts"] = attrs.evolve(POLICY, in_shadow=True)
        simulator = Simulator(small(), seed=3)
        with loop_of(simulator, **more) as loop:
            simulator.run(loop, 2)
            assert bool(loop.holdouts()) == some
            assert bool(simulator.held_out_on(2)) == some


class Deaf:
    """A platform that loses the request to begin a holdout, so many times."""

    def __init__(self, inner, times):
        self.inner, self.times, self.asked = inner, times, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def start_holdout(self, holdout_id, targets, share, *, now):
        self.asked.append(holdout_id)
        if len(self.asked) <= self.times:
            raise NotSentError("no answer", "platform", "meta", "try again")
        self.inner.start_holdout(holdout_id, targets, share, now=now)


def test_what_was_asked_in_vain_is_asked_again_under_the_same_id_and_survives_a_restart(tmp_path):
    """A request that is lost stands in the ledger as asked; a loop opened anew on the ledger asks again, and it runs once."""
    simulator = Simulator(small(), seed=3)
    simulator.platforms = {name: Deaf(p, 2) for name, p in simulator.platforms.items()}
    path = tmp_path / "loop.db"
    with loop_of(simulator, ledger=path) as loop:
        simulator.run(loop, 2)
        first = loop.holdouts()
        assert first
        assert {h.state for h in first} == {"asked"}
    with loop_of(simulator, ledger=path) as loop:
        simulator.run(loop, 2)
        again = [h for h in loop.holdouts() if h.holdout_id in {f.holdout_id for f in first}]
        assert {h.state for h in again} <= {"running", "learned"}
        assert [h.holdout_id for h in again] == [h.holdout_id for h in first]


def test_platforms_that_cannot_hold_out_are_not_asked_and_one_that_vanishes_voids_its_test():
    """Without the capability nothing is planned; a holdout whose platform is gone is closed with its reason, and the loop runs on."""
    simulator = Simulator(small(), seed=3)
    with loop_of(simulator) as loop:
        simulator.run(loop, 2)
        assert loop.holdouts()
        platforms = loop.platforms
        held = dict(platforms)
        platforms.clear()
        loop._holdouts.step(99, None, None, 0, begin=False, seed=0, now=simulator.market.day_start(9))
        assert {h.state for h in loop.holdouts()} == {"void"}
        assert "gone" in loop.holdouts()[0].note
        platforms.update(held)


def test_alike_arms_are_not_tested():
    """Arms that are equally good, and known to be, are not tested: the answer would be worth less than it costs."""
    same = small(rate_spread=(0.0, 0.0), cpc=(0.6, 0.0), half_spend=(4.0, 0.0))
    same = attrs.evolve(
        same, campaigns=tuple(attrs.evolve(c, quality=1.0, size=1.0, role="prospecting", audience="broad") for c in same.campaigns)
    )
    simulator = Simulator(same, seed=1)
    with loop_of(simulator, holdouts=cl.HoldoutPolicy(least_days=6)) as loop:
        simulator.run(loop, 7)
        assert loop.holdouts() == []


def test_only_days_mostly_in_force_count():
    """Credit and mature clicks of the days on which the holdout was in force for more than half count; nothing shown is nothing."""
    simulator = Simulator(small(), seed=3)
    with loop_of(simulator, holdouts=None) as loop:
        outcomes = simulator.run(loop, 4, keep_reports=True).days[-1].report.outcomes
    arm, c = tuple(outcomes.arms[0]), outcomes.cohorts
    start = simulator.market.day_start(1)
    counts = HoldoutCounts(
        holdout_id="h", treated=9.0, control=1.0, treated_users=8.0, control_users=2.0,
        since=start + timedelta(hours=3), until=start + timedelta(days=2, hours=2),
    )  # fmt: skip
    test = learned(arm, outcomes, counts, start + timedelta(days=5))
    first = int(start.timestamp()) // 86_400
    mine = (c.arm == 0) & np.isin(c.day, [first, first + 1])
    assert test.attributed == pytest.approx(c.credit[mine].sum())
    assert test.exposures == pytest.approx((c.exposures * c.maturity)[mine & (c.kind == 0)].sum())
    assert learned(arm, outcomes, attrs.evolve(counts, since=start + timedelta(days=60), until=None), start + timedelta(days=61)) is None
    assert learned(("nowhere",) * 5, outcomes, counts, start + timedelta(days=5)) is None


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 0.6}, {"days": 0}, {"stop": -0.1}, {"use_days": 0}])
def test_policies_that_cannot_be_meant_are_refused(wrong):
    """The field is named."""
    with pytest.raises(cl.ConfigurationError, match=next(iter(wrong))):
        cl.HoldoutPolicy(**wrong)


def test_a_holdout_is_plain_content():
    """What the ledger keeps of it comes back equal."""
    simulator = Simulator(small(), seed=3)
    with loop_of(simulator) as loop:
        simulator.run(loop, 2)
        one = loop.holdouts()[0]
    assert Holdout.of(one.body()) == one
