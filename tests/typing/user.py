"""What a user writes, as a type checker reads it: nothing here is an error, and every type is the one that is stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, assert_type

import numpy as np

import closedloop as cl

NOW = datetime(2026, 3, 2, tzinfo=UTC)
window = cl.AttributionWindow(click="7d", view=None)
tags = cl.TagSchema(arm=("platform", "campaign"))


def by_hand(rows: list[dict[str, object]]) -> cl.Plan:
    """Rooms one after another."""
    ingested = cl.TableIngestor(tags=tags, rates={"USD": 0.9}, currency="EUR").ingest(rows)
    assert_type(ingested, cl.Ingested)
    outcomes = cl.WindowedAttribution(window, model="markov", tags=tags).attribute(ingested.batch)
    assert_type(outcomes, cl.Outcomes)
    signals = cl.BayesClassifier(window, level=0.8).classify(outcomes, now=NOW)
    assert_type(signals[0], cl.Signal)
    assert_type(signals[0].rate, cl.Interval)
    for signal in signals:
        assert_type(signal.rate.low, float)
    plan = cl.BudgetDecider(cl.Constraints(total=100, max_step=0.1)).decide(signals, {("ads", "a"): cl.Money.of(50, "EUR")}, now=NOW)
    assert_type(plan, cl.Plan)
    assert_type(plan.decisions, tuple[cl.Decision, ...])
    assert_type(plan.holds, tuple[cl.Hold, ...])
    assert_type(plan.gain, cl.Interval)
    return plan


class Shop:
    """A platform of the user's own: the Protocols ask for these and for no base class."""

    def __init__(self, budgets: dict[str, cl.Money]) -> None:
        self.budgets = budgets

    @property
    def quiet_period(self) -> float:
        return 1.0

    def read(self, target: cl.Target, *, now: datetime) -> cl.TargetState:
        return cl.TargetState(target=target, budget=self.budgets[target.resource], active=True, read_at=now)

    def send(self, change: cl.Change, *, now: datetime, timeout: float = 10.0) -> cl.AttemptResult:
        if change.budget is None:
            return cl.AttemptResult(status="rejected", code="kind")
        self.budgets[change.target.resource] = change.budget
        return cl.AttemptResult(status="accepted")


class HoldEverything:
    """A decider of the user's own."""

    def decide(
        self,
        signals: cl.Signals,
        current_budgets: Mapping[cl.Arm, cl.Money] | None = None,
        *,
        horizon: float = 7.0,
        now: datetime | None = None,
        rng: np.random.Generator | None = None,
    ) -> cl.Plan:
        return cl.BudgetDecider(cl.Constraints(max_step=0.0)).decide(signals, current_budgets, horizon=horizon, now=now, rng=rng)


def around(room: str) -> AbstractContextManager[Any]:
    """Something to enter around each room."""
    return nullcontext(room)


def night(path: str, shop: Shop) -> Sequence[cl.Receipt]:
    """The whole, with rooms and a platform of the user's own."""
    reads: cl.ReadsState = shop
    applies: cl.AppliesChanges = shop
    decider: cl.Decider = HoldEverything()
    own = {"shop": shop} if reads is not None and applies is not None else {}
    with cl.ClosedLoop(window=window, platforms=own, ledger="loop.db", tags=tags, decider=decider, around=around) as loop:
        assert_type(loop, cl.ClosedLoop)
        report = loop.run_cycle(path, now=NOW)
        assert_type(report, cl.CycleReport)
        assert_type(report.health, cl.HealthReport)
        assert_type(loop.tick(NOW), datetime | None)
        loop.add_lift_test(cl.LiftResult(attributed=9, treated=40, treated_users=800, control=9, control_users=200), by="Ada", now=NOW)
        assert_type(cl.replay(loop), cl.Replay)
        assert_type([r for r in report.receipts], list[cl.Receipt])  # noqa: C416 - the type of iterating is what is checked
        return report.receipts.rows
