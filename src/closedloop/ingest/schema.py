"""The event table as pandera checks it: public, so that users extend it with checks of their own.

Law of this file: it is the only importer of pandera (which loads pandas, and pyspark where installed), and imports it inside
functions. Every check looks at typed columns (see `closedloop.ingest.columns`) and finds all failing rows at once; texts are checked
once per distinct value.

References: pandera, "lazy validation" and "failure cases" (pandera.readthedocs.io).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.ingest.buffers import holds_nul, longest_bytes, text_array
from closedloop.records.arms import TAG_COLUMNS
from closedloop.records.batch import EVENT_KINDS, NO_TIME

LONGEST_TEXT = 500  # characters of a tag, an id or a conversion type
LARGEST_AMOUNT = 1e11  # units of currency in one row: sums of a hundred such rows still fit 64 bits of millionths
LARGEST_QUANTITY = 1e12
EARLIEST_US = 631_152_000_000_000  # 1990-01-01: earlier times are clocks that were never set
LATEST_US = 7_258_118_400_000_000  # 2200-01-01
TEXT_FIELDS = ("user_id", *TAG_COLUMNS, "conversion_type")

# What a failed check means, and what to do about it: (reason, mend).
MEANING: dict[str, tuple[str, str]] = {
    "known_kind": ("is no kind of event", "use one of " + ", ".join(EVENT_KINDS) + ", or map your own names with values={'kind': {...}}"),
    "text_length": (f"is longer than {LONGEST_TEXT} characters", "shorten it"),
    "text_readable": ("is not readable text", "give a text or a whole number, in valid Unicode"),
    "plausible_time": ("is not between 1990 and 2200", "check the unit and the clock of the source"),
    "not_negative": ("is negative", "give 0 or more; refunds belong in value of a correcting conversion"),
    "amount_size": (f"is larger than {LARGEST_AMOUNT:.0e}", "check the unit"),
    "whole_number": ("is not a whole number from 0 to 10^12", "give a count"),
    "touch_first": ("lies after the conversion", "a touch comes before its conversion: check both clocks"),
    "touch_kind": ("is not click or view", "use click or view"),
    "touch_of_conversion": ("belongs to conversions only", "leave touch_at and touch_kind empty on other events"),
    "touch_complete": ("needs both touch_at and touch_kind", "give both, or neither"),
    "known_currency": ("is not a currency code", "use the three letters of ISO 4217, such as EUR"),
}
NULL_MEANING = ("is missing", "give it, or map the column that holds it")


@attrs.frozen(kw_only=True, eq=False)
class Failure:
    """One check that some rows failed.

    Args:
        field: Column of the event table.
        check: Name of the check; ``not_nullable`` where a needed value is missing or could not be read.
        reason, mend: What it means and what to do.
        rows: int64 positions of the failing events.
    """

    field: str
    check: str
    reason: str
    mend: str
    rows: npt.NDArray[np.int64]


def _lengths(texts: list[Any]) -> npt.NDArray[np.bool_]:
    """True for texts that are not too long."""
    return np.asarray(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) <= LONGEST_TEXT)


def _readables(texts: list[Any]) -> npt.NDArray[np.bool_]:
    """True for texts without NUL, which marks what is no valid text, and which some stores cut at."""
    if "\0" not in "".join(texts):
        return np.ones(len(texts), dtype=bool)
    return np.array([len(t) > LONGEST_TEXT or "\0" not in t for t in texts], dtype=bool)


def _of_category(test: Callable[[list[Any]], npt.NDArray[np.bool_]]) -> Callable[[Any], Any]:
    """Return a check of a categorical column that looks at each distinct text once; missing values pass."""

    def check(column: Any) -> Any:
        good = test(column.cat.categories.tolist())
        return True if good.all() else _series(np.append(good, True)[column.cat.codes], column)

    return check


def _of_ids(arrow: str, test: Callable[[list[Any]], npt.NDArray[np.bool_]]) -> Callable[[Any], Any]:
    """Return a check of a column of ids, by pandas' own text methods where the column is Arrow's."""

    def check(column: Any) -> Any:
        array = text_array(column)
        if array is not None and (longest_bytes(array) <= LONGEST_TEXT if arrow == "length" else not holds_nul(array)):
            return True
        if getattr(column.dtype, "storage", "") == "pyarrow":
            if arrow == "length":
                good = (column.str.len() <= LONGEST_TEXT).to_numpy(dtype=bool, na_value=True)
            else:
                good = ~column.str.contains("\0", regex=False).to_numpy(dtype=bool, na_value=False)
        else:
            good = test(column.tolist())
        return True if good.all() else _series(good, column)

    return check


def _per_text(test: Callable[[str], bool]) -> Callable[[Any], Any]:
    """Return a check of a categorical column that calls ``test`` once per distinct text; missing values pass."""

    def check(column: Any) -> Any:
        categories = column.cat.categories.tolist()
        good = np.fromiter((test(text) for text in categories), dtype=bool, count=len(categories))
        return True if good.all() else _series(np.append(good, True)[column.cat.codes], column)

    return check


def _within(low: float, high: float) -> Callable[[Any], Any]:
    """Return a check of a numeric column; False also for infinities outside."""

    def check(column: Any) -> Any:
        values = column.to_numpy()
        good = (values >= low) & (values <= high)
        if good.all():
            return True
        return _series(good | (values != values), column)  # NaN is reported once, as a null

    return check


def _series(good: npt.NDArray[np.bool_], column: Any) -> Any:
    import pandas as pd

    return pd.Series(good, index=column.index)


def _time(column: Any) -> Any:
    us = column.to_numpy().astype(np.int64)
    good = ((us >= EARLIEST_US) & (us < LATEST_US)) | (us == NO_TIME)
    return True if good.all() else _series(good, column)


def _whole(column: Any) -> Any:
    values = column.to_numpy()
    good = (values >= 0) & (values <= LARGEST_QUANTITY) & (np.floor(values) == values)
    return True if good.all() else _series(good | (values != values), column)


def _all_true(column: Any) -> Any:
    good = column.to_numpy()
    return True if good.all() else _series(good, column)


def event_schema(*, unique: bool = True) -> Any:
    """Return the pandera ``DataFrameSchema`` of the typed event table.

    Columns of the checked frame: ``event_id`` (texts), ``kind``, ``user_id``, the tags, ``conversion_type``, ``currency`` and
    ``touch_kind`` (categorical), ``occurred_at``, ``recorded_at``, ``touch_at`` (datetime64[us], UTC without zone), ``cost``, ``value``,
    ``quantity`` (float64), and three columns of yes and no across fields: ``touch_first``, ``touch_of_conversion``, ``touch_complete``.
    To add checks, extend the schema and hand it to ``TableIngestor(schema=...)``; a check's ``name`` and ``error`` become the reason, its
    ``description`` the mend.

    Args:
        unique: Check that event ids are distinct, the first copy excluded from the report. The ingestor resolves duplicates
            itself, after the other checks: a valid copy must not be lost because an invalid one came first.

    >>> schema = event_schema()
    >>> sorted(schema.columns)[:4]
    ['audience', 'campaign', 'conversion_type', 'cost']
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing pandera warns about pandas and pyspark versions that are not ours to choose
        import pandera.pandas as pa

    def check(function: Callable[[Any], Any], name: str) -> Any:
        words = {"name": name, "error": MEANING[name][0], "description": MEANING[name][1]}
        return pa.Check(function, ignore_na=False, **words)

    def texts() -> list[Any]:
        return [check(_of_category(_lengths), "text_length"), check(_of_category(_readables), "text_readable")]

    columns = {
        "event_id": pa.Column(
            checks=[
                check(_of_ids("length", _lengths), "text_length"),
                check(_of_ids("readable", _readables), "text_readable"),
            ],
            unique=unique,
            report_duplicates="exclude_first",
        ),
        "kind": pa.Column(checks=[check(_per_text(lambda t: t in EVENT_KINDS), "known_kind")]),
        "occurred_at": pa.Column(checks=[check(_time, "plausible_time")]),
        "recorded_at": pa.Column(checks=[check(_time, "plausible_time")]),
        **{name: pa.Column(checks=texts(), nullable=True) for name in TEXT_FIELDS},
        "cost": pa.Column(checks=[check(_within(0, np.inf), "not_negative"), check(_within(-np.inf, LARGEST_AMOUNT), "amount_size")]),
        "value": pa.Column(checks=[check(_within(-LARGEST_AMOUNT, LARGEST_AMOUNT), "amount_size")]),
        "currency": pa.Column(
            checks=[check(_per_text(lambda t: len(t) == 3 and t.isascii() and t.isupper() and t.isalpha()), "known_currency")],
            nullable=True,
        ),
        "quantity": pa.Column(checks=[check(_whole, "whole_number")]),
        "touch_kind": pa.Column(checks=[check(_per_text(lambda t: t in ("click", "view")), "touch_kind")], nullable=True),
        "touch_at": pa.Column(checks=[check(_time, "plausible_time")], nullable=True),
        "touch_first": pa.Column(bool, checks=[check(_all_true, "touch_first")]),
        "touch_of_conversion": pa.Column(bool, checks=[check(_all_true, "touch_of_conversion")]),
        "touch_complete": pa.Column(bool, checks=[check(_all_true, "touch_complete")]),
    }
    return pa.DataFrameSchema(columns, name="events")


