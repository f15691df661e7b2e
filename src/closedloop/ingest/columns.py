"""Raw columns to typed arrays: texts to codes, times to microseconds, amounts to floats, each with its faults.

Law of this file: one column at a time, in the input's order; nothing is dropped and nothing is guessed. What cannot be read
becomes a null with a fault code beside it; the schema turns nulls into reasons, and the row goes to quarantine. Python objects are
looked at once per *distinct* value, or where a column holds nothing but objects.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from importlib.util import find_spec
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError, InputError
from closedloop.records.batch import NO_TIME

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

# Fault codes of a value, beside the typed column.
FINE, MISSING, UNREADABLE, NAIVE, GAP, NOT_A_NUMBER, UNSURE = range(7)
# A time that is given but cannot be read: a null for the schema, told from NO_TIME ("none given") by its fault code.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}
# An offset counts only after a time of day: the "-05" of "2026-11-05" is a day.
_WHOLE = r"-?\d{1,18}"  # a count of seconds or less since 1970, as a text file writes it
_AWARE = r"\d[:.,]?\d(?:[.,]\d+)?\s?(?:[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"
_CLOCK = r"[T ]\d\d"
NOT_TEXT = "\0"  # marks what is no text, or no valid Unicode: the schema refuses texts that hold it


def text_of(value: Any) -> str:
    """Return the text of one distinct value: numbers as people write them, a marker for what is no text.

    >>> text_of(79.0), text_of(7), text_of("Spring")
    ('79', '7', 'Spring')
    """
    if isinstance(value, str):
        return str(value) if _encodable(value) else NOT_TEXT + ascii(value[:80])
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return _integer_text(int(value))
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() and abs(float(value)) < 2**53 else repr(float(value))
    if isinstance(value, Decimal):
        return str(value)
    if type(value).__name__ == "UUID":
        return str(value)
    return NOT_TEXT + type(value).__name__


def _encodable(text: str) -> bool:
    """True for text that can be written as UTF-8: no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _integer_text(value: int) -> str:
    return str(value) if value.bit_length() < 4096 else NOT_TEXT + "a number of more than a thousand digits"


def _is_null(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, float):
        return value != value
    return type(value).__name__ in ("NAType", "NaTType")


def encode_texts(column: Any) -> tuple[Codes, Objects]:
    """Return codes and distinct texts of a column of any type; blank texts are missing (-1).

    Args:
        column: A pandas Series of N values.

    Returns:
        int32 codes of shape (N,) and an object array of distinct strings, in order of appearance.
    """
    import pandas as pd

    distinct: Any
    if isinstance(column.dtype, pd.CategoricalDtype):
        raw, distinct = np.asarray(column.cat.codes), column.cat.categories
    else:
        try:
            raw, distinct = pd.factorize(column.array, use_na_sentinel=True)
        except (TypeError, NotImplementedError):  # unhashable values (lists, dictionaries): name their type instead
            cleaned = np.array([None if _is_null(v) else text_of(v) for v in column] + [None], dtype=object)[:-1]
            raw, distinct = pd.factorize(cleaned, use_na_sentinel=True)
    codes = raw.astype(np.int32, copy=False)
    if isinstance(distinct.dtype, pd.StringDtype) and distinct.dtype.storage == "pyarrow":  # valid Unicode for certain
        texts = pd.Series(distinct)
        if not bool((texts.str.isspace() | (texts == "")).any()):
            return codes, np.asarray(distinct, dtype=object)
    values = np.asarray(distinct, dtype=object).tolist()
    if all(type(v) is str and v and not v.isspace() and (v.isascii() or _encodable(v)) for v in values):
        return codes, np.asarray(distinct, dtype=object)
    position: dict[str, int] = {}
    named = ["" if t.isspace() else t for t in map(text_of, values)]
    table = np.array([-1 if not t else position.setdefault(t, len(position)) for t in named] + [-1], dtype=np.int32)
    merged = np.empty(len(position), dtype=object)
    merged[:] = list(position)
    return table[codes], merged


def decoded(codes: Codes, distinct: Objects) -> Any:
    """Return the texts of codes as a pandas Series of objects, None where the code is -1."""
    import pandas as pd

    table = np.empty(len(distinct) + 1, dtype=object)  # the last entry, None, serves code -1
    table[:-1] = distinct
    texts = np.empty(len(codes), dtype=object)
    texts[:] = table[codes]
    return pd.Series(texts)


