"""Doors: every kind of table gives the same events, whole or in batches; patterns, compression, ragged and hostile files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from closedloop.errors import InputError
from closedloop.ingest import TableIngestor, settle
from closedloop.records.batch import EventBatch
from closedloop.records.tags import TagSchema

INGESTOR = TableIngestor(TagSchema(arm=("platform",)))
N = 1000


def frame() -> pd.DataFrame:
    """A thousand clicks, a tenth of them bad."""
    i = np.arange(N)
    return pd.DataFrame(
        {
            "event_id": [f"e{k:04d}" for k in i],
            "kind": np.where(i % 10 == 3, "hover", "click"),
            "occurred_at": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(i, unit="min"),
            "platform": [f"p{k % 4}" for k in i],
            "user_id": [f"u{k % 50}" for k in i],
            "cost": i / 100,
            "currency": "EUR",
        }
    )


def same(a: EventBatch, b: EventBatch) -> bool:
    left, right = a.to_frame(), b.to_frame()
    return left.equals(right)


def doors(tmp_path: Path) -> dict[str, Any]:
    """The same table by every door."""
    pa, pl, duckdb = pytest.importorskip("pyarrow"), pytest.importorskip("polars"), pytest.importorskip("duckdb")
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame(), preserve_index=False)
    pq.write_table(table, tmp_path / "whole.parquet", row_group_size=77)
    for k in range(3):
        pq.write_table(table.slice(k * 400, 400), tmp_path / f"part-{k}.parquet")
    text = frame().assign(occurred_at=lambda f: f["occurred_at"].astype(str))
    text.to_csv(tmp_path / "t.csv.gz", index=False)
    with pa.output_stream(str(tmp_path / "t.csv.zst"), compression="zstd") as file:
        file.write(text.to_csv(index=False).encode())
    text.to_json(tmp_path / "t.ndjson", orient="records", lines=True)
    return {
        "pandas": frame(),
        "polars": pl.from_arrow(table),
        "lazy": pl.from_arrow(table).lazy(),
        "scan": pl.scan_parquet(tmp_path / "whole.parquet"),
        "arrow": table,
        "reader": table.to_reader(max_chunksize=33),
        "dataset": ds.dataset(str(tmp_path / "whole.parquet")),
        "duckdb": duckdb.from_arrow(table),
        "sql": duckdb.sql(f"select * from '{tmp_path}/whole.parquet' order by event_id"),
        "glob": str(tmp_path / "part-*.parquet"),
        "gzip": tmp_path / "t.csv.gz",
        "zstd": tmp_path / "t.csv.zst",
        "ndjson": tmp_path / "t.ndjson",
        "rows": frame().to_dict("records"),
        "columns": {name: frame()[name].to_numpy() for name in frame().columns},
    }


NAMES = [
    "pandas",
    "polars",
    "lazy",
    "scan",
    "arrow",
    "reader",
    "dataset",
    "duckdb",
    "sql",
    "glob",
    "gzip",
    "zstd",
    "ndjson",
    "rows",
    "columns",
]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "columns"])
@pytest.mark.parametrize("streamed", [False, True])
def test_every_door_gives_the_same_events(name: str, streamed: bool, tmp_path: Path) -> None:
    """Whole or in batches, by any door: the same batch, the same rows set aside at the same positions."""
    rows = doors(tmp_path)[name]
    want = INGESTOR.ingest(frame())
    if streamed:
        parts = list(INGESTOR.stream(rows, rows_at_once=130))
        assert len(parts) > 2 or name == "columns"
        assert sum(p.n_rows for p in parts) == N
        positions = [r.position for p in parts for r in p.quarantine.rows]
        assert same(settle([p.batch for p in parts]), settle([want.batch]))
    else:
        done = INGESTOR.ingest(rows)
        assert done.n_rows == N
        positions = [r.position for r in done.quarantine.rows]
        assert same(done.batch, want.batch)
    assert positions == list(range(3, N, 10))


def test_a_stream_needs_ids(tmp_path: Path) -> None:
    """Without ids equal rows of two batches could not be told apart: an error with its mend."""
    with pytest.raises(InputError, match="needs event ids"):
        list(INGESTOR.stream(frame().drop(columns="event_id")))


def test_patterns_that_match_nothing(tmp_path: Path) -> None:
    """A pattern without files is an error, a file whose name looks like a pattern is a file."""
    with pytest.raises(InputError, match="no file matches"):
        INGESTOR.ingest(str(tmp_path / "*.csv"))
    odd = tmp_path / "report[1].csv"
    frame().assign(occurred_at=lambda f: f["occurred_at"].astype(str)).to_csv(odd, index=False)
    assert INGESTOR.ingest(odd).n_rows == N


HEAD = "event_id,kind,occurred_at,platform\n"
GOOD = "{},click,2026-01-31T12:00:00Z,x\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2,click,2026-01-31T12:00:00Z,x,one,two,three\n", "7 fields"),
        ("2,click,2026-01-31T12:00:00Z,x,one\n", "5 fields"),
        ("2,click\n", "2 fields"),
        ('2,click,2026-01-31T12:00:00Z,"x\n', "quote"),
    ],
)
def test_ragged_lines_do_not_take_the_others_along(line: str, reason: str, tmp_path: Path) -> None:
    """Fields too many, too few, or a quote that never ends: that line is set aside, the others are read."""
    path = tmp_path / "t.csv"
    path.write_text(HEAD + GOOD.format(1) + line + ("" if reason == "quote" else GOOD.format(3)))
    done = INGESTOR.ingest(path)
    assert done.batch.event_id.tolist() == (["1"] if reason == "quote" else ["1", "3"])
    assert len(done.quarantine) == 1
    assert reason in done.quarantine.rows[0].reason
    assert done.quarantine.rows[0].row["line"].startswith("2,click")


def test_quoted_fields(tmp_path: Path) -> None:
    """Separators, line ends and quotes inside quotes belong to the field."""
    path = tmp_path / "t.csv"
    path.write_bytes((HEAD + '1,click,2026-01-31T12:00:00Z,"a,b\r\nc ""d"""\r\n' + GOOD.format(2)).encode())
    assert INGESTOR.ingest(path).batch.tags["platform"].decode().tolist() == ['a,b\r\nc "d"', "x"]


