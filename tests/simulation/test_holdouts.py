"""Holdouts of the simulated market say without bias what an arm causes, and touch nothing else."""

from datetime import timedelta

import numpy as np
import pytest

from closedloop.errors import InputError
from closedloop.interfaces import RunsHoldouts
from closedloop.simulation import COLUMNS, Market, Simulator, retargeting, small
from closedloop.simulation.holdouts import held_out


def _run(arm_number, share, days, scenario=None, seed=3):
    market = Market(scenario or retargeting(), seed)
    arm, budgets = market.arms[arm_number], market.equal_split()
    treated = control = 0
    for day in range(days):
        market.advance(day, budgets, holdouts={arm: share})
        counts = market.holdout_counts(arm)
        treated, control = treated + counts[0], control + counts[1]
    caused = sum(market.truth(d, budgets).conversions[arm_number] for d in range(days))
    return treated, control, caused


@pytest.mark.parametrize("number", [0, 11])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_difference_of_the_groups_is_what_the_arm_caused(number, share):
    """For a prospecting and a retargeting arm, treated less odds times held out is what was caused, within 4 standard errors.

    Conversions of the last days are still to come: at most 30 days' tail of a run of 150 days, allowed for with 5 %.
    """
    treated, control, caused = _run(number, share, 150)
    odds = (1 - share) / share
    error = np.sqrt(treated + odds**2 * control + (0.16 * caused) ** 2 / 150)
    assert abs(treated - odds * control - (1 - share) * caused) < 4 * error + 0.05 * caused
    assert control > 20


def test_nobody_held_out_is_touched():
    """No click or view of the tested arm goes to a user of the held-out group; other arms' touches stay as they were."""
    clean, tested = Market(small(), 5), Market(small(), 5)
    arm = clean.arms[2]
    for day in range(4):
        a, b = clean.day(day, clean.equal_split()), tested.day(day, clean.equal_split(), holdouts={arm: 0.4})
        mine = [
            np.all([r[c] == v for c, v in zip(("platform", "campaign", "audience", "creative", "placement"), arm, strict=True)], axis=0)
            for r in (a, b)
        ]
        clicks = [m & (r["kind"] == "click") for m, r in zip(mine, (a, b), strict=True)]
        users = np.array([int(u[1:]) for u in b["user_id"][clicks[1]]], dtype=np.int64)
        shares = np.zeros(len(clean.arms))
        shares[2] = 0.4
        assert not held_out(users, np.full(len(users), 2), shares, 5).any()
        ratio = clicks[1].sum() / clicks[0].sum()
        assert abs(ratio - 0.6) < 4 * np.sqrt(0.24 / clicks[0].sum())
        spend = [r["cost"][m].sum() for m, r in zip(mine, (a, b), strict=True)]
        assert spend[1] == pytest.approx(0.6 * spend[0], abs=0.01)
        if day == 0:  # later days differ by the converters who were not caused
            others = [np.isin(r["kind"], ["click"]) & ~m for m, r in zip(mine, (a, b), strict=True)]
            assert others[0].sum() == others[1].sum()


def test_a_user_stays_in_his_group():
    """Membership is about the share, the same on every day and seed, and grows with the share."""
    users = np.arange(100_000)
    arm = np.zeros(100_000, dtype=np.int64)
    low, high = (held_out(users, arm, np.array([s]), 7) for s in (0.2, 0.5))
    assert abs(low.mean() - 0.2) < 4 * np.sqrt(0.16 / 1e5)
    assert not (low & ~high).any()
    other = held_out(users, arm + 1, np.array([0.0, 0.5]), 7)
    assert abs((high & other).mean() - 0.25) < 4 * np.sqrt(0.19 / 1e5)


def test_a_market_under_test_resumes():
    """Saved in the midst of a test, a market goes on with the same counts."""
    one, other = Market(small(), 5), Market(small(), 5)
    test = {one.arms[7]: 0.3}
    for day in range(6):
        one.advance(day, one.equal_split(), holdouts=test)
    other.load(one.save())
    for day in range(6, 12):
        a, b = one.day(day, one.equal_split(), holdouts=test), other.day(day, one.equal_split(), holdouts=test)
        assert all(np.array_equal(a[c], b[c]) for c in COLUMNS)
        assert one.holdout_counts(one.arms[7]) == other.holdout_counts(one.arms[7])


def test_everyone_held_out_is_refused():
    """A share of one is no test."""
    market = Market(small(), 1)
    with pytest.raises(InputError, match="held-out share"):
        market.day(0, market.equal_split(), holdouts={market.arms[0]: 1.0})


class _Idle:
    """A loop that does nothing."""

    def run_cycle(self, rows, *, now):
        return None

    def tick(self, now):
        return None


def test_a_platforms_holdout_is_run_by_the_market_and_read_back():
    """Begun at the platform, it is in force on the days between, its counts are the market's own, and no other arm is touched."""
    simulator, twin = Simulator(small(), 5), Market(small(), 5)
    arms = [arm for arm, t in simulator.targets.items() if t.platform == "meta"]
    platform = simulator.platforms["meta"]
    assert isinstance(platform, RunsHoldouts)
    platform.start_holdout("h1", [simulator.targets[a] for a in arms], 0.4, now=twin.day_start(2) + timedelta(hours=3))
    simulator.run(_Idle(), 6)
    end = twin.day_start(6)
    platform.end_holdout("h1", now=end + timedelta(hours=2))
    simulator.run(_Idle(), 2)
    expected = np.zeros(2)
    for day in range(6):
        held = dict.fromkeys(arms, 0.4) if day >= 2 else {}
        twin.advance(day, twin.equal_split(), holdouts=held)
        assert simulator.held_out_on(day) == held
        expected += np.sum([twin.holdout_counts(a) for a in arms], axis=0)
    assert simulator.held_out_on(6) == {}
    counts = platform.read_holdout("h1", now=twin.day_start(9))
    assert (counts.treated, counts.control) == tuple(expected)
    assert expected.min() > 0
    assert counts.treated_users / counts.control_users == pytest.approx(1.5)
    assert counts.since == twin.day_start(2) + timedelta(hours=3, minutes=40)
    assert counts.until == end + timedelta(hours=2, minutes=40)


def test_the_truth_of_a_day_knows_the_platforms_holdout():
    """What a held-out share is not shown is not caused."""
    simulator, twin = Simulator(small(), 5), Simulator(small(), 5)
    arms = [arm for arm, t in simulator.targets.items() if t.platform == "meta"]
    begin = simulator.market.day_start(0) - timedelta(hours=1)
    simulator.platforms["meta"].start_holdout("h", [simulator.targets[a] for a in arms], 0.25, now=begin)
    held, full = simulator.run(_Idle(), 1).days[0], twin.run(_Idle(), 1).days[0]
    truth = twin.market.truth(0, full.budgets).conversions
    mine = np.array([a in arms for a in twin.market.arms])
    assert full.caused - held.caused == pytest.approx(0.25 * truth[mine].sum())
