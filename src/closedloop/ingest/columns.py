"""Raw columns of texts to codes and distinct texts; the fault codes that go beside every typed column.

Law of this file: one column at a time, in the input's order; nothing is dropped and nothing is guessed. What cannot be read
becomes a null with a fault code beside it; the schema turns nulls into reasons, and the row goes to quarantine. Python objects are
looked at once per *distinct* value, or where a column holds nothing but objects.
"""

from __future__ import annotations

from decimal import Decimal
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from closedloop.ingest.buffers import numbered, text_array

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

# Fault codes of a value, beside the typed column.
FINE, MISSING, UNREADABLE, NAIVE, GAP, NOT_A_NUMBER, UNSURE = range(7)
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


def is_null(value: Any) -> bool:
    """Return True for None, NaN and the missing values of pandas."""
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
        int32 codes of shape (N,) and an object array of distinct strings.
    """
    import pandas as pd

    distinct: Any
    array = text_array(column)
    if isinstance(column.dtype, pd.CategoricalDtype):
        raw, distinct = np.asarray(column.cat.codes), column.cat.categories
    elif array is not None and (known := numbered(array)) is not None:  # Arrow's text is valid Unicode for certain
        import pyarrow.compute as pc

        raw, distinct = known[0], np.asarray(known[1].to_numpy(zero_copy_only=False), dtype=object)
        if not pc.any(pc.or_(pc.utf8_is_space(known[1]), pc.equal(known[1], ""))).as_py():
            return raw, distinct
    else:
        try:
            raw, distinct = pd.factorize(column.array, use_na_sentinel=True)
        except (TypeError, NotImplementedError):  # unhashable values (lists, dictionaries): name their type instead
            cleaned = np.array([None if is_null(v) else text_of(v) for v in column] + [None], dtype=object)[:-1]
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
    texts = distinct[kept] if len(kept) < len(distinct) else distinct
    order = _sorted_order(texts)
    if order is None and len(kept) == len(distinct):
        return codes, distinct
    table = np.full(len(distinct) + 1, -1, dtype=np.int32)
    table[kept if order is None else kept[order]] = np.arange(len(kept), dtype=np.int32)
    return table[codes], texts if order is None else texts[order]


def _sorted_order(texts: Objects) -> Int64 | None:
    """Positions that sort texts by code point, None where they are; Arrow sorts UTF-8 bytes, which is the same order, much faster."""
    if bool((texts[:-1] < texts[1:]).all()):
        return None
    if len(texts) > 10_000 and find_spec("pyarrow") is not None:
        import pyarrow as pa
        import pyarrow.compute as pc

        return np.asarray(pc.sort_indices(pa.array(texts, type=pa.large_string())), dtype=np.int64)
    listed = texts.tolist()
    return np.array(sorted(range(len(listed)), key=listed.__getitem__), dtype=np.int64)
