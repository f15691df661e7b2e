"""The ingestor end to end: doors agree, nothing is lost, every bad input ends as a clear error or a named quarantined row."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pytest

from closedloop.errors import ConfigurationError, InputError, MissingColumnError
from closedloop.ingest import TableIngestor
from closedloop.records.batch import NO_TIME, EventBatch
from closedloop.records.quarantine import Ingested
from closedloop.records.tags import TagSchema

ONE_TAG = TagSchema(arm=("platform",))


def rows() -> list[dict[str, Any]]:
    """Four good rows of the four kinds."""
    common = {"platform": "google", "currency": "EUR"}
    return [
        {"event_id": "i1", "kind": "impression", "occurred_at": "2026-01-31T12:00:00Z", "quantity": 10, **common},
        {"event_id": "c1", "kind": "click", "occurred_at": "2026-01-31T13:00:00+01:00", "user_id": "u1", "cost": 0.25, **common},
        {"event_id": "v1", "kind": "conversion", "occurred_at": "2026-02-01T00:00:00Z", "user_id": "u1", "value": 12.34, **common},
        {"event_id": "s1", "kind": "spend", "occurred_at": "2026-01-31T00:00:00Z", "cost": 100.0, **common},
    ]


def ingest(table: Any, **options: Any) -> Ingested:
    return TableIngestor(ONE_TAG, **options).ingest(table)


def same(a: EventBatch, b: EventBatch) -> bool:
    left, right = a.to_columns(), b.to_columns()
    return all(
        np.array_equal(np.asarray(left[k], dtype=object), np.asarray(right[k], dtype=object)) for k in left if "_at" not in k
    ) and all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("occurred_at", "recorded_at", "touch_at"))


def write(path: Path, kind: str) -> Path:
    table = pd.DataFrame(rows())
    if kind == "csv":
        table.to_csv(path / "t.csv", index=False)
        return path / "t.csv"
    if kind == "csv.gz":
        table.to_csv(path / "t.csv.gz", index=False)
        return path / "t.csv.gz"
    if kind == "ndjson":
        (path / "t.ndjson").write_text("\n".join(json.dumps(r) for r in rows()) + "\n")
        return path / "t.ndjson"
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(
        pa.Table.from_pylist([{**dict.fromkeys(("quantity", "user_id", "cost", "value")), **r} for r in rows()]), path / "t.parquet"
    )
    return path / "t.parquet"


def test_times_money_and_defaults() -> None:
    """Times are UTC microseconds, money is millionths, what is not given has its default."""
    batch = ingest(rows()).batch
    expected = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000
    assert batch.occurred_at[:2].tolist() == [expected, expected]
    assert batch.recorded_at.tolist() == batch.occurred_at.tolist()
    assert batch.cost.tolist() == [0, 250_000, 0, 100_000_000]
    assert batch.value.tolist() == [0, 0, 12_340_000, 0]
    assert batch.quantity.tolist() == [10, 1, 1, 1]
    assert (batch.touch_at == NO_TIME).all()
    assert batch.currency == "EUR"
    assert batch.user_id.decode().tolist() == [None, "u1", "u1", None]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "ndjson", "parquet"])
def test_files_give_what_dictionaries_give(kind: str, tmp_path: Path) -> None:
    """One code path: a path gives the same batch as a list of dictionaries."""
    done = ingest(write(tmp_path, kind))
    assert done.n_accepted == 4
    assert same(done.batch, ingest(rows()).batch)


@pytest.mark.parametrize("kind", ["polars", "lazy", "arrow", "reader", "iterator"])
def test_tables_give_what_dictionaries_give(kind: str) -> None:
    """Every table in memory gives the same batch."""
    wide = [{**dict.fromkeys(("quantity", "user_id", "cost", "value")), **r} for r in rows()]
    table: Any = iter(wide)
    if kind in ("polars", "lazy"):
        pl = pytest.importorskip("polars")
        table = pl.DataFrame(wide, infer_schema_length=None)
        table = table.lazy() if kind == "lazy" else table
    elif kind in ("arrow", "reader"):
        pa = pytest.importorskip("pyarrow")
        table = pa.Table.from_pylist(wide)
        table = table.to_reader() if kind == "reader" else table
    assert same(ingest(table).batch, ingest(rows()).batch)


def test_pandas_with_typed_columns() -> None:
    """Zoned timestamps, categories and nullable numbers are read as they are."""
    table = pd.DataFrame(rows())
    table["occurred_at"] = pd.to_datetime(table["occurred_at"], utc=True, format="ISO8601").dt.tz_convert("Asia/Kolkata")
    table["platform"] = table["platform"].astype("category")
    table["kind"] = table["kind"].astype("category")
    table[["cost", "value", "quantity"]] = table[["cost", "value", "quantity"]].astype("Float64")
    assert same(ingest(table).batch, ingest(rows()).batch)


def test_pandas_float_columns_hold_nan_where_there_is_no_cost() -> None:
    """In a frame, a click without cost is NaN like any gap and is accepted; a spend row without its cost is not."""
    at = pd.Timestamp("2026-03-01T10:00:00Z")
    table = pd.DataFrame({"kind": ["click", "spend", "spend"], "occurred_at": [at] * 3, "cost": [np.nan, 5.0, np.nan]})
    table = table.assign(platform="google", campaign="a", audience="b", creative="c", placement="d", currency="EUR")
    done = ingest(table)
    assert (done.n_accepted, [(r.field, r.reason) for r in done.quarantine.rows]) == (2, [("cost", "is NaN")])
    assert done.batch.cost.tolist() == [0, 5_000_000]


BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("unknown kind", {"kind": "purchase"}, "kind", "is no kind of event"),
    ("no kind", {"kind": None}, "kind", "is missing"),
    ("NaN cost", {"cost": float("nan")}, "cost", "is NaN"),
    ("NaN cost as text", {"cost": "NaN"}, "cost", "is NaN"),
    ("negative cost", {"cost": -0.01}, "cost", "is negative"),
    ("infinite cost", {"cost": float("inf")}, "cost", "is larger than"),
    ("cost in words", {"cost": "1.234,50"}, "cost", "cannot be read"),
    ("huge integer cost", {"cost": 10**400}, "cost", "is larger than"),
    ("true as a cost", {"cost": True}, "cost", "cannot be read"),
    ("no time", {"occurred_at": None}, "occurred_at", "is missing"),
    ("naive time", {"occurred_at": "2026-01-31 12:00:00"}, "occurred_at", "has no time zone"),
    ("naive datetime", {"occurred_at": datetime(2026, 1, 31)}, "occurred_at", "has no time zone"),  # noqa: DTZ001
    ("a day alone", {"occurred_at": "2026-01-05"}, "occurred_at", "has no time zone"),
    ("no time at all", {"occurred_at": "yesterday"}, "occurred_at", "cannot be read"),
    ("a clock never set", {"occurred_at": "1970-01-01T00:00:00Z"}, "occurred_at", "is not between 1990 and 2200"),
    ("ten million characters", {"platform": "x" * 10_000_000}, "platform", "is longer than 500 characters"),
    ("ten million digits of time", {"occurred_at": "2" * 10_000_000}, "occurred_at", "cannot be read"),
    ("lone surrogate", {"platform": "\udc80"}, "platform", "is not readable text"),
    ("a list as a tag", {"platform": ["google"]}, "platform", "is not readable text"),
    ("half a quantity", {"quantity": 1.5}, "quantity", "is not a whole number"),
    ("no currency code", {"currency": "euro"}, "currency", "is not a currency code"),
    ("touch on a click", {"touch_at": "2026-01-30T00:00:00Z", "touch_kind": "click"}, "touch_at", "belongs to conversions only"),
    ("no platform", {"platform": " "}, "platform", "untagged"),
    ("an id too long", {"event_id": "e" * 501}, "event_id", "is longer than 500 characters"),
]


@pytest.mark.parametrize(("change", "field", "reason"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_row_is_named_and_the_others_go_through(change: dict[str, Any], field: str, reason: str) -> None:
    """The bad row is set aside with field, value, reason and mend, as it came; the other rows are accepted."""
    table = rows()
    table[1] = {**table[1], **change}
    done = ingest(table)
    assert (done.n_rows, done.n_accepted, len(done.quarantine), done.n_duplicates) == (4, 3, 1, 0)
    bad = done.quarantine.rows[0]
    assert bad.position == 1
    assert bad.field == field
    assert reason in bad.reason
    assert bad.mend
    assert len(bad.value) < 200
    assert bad.row == table[1] or field == "cost"  # NaN is not equal to itself
    assert len(repr(done.quarantine)) < 5000


CONVERSION = {"event_id": "v2", "kind": "conversion", "occurred_at": "2026-02-01T00:00:00Z", "platform": "meta"}


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"touch_at": "2026-02-01T00:00:00.000001Z", "touch_kind": "click"}, "touch_at", "lies after the conversion"),
        ({"touch_at": "2026-01-30T00:00:00Z"}, "touch_at", "needs both"),
        ({"touch_kind": "click"}, "touch_at", "needs both"),
        ({"touch_at": "2026-01-30T00:00:00Z", "touch_kind": "hover"}, "touch_kind", "is not click or view"),
        ({"touch_at": "soon", "touch_kind": "click"}, "touch_at", "cannot be read"),
        ({"touch_at": "2026-01-30T00:00:00", "touch_kind": "click"}, "touch_at", "has no time zone"),
        ({"touch_at": "2026-01-30T00:00:00Z", "touch_kind": "view", "platform": None}, "platform", "untagged"),
    ],
)
def test_a_conversion_before_its_touch_and_its_kin(change: dict[str, Any], field: str, reason: str) -> None:
    """What a conversion says of its touch is checked."""
    done = ingest([*rows(), {**CONVERSION, **change}])
    assert (done.n_accepted, len(done.quarantine)) == (4, 1)
    assert done.quarantine.rows[0].field == field
    assert reason in done.quarantine.rows[0].reason


def test_a_conversion_with_its_touch_is_kept() -> None:
    """A conversion at the very moment of its touch is good, and carries kind and time of the touch."""
    done = ingest([*rows(), {**CONVERSION, "touch_at": "2026-02-01T01:00:00+01:00", "touch_kind": "view"}])
    assert done.n_accepted == 5
    assert done.batch.touch_kind.tolist() == [-1, -1, -1, -1, 1]
    assert done.batch.touch_at[4] == done.batch.occurred_at[4]


def test_mixed_zones_are_one_time_and_a_zone_serves_naive_ones() -> None:
    """Offsets may differ by row; naive times take the given zone, others keep theirs."""
    moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
    times = [
        "2026-07-01T12:00:00Z",
        "2026-07-01 14:00:00+02:00",
        "20260701T120000Z",
        moment.astimezone(timezone(timedelta(hours=-7))),
        pd.Timestamp(moment),
        np.datetime64("2026-07-01T14:00:00"),
        "2026-07-01T14:00",
    ]
    table = [{"event_id": str(i), "kind": "click", "occurred_at": t, "platform": "x"} for i, t in enumerate(times)]
    done = ingest(table, zone="Europe/Berlin")
    assert done.n_accepted == len(times)
    assert set(done.batch.occurred_at.tolist()) == {int(moment.timestamp()) * 1_000_000}


def test_a_wall_clock_time_that_is_not_unique_is_not_guessed() -> None:
    """The hour shown twice, and the hour skipped, in Berlin 2026."""
    for text in ("2026-10-25T02:30:00", "2026-03-29T02:30:00"):
        for value in (text, datetime.fromisoformat(text)):
            done = ingest([{"kind": "click", "occurred_at": value, "platform": "x"}], zone="Europe/Berlin")
            assert "summer time" in done.quarantine.rows[0].reason


def test_whole_columns_that_cannot_be_times() -> None:
    """A typed column without zone, or of numbers without unit, is an error with its mend."""
    table = pd.DataFrame(rows())
    with pytest.raises(InputError, match="zone='UTC'"):
        ingest(table.assign(occurred_at=pd.Timestamp("2026-01-31")))
    with pytest.raises(InputError, match="time_unit='s'"):
        ingest(table.assign(occurred_at=1_769_860_800))
    done = ingest(table.assign(occurred_at=1_769_860_800), time_unit="s")
    assert done.batch.occurred_at[0] == 1_769_860_800_000_000


def test_missing_columns_are_named_with_the_mapping_that_mends() -> None:
    """The error names the column, those that are there, and the mapping."""
    with pytest.raises(MissingColumnError) as caught:
        ingest([{"kind": "click", "Timestamp": "2026-01-31T12:00:00Z", "site": "x"}])
    text = str(caught.value)
    assert "'occurred_at' is missing" in text
    assert "kind, Timestamp, site" in text
    assert "--map Timestamp=occurred_at" in text
    with pytest.raises(MissingColumnError, match="'click' is missing"):
        TableIngestor(preset="open_bandit").ingest(pd.DataFrame({"timestamp": ["x"], "item_id": [1], "position": [1]}))
    with pytest.raises(MissingColumnError, match="'when' of the mapping"):
        ingest(rows(), mapping={"when": "occurred_at"})


def test_mapping_constants_and_values() -> None:
    """Other names, constant fields and other words for the kinds."""
    table = [{"event": "purchase", "ts": "2026-01-31T12:00:00Z", "id": 7}]
    done = ingest(
        table,
        mapping={"event": "kind", "ts": "occurred_at", "id": "event_id"},
        constants={"platform": "shop"},
        values={"kind": {"purchase": "conversion"}},
    )
    assert done.batch.event_id.tolist() == ["7"]
    assert done.batch.count("conversion") == 1
    assert done.batch.tags["platform"].decode().tolist() == ["shop"]
    for wrong in ({"mapping": {"a": "nothing"}}, {"mapping": {"a": "kind", "b": "kind"}}, {"zone": "Mars/Base"}, {"preset": "nothing"}):
        with pytest.raises(ConfigurationError):
            TableIngestor(**wrong)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", "the file is empty"),
        ("blank.csv", b"\n\n", "no header line"),
        ("header.csv", b"kind,site\n", "'occurred_at' is missing"),
        ("latin.csv", "kind,occurred_at,platform\nclick,2026-01-31T12:00:00Z,caf\xe9\n".encode("latin-1"), "not utf-8 text"),
        ("wide.csv", "kind,occurred_at\n".encode("utf-16"), "not utf-8 text"),
        ("latin.ndjson", '{"kind": "caf\xe9"}'.encode("latin-1"), "not utf-8 text"),
        ("broken.csv.gz", gzip.compress(b"kind,occurred_at\n" * 1000, mtime=0)[:-20], "cannot be read"),
        ("not.csv.gz", b"kind,occurred_at\n", "cannot be read"),
        ("not.parquet", b"PAR1 no", "no Parquet"),
        ("what.xlsx", b"PK", "no known kind of file"),
        ("twice.csv", b"kind,kind\na,b\n", "same name"),
    ],
)
def test_files_that_cannot_be_read(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    """Every unreadable file is an InputError that says what is wrong."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        ingest(path)
    assert caught.value.mend or caught.value.valid


