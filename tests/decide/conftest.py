"""Signals made by hand for the tests of decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from closedloop.records.arms import Arm, Arms
from closedloop.records.interval import Intervals
from closedloop.records.outcomes import Cohorts, DelayCurve, Outcomes, SpendDays
from closedloop.records.signal import GammaMixture, Signals
from closedloop.records.window import AttributionWindow

DAY = 86_400_000_000
NOW_DAY = 20_000


def make(
    conversions: Sequence[float],
    spend: Sequence[float],
    *,
    arms: Sequence[Arm] | None = None,
    columns: Sequence[str] = ("platform", "campaign"),
    days: int = 28,
    value: Sequence[float] | None = None,
    window: AttributionWindow | None = None,
    currency: str | None = "EUR",
    outcomes: Outcomes | None = None,
    **columns_of_signals: Any,
) -> Signals:
    """Return signals of arms with so many conversions a day, counted over ``days`` days, at so much spend a day.

    The posterior of an arm's rate is Gamma(conversions * days, clicks * days) with 100 clicks a day: a flat prior, exact.
    """
    n = len(conversions)
    arms = [("google", f"c{i:02d}") for i in range(n)] if arms is None else arms
    table = Arms.of(columns, arms)
    count = np.asarray(conversions, dtype=float) * days
    clicks = np.full(n, 100.0)
    posterior = GammaMixture(shape=count[:, None] + 1e-3, rate=(clicks * days)[:, None], weight=np.ones((n, 1)))
    rate = posterior.mean
    spread = np.sqrt(posterior.shape[:, 0]) / posterior.rate[:, 0]
    window = window or AttributionWindow(click="7d", view=None)
    spend_array = np.asarray(spend, dtype=float)

    def ends(centre: np.ndarray) -> Intervals:
        wide = 1.64 * spread / np.maximum(rate, 1e-12)
        return Intervals(low=centre * np.maximum(0.0, 1.0 - wide), estimate=centre, high=centre * (1.0 + wide), level=0.9, kind="credible")

    if outcomes is None:
        outcomes = made_outcomes(table, window, currency, clicks, count / days, spend_array, days)
    worth = np.ones(n) if value is None else np.asarray(value, dtype=float)
    made: dict[str, Any] = {
        "p_best": np.full(n, 1.0 / max(n, 1)),
        "expected_loss": np.zeros(n),
        "effective_volume": count,
        "weekly_conversions": 7.0 * count / days,
        "evidence_age": np.full(n, days / 2.0),
        "dispersion": np.ones(n),
        "maturity": np.ones(n),
        "borrowed_share": np.zeros(n),
        "tagged_share": np.ones(n),
        **{k: np.asarray(v, dtype=float) for k, v in columns_of_signals.items()},
    }
    cost = spend_array / np.maximum(rate * clicks, 1e-12)
    return Signals(
        window=window,
        arms=table,
        order=np.argsort(-rate / np.maximum(spend_array, 1e-9), kind="stable"),
        rate=ends(rate),
        cost_per_conversion=ends(cost),
        roas=None if value is None else ends(worth / np.maximum(cost, 1e-12)),
        posteriors={"click": posterior},
        exposures_per_day={"click": clicks},
        spend_per_day=spend_array,
        value_per_conversion=worth,
        classifier="made by hand",
        outcomes=outcomes,
        now_us=NOW_DAY * DAY,
        **made,
    )


def made_outcomes(
    arms: Arms, window: AttributionWindow, currency: str | None, clicks: np.ndarray, conversions: np.ndarray, spend: np.ndarray, days: int
) -> Outcomes:
    """Return outcomes of ``days`` equal days."""
    n = len(arms)
    arm = np.repeat(np.arange(n, dtype=np.int32), days)
    day = np.tile(np.arange(NOW_DAY - days, NOW_DAY, dtype=np.int32), n)

    def each(x: np.ndarray) -> np.ndarray:
        return np.repeat(x, days).astype(float)

    cohorts = Cohorts(
        arm=arm,
        day=day,
        kind=np.zeros(len(arm), dtype=np.int8),
        exposures=each(clicks),
        credit=each(conversions),
        credit_squared=each(conversions),
        value=np.zeros(len(arm)),
        value_squared=np.zeros(len(arm)),
        maturity=np.ones(len(arm)),
        age=(NOW_DAY - day).astype(np.int32),
    )
    j = window.bins("click")
    curve = DelayCurve(
        observed=np.ones(j), at_risk=np.ones(j), shape_a=np.ones(j), shape_b=np.ones(j), share_seen=np.linspace(1.0 / j, 1.0, j)
    )
    total = conversions * days
    return Outcomes(
        window=window,
        arms=arms,
        cohorts=cohorts,
        spend=SpendDays(arm=arm, day=day, spend=each(spend)),
        delay={"click": curve},
        credits=Intervals(low=total, estimate=total, high=total, level=0.9, kind="bootstrap"),
        conversion_type=None,
        model="last",
        currency=currency,
        watermark={"google": NOW_DAY * DAY},
        revision=1,
        n_conversions=int(total.sum()),
        n_uncredited=0,
    )


@pytest.fixture(scope="session")
def signals_of() -> Callable[..., Signals]:
    """The factory of signals."""
    return make


@pytest.fixture(scope="session")
def budgets_of() -> Callable[[Signals, Sequence[float]], Mapping[Arm, Any]]:
    """A factory of budgets in the order of the arms."""
    from closedloop.records.money import Money

    def build(signals: Signals, amounts: Sequence[float], currency: str = "EUR") -> Mapping[Arm, Any]:
        return {arm: Money.of(float(a), currency) for arm, a in zip(signals.arms, amounts, strict=True)}

    return build