def sort_vocabulary(codes: Codes, distinct: Objects) -> tuple[Codes, Objects]:
    """Return the codes renumbered over the sorted vocabulary, without the texts that no code uses."""
    used = np.zeros(len(distinct) + 1, dtype=bool)
    used[codes] = True
    kept = np.flatnonzero(used[:-1])
    texts = distinct[kept]
    order = _sorted_order(texts)
    table = np.full(len(distinct) + 1, -1, dtype=np.int32)
    table[kept[order]] = np.arange(len(kept), dtype=np.int32)
    return table[codes], texts[order]


def _sorted_order(texts: Objects) -> Int64:
    """Positions that sort texts by code point; Arrow sorts UTF-8 bytes, which is the same order, several times faster."""
    if len(texts) > 10_000 and find_spec("pyarrow") is not None:
        import pyarrow as pa
        import pyarrow.compute as pc

        return np.asarray(pc.sort_indices(pa.array(texts, type=pa.large_string())), dtype=np.int64)
    listed = texts.tolist()
    return np.array(sorted(range(len(listed)), key=listed.__getitem__), dtype=np.int64)


def zone_of(zone: str | tzinfo | None) -> tzinfo | None:
    """Return the time zone by name.

    Raises:
        ConfigurationError: There is no such zone.
    """
    if zone is None or isinstance(zone, tzinfo):
        return zone
    if zone.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError("no such time zone", "zone", zone, "use a name such as UTC or Europe/Berlin") from error


def read_times(column: Any, field: str, zone: tzinfo | None, unit: str | None) -> tuple[Int64, Int8]:
    """Return microseconds UTC (`NO_TIME` where there is none) and fault codes of a column of times.

    Args:
        column: A pandas Series: timestamps with or without zone, dates, texts in ISO 8601, whole numbers (with ``unit``) or a mixture.
        field: The field's name, for errors.
        zone: The zone of naive times, None when naive times are not accepted.
        unit: What whole numbers count since 1970: ``s``, ``ms``, ``us`` or ``ns``.

    Raises:
        InputError: The whole column is of a type that cannot be read as times: naive without ``zone``, numbers without ``unit``.
    """
    import pandas as pd

    dtype = column.dtype
    if isinstance(dtype, pd.ArrowDtype):
        column = _from_arrow(column)
        dtype = column.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        return _stamps(column.dt.tz_convert("UTC").dt.tz_localize(None))
    if pd.api.types.is_datetime64_dtype(dtype):
        if zone is None:
            if bool(column.isna().all()):
                return _missing(len(column))
            raise InputError(
                f"the times in {field} have no zone",
                field,
                str(column.dropna().iloc[0]),
                "say which zone they are in: zone='UTC' (--zone UTC)",
            )
        return _localised(column, zone)
    if pd.api.types.is_bool_dtype(dtype):
        raise InputError(f"{field} holds true and false, not times", field, None, "map the column that holds the times")
    if pd.api.types.is_numeric_dtype(dtype):
        if bool(column.isna().all()):
            return _missing(len(column))
        if unit is None:
            raise InputError(
                f"{field} holds numbers",
                field,
                column.dropna().iloc[0].item(),
                "say what they count since 1970: time_unit='s', 'ms' or 'us'",
            )
        return _counted(column, unit)
    if isinstance(dtype, pd.CategoricalDtype):
        codes = np.asarray(column.cat.codes)
        us, why = read_times(pd.Series(column.cat.categories), field, zone, unit)
        return np.append(us, NO_TIME)[codes], np.append(why, MISSING).astype(np.int8)[codes]
    if dtype.kind == "O" and isinstance(dtype, np.dtype):
        return _objects(column, zone, unit)
    return _texts(column, zone, unit)


def _missing(n: int) -> tuple[Int64, Int8]:
    return np.full(n, NO_TIME, dtype=np.int64), np.full(n, MISSING, dtype=np.int8)


def _from_arrow(column: Any) -> Any:
    import pandas as pd
    import pyarrow as pa

    kind = column.dtype.pyarrow_dtype
    if pa.types.is_date(kind):
        return pd.Series(column.to_numpy(dtype=object, na_value=None), dtype=object)
    if pa.types.is_timestamp(kind):
        stamps = pa.array(column.array).cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64())  # whole columns, no objects
        us = np.asarray(stamps.fill_null(int(NO_TIME)), dtype=np.int64)
        moments = pd.Series(us.view("datetime64[us]"))
        return moments if kind.tz is None else moments.dt.tz_localize("UTC")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.astype("str") if int(pd.__version__.split(".")[0]) >= 3 else column.astype(object)
    return pd.Series(column.to_numpy(dtype=object, na_value=None), dtype=object)


def _stamps(column: Any) -> tuple[Int64, Int8]:
    us = column.to_numpy().astype("datetime64[us]").astype(np.int64)
    return us, np.where(us == NO_TIME, MISSING, FINE).astype(np.int8)


