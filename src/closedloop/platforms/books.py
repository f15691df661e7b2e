"""The books of the simulated platform: what was in force when, what it counted, and the faults that wait.

Law of this file: rows and queries, no rule of the platform's. With a path the books are kept in an SQLite file that outlives the
process; several processes may write, one at a time.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from closedloop.records.moments import from_us
from closedloop.records.money import Money

BEGINNING = -(2**62)  # the first budgets were always in force
_SCHEMA = """
CREATE TABLE IF NOT EXISTS changes (
    sequence INTEGER PRIMARY KEY, resource TEXT NOT NULL, effective_us INTEGER NOT NULL, micros INTEGER, currency TEXT,
    active INTEGER, action_id TEXT, kind TEXT NOT NULL, sent_us INTEGER
);
CREATE INDEX IF NOT EXISTS changes_at ON changes (resource, effective_us, sequence);
CREATE TABLE IF NOT EXISTS requests (sequence INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, units REAL NOT NULL, verdict TEXT NOT NULL,
    total REAL NOT NULL);
CREATE INDEX IF NOT EXISTS requests_at ON requests (verdict, at_us, sequence);
CREATE TABLE IF NOT EXISTS faults (sequence INTEGER PRIMARY KEY, fault TEXT NOT NULL, remaining INTEGER NOT NULL, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outages (since_us INTEGER NOT NULL, until_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS holdouts (holdout_id TEXT NOT NULL, resource TEXT NOT NULL, share REAL NOT NULL, since_us INTEGER NOT NULL,
    until_us INTEGER, PRIMARY KEY (holdout_id, resource));
CREATE TABLE IF NOT EXISTS holdout_counts (holdout_id TEXT NOT NULL, at_us INTEGER NOT NULL, treated INTEGER NOT NULL,
    control INTEGER NOT NULL);
"""


@attrs.frozen(kw_only=True)
class Applied:
    """One change that the server put into force."""

    action_id: str
    resource: str
    kind: str
    budget: Money | None
    effective_at: datetime


class Books:
    """Tables of changes, requests, faults, outages and holdouts.

    Args:
        path: The file, or None for memory.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(":memory:" if path is None else str(path), timeout=30.0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")  # survives the death of the process, which is all that is asked of it
        with self.transaction():
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._db.execute(statement)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all that is written inside, or none of it."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _all(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def _one(self, query: str, *values: Any) -> Any:
        with self._lock:
            return self._db.execute(query, values).fetchone()

    # ---------------------------------------------------------------- changes

    def write(
        self,
        resource: str,
        effective_us: int,
        budget: Money | None,
        active: bool | None,
        action_id: str | None,
        kind: str,
        sent_us: int | None,
    ) -> None:
        """Note a change that comes, or came, into force."""
        micros, currency = (None, None) if budget is None else (budget.micros, budget.currency)
        row = (resource, effective_us, micros, currency, None if active is None else int(active), action_id, kind, sent_us)
        self._db.execute(
            "INSERT INTO changes (resource, effective_us, micros, currency, active, action_id, kind, sent_us) VALUES (?,?,?,?,?,?,?,?)", row
        )

    def in_force(self, resource: str, at_us: int) -> tuple[Money | None, bool | None]:
        """Return budget and switch as they stand at a time, None where nothing was ever written."""

        def last(column: str) -> Any:
            return self._one(
                f"SELECT micros, currency, active FROM changes WHERE resource = ? AND effective_us <= ? AND {column} IS NOT NULL"
                " ORDER BY effective_us DESC, sequence DESC LIMIT 1",
                resource,
                at_us,
            )

        money, active = last("micros"), last("active")
        return (None if money is None else Money(money[0], money[1])), (None if active is None else bool(active[2]))

    def created(self, action_id: str, seen_us: int) -> list[str]:
        """Return the resources that were created for an action and can be seen."""
        rows = self._all(
            "SELECT resource FROM changes WHERE kind = 'create' AND action_id = ? AND effective_us <= ? ORDER BY sequence",
            action_id,
            seen_us,
        )
        return [resource for (resource,) in rows]

    def resources(self) -> list[str]:
        """Return the names of all resources, sorted."""
        return [row[0] for row in self._all("SELECT DISTINCT resource FROM changes ORDER BY resource")]

    def applied(self) -> list[Applied]:
        """Return every change of an action, in the order in which it was taken."""
        rows = self._all(
            "SELECT action_id, resource, kind, micros, currency, effective_us FROM changes WHERE action_id IS NOT NULL ORDER BY sequence"
        )
        return [
            Applied(
                action_id=row[0],
                resource=row[1],
                kind=row[2],
                budget=None if row[3] is None else Money(row[3], row[4]),
                effective_at=from_us(row[5]),
            )
            for row in rows
        ]

    def history(self, resource: str) -> list[tuple[datetime | None, Money]]:
        """Return the budgets of a resource in the order in which they came into force; the first has no time."""
        rows = self._all(
            "SELECT effective_us, micros, currency FROM changes WHERE resource = ? AND micros IS NOT NULL ORDER BY effective_us, sequence",
            resource,
        )
        return [(None if us == BEGINNING else from_us(us), Money(micros, currency)) for us, micros, currency in rows]

    # ---------------------------------------------------------------- requests

    def count(self, now_us: int, units: float, verdict: str, total: float = 0.0) -> None:
        """Note a request and what became of it; ``total`` are the units of all that were admitted."""
        self._db.execute("INSERT INTO requests (at_us, units, verdict, total) VALUES (?, ?, ?, ?)", (now_us, units, verdict, total))

    def last_admitted(self, until_us: int | None = None) -> tuple[int, float]:
        """Return the time of the last admitted request (up to a time) and the units of all admitted up to it."""
        where, values = ("", ()) if until_us is None else ("AND at_us <= ?", (until_us,))
        row = self._one(
            f"SELECT at_us, total FROM requests WHERE verdict = 'admitted' {where} ORDER BY at_us DESC, sequence DESC LIMIT 1", *values
        )
        return (BEGINNING, 0.0) if row is None else (row[0], row[1])

    def first_admitted(self, after_us: int, total: float) -> int | None:
        """Return the time of the first request admitted after a time at which the units of all reached ``total``."""
        row = self._one(
            "SELECT at_us FROM requests WHERE verdict = 'admitted' AND at_us > ? AND total >= ? ORDER BY at_us, sequence LIMIT 1",
            after_us,
            total,
        )
        return None if row is None else int(row[0])

    def number(self) -> int:
        """Return how many requests were counted."""
        return int(self._one("SELECT coalesce(max(sequence), 0) FROM requests")[0])

    def requests(self, verdict: str) -> list[tuple[datetime, float]]:
        """Return when each request of a verdict was counted, and its units."""
        rows = self._all("SELECT at_us, units FROM requests WHERE verdict = ? ORDER BY at_us, sequence", verdict)
        return [(from_us(at_us), units) for at_us, units in rows]

    # ---------------------------------------------------------------- faults

    def add_fault(self, fault: str, times: int, settings: Mapping[str, Any]) -> None:
        """Let a fault wait for the next changes."""
        self._db.execute("INSERT INTO faults (fault, remaining, settings) VALUES (?, ?, ?)", (fault, times, json.dumps(settings)))

    def next_fault(self, resource: str) -> tuple[str | None, dict[str, Any]]:
        """Take the fault that waits for a change of this resource."""
        for sequence, fault, text in self._all("SELECT sequence, fault, settings FROM faults WHERE remaining > 0 ORDER BY sequence"):
            settings = json.loads(text)
            if settings["resource"] in (None, resource):
                self._db.execute("UPDATE faults SET remaining = remaining - 1 WHERE sequence = ?", (sequence,))
                return fault, settings
        return None, {}

    def add_outage(self, since_us: int, until_us: int) -> None:
        """Note an outage."""
        self._db.execute("INSERT INTO outages VALUES (?, ?)", (since_us, until_us))

    def is_out(self, now_us: int) -> bool:
        """Return whether an outage is on."""
        return self._one("SELECT 1 FROM outages WHERE since_us <= ? AND until_us > ?", now_us, now_us) is not None

    # ---------------------------------------------------------------- holdouts

    def holdout(self, holdout_id: str) -> list[tuple[str, float, int, int | None]]:
        """Return the resources of a holdout, each with share, begin and end (None while it runs), sorted."""
        return self._all("SELECT resource, share, since_us, until_us FROM holdouts WHERE holdout_id = ? ORDER BY resource", holdout_id)

    def next_holdout(self, resource: str, from_us: int) -> str | None:
        """Return the holdout that a resource is in at a time or later, if there is one."""
        row = self._one("SELECT holdout_id FROM holdouts WHERE resource = ? AND (until_us IS NULL OR until_us > ?)", resource, from_us)
        return None if row is None else str(row[0])

    def holdouts_at(self, at_us: int) -> dict[str, tuple[str, float]]:
        """Return the holdout, and its share, of each resource that is in one at a time."""
        rows = self._all(
            "SELECT resource, holdout_id, share FROM holdouts WHERE since_us <= ? AND (until_us IS NULL OR until_us > ?)", at_us, at_us
        )
        return {resource: (holdout_id, share) for resource, holdout_id, share in rows}

    def add_holdout(self, holdout_id: str, resources: list[str], share: float, since_us: int) -> None:
        """Note a holdout that begins."""
        self._db.executemany("INSERT INTO holdouts VALUES (?, ?, ?, ?, NULL)", [(holdout_id, r, share, since_us) for r in resources])

    def end_holdout(self, holdout_id: str, until_us: int) -> None:
        """Note that a holdout ends; one that has ended stays as it is."""
        self._db.execute("UPDATE holdouts SET until_us = ? WHERE holdout_id = ? AND until_us IS NULL", (until_us, holdout_id))

    def add_holdout_counts(self, holdout_id: str, at_us: int, treated: int, control: int) -> None:
        """Note conversions of both groups, known at a time."""
        self._db.execute("INSERT INTO holdout_counts VALUES (?, ?, ?, ?)", (holdout_id, at_us, treated, control))

    def holdout_counts(self, holdout_id: str, seen_us: int) -> tuple[int, int]:
        """Return the conversions of both groups that are known."""
        row = self._one(
            "SELECT coalesce(sum(treated), 0), coalesce(sum(control), 0) FROM holdout_counts WHERE holdout_id = ? AND at_us <= ?",
            holdout_id,
            seen_us,
        )
        return int(row[0]), int(row[1])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