@lru_cache(maxsize=1)
def _own_schema() -> Any:
    return event_schema(unique=False)


def failures(frame: Any, schema: Any = None) -> list[Failure]:
    """Return the checks that rows of a typed event table failed, lazily: every check is run.

    Args:
        frame: Columns as `event_schema` describes, with a RangeIndex.
        schema: A schema that extends that one, validated lazily by pandera. None asks the checks of that one themselves, without the one
            for distinct ids: the same answers, without the time that pandera takes to word an error nobody reads.
    """
    if schema is None:
        return list(_answers(frame))
    from pandera.errors import SchemaErrors

    try:
        schema.validate(frame, lazy=True, inplace=True)
    except SchemaErrors as found:
        errors = list(found.schema_errors)
        for error in (found, *errors):  # tracebacks and frames refer to each other, and would hold whole chunks until a collection
            error.__traceback__ = error.__context__ = error.__cause__ = None
    else:
        return []
    return list(_grouped(errors, len(frame)))


def _answers(frame: Any) -> Iterable[Failure]:
    for name, column in _own_schema().columns.items():
        values = frame[name]
        if not column.nullable and values.hasnans:
            yield _failure(name, "not_nullable", *NULL_MEANING, np.flatnonzero(values.isna().to_numpy()))
        for check in column.checks:
            answer = check(values)
            if not answer.check_passed:
                yield _failure(name, check.name, *MEANING[check.name], np.flatnonzero(~answer.check_output.to_numpy()))


