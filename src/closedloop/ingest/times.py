"""Raw columns of times to microseconds UTC, each value with its fault code.

Law of this file: a time is known by its offset, or by a zone that the caller names; nothing is guessed, neither a zone nor a unit nor
which of two hours that a clock showed. A time that is given but cannot be read is a null for the schema, told from "none given" by its
fault code.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, tzinfo
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError, InputError
from closedloop.ingest.columns import FINE, GAP, MISSING, NAIVE, UNREADABLE, is_null
from closedloop.records.batch import NO_TIME

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}
# An offset counts only after a time of day: the "-05" of "2026-11-05" is a day.
_WHOLE = r"-?\d{1,18}"  # a count of seconds or less since 1970, as a text file writes it
_AWARE = r"\d[:.,]?\d(?:[.,]\d+)?\s?(?:[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"
_CLOCK = r"[T ]\d\d"


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
        column = from_arrow(column)
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
    if pd.api.types.is_string_dtype(dtype) and not (isinstance(dtype, np.dtype) and dtype.kind == "O"):
        return _texts(column, zone, unit)
    return _objects(column, zone, unit)


def _missing(n: int) -> tuple[Int64, Int8]:
    return np.full(n, NO_TIME, dtype=np.int64), np.full(n, MISSING, dtype=np.int8)


def from_arrow(column: Any) -> Any:
    """Return a column of Arrow's types as the pandas column that the readers know."""
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
    if is_null(value):
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