def _localised(column: Any, zone: tzinfo) -> tuple[Int64, Int8]:
    """Times of a wall clock: those that the clock skipped or showed twice are not guessed."""
    if zone is UTC:
        return _stamps(column)
    given = column.notna().to_numpy()
    moved = column.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    us, why = _stamps(moved.dt.tz_convert("UTC").dt.tz_localize(None))
    why[given & (us == NO_TIME)] = GAP
    return us, why


def _counted(column: Any, unit: str) -> tuple[Int64, Int8]:
    if unit not in _UNITS:
        raise ConfigurationError("not a unit of time", "time_unit", unit, None, tuple(_UNITS))
    given = column.notna().to_numpy()
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    whole = column.fillna(0).to_numpy(dtype=np.int64) if column.dtype.kind in "iu" else None
    us = np.full(len(values), NO_TIME, dtype=np.int64)
    scale = _UNITS[unit] or 1e-3
    inside = given & (np.abs(values * scale) < 2**62)
    if whole is not None:
        us[inside] = whole[inside] // 1000 if unit == "ns" else whole[inside] * _UNITS[unit]
    else:
        us[inside] = np.rint(values[inside] * scale).astype(np.int64)
    return us, np.where(inside, FINE, np.where(given, UNREADABLE, MISSING)).astype(np.int8)


def _texts(column: Any, zone: tzinfo | None, unit: str | None) -> tuple[Int64, Int8]:
    """Times written as text: ISO 8601, as UTC where an offset is written and by the zone where not; whole numbers where a unit is given."""
    import pandas as pd

    given = column.notna().to_numpy() & (column.str.strip() != "").fillna(False).to_numpy(dtype=bool)
    if given.any():
        # A text too long to be a time must not reach a regular expression.
        short = (column.str.len() <= 64).fillna(False).to_numpy(dtype=bool)
        readable = column.where(given & short)
    else:
        return _missing(len(column))
    aware = (readable.str.contains(_AWARE, regex=True) & readable.str.contains(_CLOCK, regex=True)).fillna(False).to_numpy(dtype=bool)
    us, why = _missing(len(column))
    why[given] = UNREADABLE
    if aware.any():
        parsed = pd.to_datetime(readable.where(aware), format="ISO8601", utc=True, errors="coerce")
        stamps, _ = _stamps(parsed.dt.tz_localize(None))
        good = stamps != NO_TIME
        us[good], why[good] = stamps[good], FINE
    counted = np.zeros(len(column), dtype=bool)
    if unit is not None:
        counted = readable.str.strip().str.fullmatch(_WHOLE).fillna(False).to_numpy(dtype=bool)
        us[counted], why[counted] = _counted(readable[counted].str.strip().astype(np.int64), unit)
    naive = given & short & ~aware & ~counted
    if naive.any():
        parsed = pd.to_datetime(readable.where(naive), format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
        good = parsed.notna().to_numpy()
        if zone is None:
            why[good] = NAIVE
        else:
            stamps, faults = _localised(parsed, zone)
            us[good], why[good] = stamps[good], faults[good]
    return us, why


def _objects(column: Any, zone: tzinfo | None, unit: str | None) -> tuple[Int64, Int8]:
    """A mixture of Python objects, one at a time; texts together."""
    import pandas as pd

    values = column.to_numpy(dtype=object)
    us, why = _missing(len(values))
    is_text = np.fromiter((isinstance(v, str) for v in values), dtype=bool, count=len(values))
    if is_text.any():
        at = np.flatnonzero(is_text)
        us[at], why[at] = _texts(pd.Series(values[at], dtype="str"), zone, unit)
    for i in np.flatnonzero(~is_text):
        us[i], why[i] = _moment(values[i], zone, unit)
    return us, why


def _moment(value: Any, zone: tzinfo | None, unit: str | None) -> tuple[int, int]:
    if _is_null(value):
        return int(NO_TIME), MISSING
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, datetime):
        if value.tzinfo is not None and value.utcoffset() is not None:
            return (value - _EPOCH) // _MICROSECOND, FINE
        return _wall(value, zone)
    if isinstance(value, date):
        return _wall(datetime(value.year, value.month, value.day), zone)  # noqa: DTZ001 - the zone is put on below
    if unit is not None and isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        if isinstance(value, float | np.floating) and not math.isfinite(value):
            return int(NO_TIME), UNREADABLE
        exact = Fraction(value) * (_UNITS[unit] or Fraction(1, 1000))  # type: ignore[arg-type]
        return (round(exact), FINE) if abs(exact) < 2**62 else (int(NO_TIME), UNREADABLE)
    return int(NO_TIME), UNREADABLE


