"""Signals and receipts with the numbers that a test asks for."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from closedloop.records.action import Change, Receipt, Receipts
from closedloop.records.arms import Arms
from closedloop.records.decision import Target
from closedloop.records.interval import Intervals
from closedloop.records.moments import to_us
from closedloop.records.money import Money
from closedloop.records.outcomes import Cohorts, Outcomes, SpendDays
from closedloop.records.signal import GammaMixture, Signals
from closedloop.records.window import AttributionWindow

NOW = datetime(2026, 3, 2, 2, tzinfo=UTC)


def _signals(
    weekly: dict[tuple[str, str], float],
    *,
    days: int = 28,
    credit: Any = None,
    tagged: float = 1.0,
    data_age_days: float = 0.1,
    columns=("platform", "campaign"),
) -> Signals:
    """Return signals of one arm per key, with these conversions a week, credited evenly over the last ``days`` days."""
    names = sorted(weekly)
    arms = Arms.of(columns, names)
    n = len(names)
    newest = to_us(NOW - timedelta(days=data_age_days)) // 86_400_000_000
    per_day = np.array([weekly[k] / 7.0 for k in names]) if credit is None else np.asarray(credit, dtype=float)
    arm, day = (m.ravel() for m in np.meshgrid(np.arange(n), np.arange(newest - days + 1, newest + 1), indexing="ij"))
    size = len(arm)
    cohorts = Cohorts(
        arm=arm.astype(np.int32),
        day=day.astype(np.int32),
        kind=np.zeros(size, dtype=np.int8),
        exposures=np.full(size, 100.0),
        credit=per_day[arm],
        credit_squared=per_day[arm],
        value=np.zeros(size),
        value_squared=np.zeros(size),
        maturity=np.ones(size),
        age=np.full(size, 7, dtype=np.int32),
    )
    wide = Intervals(low=np.zeros(n), estimate=np.full(n, 0.5), high=np.ones(n), level=0.9, kind="credible")
    outcomes = Outcomes(
        window=AttributionWindow(),
        arms=arms,
        cohorts=cohorts,
        spend=SpendDays(arm=np.empty(0, dtype=np.int32), day=np.empty(0, dtype=np.int32), spend=np.empty(0)),
        delay={},
        credits=wide,
        conversion_type=None,
        model="last",
        currency="EUR",
        watermark={p: to_us(NOW - timedelta(days=data_age_days)) for p in sorted({k[0] for k in names})},
        revision=1,
        n_conversions=int(per_day.sum() * days),
        n_uncredited=0,
    )
    one = np.ones(n)
    return Signals(
        window=AttributionWindow(),
        arms=arms,
        order=np.arange(n),
        rate=wide,
        cost_per_conversion=wide,
        roas=None,
        posteriors={"click": GammaMixture(shape=np.ones((n, 1)), rate=np.full((n, 1), 50.0), weight=np.ones((n, 1)))},
        exposures_per_day={"click": 100.0 * one},
        spend_per_day=100.0 * one,
        value_per_conversion=one,
        p_best=one / max(n, 1),
        expected_loss=0.0 * one,
        effective_volume=10.0 * one,
        weekly_conversions=np.array([weekly[k] for k in names], dtype=float),
        evidence_age=5.0 * one,
        dispersion=one,
        maturity=0.9 * one,
        borrowed_share=0.1 * one,
        tagged_share=tagged * one,
        classifier="test",
        outcomes=outcomes,
        now_us=to_us(NOW),
    )


def _receipt(state: str = "confirmed", *, hours: float = 1.0, settled: bool = True, i: int = 0) -> Receipt:
    at = NOW - timedelta(hours=max(hours, 0.0))
    change = Change(action_id=f"a{i}", target=Target("google", f"r{i}"), budget=Money.of(10, "EUR"))
    return Receipt(
        action_id=f"a{i}", plan_id="p", change=change, prior=None, state=state, attempts=1, decided_at=at, recorded_at=at,
        settled_at=NOW if settled else None,
    )  # fmt: skip


@pytest.fixture
def now() -> datetime:
    """The moment of every test."""
    return NOW


@pytest.fixture
def make_signals() -> Callable[..., Signals]:
    """A function from conversions a week by (platform, campaign) to signals."""
    return _signals


@pytest.fixture
def make_receipts() -> Callable[..., Receipts]:
    """A function from counts of states to receipts settled within an hour; ``open=n`` adds actions open for three days."""

    def make(*, open: int = 0, late: int = 0, **states: int) -> Receipts:
        rows = [_receipt(state, i=i) for state, n in states.items() for i in range(n)]
        rows += [_receipt("accepted", hours=72, settled=False, i=100 + i) for i in range(open)]
        rows += [_receipt("confirmed", hours=72, i=200 + i) for i in range(late)]
        return Receipts.of(rows)

    return make
