"""The executor: records every decision durably, sends within limits, confirms by reading back.

Law of this file: nothing is sent that is not in the ledger; time is an argument; there is no thread. `tick` does what is due and
says when to call again, so it embeds in any loop, scheduler or notebook.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import attrs

from closedloop.errors import ConfigurationError, ConflictError, LedgerError, UnknownPlatformError
from closedloop.execute.dispatch import Dispatcher, Timing, same_aspect
from closedloop.execute.lifecycle import FIRST, IN_FLIGHT
from closedloop.execute.outbox import KIND, Outbox, charges_since
from closedloop.execute.quota import QuotaGate
from closedloop.interfaces import AppliesChanges, FindsCreated, Ledger, ReadsState
from closedloop.records.action import Action, Change, Entry, Receipt, Receipts
from closedloop.records.codec import decode, encode
from closedloop.records.decision import Decision, Plan
from closedloop.records.moments import from_us, to_us
from closedloop.records.money import Money

EXECUTION = "execution"


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
        clock: Called for the present time of each request *within* a tick, when ticks take long; else the tick's ``now`` serves.

    Raises:
        ConfigurationError: A setting is out of range, or a platform cannot be read or changed.

    >>> from datetime import UTC
    >>> from closedloop.records.action import Receipts
    >>> from closedloop.execute.lifecycle import after
    >>> after("sending", "lose")
    'unknown'
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
        clock: Callable[[], datetime] | None = None,
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
        self._expiry, self._clock = expiry, clock
        self._shared = bool(getattr(ledger, "shared", False))
        self._headroom = headroom
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
        self._now: datetime | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._outbox.forget()
        self._gate = QuotaGate(headroom=self._headroom, history=self._charges)
        self._dispatcher = Dispatcher(self._outbox, self._gate, self.platforms, self._timing)

    def _charges(self, window_us: int) -> Iterator[tuple[int, str, float]]:
        now = self._now
        return iter(()) if now is None else charges_since(self.ledger, from_us(max(0, to_us(now) - window_us - window_us // 100)))

    @contextmanager
    def _working(self, now: datetime) -> Iterator[None]:
        """Have the view loaded; throw it away when something fails, so that the ledger speaks next time."""
        to_us(now)
        self._now = now
        try:
            if not self._outbox.loaded:
                self._outbox.load()
                for action in self._outbox.actions.values():
                    if action.receipt.state in IN_FLIGHT:
                        self._gate.reserve(self._dispatcher.costs(None, action.receipt.change.target))
            elif self._shared:
                self._outbox.catch_up()
            yield
        except BaseException:
            self._begin_anew()
            raise

    def _moment(self) -> datetime:
        now = self._now
        if now is None:
            raise LedgerError("no tick is under way", "now", None)
        return now if self._clock is None else max(now, self._clock())

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
        body = {"plan_id": plan.plan_id, "made_at": encode(plan.made_at), "decisions": [encode(d) for d in plan.decisions]}
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
        return self._execute(plan_id, now, [Order(change=change) for change in changes], body, now)

    def _execute(self, plan_id: str, made_at: datetime, orders: Sequence[Order], body: dict[str, Any], now: datetime) -> Receipts:
        if orders:
            with self._working(now):
                self._check(orders)
                self._record(plan_id, made_at, orders, {**body, "ids": [o.change.action_id for o in orders]}, now)
            self.tick(now)
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
            self._gate.blocker(to_us(self._moment()), self._dispatcher.limits(change.target), need, reserve=reserve)

    def _record(self, plan_id: str, made_at: datetime, orders: Sequence[Order], body: dict[str, Any], now: datetime) -> None:
        entry = Entry(kind=EXECUTION, subject=plan_id, at=now, body=body, key=f"{EXECUTION}:{plan_id}")
        if self.ledger.newest(EXECUTION, subject=plan_id):
            self.ledger.append([entry])  # the same plan adds nothing; another one of the same id is refused
            return
        self._outbox.stage_entry(entry)
        for order in orders:
            action_id = order.change.action_id
            if self.ledger.newest(KIND, subject=action_id):
                problem = "a decision of this id belongs to another plan"
                raise ConflictError(problem, "decision_id", action_id, "give each decision an id of its own")
            newer = self._supersede(order.change, made_at, now)
            action = self._outbox.stage(self._action(plan_id, made_at, order, now), now)
            if newer is not None:
                self._outbox.move(action, "supersede", now, message=f"by {newer}")
        self._outbox.flush()

    def _supersede(self, change: Change, made_at: datetime, now: datetime) -> str | None:
        """Take older actions for the target out of the queue; return the id of a newer one that stands in the way."""
        newer = None
        for other in self._outbox.lane(change.target):
            if not same_aspect(change, other.receipt.change):
                continue
            if other.receipt.decided_at > made_at:
                newer = other.receipt.action_id
            elif other.receipt.state not in IN_FLIGHT:
                self._outbox.move(other, "supersede", now, message=f"by {change.action_id}")
        return newer

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
            while self._dispatcher.look(self._moment) + (self._dispatcher.send(self._moment) if self.sending else 0):
                pass  # an accepted change may be looked at, and a settled one makes room for the next of its target
            self._outbox.flush()
            return self._outbox.next_due()

    def receipts(self, plan_id: str | None = None) -> Receipts:
        """Return where the actions of a plan stand, or those of all plans that have open actions.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        if plan_id is not None:
            plans = list(self.ledger.newest(EXECUTION, subject=plan_id))
        else:
            wanted = {action.receipt.plan_id for action in self._open()}
            plans = sorted((r for plan in wanted for r in self.ledger.newest(EXECUTION, subject=plan)), key=lambda r: r.sequence)
        ids = [action_id for plan in plans for action_id in plan.entry.body["ids"]]
        return Receipts.of([receipt for action_id in ids for receipt in self._receipt(action_id)])

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