def test_ten_million_characters(tmp_path: Path) -> None:
    """A field of ten million characters is one bad row, in CSV and NDJSON."""
    long = "x" * 10_000_000
    csv, nd = tmp_path / "t.csv", tmp_path / "t.ndjson"
    csv.write_text(HEAD + f"1,click,2026-01-31T12:00:00Z,{long}\n" + GOOD.format(2))
    row = {"event_id": "1", "kind": "click", "occurred_at": "2026-01-31T12:00:00Z"}
    nd.write_text("\n".join(json.dumps(r) for r in ({**row, "platform": long}, {**row, "event_id": "2", "platform": "x"})))
    for path in (csv, nd):
        done = INGESTOR.ingest(path)
        assert (done.n_accepted, len(done.quarantine)) == (1, 1)
        assert len(repr(done.quarantine)) < 2000


class Unshowable:
    """An object that can be neither shown, nor compared, nor hashed."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")


def test_columns_and_objects_that_are_no_values(tmp_path: Path) -> None:
    """Periods as times, durations as amounts, objects that refuse to be shown: rows set aside, shown and stored all the same."""
    from closedloop.ingest import save_quarantine

    table = frame().iloc[:3]
    done = INGESTOR.ingest(table.assign(occurred_at=pd.period_range("2026-01", periods=3, freq="M")))
    assert {r.reason for r in done.quarantine.rows} == {"cannot be read"}
    done = INGESTOR.ingest(table.assign(cost=pd.to_timedelta([1, 2, 3], unit="s")))
    assert {(r.field, r.reason) for r in done.quarantine.rows} == {("cost", "cannot be read")}
    good = table.to_dict("records")[0]
    for field in ("platform", "event_id", "cost", "occurred_at", "kind"):
        done = INGESTOR.ingest([good, {**good, field: Unshowable()}])
        assert (done.n_accepted, len(done.quarantine)) == (1, 1)
        assert "cannot be shown" in repr(done.quarantine)
        assert "cannot be shown" in save_quarantine(done.quarantine, tmp_path / "q.ndjson").read_text()


def test_what_is_no_table(tmp_path: Path) -> None:
    """A column, a folder, bytes: an error that says what would be one."""
    for wrong in (pd.Series([1, 2]), b"kind", 5, {"kind": "click"}):
        with pytest.raises(InputError, match=r"no known kind of table|one dictionary is no table"):
            INGESTOR.ingest(wrong)
    with pytest.raises(InputError, match="folder"):
        INGESTOR.ingest(tmp_path)


def test_arrows_own_types(tmp_path: Path) -> None:
    """Dictionaries, decimals, days, views, lists and structs of Arrow are read as what they hold; null is not NaN."""
    pa = pytest.importorskip("pyarrow")
    import datetime as dt
    from decimal import Decimal

    moment = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
    table = pa.table(
        {
            "event_id": pa.array(["1", "2", "3", None], pa.large_string()),
            "kind": pa.array(["click", "click", "spend", "click"]).dictionary_encode(),
            "occurred_at": pa.array([moment] * 4, pa.timestamp("ns", "Europe/Berlin")),
            "recorded_at": pa.array([dt.date(2026, 2, 1)] * 4, pa.date32()),
            "platform": pa.array(["x", "y", "x", "x"], pa.string_view()),
            "creative": pa.array([[1], None, None, None], pa.list_(pa.int64())),
            "cost": pa.array([Decimal("0.10"), None, Decimal("3"), None], pa.decimal128(10, 2)),
            "value": pa.array([1.0, float("nan"), 0.0, None], pa.float64()),
            "quantity": pa.array([1, 2, None, 3], pa.int32()),
        }
    )
    done = TableIngestor(TagSchema(arm=("platform",)), zone="UTC").ingest(table)
    assert [(r.position, r.field, r.reason) for r in done.quarantine.rows] == [
        (0, "creative", "is not readable text"),
        (1, "value", "is NaN"),
    ]
    assert done.batch.cost.tolist() == [3_000_000, 0]
    assert done.batch.quantity.tolist() == [1, 3]
    assert done.batch.occurred_at.tolist() == [int(moment.timestamp()) * 1_000_000] * 2
    assert done.batch.recorded_at.view("datetime64[us]").astype("datetime64[D]").astype(str).tolist() == ["2026-02-01"] * 2
    with pytest.raises(InputError, match="zone='UTC'"):
        INGESTOR.ingest(table.set_column(2, "occurred_at", pa.array([dt.datetime(2026, 1, 1)] * 4, pa.timestamp("us"))))  # noqa: DTZ001


def strange_tables() -> dict[str, Any]:
    """Two good clicks beside a column that Arrow, polars or DuckDB can hold and pandas cannot."""
    pa, pl = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    moments = [pd.Timestamp("2026-03-01T12:00", tz="UTC")] * 2

    def table(**columns: Any) -> Any:
        plain = {"event_id": ["a", "b"], "kind": ["click"] * 2, "occurred_at": pa.array(moments), "platform": ["g", "h"]}
        return pa.table({**plain, **columns})

    runs = pa.RunEndEncodedArray.from_arrays
    seconds = pa.array([1_772_366_400] * 2, pa.int64())
    return {
        "runs of a tag": table(platform=runs([2], ["g"])),
        "runs of numbers": table(quantity=runs([2], [3])),
        "runs beside": table(extra=runs([2], [1.5])),
        "views of bytes": table(extra=pa.array([b"x", b"y"], pa.binary_view())),
        "intervals": table(extra=pa.array([(1, 2, 3), (1, 2, 3)], pa.month_day_nano_interval())),
        "a value with two codes": table(platform=pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["g", "g"]))),
        "a zone that is none": table(occurred_at=seconds.cast(pa.timestamp("s", "Not/AZone"))),
        "128 bits": pl.DataFrame({n: table()[n].to_pylist() for n in table().column_names}).with_columns(
            pl.Series("quantity", [3, 3], dtype=pl.Int128)
        ),
    }


@pytest.mark.parametrize("name", sorted({"runs of a tag", "runs of numbers", "runs beside", "views of bytes", "intervals",
                                         "a value with two codes", "a zone that is none", "128 bits"}))  # fmt: skip
def test_columns_that_pandas_cannot_hold(name: str) -> None:
    """Such a column costs no row; where it is a field, it is read."""
    table = strange_tables()[name]
    done = INGESTOR.ingest(table)
    assert (done.n_accepted, len(done.quarantine)) == (2, 0)
    assert done.batch.occurred_at.tolist() == [1_772_366_400_000_000] * 2
    assert done.batch.quantity.tolist() == ([3, 3] if name in ("runs of numbers", "128 bits") else [1, 1])
    streamed = [r.n_accepted for r in INGESTOR.stream(table)]
    assert streamed == [2]


def test_moments_that_python_has_not_are_set_aside_and_shown() -> None:
    """An infinite time of a data base, or one of the year 146 billion: a row in quarantine with its reason, not an OverflowError."""
    pa = pytest.importorskip("pyarrow")
    far = pa.array([2**62, -(2**62), 1_772_366_400], pa.timestamp("s", "UTC"))
    table = pa.table({"event_id": ["a", "b", "c"], "kind": ["click"] * 3, "occurred_at": far, "platform": ["g"] * 3})
    done = INGESTOR.ingest(table)
    assert (done.n_accepted, len(done.quarantine)) == (1, 2)
    assert [line.row["occurred_at"] for line in done.quarantine.rows] == [2**62, -(2**62)]
    duckdb = pytest.importorskip("duckdb")
    relation = duckdb.sql("select 'a' event_id, 'click' kind, timestamptz 'infinity' occurred_at, 'g' platform, interval 1 day as cost")
    assert len(INGESTOR.ingest(relation).quarantine) == 1
    missing = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1]), pa.array(["g", None]))
    done = INGESTOR.ingest(table.slice(2).append_column("user_id", missing.slice(1, 1)).set_column(3, "platform", missing.slice(0, 1)))
    assert done.n_accepted == 1
    assert done.batch.user_id.decode().tolist() == [None]
