"""From failed checks to quarantined rows: position, field, value, reason, mend and the row as it came.

Law of this file: objects are made for bad rows only, one per row; a row with several faults is set aside once, with the first fault in
the order of the event table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from closedloop.errors import shorten
from closedloop.ingest.columns import MISSING
from closedloop.ingest.doors import Chunk
from closedloop.ingest.presets.base import Events
from closedloop.ingest.schema import Failure
from closedloop.ingest.typed import FAULT_MEANING, TypedEvents
from closedloop.records.quarantine import QuarantinedRow

Int64 = npt.NDArray[np.int64]


def bad_rows(found: Sequence[Failure], row: Int64, chunk: Chunk) -> npt.NDArray[np.bool_]:
    """Return True for the rows of a chunk that are to be set aside (shape (n,)): a row with one bad event is bad as a whole."""
    bad = np.zeros(chunk.n, dtype=bool)
    for failure in found:
        bad[row[failure.rows]] = True
    bad[list(chunk.broken)] = True
    return bad


def quarantined(
    found: Sequence[Failure], bad: npt.NDArray[np.bool_], typed: TypedEvents, events: Events, chunk: Chunk, start: int
) -> list[QuarantinedRow]:
    """Return the bad rows of a chunk, in order.

    Args:
        found: The failed checks.
        bad: Which rows are bad (shape (n,)).
        typed: The typed events, for the faults found while reading.
        events: Where fields came from.
        chunk: The chunk.
        start: Position of the chunk's first row in the whole input.
    """
    at = np.flatnonzero(bad)
    if not len(at):
        return []
    row = np.arange(typed.n, dtype=np.int64) if events.rows is None else events.rows
    first = np.full(chunk.n, -1, dtype=np.int32)
    event = np.zeros(chunk.n, dtype=np.int64)
    for k in range(len(found) - 1, -1, -1):
        rows = found[k].rows[::-1]
        first[row[rows]] = k
        event[row[rows]] = rows
    out = []
    for position, original in zip(at.tolist(), chunk.original(at), strict=True):
        if position in chunk.broken:
            line, reason = chunk.broken[position]
            out.append(
                QuarantinedRow(
                    position=start + position,
                    field="row",
                    value=shorten(line),
                    reason=reason,
                    mend="mend the line and ingest it again",
                    row=original,
                )
            )
            continue
        failure = found[first[position]]
        reason, mend = failure.reason, failure.mend
        if failure.check == "not_nullable" and failure.field in typed.faults:
            reason, mend = FAULT_MEANING.get(int(typed.faults[failure.field][event[position]]), (reason, mend))
        elif failure.check == "touch_complete" and typed.faults["touch_at"][event[position]] != MISSING:
            reason, mend = FAULT_MEANING.get(int(typed.faults["touch_at"][event[position]]), (reason, mend))
        value = original.get(events.source.get(failure.field, failure.field))
        out.append(
            QuarantinedRow(position=start + position, field=failure.field, value=shorten(value), reason=reason, mend=mend, row=original)
        )
    return out


def untagged_row(position: int, tag: str, source: Mapping[str, str], row: Mapping[str, Any]) -> QuarantinedRow:
    """Return the quarantined row of an event that lacks a needed tag."""
    column = source.get(tag)
    mend = f"fill column {column!r} and ingest the row again" if column else f"give {tag}: map the column that holds it, or set a constant"
    value = shorten(row.get(column)) if column else "None"
    return QuarantinedRow(position=position, field=tag, value=value, reason="untagged", mend=mend, row=row)
