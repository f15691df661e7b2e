"""The executor: records every decision durably, sends within limits, confirms by reading back.

Law of this file: nothing is sent that is not in the ledger; time is an argument; there is no thread. `tick` does what is due and
says when to call again, so it embeds in any loop, scheduler or notebook.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import attrs

from closedloop.errors import ConfigurationError, ConflictError, UnknownPlatformError
from closedloop.execute.dispatch import Dispatcher, Timing
from closedloop.execute.lifecycle import FIRST, IN_FLIGHT
from closedloop.execute.outbox import KIND, REQUEST, Outbox, charges_since
from closedloop.execute.quota import QuotaGate, Use
from closedloop.execute.reconcile import Reconciliation, by_target, compare, restoring, way_back
from closedloop.execute.resuming import resume
from closedloop.execute.sharing import SharedDispatcher
from closedloop.execute.standing import same_aspect
from closedloop.execute.steady import SteadyClock
from closedloop.interfaces import AppliesChanges, Claims, FindsCreated, Ledger, ReadsState
from closedloop.records.action import Action, Change, Entry, Receipt, Receipts
from closedloop.records.codec import canonical, decode, encode
from closedloop.records.decision import Constraints, Decision, Plan, Target
from closedloop.records.moments import from_us, to_us
from closedloop.records.money import Money

EXECUTION = "execution"
CLOCK = "clock"
PLATFORM = "platform"


@attrs.frozen(kw_only=True)
class Order:
    """One change to be carried out.

    Args:
        change: The change.
        before: What must stand for it to be sent, None for anything.
        value: Expected gain a day.
    """

    change: Change
    before: Money | None = None
    value: float = 0.0


class OutboxExecutor:
    """Carry out plans through a ledger.

    Args:
        ledger: Where everything is recorded before it is sent.
        platforms: The doors by name; each reads state and applies changes, and may declare limits.
        headroom: Share of each declared quota that is used.
        timeout: How long one request may take.
        quiet_period: Least time between a lost reply and the look that may lead to a second try; a platform may ask for more.
        confirm_delay: Time between acceptance and the first look.
        poll_interval: Time between the first and the second look; it doubles from look to look.
        confirm_within: How long an accepted change may take to show before it counts as diverged.
        retry_delay: Wait after a platform could not be reached; it doubles up to 64 times.
        max_attempts: Sends after which an action that is surely not applied is given up.
        expiry: How long after the decision an action may still be sent.
        worker: Name of this process in records; no two that run at once may share one.
        workers: On a ledger that several workers share, how many there are at most.
        monotonic: Seconds from a clock that never jumps, such as ``time.monotonic``. With it, a jump of the wall clock neither frees
            quota nor ends a quiet period early, and each request of a long tick has its own time; without it, every ``now`` is believed
            and stands for the whole tick.

    Raises:
        ConfigurationError: A setting is out of range, or a platform cannot be read or changed.

    >>> from datetime import UTC
    >>> from closedloop.ledger import MemoryLedger
    >>> from closedloop.platforms import SimulatedPlatform
    >>> platform = SimulatedPlatform({"spring": Money.of(100, "EUR")}, latency=timedelta(minutes=1))
    >>> executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    >>> change = Change(action_id="c1", target=Target("simulated", "spring"), budget=Money.of(120, "EUR"))
    >>> now = datetime(2026, 3, 1, tzinfo=UTC)
    >>> [receipt.state for receipt in executor.submit("by hand", [change], now=now, reason="a better season")]
    ['accepted']
    >>> executor.tick(now + timedelta(minutes=2)), [receipt.state for receipt in executor.receipts("by hand")]
    (None, ['confirmed'])
    """

    def __init__(
        self,
        ledger: Ledger,
        platforms: Mapping[str, Any],
        *,
        headroom: float = 0.9,
        timeout: timedelta = timedelta(seconds=10),
        quiet_period: timedelta = timedelta(0),
        confirm_delay: timedelta = timedelta(0),
        poll_interval: timedelta = timedelta(seconds=5),
        confirm_within: timedelta = timedelta(minutes=5),
        retry_delay: timedelta = timedelta(seconds=30),
        max_attempts: int = 5,
        expiry: timedelta = timedelta(days=1),
        worker: str | None = None,
        workers: int = 4,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        for name, value in (("timeout", timeout), ("poll_interval", poll_interval), ("retry_delay", retry_delay), ("expiry", expiry)):
            if value <= timedelta(0):
                raise ConfigurationError("a duration above zero is needed", name, str(value))
        if max_attempts < 1:
            raise ConfigurationError("an action needs at least one attempt", "max_attempts", max_attempts)
        for name, platform in platforms.items():
            for protocol, lack in ((ReadsState, "read"), (AppliesChanges, "send and quiet_period")):
                if not isinstance(platform, protocol):
                    raise ConfigurationError("a platform needs to be read and changed", name, type(platform).__name__, f"give it {lack}")
        self.ledger, self.platforms = ledger, dict(platforms)
        self.sending = True  # False: look at what was sent, send nothing; what is queued stays recorded
        self._expiry, self._steady = expiry, SteadyClock(monotonic)
        self._claims = ledger if isinstance(ledger, Claims) else None
        self._shared = self._claims is not None
        self._headroom, self._workers = headroom, workers if self._shared else 1
        self._timing = Timing(
            timeout=timeout,
            quiet_period=quiet_period,
            confirm_delay=confirm_delay,
            poll_interval=poll_interval,
            confirm_within=confirm_within,
            retry_delay=retry_delay,
            max_attempts=max_attempts,
        )
        self._outbox = Outbox(ledger, worker or uuid.uuid4().hex[:12])
        self._clock_name, self._jumps = worker or "executor", 0
        self._lock = threading.RLock()  # a scheduler may call from any of its threads, one at a time
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._versions_known: set[str] = set()
        self._outbox.forget()
        self._gate = QuotaGate(headroom=self._headroom, workers=self._workers, history=self._charges)
        parts = (self._outbox, self._gate, self.platforms, self._timing)
        self._dispatcher = Dispatcher(*parts) if self._claims is None else SharedDispatcher(*parts, self._claims)

    def _charges(self, window_us: int) -> Iterator[Use]:
        now_us = to_us(min(self._steady.moment(), self._outbox.last_at or self._steady.moment()))
        return charges_since(self.ledger, from_us(max(0, now_us - window_us - window_us // 100)))

    @contextmanager
    def _working(self, now: datetime) -> Iterator[None]:
        """Have the view loaded; throw it away when something fails, so that the ledger speaks next time."""
        seconds = self._steady.seconds()
        to_us(now)
        self._lock.acquire()
        try:
            loaded = self._outbox.loaded
            if not loaded:
                self._outbox.load()
                self._resume_clock()
            if self._steady.begin(now, seconds):
                self._note_jump()
            if not loaded:
                resume(self._dispatcher, self._steady.moment())
            elif self._shared:
                self._outbox.catch_up()
            yield
        except BaseException:
            self._begin_anew()
            raise
        finally:
            self._lock.release()

    def _resume_clock(self) -> None:
        """Put the times of this process on the axis of the one before."""
        found = self.ledger.newest(CLOCK, subject=self._clock_name)
        if self._steady.has_begun:  # the view was thrown away, not the process
            if self._steady.offset:
                self._note_jump()
            return
        times = [r.entry.at for kind in (REQUEST, CLOCK) for r in self.ledger.newest(kind)]
        times += [a.receipt.sent_at for a in self._outbox.actions.values() if a.receipt.sent_at is not None]
        self._jumps = int(found[0].entry.body["jump"]) if found else 0
        self._steady.resume(timedelta(microseconds=found[0].entry.body["offset_us"] if found else 0), max(times, default=None))

    def _note_jump(self) -> None:
        self._jumps += 1
        body = {"jump": self._jumps, "offset_us": self._steady.offset // timedelta(microseconds=1)}
        at, name = self._steady.moment(), self._clock_name
        key = f"{CLOCK}:{self._outbox.worker}:{self._jumps}"
        self._outbox.stage_entry(Entry(kind=CLOCK, subject=name, at=at, body=body, key=key))

    # ---------------------------------------------------------------- the room's verbs

    def execute(self, plan: Plan, *, now: datetime) -> Receipts:
        """Record every decision of the plan in one transaction, then send what the quotas allow; return where each action stands.

        A plan that is in the ledger already is not recorded again, so a crash between two calls does no harm.

        Raises:
            UnknownPlatformError: A decision is for a platform that is not here; nothing was recorded.
            ConfigurationError: An action can never fit a declared quota; nothing was recorded.
            ConflictError: Another plan with the same id, or another decision with the same id, is in the ledger.
            LedgerError: The ledger refused; nothing more is sent.
        """
        body = {
            "plan_id": plan.plan_id,
            "made_at": encode(plan.made_at),
            "window": encode(plan.window),
            "horizon_days": encode(plan.horizon_days),
            "unit": plan.unit,
            "decisions": [encode(d) for d in plan.decisions],
        }
        orders = [Order(change=_change(d), before=d.before, value=d.gain.estimate) for d in plan.decisions]
        return self._execute(plan.plan_id, plan.made_at, orders, body, now)

    def submit(self, plan_id: str, changes: Sequence[Change], *, now: datetime, reason: str) -> Receipts:
        """Carry out changes that are no decisions of a plan: pauses, resumptions, creations, repairs.

        Args:
            plan_id: Stable id under which the receipts are found; the same id with the same changes adds nothing.
            changes: Absolute changes, each with an id of its own.
            now: Now.
            reason: In plain words, kept in the ledger.

        Raises:
            ConfigurationError: A creation on a platform that cannot find what it created; else as `execute`.
        """
        body = {"plan_id": plan_id, "reason": reason, "changes": [encode(c) for c in changes]}
        return self._execute(plan_id, None, [Order(change=change) for change in changes], body, now)

    def _execute(self, plan_id: str, made_at: datetime | None, orders: Sequence[Order], body: dict[str, Any], now: datetime) -> Receipts:
        if orders:
            with self._working(now):
                self._gate.absorb(self._outbox.others_charges() if self._shared else ())
                self._check(orders)
                at = self._steady.moment()
                self._record(plan_id, made_at or at, orders, {**body, "ids": [o.change.action_id for o in orders]}, at)
                self._work()
        return self.receipts(plan_id)

    def _check(self, orders: Sequence[Order]) -> None:
        for order in orders:
            change = order.change
            name = change.target.platform
            if name not in self.platforms:
                raise UnknownPlatformError("no such platform here", "platform", name, "register its adapter", sorted(self.platforms))
            if change.kind == "create" and not isinstance(self.platforms[name], FindsCreated):
                raise ConfigurationError("this platform cannot find again what it created", "kind", "create", "give its adapter find()")
            need, reserve = self._dispatcher.whole_cost(change)
            self._gate.blocker(to_us(self._steady.moment()), self._dispatcher.limits(change.target), need, reserve=reserve)

    def _record(self, plan_id: str, made_at: datetime, orders: Sequence[Order], body: dict[str, Any], now: datetime) -> None:
        entry = Entry(kind=EXECUTION, subject=plan_id, at=now, body=body, key=f"{EXECUTION}:{plan_id}")
        if self.ledger.newest(EXECUTION, subject=plan_id):
            self.ledger.append([entry])  # the same plan adds nothing; another one of the same id is refused
            return
        self._outbox.stage_entry(entry)
        self._note_versions({order.change.target.platform for order in orders}, now)
        for order in orders:
            action_id = order.change.action_id
            known = self.ledger.newest(KIND, subject=action_id)
            if known and decode(known[0].entry.body["action"]).receipt.plan_id == plan_id:  # another process records the same plan
                self._outbox.forget()
                self._outbox.load()
                return
            if known:
                problem = "a decision of this id belongs to another plan"
                raise ConflictError(problem, "decision_id", action_id, "give each decision an id of its own")
            self._supersede(order.change, now)
            self._outbox.stage(self._action(plan_id, made_at, order, now), now)
        self._outbox.flush()

    def _note_versions(self, names: set[str], now: datetime) -> None:
        """Stage the versions of SDK and API that the adapters name, each once."""
        for name in sorted(names - self._versions_known):
            versions = dict(getattr(self.platforms[name], "versions", {}))
            if versions:
                key = f"{PLATFORM}:{name}:{canonical(versions)}"
                self._outbox.stage_entry(Entry(kind=PLATFORM, subject=name, at=now, body={"versions": versions}, key=key))
        self._versions_known |= names

    def _supersede(self, change: Change, now: datetime) -> None:
        """Take what waits for the same target out of the queue; what is under way is waited for."""
        for other in self._outbox.lane(change.target):
            if other.receipt.state not in IN_FLIGHT and same_aspect(change, other.receipt.change):
                self._outbox.move(other, "supersede", now, message=f"by {change.action_id}")

    def _action(self, plan_id: str, made_at: datetime, order: Order, now: datetime) -> Action:
        receipt = Receipt(
            action_id=order.change.action_id,
            plan_id=plan_id,
            change=order.change,
            prior=None,
            state=FIRST,
            attempts=0,
            decided_at=made_at,
            recorded_at=now,
        )
        expires_at = max(made_at, now) + self._expiry
        return Action(receipt=receipt, before=order.before, value=order.value, step=0, expires_at=expires_at, ready_at=now)

    def tick(self, now: datetime) -> datetime | None:
        """Do what is due; return when to call again, None when nothing is open.

        Raises:
            LedgerError: The ledger cannot be read or written; nothing is sent that it does not hold. Calling again is safe.
        """
        with self._working(now):
            self._work()
            return self._steady.wall(self._outbox.next_due())

    def _work(self) -> None:
        moment = self._steady.moment
        while self._dispatcher.look(moment) + (self._dispatcher.send(moment) if self.sending else 0):
            pass  # an accepted change may be looked at, and a settled one makes room for the next of its target
        self._outbox.flush()

    def receipts(self, plan_id: str | None = None) -> Receipts:
        """Return where the actions of a plan stand, or those of all plans that have open actions.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        with self._lock:
            if plan_id is not None:
                plans = list(self.ledger.newest(EXECUTION, subject=plan_id))
            else:
                wanted = {action.receipt.plan_id for action in self._open()}
                plans = sorted((r for plan in wanted for r in self.ledger.newest(EXECUTION, subject=plan)), key=lambda r: r.sequence)
            ids = [action_id for plan in plans for action_id in plan.entry.body["ids"]]
            return Receipts.of([receipt for action_id in ids for receipt in self._receipt(action_id)])

    # ---------------------------------------------------------------- looking back

    def reconcile(self, *, now: datetime, spent: Mapping[Target, Money] | None = None) -> Reconciliation:
        """Compare what was intended with what stands at every target that was ever acted on; explain, propose, change nothing.

        Args:
            now: Now.
            spent: What targets spent on the last full day, to tell overspend that the platform's rule allows (its attribute
                ``daily_overspend``, a share of the budget) from overspend that it does not.

        Raises:
            LedgerError: The ledger cannot be read or written.
        """
        with self._working(now):
            receipts = [decode(r.entry.body["action"]).receipt for r in self.ledger.newest(KIND)]
            histories = list(by_target(receipts).values())
            looks = self._dispatcher.survey([history[-1].change for history in histories], self._steady.moment)
            rows = []
            for history, look in zip(histories, looks, strict=True):
                target = history[-1].change.target
                overspend = float(getattr(self.platforms.get(target.platform), "daily_overspend", 0.0))
                rows.append(compare(history, look, spent=(spent or {}).get(target), overspend=overspend))
        rows.sort(key=lambda row: (row.verdict in ("agrees", "pending"), str(row.target)))
        return Reconciliation(rows=tuple(rows), at=now)

    def revert(self, plan_id: str, *, now: datetime, constraints: Constraints | None = None) -> Plan:
        """Return a plan that restores what stood before another one; it is executed, or approved, like any plan.

        Args:
            plan_id: The plan to take back; only what was confirmed of it is.
            now: When the new plan is made.
            constraints: Guardrails of the step back; what they do not allow at once is said in the decision's reason.

        Raises:
            ConfigurationError: No such plan was executed.
        """
        found = self.ledger.newest(EXECUTION, subject=plan_id)
        if not found or "decisions" not in found[0].entry.body:
            known = tuple(r.entry.subject for r in self.ledger.newest(EXECUTION) if "decisions" in r.entry.body)
            raise ConfigurationError("no such plan was executed", "plan_id", plan_id, None, known[-20:])
        body = found[0].entry.body
        decisions = [decode(d) for d in body["decisions"]]
        restored = restoring(decisions, self.receipts(plan_id).rows, constraints=constraints)
        window, horizon = decode(body["window"]), decode(body["horizon_days"])
        return way_back(plan_id, decisions[0], restored, made_at=now, window=window, horizon_days=horizon, unit=body["unit"])

    def _open(self) -> list[Action]:
        if self._outbox.loaded and not self._shared:
            return list(self._outbox.actions.values())
        return [decode(r.entry.body["action"]) for r in self.ledger.newest(KIND, only_open=True)]

    def _receipt(self, action_id: str) -> list[Receipt]:
        known = self._outbox.actions.get(action_id) if self._outbox.loaded and not self._shared else None
        if known is not None:
            return [known.receipt]
        return [decode(r.entry.body["action"]).receipt for r in self.ledger.newest(KIND, subject=action_id)]


def _change(decision: Decision) -> Change:
    return Change(action_id=decision.decision_id, target=decision.target, kind="set_budget", budget=decision.after)
