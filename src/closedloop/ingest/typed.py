"""One chunk of a table as typed columns of events, with the faults found while reading.

Law of this file: it turns fields into arrays and says what could not be read; whether a row is good is the schema's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.ingest.columns import FINE, GAP, MISSING, NAIVE, NOT_A_NUMBER, UNREADABLE, UNSURE, decoded, encode_texts
from closedloop.ingest.numbers import read_numbers
from closedloop.ingest.schema import TEXT_FIELDS
from closedloop.ingest.times import read_times
from closedloop.records.arms import TAG_COLUMNS
from closedloop.records.batch import EVENT_KINDS, NO_TIME, SPEND

Int64 = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Objects = npt.NDArray[np.object_]

FIELDS = (
    "event_id",
    "kind",
    "occurred_at",
    "recorded_at",
    *TEXT_FIELDS,
    "cost",
    "value",
    "currency",
    "quantity",
    "touch_kind",
    "touch_at",
)
NEEDED = ("kind", "occurred_at")
CODED = ("kind", *TEXT_FIELDS, "currency", "touch_kind")
TIMES = ("occurred_at", "recorded_at", "touch_at")
NUMBERS = ("cost", "value", "quantity")

FAULT_MEANING: dict[int, tuple[str, str]] = {
    MISSING: ("is missing", "give it, or map the column that holds it"),
    UNREADABLE: (
        "cannot be read",
        "write times as ISO 8601 (2026-01-31T12:00:00Z) and numbers with a point (12.34), or say how they are written: "
        "time_format='%d.%m.%Y %H:%M' (--time-format), decimal=',' (--decimal)",
    ),
    NAIVE: ("has no time zone", "write an offset (2026-01-31T12:00:00Z), or say the zone: zone='UTC' (--zone UTC)"),
    GAP: ("does not exist once on that clock (change of summer time)", "write the time with its offset"),
    NOT_A_NUMBER: ("is NaN", "give a number, or leave it empty where there is none"),
    UNSURE: ("is NaN", "a spend row needs its cost: give a number"),
}


@attrs.frozen(kw_only=True, eq=False)
class TypedEvents:
    """Events of one chunk.

    Args:
        n: Number of events.
        event_id: A pandas Series of texts; null where the source gives no id.
        texts: Codes and distinct texts by field (`CODED`); -1 where missing.
        times: int64 microseconds by field, `NO_TIME` where missing or unreadable.
        numbers: float64 by field, NaN where unreadable.
        faults: Fault codes by field, for times and numbers.
    """

    n: int
    event_id: Any
    texts: Mapping[str, tuple[Codes, Objects]]
    times: Mapping[str, Int64]
    numbers: Mapping[str, npt.NDArray[np.float64]]
    faults: Mapping[str, npt.NDArray[np.int8]]

    @property
    def kind(self) -> npt.NDArray[np.int8]:
        """int8 codes of the kinds of event, -1 where unknown (shape (n,))."""
        codes, distinct = self.texts["kind"]
        table = np.array([EVENT_KINDS.index(k) if k in EVENT_KINDS else -1 for k in distinct.tolist()] + [-1], dtype=np.int8)
        return np.asarray(table[codes], dtype=np.int8)


def read_events(columns: Mapping[str, Any], n: int, *, zone: tzinfo | None, time_unit: str | None) -> TypedEvents:
    """Return typed events from columns of the event table; absent optional columns get their defaults.

    Raises:
        InputError: A whole column is of a type that cannot be read as its field.
    """
    import pandas as pd

    texts = {}
    for field in CODED:
        if field in columns:
            texts[field] = encode_texts(columns[field])
        else:
            texts[field] = (np.full(n, -1, dtype=np.int32), np.empty(0, dtype=object))
    times, faults = {}, {}
    for field in TIMES:
        if field in columns:
            times[field], faults[field] = read_times(columns[field], field, zone, time_unit)
        else:
            times[field], faults[field] = np.full(n, NO_TIME, dtype=np.int64), np.full(n, MISSING, dtype=np.int8)
    unset = faults["recorded_at"] == MISSING
    times["recorded_at"] = np.where(unset, times["occurred_at"], times["recorded_at"])
    kind = np.array([EVENT_KINDS.index(k) if k in EVENT_KINDS else -1 for k in texts["kind"][1].tolist()] + [-1])[texts["kind"][0]]
    numbers = {}
    for field, default in (("cost", 0.0), ("value", 0.0), ("quantity", 1.0)):
        if field not in columns:
            numbers[field], why = np.full(n, default), np.full(n, MISSING, dtype=np.int8)
        else:
            numbers[field], why = read_numbers(columns[field])
            numbers[field][(why == MISSING) | (why == UNSURE)] = default
        if field == "cost":  # what cannot cost needs no cost; a spend row is nothing without one
            wrong = ((why == MISSING) | (why == UNSURE)) & (kind == SPEND)
            numbers[field][wrong] = np.nan
        faults[field] = why
    ids = columns.get("event_id")
    if ids is None:
        event_id = None
    elif ids.dtype == object or not (pd.api.types.is_string_dtype(ids.dtype)):
        codes, distinct = encode_texts(ids)
        event_id = decoded(codes, distinct)
    else:
        blank = (ids.str.isspace() | (ids == "")).to_numpy(dtype=bool, na_value=False)
        event_id = ids.mask(blank) if blank.any() else ids
    return TypedEvents(n=n, event_id=event_id, texts=texts, times=times, numbers=numbers, faults=faults)


def checked_frame(events: TypedEvents) -> Any:
    """Return the typed events as the frame that `closedloop.ingest.schema.event_schema` describes; arrays are shared."""
    import pandas as pd

    categorical = {
        field: pd.Categorical.from_codes(codes, categories=pd.Index(distinct, dtype=object), validate=False)
        for field, (codes, distinct) in events.texts.items()
    }
    times = {field: us.view("datetime64[us]") for field, us in events.times.items()}
    # A time given but unreadable is a null; where null is allowed (no touch) the fault must still be found.
    touch, fault = events.times["touch_at"], events.faults["touch_at"]
    touch_given = (fault != MISSING) | (events.texts["touch_kind"][0] >= 0)
    kind = np.array([k == "conversion" for k in events.texts["kind"][1].tolist()] + [False])[events.texts["kind"][0]]
    both = (fault == FINE) & (events.texts["touch_kind"][0] >= 0)
    ids = events.event_id if events.event_id is not None else pd.Series(np.full(events.n, "", dtype=object))
    return pd.DataFrame(
        {
            "event_id": ids.fillna("") if ids.isna().any() else ids,
            **categorical,
            **times,
            **events.numbers,
            "touch_first": (fault != FINE) | (touch <= events.times["occurred_at"]) | (events.times["occurred_at"] == NO_TIME),
            "touch_of_conversion": ~touch_given | kind,
            "touch_complete": ~touch_given | ~kind | both,
        },
        copy=False,
    )


__all__ = ["CODED", "FAULT_MEANING", "FIELDS", "NEEDED", "NUMBERS", "TAG_COLUMNS", "TIMES", "TypedEvents", "checked_frame", "read_events"]
