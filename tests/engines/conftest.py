"""A small factory of event batches for the tests of the engines (test folders do not import each other)."""

from collections.abc import Sequence

import numpy as np
import pytest

from closedloop.records.arms import TAG_COLUMNS, Coded
from closedloop.records.batch import EVENT_KINDS, NO_TIME, EventBatch
from closedloop.records.moments import US_PER_DAY


def make_batch(rows: Sequence[dict], currency: str | None = "EUR") -> EventBatch:
    """Return a batch from plain rows; times in days, amounts in units; rows with ``untagged=True`` go to the untagged part."""
    plain = [r for r in rows if not r.get("untagged")]
    bare = [r for r in rows if r.get("untagged")]
    us = lambda days: round(days * US_PER_DAY)  # noqa: E731
    n = len(plain)
    return EventBatch(
        event_id=np.array([r["id"] for r in plain], dtype=object) if n else np.empty(0, dtype=object),
        kind=np.array([EVENT_KINDS.index(r["kind"]) for r in plain], dtype=np.int8),
        occurred_at=np.array([us(r["at"]) for r in plain], dtype=np.int64),
        recorded_at=np.array([us(r.get("recorded", r["at"])) for r in plain], dtype=np.int64),
        user_id=Coded.of([r.get("user") for r in plain]),
        tags={t: Coded.of([r.get(t) for r in plain]) for t in TAG_COLUMNS},
        conversion_type=Coded.of([r.get("type") for r in plain]),
        cost=np.array([round(r.get("cost", 0) * 1e6) for r in plain], dtype=np.int64),
        value=np.array([round(r.get("value", 0) * 1e6) for r in plain], dtype=np.int64),
        quantity=np.array([r.get("quantity", 1) for r in plain], dtype=np.int64),
        touch_kind=np.array([r.get("touch_kind", -1) for r in plain], dtype=np.int8),
        touch_at=np.array([us(r["touch_at"]) if "touch_at" in r else NO_TIME for r in plain], dtype=np.int64),
        currency=currency,
        untagged=make_batch([{**r, "untagged": False} for r in bare], currency) if bare else None,
    )


@pytest.fixture(scope="session")
def batch_of():
    """The factory."""
    return make_batch