def _wall(value: datetime, zone: tzinfo | None) -> tuple[int, int]:
    if zone is None:
        return int(NO_TIME), NAIVE
    first, second = (value.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():  # skipped or shown twice
        return int(NO_TIME), GAP
    return (first - _EPOCH) // _MICROSECOND, FINE


def read_numbers(column: Any) -> tuple[Float64, Int8]:
    """Return numbers and fault codes of a column: 0 where missing, NaN where given but no number.

    A NaN in a plain float column of pandas cannot be told from "not given": it is `UNSURE`, and the caller decides by the kind of event.
    """
    import pandas as pd

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        codes = np.asarray(column.cat.codes)
        values, why = read_numbers(pd.Series(column.cat.categories))
        return np.append(values, 0.0)[codes], np.append(why, MISSING).astype(np.int8)[codes]
    if pd.api.types.is_bool_dtype(dtype):
        given = column.notna().to_numpy()
        return np.where(given, np.nan, 0.0), np.where(given, UNREADABLE, MISSING).astype(np.int8)
    if pd.api.types.is_numeric_dtype(dtype) and not isinstance(dtype, pd.ArrowDtype):
        return _plain_numbers(column)
    if isinstance(dtype, pd.ArrowDtype):
        import pyarrow as pa

        kind = dtype.pyarrow_dtype
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            values = pa.array(column.array).cast(pa.float64())
            missing = np.asarray(values.is_null())  # NaN is no null here: it was given
            out = np.asarray(values.fill_null(0.0), dtype=np.float64).copy()  # Arrow's own buffer may not be written to
            return out, np.where(missing, MISSING, np.where(np.isnan(out), NOT_A_NUMBER, FINE)).astype(np.int8)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = _from_arrow(column)
        else:
            return _object_numbers(column.to_numpy(dtype=object, na_value=None))
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "O":
        return _object_numbers(column.to_numpy(dtype=object))
    return _text_numbers(column)


def _plain_numbers(column: Any) -> tuple[Float64, Int8]:
    if column.dtype.kind == "c":
        raise InputError("complex numbers are no amounts", str(column.name))
    if isinstance(column.dtype, np.dtype):
        values = column.to_numpy(dtype=np.float64, copy=True)
        nan = np.isnan(values)
        why = np.zeros(len(values), dtype=np.int8)
        if nan.any():
            why[nan] = UNSURE
            values[nan] = 0.0
        return values, why
    missing = column.isna().to_numpy(dtype=bool)  # nullable Int64 / Float64 of pandas
    values = column.to_numpy(dtype=np.float64, na_value=0.0).copy()
    return values, np.where(missing, MISSING, np.where(np.isnan(values), NOT_A_NUMBER, FINE)).astype(np.int8)


def _text_numbers(column: Any) -> tuple[Float64, Int8]:
    import pandas as pd

    stripped = column.str.strip()
    given = column.notna().to_numpy() & (stripped != "").fillna(False).to_numpy(dtype=bool)
    short = (stripped.str.len() <= 64).fillna(False).to_numpy(dtype=bool)
    values = pd.to_numeric(stripped.where(given & short).astype(object), errors="coerce").to_numpy(dtype=np.float64).copy()
    nan = np.isnan(values)
    why = np.where(~given, MISSING, np.where(nan, UNREADABLE, FINE)).astype(np.int8)
    if (given & nan).any():
        said = (stripped.where(given & nan & short).str.lower().isin(["nan", "+nan", "-nan"])).fillna(False).to_numpy(dtype=bool)
        why[said] = NOT_A_NUMBER
    values[~given] = 0.0
    return values, why


def _object_numbers(values: Objects) -> tuple[Float64, Int8]:
    out = np.zeros(len(values))
    why = np.zeros(len(values), dtype=np.int8)
    for i, value in enumerate(values):
        out[i], why[i] = _number(value)
    return out, why


def _number(value: Any) -> tuple[float, int]:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return 0.0, MISSING
    if isinstance(value, bool | np.bool_):
        return math.nan, UNREADABLE
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return 0.0, MISSING
        if len(text) > 64 or "_" in text:
            return math.nan, UNREADABLE
        try:
            number = float(text)
        except ValueError:
            return math.nan, UNREADABLE
        return number, NOT_A_NUMBER if math.isnan(number) else FINE
    if isinstance(value, int | float | Decimal | np.integer | np.floating | Fraction):
        try:
            number = float(value)
        except (OverflowError, ValueError):
            return math.inf, FINE
        return number, NOT_A_NUMBER if math.isnan(number) else FINE
    return math.nan, UNREADABLE
