"""The simulator drives any loop by the clock and keeps the truth beside what it did."""

from datetime import timedelta

import pytest

from closedloop.errors import ConfigurationError
from closedloop.records.action import Change
from closedloop.records.money import Money
from closedloop.simulation import Simulator, small


class _Oracle:
    """A loop that is told the truth: it sets the best budgets on the platforms after its first cycle."""

    def __init__(self, simulator):
        self.simulator, self.calls, self.ticks = simulator, [], []

    def run_cycle(self, rows, *, now):
        self.calls.append((now, set(rows["occurred_at"].astype("U10"))))
        if len(self.calls) == 1:
            best = self.simulator.market.best_budgets(self.simulator.market.scenario.total)
            for arm, budget in best.items():
                target = self.simulator.targets[arm]
                change = Change(action_id=str(arm), target=target, budget=Money.of(round(budget, 2), "EUR"))
                assert self.simulator.platforms[target.platform].send(change, now=now).status == "accepted"

    def tick(self, now):
        self.ticks.append(now)


class _Idle:
    def run_cycle(self, rows, *, now):
        return None

    def tick(self, now):
        return None


def test_a_loop_sees_each_day_once_after_it_ended():
    """One cycle a day, two hours after midnight, with that day's rows; three ticks after it."""
    simulator = Simulator(small(), seed=2)
    loop, seen = _Oracle(simulator), []
    simulator.run(loop, 3, progress=lambda done, days, day: seen.append((done, days, day.day)))
    assert [now for now, _ in loop.calls] == [simulator.market.day_start(d + 1) + timedelta(hours=2) for d in range(3)]
    assert [dates for _, dates in loop.calls] == [{simulator.market.day_start(d).date().isoformat()} for d in range(3)]
    assert len(loop.ticks) == 9
    assert seen == [(1, 3, 0), (2, 3, 1), (3, 3, 2)]


def test_the_oracles_days_miss_nothing():
    """After its change an oracle causes what the best split causes, and its gain is the curve's."""
    simulator = Simulator(small(), seed=2)
    market = simulator.market
    result = simulator.run(_Oracle(simulator), 5)
    assert result.regret()[0] > 0.05
    assert result.regret()[1:] == pytest.approx(0.0, abs=1e-4)
    best, equal = market.best_budgets(1400.0), market.equal_split()
    expected = 1 - market.cost_per_incremental(best) / market.cost_per_incremental(equal)
    assert result.gain(1) == pytest.approx(expected, abs=2e-3)
    assert result.cost_per_incremental(1) < result.cost_per_incremental(0, 1)


def test_holding_still_is_the_equal_split():
    """A loop that does nothing gains nothing and loses nothing."""
    result = Simulator(small(), seed=2).run(_Idle(), 3)
    assert result.gain() == pytest.approx(0.0, abs=1e-12)
    assert result.to_frame().shape[0] == 3
    assert "small" in repr(result)


def test_a_second_run_goes_on():
    """Days go on where the last run stopped, as if it had been one run."""
    once = Simulator(small(), seed=2).run(_Idle(), 4)
    simulator = Simulator(small(), seed=2)
    twice = [*simulator.run(_Idle(), 2).days, *simulator.run(_Idle(), 2).days]
    assert [(d.day, d.counted) for d in twice] == [(d.day, d.counted) for d in once.days]


def test_reports_are_kept_on_request():
    """Only the last day keeps its report, unless all are wanted; progress always sees it."""

    class Telling(_Idle):
        def run_cycle(self, rows, *, now):
            return now

    seen = []
    days = Simulator(small(), seed=2).run(Telling(), 3, progress=lambda done, n, day: seen.append(day.report)).days
    assert [d.report is None for d in days] == [True, True, False]
    assert None not in seen
    kept = Simulator(small(), seed=2).run(Telling(), 3, keep_reports=True).days
    assert [d.report for d in kept] == seen


def test_no_days_is_a_mistake():
    """A run of no days is refused."""
    with pytest.raises(ConfigurationError, match="at least one day"):
        Simulator(small()).run(_Idle(), 0)


def test_held_out_users_are_not_convinced_and_are_counted() -> None:
    """With a fifth of an arm's users held out, a fifth of what it causes is missing from the truth, and both groups are counted."""
    arm = Simulator(small(), seed=4).market.arms[0]
    shown, held = Simulator(small(), seed=4), Simulator(small(), seed=4)
    held.holdouts = {arm: 0.2}

    class Nothing:
        def run_cycle(self, rows, *, now):
            return None

        def tick(self, now):
            return None

    whole, less = shown.run(Nothing(), days=1).days[0], held.run(Nothing(), days=1).days[0]
    lost = shown.market.truth(0, whole.budgets).conversions[0] * 0.2
    assert whole.caused - less.caused == pytest.approx(lost)
    held.run(Nothing(), days=6)
    treated, control = held.market.holdout_counts(arm)
    assert treated > control
