"""The chain of digests that makes an edited, removed or reordered record show.

Law of this file: pure. The digest of a record covers all of it and the digest of the record before, so no record can change
without every later digest changing. What a chain cannot show by itself is a cut-off end: compare `Head` with one noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

import attrs

from closedloop.errors import LedgerError

FORMAT = 1  # of the chain and of the tables; files of every earlier format stay readable
_TEXT = json.JSONEncoder(separators=(",", ":")).encode
ORIGIN = hashlib.sha256(b"closedloop ledger 1").hexdigest()


class Line(NamedTuple):
    """One record as it is stored, flat (a tuple, since an attrs class takes three times as long to make).

    Args:
        sequence: Its place, from 1.
        kind, subject, key: As in `Entry`.
        at_us: Microseconds UTC.
        is_open: As in `Entry`.
        due_us: Microseconds UTC or None.
        body: Canonical JSON text.
    """

    sequence: int
    kind: str
    subject: str
    at_us: int
    key: str
    is_open: bool
    due_us: int | None
    body: str


@attrs.frozen
class Head:
    """The end of a chain: how many records there are, and the digest of the last."""

    sequence: int
    digest: str


def digest(previous: str, line: Line) -> str:
    """Return the digest of a record that follows the one with digest ``previous``.

    >>> digest(ORIGIN, Line(1, "mode", "loop", 0, "mode:1", False, None, "{}"))[:16]
    '6f6cdfb080ca82ce'
    """
    head = [FORMAT, previous, line.sequence, line.kind, line.subject, line.at_us, line.key, line.is_open, line.due_us]
    return hashlib.sha256(f"{_TEXT(head)}\n{line.body}".encode()).hexdigest()


def walk(lines: Iterable[tuple[Line, str]]) -> Head:
    """Follow the chain from its origin and return its end.

    Args:
        lines: Every record with the digest stored beside it, in the order of their sequence numbers.

    Raises:
        LedgerError: A record is missing, out of order, or not what was written; its number is named.
    """
    last = Head(0, ORIGIN)
    for line, stored in lines:
        if line.sequence != last.sequence + 1:
            problem = f"a record is missing or out of order after record {last.sequence}"
            raise LedgerError(problem, "sequence", line.sequence, "keep the file as it is, and restore a copy")
        if digest(last.digest, line) != stored:
            raise LedgerError(
                f"record {line.sequence} ({line.kind} {line.subject}) is not what was written",
                "digest",
                stored,
                "keep the file as it is, and restore a copy",
            )
        last = Head(line.sequence, stored)
    return last
