"""The public schema: a user's own checks quarantine rows with the user's own words; it holds for what ingestion lets through."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from typing import Any

import pandas as pd
import pytest

from closedloop.ingest import TableIngestor, event_schema, repeated_content
from closedloop.records.tags import TagSchema

TAGS = TagSchema(arm=("campaign",))


def row(**change: Any) -> dict[str, Any]:
    return {"event_id": "1", "kind": "click", "occurred_at": "2026-01-31T12:00:00Z", "campaign": "de-spring", "user_id": "u", **change}


def test_a_users_own_checks() -> None:
    """A check on a column, and one on the whole table's rows, extend the schema; their words become reason and mend."""
    pa = pytest.importorskip("pandera.pandas")
    naming = pa.Check.str_matches(r"^[a-z]{2}-", name="naming", error="does not begin with a country", description="name it like de-spring")
    cheap = pa.Check(lambda frame: frame["cost"] < 100, name="cheap", error="costs more than a click can")
    schema = event_schema(unique=False).update_column("campaign", checks=[*event_schema().columns["campaign"].checks, naming])
    schema.checks = [cheap]
    rows = [row(), row(event_id="2", campaign="spring"), row(event_id="3", cost=500), row(event_id="4", kind="hover")]
    done = TableIngestor(TAGS, schema=schema).ingest(rows)
    assert [(r.position, r.reason) for r in done.quarantine.rows] == [
        (1, "does not begin with a country"),
        (2, "costs more than a click can"),
        (3, "is no kind of event"),
    ]
    assert [r.field for r in done.quarantine.rows] == ["campaign", "row", "kind"]
    assert done.quarantine.rows[0].mend == "name it like de-spring"


def test_importing_the_room_loads_nothing_heavy() -> None:
    """pandas and pandera come with the first table, not with the import."""
    heavy = ("pandas", "pandera", "pyarrow", "polars", "duckdb", "scipy.stats")
    code = f"import closedloop.ingest, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_one_event_under_two_ids_is_reported_not_dropped() -> None:
    """Equal in everything but the id, with a user: a pair to look at."""
    rows = [
        row(),
        row(event_id="2"),
        row(event_id="3", cost=1),
        row(event_id="4"),
        row(event_id="5", user_id=None),
        row(event_id="6", user_id=None),
    ]
    done = TableIngestor(TAGS).ingest(rows)
    assert done.n_accepted == 6
    assert repeated_content(done.batch) == (("1", "2"), ("1", "4"))


def test_later_chunks_may_lack_a_column(tmp_path: Any) -> None:
    """Rows of a later part of one source without a needed field are bad rows, not the end of the file."""
    from closedloop.ingest.doors import chunks

    rows = [row(event_id=str(i)) for i in range(4)] + [{"event_id": "9", "kind": "click"}]
    assert [c.n for c in chunks(rows, rows_at_once=4)] == [4, 1]
    parts = list(TableIngestor(TAGS).stream(iter(rows), rows_at_once=4))
    assert [p.n_accepted for p in parts] == [4, 0]
    assert parts[1].quarantine.rows[0].reason == "is missing"
    assert parts[1].quarantine.rows[0].position == 4


def test_reports_are_inert() -> None:
    """HTML and formulas in tags come out as text in every report."""
    hostile = ["<script>alert(1)</script>", "=cmd|' /C calc'!A0", '"><img src=x onerror=alert(1)>', "\x1b[31m\u202e"]
    rows = [row(event_id=str(i), campaign=h, kind="hover" if i % 2 else "click") for i, h in enumerate(hostile * 2)]
    done = TableIngestor(TAGS).ingest(rows)
    pages = "".join(x._repr_html_() for x in (done, done.batch, done.quarantine, done.tags))
    assert "<script" not in pages
    assert "<img" not in pages
    texts = repr(done) + repr(done.quarantine) + repr(done.tags)
    assert "\x1b" not in texts
    assert "\u202e" not in texts


def test_the_checked_frame_is_documented() -> None:
    """The columns that the schema names are those that the docstring promises."""
    words = event_schema.__doc__ or ""
    for name in event_schema().columns:
        assert name in words or name in ("user_id", "platform", "campaign", "audience", "creative", "placement")


def test_a_frame_is_not_changed() -> None:
    """Ingestion leaves its input as it was."""
    frame = pd.DataFrame([row(cost=1.5), row(event_id=" ", cost=-1.0)])
    before = frame.copy(deep=True)
    TableIngestor(TAGS).ingest(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_asking_the_checks_is_validating_the_schema() -> None:
    """The quick way finds what pandera's own lazy validation of the same schema finds: fields, reasons, mends and rows."""
    choices: dict[str, list[Any]] = {
        "kind": ["click", "conversion", "spend", "hover", None],
        "occurred_at": ["2026-01-31T12:00:00Z", "1980-01-01T00:00:00Z", "soon", None],
        "campaign": ["a", "x" * 501, "a\0b", None],
        "event_id": ["1", "2", "y" * 501, "\0"],
        "cost": [0, 1.5, -1, 1e12, math.nan, "x"],
        "value": [0, -5, 1e12],
        "quantity": [1, 1.5, -1],
        "currency": ["EUR", "euro", None],
        "touch_at": [None, "2026-01-30T12:00:00Z", "2027-01-30T12:00:00Z", "never"],
        "touch_kind": [None, "click", "hover"],
    }
    draw = random.Random(4)
    good = {name: values[0] for name, values in choices.items()}
    rows = [good | {name: draw.choice(choices[name]) for name in draw.sample(sorted(choices), draw.randint(0, 3))} for _ in range(400)]
    quick, whole = (TableIngestor(TAGS, schema=s, currency="EUR").ingest(rows) for s in (None, event_schema(unique=False)))
    assert len(quick.quarantine.reasons()) > 12
    assert quick.quarantine.to_columns() == whole.quarantine.to_columns()
    assert quick.batch.event_id.tolist() == whole.batch.event_id.tolist()
