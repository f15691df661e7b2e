"""From failed checks to quarantined rows: position, field, value, reason, mend and the row as it came.

Law of this file: a row is set aside once, with the first fault in the order of the event table, whatever number of its events or
fields are bad. Rows stay columns here; objects are made when someone looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from closedloop.ingest.columns import MISSING
from closedloop.ingest.doors import Chunk
from closedloop.ingest.presets.base import Events
from closedloop.ingest.schema import Failure
from closedloop.ingest.typed import FAULT_MEANING, TypedEvents
from closedloop.records.arms import TAG_COLUMNS
from closedloop.records.quarantine import Fault, Segment

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
LACKING = (*TAG_COLUMNS, "conversion_type")


class Faults:
    """The ways of being bad met so far, numbered."""

    def __init__(self) -> None:
        self._number: dict[Fault, int] = {}

    def number(self, field: str, reason: str, mend: str, column: str) -> int:
        """Return the number of a fault."""
        return self._number.setdefault(Fault(field=field, reason=reason, mend=mend, column=column), len(self._number))

    def all(self) -> tuple[Fault, ...]:
        """Return the faults in the order of their numbers."""
        return tuple(self._number)


def set_aside(
    found: Sequence[Failure], lacking: npt.NDArray[np.int8], typed: TypedEvents, events: Events, chunk: Chunk, start: int
) -> tuple[Segment, Int32]:
    """Return the rows of a chunk that are bad or untagged, and the state of every row.

    Args:
        found: The failed checks.
        lacking: By event, the first needed tag it lacks as a position in `LACKING`, -1 where it lacks none.
        typed: The typed events, for the faults found while reading.
        events: Where fields came from.
        chunk: The chunk.
        start: Position of the chunk's first row in the whole input.

    Returns:
        The segment, and an int32 array of shape (chunk.n,): 0 good, 1 untagged, 2 bad.
    """
    faults = Faults()
    first = np.full(chunk.n, -1, dtype=np.int32)
    state = np.zeros(chunk.n, dtype=np.int32)

    def row_of(event: Int64) -> Int64:
        return event if events.rows is None else events.rows[event]

    # What is written last stands: untagged is the weakest reason, then the checks from last to first, then lines that are no rows.
    for code in range(len(LACKING) - 1, -1, -1):
        at = np.flatnonzero(lacking == code)
        if len(at):
            column = events.source.get(LACKING[code], "")
            mend = f"fill column {column!r}" if column else f"map the column that holds {LACKING[code]}, or set it as a constant"
            first[row_of(at)] = faults.number(LACKING[code], "untagged", mend + " and ingest the row again", column)
            state[row_of(at)] = 1
    for failure in reversed(found):
        rows = row_of(failure.rows)
        first[rows] = _numbers(failure, typed, events, faults)
        state[rows] = 2
    for place, (_, reason) in chunk.broken.items():
        first[place] = faults.number("row", reason, "mend the line and ingest it again", "")
        state[place] = 2
    at = np.flatnonzero(state)
    return Segment(position=at + start, fault=first[at], faults=faults.all(), originals=chunk.take(at)), state


def _numbers(failure: Failure, typed: TypedEvents, events: Events, faults: Faults) -> Int32:
    """The number of the fault of each failing event: a null is named by why it could not be read."""
    column = events.source.get(failure.field, failure.field)
    why = typed.faults.get(failure.field)
    if why is None or failure.check not in ("not_nullable", "touch_complete"):
        return np.full(len(failure.rows), faults.number(failure.field, failure.reason, failure.mend, column), dtype=np.int32)
    codes = why[failure.rows]
    table = np.zeros(128, dtype=np.int32)
    for code in np.unique(codes).tolist():
        said = FAULT_MEANING.get(code) if failure.check == "not_nullable" or code != MISSING else None
        reason, mend = said or (failure.reason, failure.mend)
        table[code] = faults.number(failure.field, reason, mend, column)
    return table[codes]
