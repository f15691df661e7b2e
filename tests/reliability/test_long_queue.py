"""Many actions through a quota of a day: the order of value and the limit hold for days on end, across restarts.

Set CLOSEDLOOP_FULL=1 for 10,000 actions.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from closedloop.execute import OutboxExecutor
from closedloop.ledger import MemoryLedger
from closedloop.platforms import SimulatedPlatform
from closedloop.records.action import Change
from closedloop.records.decision import Decision, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow

ACTIONS = 10_000 if os.environ.get("CLOSEDLOOP_FULL") == "1" else 500
UNITS = ACTIONS * 9 // 10  # a day; an action needs three, so it takes more than three days
START = datetime(2026, 3, 1, tzinfo=UTC)


def plan() -> Plan:
    gains = np.random.default_rng(4).permutation(ACTIONS) + 1.0

    def interval(gain: float) -> Interval:
        return Interval(low=0, estimate=gain, high=2 * gain, level=0.9, kind="credible")

    decisions = tuple(
        Decision(
            decision_id=f"d{i}",
            arm=("simulated", f"r{i}"),
            target=Target("simulated", f"r{i}"),
            before=Money.of(100, "EUR"),
            after=Money.of(110 if i % 4 else 90, "EUR"),
            gain=interval(float(gain)),
            p_gain=0.9,
            reason="test",
        )
        for i, gain in enumerate(gains)
    )
    window = AttributionWindow(click="7d", view="1d")
    rest = {"gain": interval(1.0), "p_gain": 0.9, "expected_shortfall": 0.0, "horizon_days": 7.0}
    return Plan(plan_id="p", made_at=START, window=window, decisions=decisions, holds=(), **rest)  # type: ignore[arg-type]


def test_a_quota_of_a_day() -> None:
    """Cuts first, then the most valuable raises; never more than the quota within any day; all confirmed; two restarts on the way."""
    ledger, wanted = MemoryLedger(), plan()
    platform = SimulatedPlatform({f"r{i}": Money.of(100, "EUR") for i in range(ACTIONS)}, quota=(UNITS, 86_400))

    def executor() -> OutboxExecutor:
        return OutboxExecutor(ledger, {"simulated": platform}, expiry=timedelta(days=30))

    one, ticks = executor(), 0
    one.execute(wanted, now=START)
    due = one.tick(START)
    while due is not None:
        ticks += 1
        assert due < START + timedelta(days=30)
        if ticks in (2, 40):
            one = executor()
        due = one.tick(due)
    assert Counter(r.state for r in one.receipts("p")) == {"confirmed": ACTIONS}
    assert platform.requests("refused") == []

    times = np.array([at.timestamp() for at, _ in platform.requests()])
    units = np.array([u for _, u in platform.requests()])
    total = np.concatenate([[0.0], units.cumsum()])
    ends = np.searchsorted(times, times + 86_400, side="left")
    assert (total[ends] - total[:-1]).max() <= UNITS

    sent = [c.action_id for c in platform.applied()]
    decisions = {d.decision_id: d for d in wanted.decisions}
    rank = [(decisions[i].after.units > 100, -decisions[i].gain.estimate) for i in sent]
    assert rank == sorted(rank)
    assert times[-1] - times[0] > 3 * 86_400 * 0.9


def test_what_waits_costs_a_tick_nothing() -> None:
    """However many actions wait for quota, a tick that lets one through asks the platform for its limits equally often."""

    class Counting(SimulatedPlatform):
        asked = 0

        def limits(self, target: Target) -> Sequence[tuple[str, float, float]]:
            self.asked += 1
            return super().limits(target)

    asked = []
    for pending in (20, 2000):
        platform = Counting({f"r{i}": Money.of(100, "EUR") for i in range(pending)}, quota=(3, 60))
        executor = OutboxExecutor(MemoryLedger(), {"simulated": platform}, expiry=timedelta(days=30), headroom=1.0)
        changes = [Change(action_id=f"a{i}", target=Target("simulated", f"r{i}"), budget=Money.of(101, "EUR")) for i in range(pending)]
        executor.submit("p", changes, now=START, reason="test")
        before = platform.asked
        for minute in range(1, 11):
            executor.tick(START + timedelta(seconds=61 * minute))
        assert len(platform.applied()) == 11
        asked.append(platform.asked - before)
    assert asked[0] == asked[1]
