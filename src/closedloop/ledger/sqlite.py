"""The embedded ledger: one SQLite file, write-ahead log, every commit on disk before the call returns.

Law of this file: what was appended is durable when `append` returns (``synchronous=FULL``: the disk is flushed at each commit),
and a batch is written whole or not at all. Whatever SQLite refuses becomes a `LedgerError` that says whose move it is.

References:
    SQLite, "Write-Ahead Logging" and "PRAGMA synchronous".
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType

from closedloop.errors import ConfigurationError, LedgerError
from closedloop.ledger.chain import FORMAT, ORIGIN, Head, Line, walk
from closedloop.ledger.lines import (
    COLUMNS,
    PAGE,
    Said,
    check_noted,
    checked_state,
    extend,
    filters,
    line_of,
    newest_filters,
    prepare,
    recorded,
    unknown,
)  # fmt: skip
from closedloop.records.action import Entry, Recorded

_APPLICATION = 0x434C4C31  # "CLL1": says that an SQLite file is a ledger of ours
_SCHEMA = """
CREATE TABLE entries (
    sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, at_us INTEGER NOT NULL, key TEXT NOT NULL UNIQUE,
    is_open INTEGER NOT NULL, due_us INTEGER, body TEXT NOT NULL, digest TEXT NOT NULL
) STRICT;
CREATE INDEX entries_at ON entries (kind, at_us);
CREATE INDEX entries_subject ON entries (kind, subject, sequence);
CREATE TABLE newest (
    kind TEXT NOT NULL, subject TEXT NOT NULL, sequence INTEGER NOT NULL, is_open INTEGER NOT NULL, due_us INTEGER,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX newest_open ON newest (kind, due_us, sequence) WHERE is_open = 1;
CREATE TABLE states (name TEXT PRIMARY KEY, value BLOB NOT NULL, digest TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""


class _Translated:
    """Tell what SQLite refuses as a `LedgerError`; a class of its own, since a generator would take longer than an INSERT."""

    __slots__ = ("_path", "_what")

    def __init__(self, what: str, path: str) -> None:
        self._what, self._path = what, path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, sqlite3.Error | sqlite3.Warning | OSError | UnicodeError):
            text = str(error)
            mend = next((m for found, m in _MENDS.items() if found in text), "nothing of this call was kept; mend the cause, then go on")
            raise LedgerError(f"the ledger cannot {self._what}: {text}", "path", self._path, mend) from error


class _Transaction:
    """Keep all that is written inside, or none of it."""

    __slots__ = ("_db",)

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


class SqliteLedger:
    """Keep records in one SQLite file.

    Args:
        path: The file; made when absent. A file of another program, or of a later version, is refused.
        busy_timeout: Seconds to wait for another process that is writing.
        read_only: Only read: nothing is made or changed, also not on a read-only disk.

    Raises:
        LedgerError: The file cannot be opened, is damaged, locked, or not a ledger.

    >>> from datetime import UTC, datetime
    >>> ledger = SqliteLedger(":memory:")
    >>> entry = Entry(kind="mode", subject="loop", at=datetime(2026, 1, 1, tzinfo=UTC), body={"mode": "auto"}, key="mode:1")
    >>> ledger.append([entry], states={"attribution": b"..."}), ledger.append([entry])
    (1, 0)
    >>> ledger.verify().sequence
    1
    """

    def __init__(self, path: str | Path, *, busy_timeout: float = 5.0, read_only: bool = False) -> None:
        if not busy_timeout >= 0:
            raise ConfigurationError("the time to wait is zero or more", "busy_timeout", busy_timeout)
        self.path = str(path)
        self._read_only = read_only
        self._end: Head | None = None  # of the chain, as far as this process knows
        self._lock = threading.RLock()  # a scheduler may call from any of its threads, one at a time
        with self._translated("open"):
            if read_only:
                uri = Path(path).absolute().as_uri() + "?mode=ro"
                self._db = sqlite3.connect(uri, uri=True, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
            else:
                self._db = sqlite3.connect(self.path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
        try:
            with self._translated("open"):
                self._prepare_file()
        except BaseException:
            self._db.close()
            raise

    def _prepare_file(self) -> None:
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        empty = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not empty and application != _APPLICATION:
            raise LedgerError("the file is no ledger of closedloop", "path", self.path, "give another path; this file was left as it is")
        if version > FORMAT:
            raise LedgerError("the ledger is of a later version", "version", version, "read it with a newer closedloop")
        if self._read_only:
            if empty:
                raise LedgerError("there is no ledger in this file", "path", self.path)
            return
        if self._db.execute("PRAGMA journal_mode=WAL").fetchone()[0] not in ("wal", "memory"):
            raise LedgerError("the disk does not allow a write-ahead log", "path", self.path, "keep the ledger on a local disk")
        self._db.execute("PRAGMA synchronous=FULL")
        if empty:
            with self._transaction():
                if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:  # not made by another process meanwhile
                    for statement in _SCHEMA.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA application_id={_APPLICATION}")
                    self._db.execute(f"PRAGMA user_version={FORMAT}")

    def _translated(self, what: str) -> _Translated:
        return _Translated(what, self.path)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def append(self, entries: Sequence[Entry], *, states: Mapping[str, bytes] | None = None) -> int:
        """Write entries and named states in one transaction; return how many entries were new.

        An entry whose key is known is skipped when kind, subject and body are the same.

        Raises:
            ConflictError: A key is known with another body; nothing was written.
            LedgerError: The store refused (disk full, read-only, locked, damaged); nothing was written.
        """
        prepared = prepare(entries)
        with self._lock, self._translated("write"):
            try:
                lines = self._write(prepared, states or {}, self._end)
            except sqlite3.IntegrityError:  # a key is known, or another process has gone on from that end
                lines = self._write(prepared, states or {}, None)
        return len(lines)

    def _write(self, prepared: Sequence[Line], states: Mapping[str, bytes], end: Head | None) -> list[tuple[Line, str]]:
        """Write in one transaction what is new.

        Args:
            prepared: Entries as `prepare` makes them.
            states: Named states.
            end: The end of the chain as this process knows it: all entries are then taken to be new, and the places of the records and
                the keys, both unique, refuse what is not so. None to look for the end and for known keys first.
        """
        self._end = None  # until it is known that this is kept
        with self._transaction():
            if end is None:
                end, prepared = self._head(), unknown(prepared, self._said)
            lines = extend(end, prepared)
            self._db.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [(*x[:5], int(x.is_open), *x[6:], digest) for x, digest in lines]
            )
            self._db.executemany(
                "INSERT INTO newest VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, subject) DO UPDATE SET"
                " sequence = excluded.sequence, is_open = excluded.is_open, due_us = excluded.due_us",
                [(x.kind, x.subject, x.sequence, int(x.is_open), x.due_us) for x, _ in lines],
            )
            if states:
                self._db.executemany(
                    "INSERT INTO states VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value, digest = excluded.digest",
                    [(name, bytes(value), hashlib.sha256(value).hexdigest()) for name, value in states.items()],
                )
        self._end = Head(lines[-1][0].sequence, lines[-1][1]) if lines else end
        return lines

    def _said(self, keys: Sequence[str]) -> dict[str, Said]:
        found = (self._db.execute("SELECT key, kind, subject, body FROM entries WHERE key = ?", (key,)).fetchone() for key in keys)
        return {row[0]: row[1:] for row in found if row is not None}

    def _head(self) -> Head:
        row = self._db.execute("SELECT sequence, digest FROM entries ORDER BY sequence DESC LIMIT 1").fetchone()
        return Head(0, ORIGIN) if row is None else Head(row[0], row[1])

    def entries(
        self, *, kind: str | None = None, subject: str | None = None, after: int = 0, since: datetime | None = None
    ) -> Iterator[Recorded]:
        """Yield records in sequence, filtered by kind, subject, sequence number and time."""
        where, fixed = filters("?", kind, subject, since)
        query = f"SELECT {COLUMNS} FROM entries e WHERE {where} ORDER BY e.sequence LIMIT {PAGE}"
        while True:
            with self._lock, self._translated("read"):
                rows = self._db.execute(query, (after, *fixed)).fetchall()
            for row in rows:
                yield recorded(*line_of(row))
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def newest(
        self, kind: str, *, subject: str | None = None, only_open: bool = False, due_by: datetime | None = None
    ) -> Sequence[Recorded]:
        """Return the newest record of each subject of a kind (or of one), by due time (none first) and sequence."""
        where, values = newest_filters("?", kind, subject, "n.is_open = 1" if only_open else "", due_by)
        query = (
            f"SELECT {COLUMNS} FROM newest n JOIN entries e ON e.sequence = n.sequence"
            f" WHERE {where} ORDER BY n.due_us IS NOT NULL, n.due_us, n.sequence"
        )
        with self._lock, self._translated("read"):
            rows = self._db.execute(query, values).fetchall()
        return [recorded(*line_of(row)) for row in rows]

    def state(self, name: str) -> bytes | None:
        """Return the named state as last written, None when there is none.

        Raises:
            LedgerError: The state is not what was written.
        """
        with self._lock, self._translated("read"):
            row = self._db.execute("SELECT value, digest FROM states WHERE name = ?", (name,)).fetchone()
        return checked_state(name, row)

    @property
    def head(self) -> Head:
        """The end of the chain; note it elsewhere to notice a cut-off end later."""
        with self._lock, self._translated("read"):
            return self._head()

    def verify(self, head: Head | None = None) -> Head:
        """Check the file, every record and every state against what was written; return the end of the chain.

        Args:
            head: An end noted earlier, which the chain must still contain.

        Raises:
            LedgerError: A record was edited, removed or reordered, the index of newest records or a state is wrong, or the file
                is damaged.
        """
        with self._lock, self._translated("read"):
            damage = [row[0] for row in self._db.execute("PRAGMA integrity_check(5)")]
            if damage != ["ok"]:
                raise LedgerError("the file is damaged", "path", "; ".join(damage), "keep the file as it is, and restore a copy")
            end = walk(line_of(row) for row in self._db.execute(f"SELECT {COLUMNS} FROM entries e ORDER BY e.sequence"))
            wrong = self._db.execute(
                "SELECT count(*) FROM (SELECT kind, subject, max(sequence) AS last FROM entries GROUP BY kind, subject) t"
                " LEFT JOIN newest n ON n.kind = t.kind AND n.subject = t.subject LEFT JOIN entries e ON e.sequence = t.last"
                " WHERE n.sequence IS NOT t.last OR n.is_open IS NOT e.is_open OR n.due_us IS NOT e.due_us"
            ).fetchone()[0]
            extra = self._db.execute(
                "SELECT count(*) FROM newest n LEFT JOIN entries e USING (sequence) WHERE e.kind IS NOT n.kind"
            ).fetchone()[0]
            names = [row[0] for row in self._db.execute("SELECT name FROM states")]
            noted = None if head is None else self._db.execute("SELECT digest FROM entries WHERE sequence = ?", (head.sequence,)).fetchone()
        if wrong or extra:
            raise LedgerError("the index of newest records disagrees with the records", "newest", wrong + extra, "restore a copy")
        for name in names:
            self.state(name)
        check_noted(head, noted)
        return end

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> SqliteLedger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SqliteLedger({self.path!r})"


_MENDS = {
    "full": "free some space on the disk, then go on; nothing of this call was kept",
    "readonly": "make the file and its folder writable, or open it with read_only=True",
    "read-only": "make the file and its folder writable, or open it with read_only=True",
    "locked": "another process holds the ledger; wait or stop it, then go on; nothing of this call was kept",
    "malformed": "the file is damaged: keep it as it is, and restore a copy",
    "not a database": "the file is damaged or no ledger: keep it as it is, and give another path or restore a copy",
    "unable to open": "the folder must exist and be writable",
    "closed": "the ledger was closed; open it again",
}
