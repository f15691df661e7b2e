"""Raw columns of amounts and counts to floats, each value with its fault code.

Law of this file: a number that is not given is not NaN, and a NaN that is given is not "not given", as far as the column can tell
them apart.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from closedloop.errors import InputError
from closedloop.ingest.columns import FINE, MISSING, NOT_A_NUMBER, UNREADABLE, UNSURE
from closedloop.ingest.times import from_arrow

Int8 = npt.NDArray[np.int8]
Float64 = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]


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
            column = from_arrow(column)
        else:
            return _object_numbers(column.to_numpy(dtype=object, na_value=None))
    if pd.api.types.is_string_dtype(column.dtype) and not (isinstance(column.dtype, np.dtype) and column.dtype.kind == "O"):
        return _text_numbers(column)
    return _object_numbers(column.to_numpy(dtype=object))


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
