"""A ledger that lasts as long as the process: for notebooks, tests and simulations.

Law of this file: the same promises as the durable ledgers but one, durability.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from closedloop.ledger.chain import ORIGIN, Head, Line, walk
from closedloop.ledger.lines import Said, extend, prepare, recorded, unknown
from closedloop.records.action import Entry, Recorded
from closedloop.records.moments import to_us


class MemoryLedger:
    """Keep records in memory, append-only.

    >>> from datetime import UTC, datetime
    >>> ledger = MemoryLedger()
    >>> entry = Entry(kind="mode", subject="loop", at=datetime(2026, 1, 1, tzinfo=UTC), body={"mode": "auto"}, key="mode:1")
    >>> ledger.append([entry]), ledger.append([entry])  # the same key and body: not written again
    (1, 0)
    """

    def __init__(self) -> None:
        self._lines: list[tuple[Line, str]] = []
        self._by_key: dict[str, int] = {}
        self._newest: dict[tuple[str, str], int] = {}
        self._open: dict[str, dict[str, int]] = {}
        self._states: dict[str, bytes] = {}

    def append(self, entries: Sequence[Entry], *, states: Mapping[str, bytes] | None = None) -> int:
        """Keep entries and named states, all or none; return how many entries were new.

        Raises:
            ConflictError: A key is known with another body; nothing was kept.
        """
        new = unknown(prepare(entries), self._said)
        for line, digest in extend(self.head, new):
            self._by_key[line.key] = self._newest[line.kind, line.subject] = len(self._lines)
            still_open = self._open.setdefault(line.kind, {})
            if line.is_open:
                still_open[line.subject] = len(self._lines)
            else:
                still_open.pop(line.subject, None)
            self._lines.append((line, digest))
        self._states.update({name: bytes(value) for name, value in (states or {}).items()})
        return len(new)

    def _said(self, keys: Sequence[str]) -> dict[str, Said]:
        known = [self._lines[self._by_key[key]][0] for key in keys if key in self._by_key]
        return {line.key: (line.kind, line.subject, line.body) for line in known}

    def entries(
        self, *, kind: str | None = None, subject: str | None = None, after: int = 0, since: datetime | None = None
    ) -> Iterator[Recorded]:
        """Yield records in sequence, filtered."""
        since_us = None if since is None else to_us(since)
        position = max(0, after)
        while position < len(self._lines):
            line, digest = self._lines[position]
            position += 1
            if (
                (kind is None or line.kind == kind)
                and (subject is None or line.subject == subject)
                and (since_us is None or line.at_us >= since_us)
            ):
                yield recorded(line, digest)

    def newest(
        self, kind: str, *, subject: str | None = None, only_open: bool = False, due_by: datetime | None = None
    ) -> Sequence[Recorded]:
        """Return the newest record of each subject of a kind (or of one), by due time (none first) and sequence."""
        if subject is not None:
            position = self._newest.get((kind, subject))
            positions = [] if position is None else [position]
        elif only_open:
            positions = list(self._open.get(kind, {}).values())
        else:
            positions = [p for (k, _), p in self._newest.items() if k == kind]
        limit = None if due_by is None else to_us(due_by)
        found = [self._lines[p] for p in positions]
        kept = [
            (line, digest)
            for line, digest in found
            if (line.is_open or not only_open) and (limit is None or line.due_us is None or line.due_us <= limit)
        ]
        kept.sort(key=lambda pair: (pair[0].due_us is not None, pair[0].due_us or 0, pair[0].sequence))
        return [recorded(line, digest) for line, digest in kept]

    def state(self, name: str) -> bytes | None:
        """Return the named state as last kept, None when there is none."""
        return self._states.get(name)

    @property
    def head(self) -> Head:
        """The end of the chain."""
        return Head(self._lines[-1][0].sequence, self._lines[-1][1]) if self._lines else Head(0, ORIGIN)

    def verify(self) -> Head:
        """Follow the chain from its origin; return its end.

        Raises:
            LedgerError: A record is not what was kept.
        """
        return walk(self._lines)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def __repr__(self) -> str:
        return f"MemoryLedger({len(self._lines)} records)"
