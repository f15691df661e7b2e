"""A ledger on PostgreSQL, for several workers on several machines.

Law of this file: the same promises and the same chain as the embedded ledger; one writer at a time holds the end of the chain, by an
advisory lock of the transaction. What a worker is doing is held by advisory locks of its session, which the server gives up by
itself when the worker dies. (A row taken with ``SKIP LOCKED`` is free again at the commit that records a send, before it is sent; a
claim must outlast that commit.) Needs the extra ``postgres`` (psycopg 3), imported when a ledger is opened.

References:
    PostgreSQL documentation, "Advisory Locks" and "Asynchronous Commit".
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any

from closedloop.errors import ConfigurationError, LedgerError, MissingExtraError
from closedloop.ledger.chain import FORMAT, ORIGIN, Head, walk
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

_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE IF NOT EXISTS {s}.entries (
    sequence bigint PRIMARY KEY, kind text NOT NULL, subject text NOT NULL, at_us bigint NOT NULL, key text NOT NULL UNIQUE,
    is_open boolean NOT NULL, due_us bigint, body text NOT NULL, digest text NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_at ON {s}.entries (kind, at_us);
CREATE INDEX IF NOT EXISTS entries_subject ON {s}.entries (kind, subject, sequence);
CREATE TABLE IF NOT EXISTS {s}.newest (
    kind text NOT NULL, subject text NOT NULL, sequence bigint NOT NULL, is_open boolean NOT NULL, due_us bigint,
    PRIMARY KEY (kind, subject)
);
CREATE INDEX IF NOT EXISTS newest_open ON {s}.newest (kind, due_us, sequence) WHERE is_open;
CREATE TABLE IF NOT EXISTS {s}.states (name text PRIMARY KEY, value bytea NOT NULL, digest text NOT NULL);
CREATE TABLE IF NOT EXISTS {s}.format (version integer NOT NULL);
"""