def test_other_encodings_and_separators(tmp_path: Path) -> None:
    """A named encoding is read; byte order marks and semicolons are no trouble."""
    line = "kind;occurred_at;platform\nclick;2026-01-31T12:00:00Z;caf\xe9\n"
    for encoding, given in (("latin-1", "latin-1"), ("utf-16", "utf-16"), ("utf-8-sig", "utf-8")):
        path = tmp_path / "t.csv"
        path.write_bytes(line.encode(encoding))
        assert ingest(path, encoding=given).batch.tags["platform"].decode().tolist() == ["caf\xe9"]


def test_broken_lines_do_not_take_the_others_along(tmp_path: Path) -> None:
    """A line that is no row is quarantined by itself."""
    path = tmp_path / "t.ndjson"
    path.write_text('{"kind": "click", "occurred_at": "2026-01-31T12:00:00Z", "platform": "x"}\n{"kind": \n[1]\n' + "[" * 100_000 + "\n")
    done = ingest(path)
    assert (done.n_rows, done.n_accepted, len(done.quarantine)) == (4, 1, 3)
    assert done.quarantine.rows[0].row == {"line": '{"kind":'}
    path = tmp_path / "t.csv"
    path.write_text("kind,occurred_at,platform\nclick,2026-01-31T12:00:00Z,x,more\nclick,2026-01-31T12:00:00Z,x\n")
    done = ingest(path)
    assert (done.n_accepted, len(done.quarantine)) == (1, 1)
    assert "has 4 fields, the header 3" in done.quarantine.rows[0].reason


