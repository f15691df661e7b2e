"""Event batches for the tests of the engines, the cases that every engine is tried on, and the numpy reference."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from closedloop.attribute import event_paths
from closedloop.attribute.journeys import last_touch
from closedloop.attribute.rows import Rows, keys_of
from closedloop.records.arms import TAG_COLUMNS, Coded
from closedloop.records.batch import CLICK, EVENT_KINDS, NO_TIME, EventBatch
from closedloop.records.moments import US_PER_DAY
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow


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


DAY0 = 19_000
TAGS = TagSchema(arm=("platform", "campaign"))


@st.composite
def _events(draw, users=("u", "v", "w", None), most=40):
    """Quarter-day times of a few users, so that boundaries and ties happen; some rows are written down later."""
    rows = []
    for i in range(draw(st.integers(1, most))):
        at = DAY0 + draw(st.integers(0, 60)) / 4
        row = {"id": f"e{i}", "at": at, "recorded": at + draw(st.sampled_from([0.0, 0.0, 0.3, 1.5])), "user": draw(st.sampled_from(users))}
        kind = draw(st.sampled_from(["click", "impression", "conversion"]))
        if kind == "conversion":
            tags = {"value": float(draw(st.integers(0, 9)))}
        else:
            tags = {"platform": draw(st.sampled_from("abc")), "campaign": "x"}
        rows.append({**row, "kind": kind, **tags})
    return rows


def _table(batch):
    """The batch as a frame for the engines; ties are the ranks of the keys that order ties in numpy."""
    return pd.DataFrame({
        "user_id": batch.user_id.decode(),
        "kind": np.array(EVENT_KINDS, dtype=object)[batch.kind],
        "at": batch.occurred_at,
        "recorded_at": batch.recorded_at,
        "channel": batch.tags["platform"].decode(),
        "value": batch.value / 1e6,
        "tie": np.argsort(np.argsort(keys_of(batch.event_id))),
    })  # fmt: skip


def _paths(paths):
    c = paths.distinct().to_columns()
    return sorted(zip(c["path"], c["conversions"], c["value"], c["nulls"], strict=True))


def _cohorts(channel, day, kind, delay, exposures, credit, value):
    """Exposures, credit and revenue by channel, day, kind and delay, from columns."""
    out = {}
    for c, d, k, j, x, n, v in zip(channel, day, kind, delay, exposures, credit, value, strict=True):
        was = out.get((str(c), int(d), int(k), int(j)), (0.0, 0.0, 0.0))
        out[(str(c), int(d), int(k), int(j))] = (was[0] + float(x), was[1] + float(n), was[2] + float(v))
    return out


def _reference(batch, window):
    """Cohort counts by the numpy code."""
    raw, arms = Rows.of(batch, ("platform",), None)
    rows, limits = Rows.union([raw]), window.limits_us()
    names = np.append(arms.column("platform").decode(), "")
    touch = np.flatnonzero(rows.is_touch & (limits[(rows.kind != CLICK).astype(int)] >= 0))
    c = last_touch(rows, limits)
    seen = np.maximum(rows.seen[c.conversion], rows.at[c.conversion]) // US_PER_DAY
    nothing, one = np.zeros(len(touch)), np.ones(len(c.touch))
    return _cohorts(
        names[rows.arm[np.concatenate([touch, c.touch])]],
        np.concatenate([rows.day[touch], c.day]),
        np.concatenate([rows.kind[touch] != CLICK, c.kind]),
        np.concatenate([nothing - 1, seen - c.day]),
        np.concatenate([nothing + 1, 0 * one]),
        np.concatenate([nothing, one]),
        np.concatenate([nothing, c.value / 1e6]),
    )


@pytest.fixture(scope="session")
def cases():
    """What every engine is tried on, and what it is held against."""
    return SimpleNamespace(
        events=_events,
        table=_table,
        windows=[AttributionWindow(*w) for w in (("3d", "1d"), ("1d", None), (None, "2d"), ("0s", "0s"))],
        paths=_paths,
        reference_paths=lambda batch, window: _paths(event_paths(batch, window, tags=TAGS)),
        cohorts=lambda r: _cohorts(r.channel, r.day, r.kind, r.delay, r.exposures, r.credit, r.value),
        reference_cohorts=_reference,
    )
