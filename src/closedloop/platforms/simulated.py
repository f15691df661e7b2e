"""A platform of our own: budgets, latency, quota, lost replies and other faults, all driven by ``now``.

Law of this file: it is a *server* seen through the same door as any platform, and its own books are the truth: which budget was in
force when, what was applied, how many requests it counted. It knows no executor and reads no clock. With ``path`` the books are
kept in an SQLite file that outlives the process, so that a killed client cannot change what the server did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from closedloop.errors import ConfigurationError, NotSentError, RejectedError
from closedloop.platforms.books import BEGINNING, Applied, Books
from closedloop.records.action import AttemptResult, Change, TargetState
from closedloop.records.decision import Target
from closedloop.records.holdout import HoldoutCounts
from closedloop.records.moments import from_us, to_us
from closedloop.records.money import Money

Fault = Literal["lose_request", "lose_reply", "late", "refuse", "throttle", "ignore", "unreachable"]
_FAULTS = get_args(Fault)
_MICROSECOND = timedelta(microseconds=1)


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
        audience: Users that a holdout divides.

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
        audience: int = 1_000_000,
    ) -> None:
        if not 0.0 <= lost_replies <= 1.0:
            raise ConfigurationError("a share lies in [0, 1]", "lost_replies", lost_replies)
        if quota is not None and not (quota[0] > 0 and quota[1] > 0):
            raise ConfigurationError("a quota needs units and seconds above zero", "quota", quota)
        if audience < 2:
            raise ConfigurationError("a holdout divides at least two users", "audience", audience)
        for label, duration in (("latency", latency), ("read_lag", read_lag), ("late_by", late_by)):
            if duration < timedelta(0):
                raise ConfigurationError("a delay is zero or more", label, duration)
        self.name, self.latency, self.read_lag, self.quota, self.units = name, latency, read_lag, quota, units
        self.lost_replies, self.late_by, self.minimum, self.seed, self.audience = lost_replies, late_by, minimum, seed, audience
        self._books = Books(path)
        with self._books.transaction():
            known = set(self._books.resources())
            for resource, budget in budgets.items():
                if resource not in known:
                    self._books.write(resource, BEGINNING, budget, True, None, "initial", None)

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
        budget, active = self._books.in_force(target.resource, self._enter(target, now))
        if budget is None and active is None:
            raise RejectedError("there is no such resource", "resource", target.resource, "NOT_FOUND", self.resources()[:20])
        return TargetState(target=target, budget=budget, active=active is not False, read_at=now)

    def find(self, change: Change, *, now: datetime) -> list[TargetState]:
        """Return what was created for an action, as old as ``read_lag`` says.

        Raises:
            NotSentError: Over quota, or an outage.
        """
        seen_us = self._enter(change.target, now)
        found = self._books.created(change.action_id, seen_us)
        stands = [(Target(self.name, resource), *self._books.in_force(resource, seen_us)) for resource in found]
        return [TargetState(target=target, budget=budget, active=active is not False, read_at=now) for target, budget, active in stands]

    def _enter(self, target: Target, now: datetime) -> int:
        """Count a read and return the time (us) as of which it sees."""
        now_us = to_us(now)
        with self._books.transaction():
            out, retry_us = self._books.is_out(now_us), None
            if out:
                self._books.count(now_us, 0.0, "outage")
            else:
                retry_us = self._admit(now_us, self.units[1])
        if out:
            raise NotSentError("the platform cannot be reached", "target", str(target), "try again later")
        if retry_us is not None:
            raise NotSentError("over the quota", "target", str(target), "wait", retry_at=from_us(retry_us))
        return now_us - self.read_lag // _MICROSECOND

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        """Take one change: accept, refuse or throttle it, or lose the request or the reply."""
        with self._books.transaction():
            return self._take(change, to_us(now))

    def _take(self, change: Change, now_us: int) -> AttemptResult:
        if self._books.is_out(now_us):
            self._books.count(now_us, 0.0, "outage")
            return AttemptResult(status="not_sent", code="UNREACHABLE", message="the platform cannot be reached")
        fault, settings = self._books.next_fault(change.target.resource)
        if fault == "unreachable":
            return AttemptResult(status="not_sent", code="UNREACHABLE", message="the platform cannot be reached")
        number = self._books.number()
        rng = np.random.default_rng([self.seed, number])
        if fault is None and rng.random() < self.lost_replies:
            fault = "lose_reply" if rng.random() < 0.5 else "lose_request"
        lost = AttemptResult(status="unknown", code="TIMEOUT", message="no reply")
        if fault == "lose_request":
            self._books.count(now_us, 0.0, "lost")  # the number of requests also steers the next loss
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
            self._books.write(resource, now_us + delay, change.budget, active, change.action_id, change.kind, now_us)
        return lost if fault == "lose_reply" else AttemptResult(status="accepted", request_id=f"{self.name}-{number}")

    def _refusal(self, change: Change, now_us: int) -> tuple[str, str] | None:
        if change.kind == "create":  # as on real platforms, a second one of the same name is not refused
            return None if change.budget is not None else ("BUDGET_MISSING", "a new resource needs a budget")
        budget, active = self._books.in_force(change.target.resource, now_us)
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
        last_us, total = self._books.last_admitted()
        now_us = max(now_us, last_us)  # the server's own clock does not go back
        if self.quota is None:
            self._books.count(now_us, units, "admitted", total + units)
            return None
        limit, seconds = self.quota
        begin_us = now_us - int(seconds * 1e6)
        used = total - self._books.last_admitted(begin_us)[1]
        if used + units <= limit:
            self._books.count(now_us, units, "admitted", total + units)
            return None
        self._books.count(now_us, units, "refused")
        leaves_us = self._books.first_admitted(begin_us, total + units - limit)  # after it has left, this one would fit
        return now_us if leaves_us is None else leaves_us + int(seconds * 1e6)

    # ---------------------------------------------------------------- holdouts

    def start_holdout(self, holdout_id: str, targets: Sequence[Target], share: float, *, now: datetime) -> None:
        """Begin a holdout, in force after the latency.

        Raises:
            NotSentError: Over quota, or an outage.
            RejectedError: A target does not exist or is in another holdout, or the id is known with other targets or another share.
            ConfigurationError: The share is not between 0 and 1, or there is no target.
        """
        if not 0.0 < share < 1.0:
            raise ConfigurationError("a held-out share lies between 0 and 1", "share", share)
        if not targets:
            raise ConfigurationError("a holdout needs at least one target", "targets", targets)
        wanted = sorted({target.resource for target in targets})
        self._enter(targets[0], now)
        with self._books.transaction():
            running = self._books.holdout(holdout_id)
            if running:
                if [(row[0], row[1]) for row in running] != [(resource, share) for resource in wanted]:
                    raise RejectedError("this holdout was begun otherwise", "holdout_id", holdout_id, "give another id")
                return
            for resource in wanted:
                if self._books.in_force(resource, to_us(now)) == (None, None):
                    raise RejectedError("there is no such resource", "resource", resource, None, self.resources()[:20])
                other = self._books.next_holdout(resource, to_us(now) + self.latency // _MICROSECOND)
                if other is not None:
                    raise RejectedError("a resource is in another holdout", "resource", resource, f"end {other!r} first")
            self._books.add_holdout(holdout_id, wanted, share, to_us(now) + self.latency // _MICROSECOND)

    def read_holdout(self, holdout_id: str, *, now: datetime) -> HoldoutCounts:
        """Return what was counted, as old as ``read_lag`` says.

        Raises:
            NotSentError: Over quota, or an outage.
            RejectedError: There is no such holdout.
        """
        rows = self._known_holdout(holdout_id)
        treated, control = self._books.holdout_counts(holdout_id, self._enter(Target(self.name, rows[0][0]), now))
        _, share, since_us, until_us = rows[0]
        return HoldoutCounts(
            holdout_id=holdout_id,
            treated=treated,
            control=control,
            treated_users=self.audience * (1.0 - share),
            control_users=self.audience * share,
            since=from_us(since_us),
            until=None if until_us is None else from_us(until_us),
        )

    def end_holdout(self, holdout_id: str, *, now: datetime) -> None:
        """End a holdout after the latency.

        Raises:
            NotSentError: Over quota, or an outage.
            RejectedError: There is no such holdout.
        """
        rows = self._known_holdout(holdout_id)
        self._enter(Target(self.name, rows[0][0]), now)
        with self._books.transaction():
            self._books.end_holdout(holdout_id, to_us(now) + self.latency // _MICROSECOND)

    def _known_holdout(self, holdout_id: str) -> list[tuple[str, float, int, int | None]]:
        rows = self._books.holdout(holdout_id)
        if not rows:
            raise RejectedError("there is no such holdout", "holdout_id", holdout_id, "start it first")
        return rows

    def holdouts_at(self, at: datetime) -> dict[str, float]:
        """Return the held-out share of each resource in a holdout."""
        return {resource: share for resource, (_, share) in self._books.holdouts_at(to_us(at)).items()}

    def count_holdouts(self, counts: Mapping[str, tuple[int, int]], *, at: datetime, known_at: datetime) -> None:
        """Note conversions of both groups (treated, held out) by resource, for the holdouts ``at`` a time; read from ``known_at`` on."""
        running = self._books.holdouts_at(to_us(at))
        with self._books.transaction():
            for resource, (treated, control) in counts.items():
                self._books.add_holdout_counts(running[resource][0], to_us(known_at), treated, control)

    # ---------------------------------------------------------------- the books

    def requests(self, verdict: str = "admitted") -> list[tuple[datetime, float]]:
        """Return when each request was counted and its units: ``admitted``, ``refused``, ``lost``, or met an ``outage``."""
        return self._books.requests(verdict)

    def budget_at(self, resource: str, at: datetime) -> Money:
        """Return the budget a day in force at a time; zero while the resource is paused.

        Raises:
            RejectedError: There is no such resource.
        """
        budget, active = self._books.in_force(resource, to_us(at))
        if budget is None:
            raise RejectedError("there is no such resource", "resource", resource, None, self.resources()[:20])
        return budget if active is not False else Money(0, budget.currency)

    def resources(self) -> list[str]:
        """Return the names of all resources, sorted."""
        return self._books.resources()

    def applied(self) -> list[Applied]:
        """Return every change of an action that was put into force, in the order in which it was taken."""
        return self._books.applied()

    def history(self, resource: str) -> list[tuple[datetime | None, Money]]:
        """Return the budgets of a resource in the order in which they came into force; the first has no time."""
        return self._books.history(resource)

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
        with self._books.transaction():
            self._books.add_fault(fault, times, {"resource": resource, **settings})

    def alter(self, resource: str, budget: Money, *, at: datetime) -> None:
        """Let someone else change a budget."""
        with self._books.transaction():
            self._books.write(resource, to_us(at), budget, None, None, "altered", to_us(at))

    def outage(self, since: datetime, until: datetime) -> None:
        """Let nothing reach the platform from ``since`` until before ``until``."""
        with self._books.transaction():
            self._books.add_outage(to_us(since), to_us(until))

    def close(self) -> None:
        """Close the books."""
        self._books.close()

    def __repr__(self) -> str:
        return f"SimulatedPlatform({self.name!r}, {len(self.resources())} resources)"
