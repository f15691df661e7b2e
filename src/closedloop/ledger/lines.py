"""Between the entries of the rooms and the lines of a store.

Law of this file: pure; every ledger writes the same lines for the same entries, so that they can be compared and converted, and
finds them by the same conditions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from closedloop.errors import ConflictError, InvariantError, LedgerError
from closedloop.ledger.chain import Head, Line, digest
from closedloop.records.action import Entry, Recorded
from closedloop.records.codec import canonical
from closedloop.records.moments import from_us, to_us

COLUMNS = "e.sequence, e.kind, e.subject, e.at_us, e.key, e.is_open, e.due_us, e.body, e.digest"
PAGE = 1000  # records read at a time, so that a slow reader never holds a transaction
Said = tuple[str, str, str]  # kind, subject and body: what an entry says


def prepare(entries: Sequence[Entry]) -> list[Line]:
    """Return entries ready to store, without their place in the sequence yet.

    Raises:
        InvariantError: A body is not JSON-ready, or a kind, subject or key is empty.
        InputError: A time has no zone.
    """
    prepared = []
    for entry in entries:
        for name in ("kind", "subject", "key"):
            if not getattr(entry, name):
                raise InvariantError("an entry needs a kind, a subject and a key", name, getattr(entry, name))
        due_us = None if entry.due_at is None else to_us(entry.due_at)
        line = Line(0, entry.kind, entry.subject, to_us(entry.at), entry.key, bool(entry.is_open), due_us, canonical(dict(entry.body)))
        prepared.append(line)
    return prepared


def unknown(prepared: Sequence[Line], said: Callable[[Sequence[str]], Mapping[str, Said]]) -> list[Line]:
    """Return the entries that are new, each once; those whose key is known must say what stands.

    Args:
        prepared: Entries as `prepare` made them.
        said: Returns what the recorded entries of given keys say, by key; keys that are not recorded are left out.

    Raises:
        ConflictError: A key is taken by an entry that says something else.
    """
    known = dict(said([line.key for line in prepared]))
    new: list[Line] = []
    for line in prepared:
        says = (line.kind, line.subject, line.body)
        if line.key not in known:
            new.append(line)
        elif known[line.key] != says:
            raise ConflictError(
                "the key is taken by a record that says something else",
                "key",
                line.key,
                "nothing of this batch was written; read what stands, then decide again",
            )
        known[line.key] = says
    return new


def extend(head: Head, new: Sequence[Line]) -> list[tuple[Line, str]]:
    """Return lines at their places after ``head``, each with its digest."""
    lines: list[tuple[Line, str]] = []
    sequence, previous = head.sequence, head.digest
    for item in new:
        sequence += 1
        line = Line(sequence, *item[1:])
        previous = digest(previous, line)
        lines.append((line, previous))
    return lines


def line_of(row: Sequence[Any]) -> tuple[Line, str]:
    """Return a row of `COLUMNS` as line and digest."""
    sequence, kind, subject, at_us, key, is_open, due_us, body, stored = row
    return Line(sequence, kind, subject, at_us, key, bool(is_open), due_us, body), stored


def filters(mark: str, kind: str | None, subject: str | None, since: datetime | None) -> tuple[str, list[Any]]:
    """Return the condition and the values of a search among entries; ``mark`` is the store's placeholder."""
    wanted = (("e.kind =", kind), ("e.subject =", subject), ("e.at_us >=", None if since is None else to_us(since)))
    given = [(column, value) for column, value in wanted if value is not None]
    return " AND ".join([f"e.sequence > {mark}", *(f"{column} {mark}" for column, _ in given)]), [value for _, value in given]


def newest_filters(mark: str, kind: str, subject: str | None, still_open: str, due_by: datetime | None) -> tuple[str, list[Any]]:
    """Return the condition and the values of a search among newest records; ``still_open`` is the store's condition, "" for all."""
    where, values = [f"n.kind = {mark}"], [kind]
    if subject is not None:
        where.append(f"n.subject = {mark}")
        values.append(subject)
    if still_open:
        where.append(still_open)
    if due_by is not None:
        where.append(f"(n.due_us IS NULL OR n.due_us <= {to_us(due_by)})")
    return " AND ".join(where), values


def checked_state(name: str, row: Sequence[Any] | None) -> bytes | None:
    """Return a state as read (value and digest), None when there is none.

    Raises:
        LedgerError: It is not what was written.
    """
    if row is None:
        return None
    if hashlib.sha256(row[0]).hexdigest() != row[1]:
        raise LedgerError("a state is not what was written", "state", name, "keep the store as it is, and restore a copy")
    return bytes(row[0])


def check_noted(head: Head | None, found: Sequence[Any] | None) -> None:
    """Check that the chain contains an end noted earlier; ``found`` holds the digest at its place.

    Raises:
        LedgerError: It does not.
    """
    if head is not None and head.sequence and (found is None or found[0] != head.digest):
        raise LedgerError("the chain does not contain the end noted earlier", "head", head.sequence, "records were cut off or replaced")


def recorded(line: Line, stored: str) -> Recorded:
    """Return a stored line as the rooms see it."""
    body: dict[str, Any] = json.loads(line.body)
    entry = Entry(
        kind=line.kind,
        subject=line.subject,
        at=from_us(line.at_us),
        body=body,
        key=line.key,
        is_open=bool(line.is_open),
        due_at=None if line.due_us is None else from_us(line.due_us),
    )
    return Recorded(sequence=line.sequence, entry=entry, digest=stored)
