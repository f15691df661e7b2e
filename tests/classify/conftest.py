"""A factory of `Outcomes` without attribution: the truth is the caller's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from closedloop.records.arms import Arm, Arms
from closedloop.records.interval import Intervals
from closedloop.records.moments import US_PER_DAY
from closedloop.records.outcomes import Cohorts, DelayCurve, Outcomes, SpendDays
from closedloop.records.window import AttributionWindow

FIRST_DAY = 20_000


def make_outcomes(
    arms: Sequence[Arm],
    exposures: Any,
    credit: Any,
    *,
    spend: Any = None,
    value: Any = None,
    value_squared: Any = None,
    credit_squared: Any = None,
    maturity: Any = None,
    delay: dict[str, DelayCurve] | None = None,
    window: AttributionWindow | None = None,
    columns: Sequence[str] = ("platform", "campaign"),
    view_exposures: Any = None,
    view_credit: Any = None,
    last_day: int | None = None,
) -> Outcomes:
    """Return outcomes from (A, D) arrays of click exposures and credits on consecutive days; the watermark follows the last day."""
    x, c = np.asarray(exposures, dtype=float), np.asarray(credit, dtype=float)
    n, days = x.shape
    window = window or AttributionWindow(click="7d", view="1d")
    end = FIRST_DAY + days if last_day is None else last_day + 1
    blocks = [(0, x, c)]
    if view_exposures is not None:
        blocks.append((1, np.asarray(view_exposures, dtype=float), np.asarray(view_credit, dtype=float)))
    parts = []
    for kind, xs, cs in blocks:
        arm, day = (a.ravel() for a in np.meshgrid(np.arange(n), end - days + np.arange(days), indexing="ij"))
        m = np.ones((n, days)) if maturity is None else np.broadcast_to(np.asarray(maturity, dtype=float), (n, days))
        first = kind == 0
        v = np.zeros((n, days)) if value is None or not first else np.asarray(value, dtype=float)
        vs = v**2 if value_squared is None else np.asarray(value_squared, dtype=float)
        sq = cs if credit_squared is None else np.asarray(credit_squared, dtype=float)
        parts.append((arm, day, np.full(arm.shape, kind), xs.ravel(), cs.ravel(), sq.ravel(), v.ravel(), vs.ravel(), m.ravel(), end - day))
    columns_ = [np.concatenate(p) for p in zip(*parts, strict=True)]
    order = np.lexsort((columns_[2], columns_[1], columns_[0]))
    arm, day, kind, xs, cs, sq, v, vs, m, age = (a[order] for a in columns_)
    total = np.bincount(arm, cs, n)
    money = None if spend is None else np.asarray(spend, dtype=float)
    sa, sd = (a.ravel() for a in np.meshgrid(np.arange(n), end - days + np.arange(days), indexing="ij"))
    return Outcomes(
        window=window,
        arms=Arms.of(tuple(columns), list(arms)),
        cohorts=Cohorts(
            arm=arm.astype(np.int32), day=day.astype(np.int32), kind=kind.astype(np.int8), exposures=xs, credit=cs, credit_squared=sq,
            value=v, value_squared=vs, maturity=m, age=age.astype(np.int32),
        ),
        spend=SpendDays(
            arm=sa.astype(np.int32) if money is not None else np.empty(0, np.int32),
            day=sd.astype(np.int32) if money is not None else np.empty(0, np.int32),
            spend=money.ravel() if money is not None else np.empty(0),
        ),
        delay=delay or {},
        credits=Intervals(low=total, estimate=total, high=total, level=0.9, kind="bootstrap"),
        conversion_type=None,
        model="last",
        currency="EUR" if money is not None else None,
        watermark={"google": end * US_PER_DAY, "meta": end * US_PER_DAY},
        revision=1,
        n_conversions=int(total.sum()),
        n_uncredited=0,
    )  # fmt: skip


@pytest.fixture
def outcomes_of() -> Callable[..., Outcomes]:
    """The factory itself."""
    return make_outcomes