def _failing_rows(error: Any, n: int) -> npt.NDArray[np.int64]:
    """Rows by the check's own answer where it gave one for each; else by the failure cases; all of them where it spoke of the table."""
    output, cases = error.check_output, error.failure_cases
    if str(getattr(output, "dtype", "")) == "bool" and output.ndim == 1 and len(output) == n:
        return np.flatnonzero(~output.to_numpy())
    rows = cases["index"] if hasattr(cases, "columns") and "index" in cases else None
    if rows is None or bool(rows.isna().any()):
        return np.arange(n, dtype=np.int64)
    return np.unique(rows.to_numpy().astype(np.int64))


def _grouped(errors: Iterable[Any], n: int) -> Iterable[Failure]:
    for error in errors:
        field = "row" if hasattr(error.schema, "columns") else str(error.schema.name)  # a check of the table names no field
        check = error.check if isinstance(error.check, str) else str(error.check.name or error.check.error or "check")
        at = _failing_rows(error, n)
        if check in MEANING:
            reason, mend = MEANING[check]
        elif check == "not_nullable":
            reason, mend = NULL_MEANING
        else:  # a user's own check
            own = None if isinstance(error.check, str) else error.check
            reason = str(getattr(own, "error", None) or f"fails the check {check}")
            mend = str(getattr(own, "description", None) or "see the check in your schema")
        yield _failure(field, check, reason, mend, at)


def _failure(field: str, check: str, reason: str, mend: str, rows: npt.NDArray[np.int64]) -> Failure:
    # Cross-field checks are named after what they say; the field to mend is the touch's time.
    shown = "touch_at" if field in ("touch_first", "touch_of_conversion", "touch_complete") else field
    return Failure(field=shown, check=check, reason=reason, mend=mend, rows=rows)
