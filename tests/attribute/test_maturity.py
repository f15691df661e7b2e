"""Late conversions on a simulated stream: the estimate does not depend on how old the data are."""

import numpy as np
import pytest

from closedloop.attribute import WindowedAttribution
from closedloop.records.arms import TAG_COLUMNS, Coded
from closedloop.records.batch import CLICK, CONVERSION, NO_TIME, EventBatch
from closedloop.records.moments import US_PER_DAY
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow


def stream(until, rng, days=24, clicks=12_000, rate=0.25):
    """Clicks spread over the day, conversions after two days in the mean, written down up to half a day later; seen up to ``until``."""
    n = days * clicks
    at = (20_000 + rng.random(n) * days) * US_PER_DAY
    converts = rng.random(n) < rate
    sold = at + rng.exponential(2.0, n) * US_PER_DAY
    written = sold + rng.random(n) * 0.5 * US_PER_DAY
    user = np.arange(n)
    kind = np.concatenate([np.full(n, CLICK), np.full(converts.sum(), CONVERSION)]).astype(np.int8)
    occurred = np.concatenate([at, sold[converts]]).astype(np.int64)
    recorded = np.concatenate([at, written[converts]]).astype(np.int64)
    who = np.concatenate([user, user[converts]]).astype(np.int32)
    seen = recorded <= until
    m = int(seen.sum())
    platform = Coded(codes=np.zeros(m, dtype=np.int32), vocab=np.array(["meta"], dtype=object))
    zero = np.zeros(m, dtype=np.int64)
    return EventBatch(
        event_id=np.array([f"e{i}" for i in np.flatnonzero(seen)], dtype=object),
        kind=kind[seen],
        occurred_at=occurred[seen],
        recorded_at=recorded[seen],
        user_id=Coded(codes=who[seen], vocab=np.array([f"u{i}" for i in range(n)], dtype=object)),
        tags={name: platform if name == "platform" else Coded.missing(m) for name in TAG_COLUMNS},
        conversion_type=Coded.missing(m),
        cost=zero,
        value=zero,
        quantity=np.ones(m, dtype=np.int64),
        touch_kind=np.full(m, -1, dtype=np.int8),
        touch_at=np.full(m, NO_TIME, dtype=np.int64),
    )


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9])
def test_the_rate_is_the_same_at_every_age(part):
    """Credit over exposure times maturity is the true rate inside the window for cohorts of every age, at any hour of the newest day."""
    until = int((20_020 + part) * US_PER_DAY)
    window = AttributionWindow(click="7d", view=None)
    outcomes = WindowedAttribution(window, tags=TagSchema(arm=("platform",))).attribute(stream(until, np.random.default_rng(8)))
    truth = 0.25 * (1 - np.exp(-7 / 2.0))
    c = outcomes.cohorts
    for age in range(1, 11):
        cohort = c.age == age
        expected = truth * (c.exposures * c.maturity)[cohort].sum()
        assert c.credit[cohort].sum() == pytest.approx(expected, abs=4 * np.sqrt(expected) + 0.04 * expected)
