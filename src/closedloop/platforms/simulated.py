"""A platform of our own: budgets, latency, quota, lost replies and other faults, all driven by ``now``.

Law of this file: it is a *server* seen through the same door as any platform, and its own books are the truth: which budget was in
force when, what was applied, how many requests it counted. It knows no executor and reads no clock. With ``path`` the books are
kept in an SQLite file that outlives the process, so that a killed client cannot change what the server did.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import numpy as np

from closedloop.errors import ConfigurationError, NotSentError, RejectedError
from closedloop.records.action import AttemptResult, Change, TargetState
from closedloop.records.decision import Target
from closedloop.records.moments import from_us, to_us
from closedloop.records.money import Money

Fault = Literal["lose_request", "lose_reply", "late", "refuse", "throttle", "ignore", "unreachable"]
_FAULTS = get_args(Fault)
_BEGINNING = -(2**62)  # the first budgets were always in force
_MICROSECOND = timedelta(microseconds=1)
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
"""


@attrs.frozen(kw_only=True)
class Applied:
    """One change that the server put into force."""

    action_id: str
    resource: str
    kind: str
    budget: Money | None
    effective_at: datetime


class SimulatedPlatform:
    """Keep budgets as an advertising platform would.

    Args:
        budgets: The budget a day of each resource at the start (left alone when the file at ``path`` knows the resource).
        name: The platform's name, as in `Target.platform`.
        latency: How long an accepted change takes to come into force.
        read_lag: How old the state is that a read shows.
        quota: Units and seconds of one rolling window that all requests count against, or None.
        units: Units of a change and of a read.
        lost_replies: Share of changes whose reply is lost; in one half of the cases the change is applied all the same.
        late_by: How much later than ``latency`` a change may come into force at most, at random.
        minimum: Smallest budget that is accepted.
        seed: Of the losses; the same requests meet the same losses, also after a restart.
        path: A file to keep the books in, or None for memory.

    Raises:
        ConfigurationError: A setting is out of range.

    >>> from datetime import UTC, datetime
    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> platform = SimulatedPlatform({"spring": Money.of(100, "EUR")}, latency=timedelta(minutes=5))
    >>> change = Change(action_id="a1", target=Target("simulated", "spring"), budget=Money.of(120, "EUR"))
    >>> platform.send(change, now=now).status
    'accepted'
    >>> platform.budget_at("spring", now), platform.budget_at("spring", now + timedelta(minutes=5))
    (100.00 EUR, 120.00 EUR)
    """

    def __init__(
        self,
        budgets: Mapping[str, Money],
        *,
        name: str = "simulated",
        latency: timedelta = timedelta(0),
        read_lag: timedelta = timedelta(0),
        quota: tuple[float, float] | None = None,
        units: tuple[float, float] = (1.0, 1.0),
        lost_replies: float = 0.0,
        late_by: timedelta = timedelta(0),
        minimum: Money | None = None,
        seed: int = 0,
        path: str | Path | None = None,
    ) -> None:
        if not 0.0 <= lost_replies <= 1.0:
            raise ConfigurationError("a share lies in [0, 1]", "lost_replies", lost_replies)
        if quota is not None and not (quota[0] > 0 and quota[1] > 0):
            raise ConfigurationError("a quota needs units and seconds above zero", "quota", quota)
        for label, duration in (("latency", latency), ("read_lag", read_lag), ("late_by", late_by)):
            if duration < timedelta(0):
                raise ConfigurationError("a delay is zero or more", label, duration)
        self.name, self.latency, self.read_lag, self.quota, self.units = name, latency, read_lag, quota, units
        self.lost_replies, self.late_by, self.minimum, self.seed = lost_replies, late_by, minimum, seed
        self._lock = threading.RLock()
        self._db = sqlite3.connect(":memory:" if path is None else str(path), timeout=30.0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")  # survives the death of the process, which is all that is asked of it
        with self._transaction():
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._db.execute(statement)
            for resource, budget in budgets.items():
                if self._db.execute("SELECT 1 FROM changes WHERE resource = ?", (resource,)).fetchone() is None:
                    self._write(resource, _BEGINNING, budget, True, None, "initial", None)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _write(
        self,
        resource: str,
        effective_us: int,
        budget: Money | None,
        active: bool | None,
        action_id: str | None,
        kind: str,
        sent: int | None,
    ) -> None:
        micros, currency = (None, None) if budget is None else (budget.micros, budget.currency)
        row = (resource, effective_us, micros, currency, None if active is None else int(active), action_id, kind, sent)
        self._db.execute(
            "INSERT INTO changes (resource, effective_us, micros, currency, active, action_id, kind, sent_us) VALUES (?,?,?,?,?,?,?,?)", row
        )

    # ---------------------------------------------------------------- the door

    @property
    def quiet_period(self) -> float:
        """Seconds after a send within which it may still come into force and be seen."""
        return (self.latency + self.late_by + self.read_lag).total_seconds()

    def limits(self, target: Target) -> Sequence[tuple[str, float, float]]:
        """Return the one quota, when there is one."""
        return () if self.quota is None else ((self.name, *self.quota),)

    def cost(self, change: Change | None) -> float:
        """Return the units of a change, or of a read for None."""
        return self.units[1] if change is None else self.units[0]

    def read(self, target: Target, *, now: datetime) -> TargetState:
        """Return what is in force, as old as ``read_lag`` says.

        Raises:
            NotSentError: Over quota, or an outage.
            RejectedError: There is no such resource.
        """
        budget, active = self._in_force(target.resource, self._enter(target, now))
        if budget is None and active is None:
            raise RejectedError("there is no such resource", "resource", target.resource, "NOT_FOUND", self.resources()[:20])
        return TargetState(target=target, budget=budget, active=active is not False, read_at=now)

    def find(self, change: Change, *, now: datetime) -> list[TargetState]:
        """Return what was created for an action, as old as ``read_lag`` says.

        Raises:
            NotSentError: Over quota, or an outage.
        """
        seen_us = self._enter(change.target, now)
        with self._lock:
            rows = self._db.execute(
                "SELECT resource FROM changes WHERE kind = 'create' AND action_id = ? AND effective_us <= ? ORDER BY sequence",
                (change.action_id, seen_us),
            ).fetchall()
        stands = [(Target(self.name, resource), *self._in_force(resource, seen_us)) for (resource,) in rows]
        return [TargetState(target=target, budget=budget, active=active is not False, read_at=now) for target, budget, active in stands]

    def _enter(self, target: Target, now: datetime) -> int:
        """Count a read and return the time (us) as of which it sees."""
        now_us = to_us(now)
        with self._transaction():
            out, retry_us = self._is_out(now_us), None
            if out:
                self._count(now_us, 0.0, "outage")
            else:
                retry_us = self._admit(now_us, self.units[1])
        if out:
            raise NotSentError("the platform cannot be reached", "target", str(target), "try again later")
        if retry_us is not None:
            raise NotSentError("over the quota", "target", str(target), "wait", retry_at=from_us(retry_us))
        return now_us - self.read_lag // _MICROSECOND

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        """Take one change: accept, refuse or throttle it, or lose the request or the reply."""
        with self._transaction():
            return self._take(change, to_us(now))

    def _take(self, change: Change, now_us: int) -> AttemptResult:
        if self._is_out(now_us):
            self._count(now_us, 0.0, "outage")
            return AttemptResult(status="not_sent", code="UNREACHABLE", message="the platform cannot be reached")
        fault, settings = self._next_fault(change.target.resource)
        if fault == "unreachable":
            return AttemptResult(status="not_sent", code="UNREACHABLE", message="the platform cannot be reached")
        number = self._db.execute("SELECT coalesce(max(sequence), 0) FROM requests").fetchone()[0]
        rng = np.random.default_rng([self.seed, number])
        if fault is None and rng.random() < self.lost_replies:
            fault = "lose_reply" if rng.random() < 0.5 else "lose_request"
        lost = AttemptResult(status="unknown", code="TIMEOUT", message="no reply")
        if fault == "lose_request":
            self._count(now_us, 0.0, "lost")  # the number of requests also steers the next loss
            return lost
        retry_us = self._admit(now_us, self.units[0])
        if retry_us is not None:
            return AttemptResult(status="throttled", code="QUOTA", message="over the quota", retry_at=from_us(retry_us), scope=self.name)
        if fault == "throttle":
            retry_at = from_us(now_us) + timedelta(seconds=float(settings.get("seconds", 60.0)))
            return AttemptResult(status="throttled", code="QUOTA_TEMPORARY", message="slow down", retry_at=retry_at, scope=self.name)
        refusal = ("REFUSED", "the platform refuses this change") if fault == "refuse" else self._refusal(change, now_us)
        if refusal is not None:
            return AttemptResult(status="rejected", code=refusal[0], message=refusal[1])
        delay = self.latency // _MICROSECOND
        if fault == "late":
            delay += int(float(settings.get("seconds", 0.0)) * 1e6)
        delay += int(rng.random() * (self.late_by / _MICROSECOND))
        if fault != "ignore":
            active = {"pause": False, "resume": True, "create": True}.get(change.kind)
            resource = f"{change.target.resource}#{number}" if change.kind == "create" else change.target.resource
            self._write(resource, now_us + delay, change.budget, active, change.action_id, change.kind, now_us)
        return lost if fault == "lose_reply" else AttemptResult(status="accepted", request_id=f"{self.name}-{number}")

    def _refusal(self, change: Change, now_us: int) -> tuple[str, str] | None:
        if change.kind == "create":  # as on real platforms, a second one of the same name is not refused
            return None if change.budget is not None else ("BUDGET_MISSING", "a new resource needs a budget")
        budget, active = self._in_force(change.target.resource, now_us)
        if budget is None and active is None:
            return "NOT_FOUND", f"no resource {change.target.resource!r}"
        if change.kind == "set_budget" and change.budget is None:
            return "BUDGET_MISSING", "a change of the budget needs a budget"
        if change.budget is not None and budget is not None:
            if change.budget.currency != budget.currency:
                return "WRONG_CURRENCY", f"the account is in {budget.currency}, not {change.budget.currency}"
            if change.budget.micros < (0 if self.minimum is None else self.minimum.micros):
                return "BUDGET_BELOW_MINIMUM", f"the least budget a day is {self.minimum or Money(0, budget.currency)!r}"
        return None

    # ---------------------------------------------------------------- quota, counted here

    def _admit(self, now_us: int, units: float) -> int | None:
        """Count a request, or return when one of its size fits again."""
        last_us, total = self._last_admitted("")
        now_us = max(now_us, last_us)  # the server's own clock does not go back
        if self.quota is None:
            self._count(now_us, units, "admitted", total + units)
            return None
        limit, seconds = self.quota
        begin_us = now_us - int(seconds * 1e6)
        used = total - self._last_admitted("AND at_us <= ?", begin_us)[1]
        if used + units <= limit:
            self._count(now_us, units, "admitted", total + units)
            return None
        self._count(now_us, units, "refused")
        row = self._db.execute(  # the first request after whose leaving this one would fit
            "SELECT at_us FROM requests WHERE verdict = 'admitted' AND at_us > ? AND total >= ? ORDER BY at_us, sequence LIMIT 1",
            (begin_us, total + units - limit),
        ).fetchone()
        return now_us if row is None else int(row[0]) + int(seconds * 1e6)

    def _last_admitted(self, where: str, *values: int) -> tuple[int, float]:
        """Return the time of the last admitted request and the units of all admitted up to it."""
        row = self._db.execute(
            f"SELECT at_us, total FROM requests WHERE verdict = 'admitted' {where} ORDER BY at_us DESC, sequence DESC LIMIT 1", values
        ).fetchone()
        return (_BEGINNING, 0.0) if row is None else (row[0], row[1])

    def _count(self, now_us: int, units: float, verdict: str, total: float = 0.0) -> None:
        self._db.execute("INSERT INTO requests (at_us, units, verdict, total) VALUES (?, ?, ?, ?)", (now_us, units, verdict, total))

    def requests(self, verdict: str = "admitted") -> list[tuple[datetime, float]]:
        """Return when each request was counted and its units: ``admitted``, ``refused``, ``lost``, or met an ``outage``."""
        with self._lock:
            rows = self._db.execute("SELECT at_us, units FROM requests WHERE verdict = ? ORDER BY at_us, sequence", (verdict,)).fetchall()
        return [(from_us(at_us), units) for at_us, units in rows]

    # ---------------------------------------------------------------- the books

    def _in_force(self, resource: str, at_us: int) -> tuple[Money | None, bool | None]:
        def last(column: str) -> Any:
            return self._db.execute(
                f"SELECT micros, currency, active FROM changes WHERE resource = ? AND effective_us <= ? AND {column} IS NOT NULL"
                " ORDER BY effective_us DESC, sequence DESC LIMIT 1",
                (resource, at_us),
            ).fetchone()

        with self._lock:
            money, active = last("micros"), last("active")
        return (None if money is None else Money(money[0], money[1])), (None if active is None else bool(active[2]))

    def budget_at(self, resource: str, at: datetime) -> Money:
        """Return the budget a day in force at a time; zero while the resource is paused.

        Raises:
            RejectedError: There is no such resource.
        """
        budget, active = self._in_force(resource, to_us(at))
        if budget is None:
            raise RejectedError("there is no such resource", "resource", resource, None, self.resources()[:20])
        return budget if active is not False else Money(0, budget.currency)

    def resources(self) -> list[str]:
        """Return the names of all resources, sorted."""
        with self._lock:
            return [row[0] for row in self._db.execute("SELECT DISTINCT resource FROM changes ORDER BY resource")]

    def applied(self) -> list[Applied]:
        """Return every change of an action that was put into force, in the order in which it was taken."""
        with self._lock:
            rows = self._db.execute(
                "SELECT action_id, resource, kind, micros, currency, effective_us FROM changes"
                " WHERE action_id IS NOT NULL ORDER BY sequence"
            ).fetchall()
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
        with self._lock:
            rows = self._db.execute(
                "SELECT effective_us, micros, currency FROM changes"
                " WHERE resource = ? AND micros IS NOT NULL ORDER BY effective_us, sequence",
                (resource,),
            ).fetchall()
        return [(None if us == _BEGINNING else from_us(us), Money(micros, currency)) for us, micros, currency in rows]

    # ---------------------------------------------------------------- faults, set from outside

    def fault(self, fault: Fault, *, times: int = 1, resource: str | None = None, **settings: float) -> None:
        """Let the next changes (of a resource) meet a fault.

        Args:
            fault: ``lose_request`` (never arrives, no reply), ``lose_reply`` (applied, no reply), ``late`` (``seconds`` later),
                ``refuse``, ``throttle`` (for ``seconds``), ``ignore`` (accepted without effect), ``unreachable`` (surely not sent).
            times: How many changes meet it.
            resource: Only those of this resource.
            **settings: Numbers of the fault.
        """
        if fault not in _FAULTS:
            raise ConfigurationError("no such fault", "fault", fault, None, _FAULTS)
        text = json.dumps({"resource": resource, **settings})
        with self._transaction():
            self._db.execute("INSERT INTO faults (fault, remaining, settings) VALUES (?, ?, ?)", (fault, times, text))

    def _next_fault(self, resource: str) -> tuple[Fault | None, dict[str, Any]]:
        for sequence, fault, text in self._db.execute(
            "SELECT sequence, fault, settings FROM faults WHERE remaining > 0 ORDER BY sequence"
        ).fetchall():
            settings = json.loads(text)
            if settings["resource"] in (None, resource):
                self._db.execute("UPDATE faults SET remaining = remaining - 1 WHERE sequence = ?", (sequence,))
                return fault, settings
        return None, {}

    def alter(self, resource: str, budget: Money, *, at: datetime) -> None:
        """Let someone else change a budget."""
        with self._transaction():
            self._write(resource, to_us(at), budget, None, None, "altered", to_us(at))

    def outage(self, since: datetime, until: datetime) -> None:
        """Let nothing reach the platform from ``since`` until before ``until``."""
        with self._transaction():
            self._db.execute("INSERT INTO outages VALUES (?, ?)", (to_us(since), to_us(until)))

    def _is_out(self, now_us: int) -> bool:
        with self._lock:
            return self._db.execute("SELECT 1 FROM outages WHERE since_us <= ? AND until_us > ?", (now_us, now_us)).fetchone() is not None

    def close(self) -> None:
        """Close the books."""
        with self._lock:
            self._db.close()

    def __repr__(self) -> str:
        return f"SimulatedPlatform({self.name!r}, {len(self.resources())} resources)"