def test_the_first_copy_stays() -> None:
    """Of rows with one id and one time of recording the first stays; a bad first copy does not take the good one along."""
    table = [*rows(), {**rows()[1], "cost": 9.0}]
    done = ingest(table)
    assert (done.n_accepted, done.n_duplicates) == (4, 1)
    assert done.batch.cost[1] == 250_000
    done = ingest([{**rows()[1], "cost": -1}, rows()[1]])
    assert (done.n_accepted, len(done.quarantine), done.n_duplicates) == (1, 1, 0)


def test_ids_from_content() -> None:
    """Without ids, the same rows give the same ids in any order; equal rows are told apart."""
    table = [{k: v for k, v in r.items() if k != "event_id"} for r in rows()]
    table.append(table[1])
    ids = ingest(table).batch.event_id.tolist()
    assert len(set(ids)) == 5
    assert ids[4] == ids[1] + "-1"
    assert set(ingest(table[::-1]).batch.event_id.tolist()) == set(ids)
    assert ids[1] == "9df3bd621700c41ebacefc7bd6fe381a", "ids are stored: they must never change"


def test_untagged_rows_are_counted_twice_over() -> None:
    """An untagged row is quarantined, stands in the batch's untagged part, and is in the report."""
    table = [*rows(), {**rows()[1], "event_id": "c2", "platform": None, "cost": 0.75}]
    done = ingest(table)
    assert (done.n_accepted, len(done.quarantine)) == (4, 1)
    assert done.batch.untagged is not None
    assert done.batch.untagged.event_id.tolist() == ["c2"]
    assert done.batch.untagged.tags["platform"].decode().tolist() == [None]
    assert done.tags.blended_spend == pytest.approx(0.75 / 101.0)
    assert done.tags.completeness == pytest.approx(12 / 13)
    assert done.tags.platform == ("", "google")


