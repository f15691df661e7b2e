"""Between the entries of the rooms and the lines of a store.

Law of this file: pure; every ledger writes the same lines for the same entries, so that they can be compared and converted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs

from closedloop.errors import ConflictError, InvariantError
from closedloop.ledger.chain import Head, Line, digest
from closedloop.records.action import Entry, Recorded
from closedloop.records.codec import canonical
from closedloop.records.moments import from_us, to_us


@attrs.frozen
class Prepared:
    """An entry made ready for any store: everything but its place in the sequence."""

    kind: str
    subject: str
    at_us: int
    key: str
    is_open: bool
    due_us: int | None
    body: str

    def at(self, sequence: int) -> Line:
        """Return the line at a place in the sequence."""
        return Line(sequence, self.kind, self.subject, self.at_us, self.key, self.is_open, self.due_us, self.body)


def prepare(entries: Sequence[Entry]) -> list[Prepared]:
    """Return entries ready to store.

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
        prepared.append(
            Prepared(entry.kind, entry.subject, to_us(entry.at), entry.key, bool(entry.is_open), due_us, canonical(dict(entry.body)))
        )
    return prepared


def check_same(key: str, known: tuple[str, str, str], new: Prepared) -> None:
    """Check that an entry whose key is known says what stands.

    Args:
        key: The key.
        known: Kind, subject and body as recorded.
        new: The entry that came again.

    Raises:
        ConflictError: It says something else.
    """
    if known != (new.kind, new.subject, new.body):
        raise ConflictError(
            "the key is taken by a record that says something else",
            "key",
            key,
            "nothing of this batch was written; read what stands, then decide again",
        )


def extend(head: Head, new: Sequence[Prepared]) -> list[tuple[Line, str]]:
    """Return lines and digests for new entries after ``head``."""
    lines: list[tuple[Line, str]] = []
    for item in new:
        line = item.at(head.sequence + 1)
        head = Head(line.sequence, digest(head.digest, line))
        lines.append((line, head.digest))
    return lines


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