class PostgresLedger:
    """Keep records in a schema of a PostgreSQL database.

    Args:
        conninfo: Connection string of psycopg, such as ``"host=localhost dbname=marketing"``; it is never recorded or shown.
        schema: Schema of this ledger, made when absent: a lower-case name. One schema is one ledger.
        lock_timeout: Seconds to wait for another writer.

    Raises:
        MissingExtraError: psycopg is not installed.
        LedgerError: The server cannot be reached, or the schema is of a later version.
    """

    def __init__(self, conninfo: str, *, schema: str = "closedloop", lock_timeout: float = 30.0) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
            raise ConfigurationError("a schema is a lower-case name", "schema", schema, "use letters, digits and _")
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtraError("psycopg is not installed", "ledger", "postgres", "pip install 'closedloop[postgres]'") from error
        self._psycopg = psycopg
        self.schema = schema
        self._lock = threading.RLock()
        with self._translated("open"):
            self._db = psycopg.connect(conninfo, autocommit=True)
        try:
            with self._translated("open"):
                self._db.execute(f"SET lock_timeout = {int(lock_timeout * 1000)}")
                self._db.execute("SET synchronous_commit = on")  # durable when the call returns, whatever the server's default is
                self._prepare_schema()
        except BaseException:
            self._db.close()
            raise

    def _prepare_schema(self) -> None:
        with self._db.transaction():
            self._db.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"closedloop {self.schema}",))
            for statement in filter(str.strip, _SCHEMA.format(s=self.schema).split(";")):
                self._db.execute(statement)
            found = self._db.execute(f"SELECT max(version) FROM {self.schema}.format").fetchone()
            version = None if found is None else found[0]
            if version is None:
                self._db.execute(f"INSERT INTO {self.schema}.format VALUES (%s)", (FORMAT,))
            elif version > FORMAT:
                raise LedgerError("the ledger is of a later version", "version", version, "read it with a newer closedloop")

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            # The text of a connection error can repeat the connection string, so only the server's own message and its code are kept.
            text = error.diag.message_primary or type(error).__name__
            mend = "nothing of this call was kept; mend the cause, open the ledger again if the connection is gone, then go on"
            raise LedgerError(f"the ledger cannot {what}: {text}", "sqlstate", error.sqlstate, mend) from None

    def append(self, entries: Sequence[Entry], *, states: Mapping[str, bytes] | None = None) -> int:
        """Write entries and named states in one transaction; return how many entries were new. See `SqliteLedger.append`.

        Raises:
            ConflictError: A key is known with another body; nothing was written.
            LedgerError: The server refused or is gone; nothing was written, or the reply was lost (append again to know).
        """
        prepared, s = prepare(entries), self.schema
        with self._lock, self._translated("write"), self._db.transaction(), self._db.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"closedloop {s}",))
            lines = extend(self._head(), unknown(prepared, self._said))
            if lines:
                cursor.executemany(
                    f"INSERT INTO {s}.entries VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    [(*line, digest) for line, digest in lines],
                )
                cursor.executemany(
                    f"INSERT INTO {s}.newest VALUES (%s, %s, %s, %s, %s) ON CONFLICT (kind, subject) DO UPDATE SET"
                    " sequence = excluded.sequence, is_open = excluded.is_open, due_us = excluded.due_us",
                    [(x.kind, x.subject, x.sequence, x.is_open, x.due_us) for x, _ in lines],
                )
            for name, value in (states or {}).items():
                cursor.execute(
                    f"INSERT INTO {s}.states VALUES (%s, %s, %s) ON CONFLICT (name) DO UPDATE SET"
                    " value = excluded.value, digest = excluded.digest",
                    (name, bytes(value), hashlib.sha256(value).hexdigest()),
                )
        return len(lines)

    def _said(self, keys: Sequence[str]) -> dict[str, Said]:
        rows = self._db.execute(f"SELECT key, kind, subject, body FROM {self.schema}.entries WHERE key = ANY(%s)", (list(keys),)).fetchall()
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    def _head(self) -> Head:
        row = self._db.execute(f"SELECT sequence, digest FROM {self.schema}.entries ORDER BY sequence DESC LIMIT 1").fetchone()
        return Head(0, ORIGIN) if row is None else Head(row[0], row[1])

    def entries(
        self, *, kind: str | None = None, subject: str | None = None, after: int = 0, since: datetime | None = None
    ) -> Iterator[Recorded]:
        """Yield records in sequence, filtered by kind, subject, sequence number and time."""
        where, fixed = filters("%s", kind, subject, since)
        return (recorded(*line_of(row)) for row in self._rows(where, fixed, after))

    def _rows(self, where: str = "e.sequence > %s", fixed: Sequence[Any] = (), after: int = 0) -> Iterator[Sequence[Any]]:
        query = f"SELECT {COLUMNS} FROM {self.schema}.entries e WHERE {where} ORDER BY e.sequence LIMIT {PAGE}"
        while True:
            with self._lock, self._translated("read"):
                rows = self._db.execute(query, (after, *fixed)).fetchall()
            yield from rows
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def newest(
        self, kind: str, *, subject: str | None = None, only_open: bool = False, due_by: datetime | None = None
    ) -> Sequence[Recorded]:
        """Return the newest record of each subject of a kind (or of one), by due time (none first) and sequence."""
        where, values = newest_filters("%s", kind, subject, "n.is_open" if only_open else "", due_by)
        query = (
            f"SELECT {COLUMNS} FROM {self.schema}.newest n JOIN {self.schema}.entries e ON e.sequence = n.sequence"
            f" WHERE {where} ORDER BY n.due_us NULLS FIRST, n.sequence"
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
            row = self._db.execute(f"SELECT value, digest FROM {self.schema}.states WHERE name = %s", (name,)).fetchone()
        return checked_state(name, row)

    @contextmanager
    def claim(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Hold a name against every other worker while the context lasts; the value is False when another holds it.

        The claim is an advisory lock of the session: the server gives it up when this process or its connection dies.
        """
        key = f"{self.schema} {name}"
        with self._lock, self._translated("claim"):
            if wait:
                self._db.execute("SELECT pg_advisory_lock(hashtextextended(%s, 1))", (key,))
                mine = True
            else:
                row = self._db.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 1))", (key,)).fetchone()
                mine = bool(row and row[0])
        try:
            yield mine
        finally:
            if mine and not self._db.closed:
                with self._lock, self._translated("give up a claim"):
                    self._db.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 1))", (key,))

    @property
    def head(self) -> Head:
        """The end of the chain; note it elsewhere to notice a cut-off end later."""
        with self._lock, self._translated("read"):
            return self._head()

    def verify(self, head: Head | None = None) -> Head:
        """Check every record and every state against what was written; return the end of the chain.

        Args:
            head: An end noted earlier, which the chain must still contain.

        Raises:
            LedgerError: A record was edited, removed or reordered, or the index of newest records or a state is wrong.
        """
        s = self.schema
        end = walk(line_of(row) for row in self._rows())
        with self._lock, self._translated("read"):
            wrong = self._db.execute(
                f"SELECT count(*) FROM (SELECT DISTINCT ON (kind, subject) * FROM {s}.entries ORDER BY kind, subject, sequence DESC) e"
                f" FULL JOIN {s}.newest n ON n.kind = e.kind AND n.subject = e.subject WHERE n.sequence IS DISTINCT FROM e.sequence"
                " OR n.is_open IS DISTINCT FROM e.is_open OR n.due_us IS DISTINCT FROM e.due_us"
            ).fetchone()
            names = [row[0] for row in self._db.execute(f"SELECT name FROM {s}.states").fetchall()]
            noted = (
                None
                if head is None
                else self._db.execute(f"SELECT digest FROM {s}.entries WHERE sequence = %s", (head.sequence,)).fetchone()
            )
        if wrong is None or wrong[0]:
            raise LedgerError("the index of newest records disagrees with the records", "newest", wrong and wrong[0], "restore a copy")
        for name in names:
            self.state(name)
        check_noted(head, noted)
        return end

    def close(self) -> None:
        """Close the connection; closing twice does no harm."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> PostgresLedger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"PostgresLedger(schema={self.schema!r})"