def test_currencies_are_never_mixed_in_silence() -> None:
    """Two currencies are an error, unless one is named: then the rows of the other are set aside."""
    table = [*rows(), {**rows()[1], "event_id": "c2", "currency": "USD"}]
    with pytest.raises(InputError, match="several currencies"):
        ingest(table)
    done = ingest(table, currency="EUR")
    assert (done.n_accepted, done.quarantine.rows[0].field) == (4, "currency")


def test_empty_tables() -> None:
    """No rows are no error, where there is a table at all."""
    assert ingest([]).n_rows == 0
    assert ingest(pd.DataFrame({"kind": [], "occurred_at": [], "platform": []})).n_rows == 0
    for nothing in (None, 5, {"kind": "click"}):
        with pytest.raises(InputError):
            ingest(nothing)


def test_amounts_are_exact() -> None:
    """Decimals, texts and floats of two places become exact millionths."""
    table = [{**rows()[3], "event_id": str(i), "cost": c} for i, c in enumerate([Decimal("0.1"), "0.1", 0.1, 1234567.89, "1e2"])]
    assert ingest(table).batch.cost.tolist() == [100_000, 100_000, 100_000, 1_234_567_890_000, 100_000_000]


def test_open_bandit(shared_data: Path) -> None:
    """The four real files: 10,000 impressions each, and the clicks that their README counts."""
    files = {name: shared_data / "open_bandit" / f"{name}.csv.gz" for name in ("random_all", "random_men", "bts_all", "bts_men")}
    ingestor = TableIngestor(preset="open_bandit")
    for name, clicks in {"random_all": 38, "random_men": 46, "bts_all": 42, "bts_men": 69}.items():
        done = ingestor.ingest(files[name])
        assert (done.n_rows, done.n_accepted) == (10_000, 10_000)
        assert done.batch.count("impression") == 10_000
        assert done.batch.count("conversion") == clicks
        assert done.batch.tags["campaign"].vocab.tolist() == [name]
        assert done.batch.event_id[0] == f"{name}:0"
    together = ingestor.ingest(list(files.values()))
    assert (together.n_rows, len(together.batch)) == (40_000, 40_195)
    assert ingestor.tag_schema.arm == ("campaign", "creative", "placement")


def test_the_tag_report_says_how_many_single_events_rows_are_worth():
    """Rows of 3 and 4 views are worth (3 + 4)^2 / (3^2 + 4^2) single ones; a report without squares counts events."""
    row = {"kind": "impression", "occurred_at": "2026-03-01T10:00:00Z", "platform": "google", "campaign": "a"}
    rows = [{**row, "event_id": "x", "quantity": 3}, {**row, "event_id": "y", "quantity": 4}]
    report = TableIngestor(tags=TagSchema(arm=("platform", "campaign"))).ingest(rows).tags
    assert (report.rows, report.squares) == ((7,), (25.0,))
    assert report.effective() == (pytest.approx(49 / 25),)
    assert attrs.evolve(report, squares=()).effective() == (7.0,)
