"""Plans and platforms for the tests of execution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pytest

from closedloop.records.decision import Decision, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow

START = datetime(2026, 3, 1, tzinfo=UTC)
MakePlan = Callable[..., Plan]


def _interval(estimate: float) -> Interval:
    return Interval(low=estimate - 1, estimate=estimate, high=estimate + 1, level=0.9, kind="credible")


@pytest.fixture
def start() -> datetime:
    return START


@pytest.fixture
def make_plan() -> MakePlan:
    """Return a function that makes a plan from moves: resource -> (before, after[, gain])."""

    def make(
        plan_id: str,
        moves: Mapping[str, tuple[float, ...]],
        *,
        made_at: datetime = START,
        platform: str = "simulated",
        currency: str = "EUR",
    ) -> Plan:
        decisions = tuple(
            Decision(
                decision_id=f"{plan_id}/{resource}",
                arm=(platform, resource),
                target=Target(platform, resource),
                before=Money.of(move[0], currency),
                after=Money.of(move[1], currency),
                gain=_interval(move[2] if len(move) > 2 else 1.0),
                p_gain=0.9,
                reason="more conversions for the money",
                triggers={"volume": 80.0},
            )
            for resource, move in moves.items()
        )
        return Plan(
            plan_id=plan_id,
            made_at=made_at,
            window=AttributionWindow(click="7d", view="1d"),
            decisions=decisions,
            holds=(),
            gain=_interval(1.0),
            p_gain=0.9,
            expected_shortfall=0.1,
            horizon_days=7.0,
        )

    return make
