"""Rows in = accepted + quarantined + duplicates; order and splitting do not matter; a mended row is as if it had been right."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.ingest import TableIngestor, load_quarantine, save_quarantine, settle
from closedloop.records.batch import EventBatch
from closedloop.records.tags import TagSchema

TAGS = TagSchema(arm=("platform", "campaign"))
INGESTOR = TableIngestor(TAGS)
TIMES = [f"2026-01-{d:02d}T{h:02d}:00:00Z" for d in (1, 2, 3) for h in (0, 12)]


@st.composite
def good_row(draw: Any) -> dict[str, Any]:
    """A row without fault; content and version are functions of the id, so that copies of an id are copies."""
    number = draw(st.integers(0, 12))
    version = draw(st.integers(0, 2))
    kind = ("impression", "click", "conversion", "spend")[number % 4]
    return {
        "event_id": f"e{number}",
        "kind": kind,
        "occurred_at": TIMES[number % len(TIMES)],
        "recorded_at": f"2026-02-01T00:00:0{version}Z",
        "platform": ("google", "meta")[number % 2],
        "campaign": f"c{number % 3}",
        "user_id": None if kind == "spend" else f"u{number % 5}",
        "cost": 1.0 + number + version / 10 if kind in ("click", "spend") else 0,
        "value": 3.5 * version if kind == "conversion" else 0,
        "currency": "EUR",
    }


anything = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.binary(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.dates(),
    st.datetimes(),
)
NAMES = ["a", "b", "event_id", "kind", "occurred_at", "cost", "platform", "touch_at", "quantity"]
any_row = st.dictionaries(st.sampled_from(NAMES), anything)


def settled(batches: Iterable[EventBatch]) -> dict[str, list[Any]]:
    """A comparable picture of settled batches, untagged part included."""
    whole = settle(list(batches))
    out: dict[str, list[Any]] = {}
    for name, part in (("tagged", whole), ("untagged", whole.untagged)):
        if part is not None and len(part):
            out[name] = [tuple(map(str, row)) for row in zip(*part.to_columns().values(), strict=True)]
    return out


@given(st.lists(st.one_of(any_row, good_row()), max_size=12))
@settings(max_examples=80, deadline=None)
def test_rows_in_are_rows_out(rows: list[dict[str, Any]]) -> None:
    """For any rows at all, every one is accepted, set aside as it came, or a duplicate; nothing raises."""
    anchor = {"kind": "click", "occurred_at": "2026-01-01T00:00:00Z", "platform": "x", "campaign": "y", "event_id": "anchor", "cost": 1}
    done = INGESTOR.ingest([anchor, *rows])
    assert done.n_rows == len(rows) + 1
    assert done.n_rows == done.n_accepted + len(done.quarantine) + done.n_duplicates
    positions = [r.position for r in done.quarantine.rows]
    assert positions == sorted(set(positions))
    for bad in done.quarantine.rows:
        original = {str(k): v for k, v in rows[bad.position - 1].items()}
        assert repr(bad.row) == repr(original)
        assert bad.reason
        assert bad.mend
    ids = done.batch.event_id.tolist()
    assert len(set(ids)) == len(ids)


@given(st.lists(good_row(), max_size=20), st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_order_splitting_and_repetition_do_not_matter(rows: list[dict[str, Any]], random: Any, parts: int) -> None:
    """Any order, any split, twice: the same settled events, of each id the newest version."""
    once = settled([INGESTOR.ingest(rows).batch])
    shuffled = list(rows)
    random.shuffle(shuffled)
    pieces = [shuffled[i::parts] for i in range(parts)]
    batches, again = ([INGESTOR.ingest(p).batch for p in pieces] for _ in range(2))
    assert settled([*batches, *again]) == once
    newest = {}
    for row in rows:
        newest[row["event_id"]] = max(newest.get(row["event_id"], ""), row["recorded_at"])
    assert sum(map(len, once.values())) == len(newest)
    batch = settle(batches)
    assert {
        i: t.isoformat()[:19] + "Z" for i, t in zip(batch.event_id, batch.recorded_at.view("datetime64[us]").tolist(), strict=True)
    } == newest


BREAKS: dict[str, list[Any]] = {
    "kind": ["purchase", None],
    "occurred_at": ["yesterday", None, "2026-01-01"],
    "cost": [-1, math.nan, "x"],
    "platform": ["x" * 501, None, ""],
    "campaign": ["\ud800", None],
    "currency": ["euro"],
    "touch_kind": ["hover"],
}


@given(st.lists(good_row(), min_size=1, max_size=15), st.data())
@settings(max_examples=25, deadline=None)
def test_a_mended_row_is_as_if_it_had_been_right(rows: list[dict[str, Any]], data: Any) -> None:
    """Break some rows, ingest, mend what was set aside, ingest that: the same settled events as from the good rows."""
    broken = []
    for row in rows:
        field = data.draw(st.sampled_from([None, *BREAKS]))
        if row["kind"] == "conversion" and field in ("platform", "campaign"):
            field = "kind"  # a conversion is matched by its user: without tags it is no bad row
        broken.append(row if field is None else {**row, field: data.draw(st.sampled_from(BREAKS[field]))})
    first = INGESTOR.ingest(broken)
    mended = [rows[r.position] for r in first.quarantine.rows]
    second = INGESTOR.ingest(mended)
    assert len(second.quarantine) == 0
    assert settled([first.batch, second.batch]) == settled([INGESTOR.ingest(rows).batch])


def test_quarantine_is_written_mended_and_read_again(tmp_path: Path) -> None:
    """NDJSON and Parquet keep position, reason, mend and the row; what is read back can be mended and ingested."""
    good = {"event_id": "1", "kind": "click", "occurred_at": "2026-01-31T12:00:00Z", "platform": "x", "campaign": "y"}
    done = INGESTOR.ingest([{**good, "kind": "hover", "note": [1, {"a": b"\x00"}]}, {**good, "event_id": "2", "cost": math.nan}])
    assert repr(pickle.loads(pickle.dumps(done.quarantine)).rows) == repr(done.quarantine.rows)
    assert repr(copy.deepcopy(done.quarantine).rows) == repr(done.quarantine.rows)
    for name in ("q.ndjson", "q.parquet"):
        path = save_quarantine(done.quarantine, tmp_path / name)
        back = load_quarantine(path)
        assert [(r.position, r.field, r.value, r.reason, r.mend) for r in back.rows] == [
            (r.position, r.field, r.value, r.reason, r.mend) for r in done.quarantine.rows
        ]
        assert back.rows[0].row["kind"] == "hover"
        again = INGESTOR.ingest([{**back.rows[0].row, "kind": "click"}, {**back.rows[1].row, "cost": 1}])
        assert again.n_accepted == 2


def test_a_correction_replaces_and_counts_as_a_duplicate() -> None:
    """A newer version of an id replaces the older one, wherever it stands."""
    row = {"event_id": "1", "kind": "click", "occurred_at": "2026-01-31T12:00:00Z", "platform": "x", "campaign": "y"}
    old, new = {**row, "recorded_at": "2026-02-01T00:00:00Z", "cost": 1}, {**row, "recorded_at": "2026-02-02T00:00:00Z", "cost": 2}
    for rows in ([old, new], [new, old], [old, new, old]):
        done = INGESTOR.ingest(rows)
        assert done.batch.cost.tolist() == [2_000_000]
        assert done.n_duplicates == len(rows) - 1
    assert np.array_equal(settle([INGESTOR.ingest([new]).batch, INGESTOR.ingest([old]).batch]).cost, [2_000_000])
