"""Send what may be sent, look at what is under way.

Law of this file: every request is charged to its quotas and recorded before it is made; the state before a change is read and kept
before the change is sent; a lost reply is followed by a quiet period and a look, and never by a blind second try. What a platform
raises or answers becomes a state of the action, so one action's trouble never stops the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs

from closedloop.errors import ConfigurationError, NotSentError, PlatformError, RejectedError
from closedloop.execute.lifecycle import IN_FLIGHT
from closedloop.execute.outbox import Outbox, Place, seconds_waited
from closedloop.execute.quota import Costs, QuotaGate
from closedloop.execute.standing import Look, describe, in_force, same_amount, same_aspect, unchanged
from closedloop.interfaces import LimitsRequests, WeighsRequests
from closedloop.records.action import Action, AttemptResult, Change, TargetState
from closedloop.records.decision import Target
from closedloop.records.moments import from_us, to_us

_LONGEST_MESSAGE = 300
_OTHERS = "changed by someone else or by the platform"
_ABSENT = "looked after the quiet period: not applied"


@attrs.frozen(kw_only=True)
class Timing:
    """The waits of an executor; see `OutboxExecutor`."""

    timeout: timedelta
    quiet_period: timedelta
    confirm_delay: timedelta
    poll_interval: timedelta
    confirm_within: timedelta
    retry_delay: timedelta
    max_attempts: int


def _words(error: Exception) -> tuple[str, str]:
    """Return code and message of what a platform's door raised; an unforeseen error's text may hold secrets, so only its type is kept."""
    if not isinstance(error, PlatformError):
        return "ADAPTER", f"the adapter raised {type(error).__name__}"
    code = {"RejectedError": "REJECTED", "AuthenticationError": "AUTHENTICATION"}.get(type(error).__name__, "UNREACHABLE")
    return code, " ".join(p for p in (error.problem, error.mend) if p)[:_LONGEST_MESSAGE]


class Dispatcher:
    """Move actions on, one platform request at a time.

    Args:
        outbox: The open actions.
        gate: The quotas.
        platforms: The doors, by name.
        timing: The waits.
    """

    def __init__(self, outbox: Outbox, gate: QuotaGate, platforms: Mapping[str, Any], timing: Timing) -> None:
        self.outbox, self.gate, self.platforms, self.timing = outbox, gate, platforms, timing
        self._failures: dict[str, int] = {}  # in a row, by platform: an unreachable platform is not asked by every action
        self._down_until: dict[str, int] = {}
        self._looks: dict[str, int] = {}
        self._limits = {name: platform.limits for name, platform in platforms.items() if isinstance(platform, LimitsRequests)}
        self._costs = {name: platform.costs for name, platform in platforms.items() if isinstance(platform, WeighsRequests)}

    # ---------------------------------------------------------------- quotas

    def limits(self, target: Target) -> Sequence[tuple[str, float, float]]:
        """Return the quotas that requests to a target count against."""
        limits = self._limits.get(target.platform)
        return () if limits is None else limits(target)

    def costs(self, change: Change | None, target: Target) -> Costs:
        """Return the units by scope of a change, or of a read for None."""
        weigh, limits = self._costs.get(target.platform), self._limits.get(target.platform)
        if weigh is not None:
            return weigh(change, target)
        if limits is None:
            return {}
        cost = self.platforms[target.platform].cost(change)
        return {scope: cost for scope, _, _ in limits(target)}

    def whole_cost(self, change: Change) -> tuple[Costs, Costs]:
        """Return what a change needs by scope (the look before and the change itself), and what its confirmation needs."""
        read, write = self.costs(None, change.target), self.costs(change, change.target)
        return {scope: read.get(scope, 0.0) + write.get(scope, 0.0) for scope in {*read, *write}}, read

    def quiet(self, target: Target) -> timedelta:
        """Return how long after a send a change may still come into force unseen."""
        declared = timedelta(seconds=getattr(self.platforms.get(target.platform), "quiet_period", 0.0))
        return max(declared, self.timing.timeout, self.timing.quiet_period)

    # ---------------------------------------------------------------- looking

    def look(self, moment: Callable[[], datetime]) -> int:
        """Read back what is due, and end what ran out of time; return how many actions were touched."""
        at = moment()
        due: list[Action] = []
        touched = 0
        for action in self.outbox.fired(at):
            touched += 1
            if action.receipt.state not in IN_FLIGHT:
                if action.expires_at <= at:
                    self._expire(action, at)
            else:
                due.append(action)
        self._look_all(due, moment)
        return touched

    def _look_all(self, due: Sequence[Action], moment: Callable[[], datetime]) -> None:
        """Look at what is due: the charges of all looks are recorded at once."""
        at = moment()
        allowed = [action for action in due if self._may_look(action, at)]
        if allowed:
            self.outbox.flush()
        for action in allowed:
            self._look_at(action, moment)

    def _may_look(self, action: Action, at: datetime) -> bool:
        """Charge a look, or come back when the quota or the platform allows it."""
        target, at_us = action.receipt.change.target, to_us(at)
        limits, costs = self.limits(target), self.costs(None, target)
        until = max(self.gate.wait(at_us, limits, costs, own=True), self._down_until.get(target.platform, at_us))
        if target.platform not in self.platforms:
            until = at_us + self.timing.retry_delay // timedelta(microseconds=1)
        if until > at_us:
            self.outbox.delay(action, from_us(until))
            return False
        self.outbox.stage_request(target.platform, at, self.gate.charge(at_us, limits, costs))
        return True

    def _look_at(self, action: Action, moment: Callable[[], datetime]) -> None:
        at, change = moment(), action.receipt.change
        if action.receipt.state == "sending":  # its sender died before it could record an answer
            action = self.outbox.move(action, "lose", at, code="INTERRUPTED", message="the sender stopped before the reply", due_at=at)
        found = self._see(change, at)
        if isinstance(found, RejectedError):
            code, message = _words(found)
            self._settle(action, "refuse", at, code=code, message=message)
        elif isinstance(found, Exception):
            retry_at = getattr(found, "retry_at", None)
            self.outbox.delay(action, max(retry_at or at, from_us(self._down_until[change.target.platform])))
        elif in_force(change, found):
            self._settle(action, "confirm", at, code="", message="")
        elif action.receipt.state == "accepted":
            self._poll(action, found, at)
        elif unchanged(change, action.receipt.prior, found):
            self._absent(action, at)
        else:
            self._settle(
                action, "diverge", at, code="CHANGED", message=f"stands at {describe(found)}: changed by someone else or by the platform"
            )

    def _poll(self, action: Action, found: TargetState | None, at: datetime) -> None:
        receipt, until = action.receipt, action.look_until or at
        if at >= until:
            if unchanged(receipt.change, receipt.prior, found):
                message = f"accepted, but still at {describe(found)}"
                self._settle(action, "diverge", at, code="NO_EFFECT", message=message)
            else:
                message = f"accepted, but stands at {describe(found)}: {_OTHERS}"
                self._settle(action, "diverge", at, code="CHANGED", message=message)
            return
        looks = self._looks.get(receipt.action_id, 0)
        self._looks[receipt.action_id] = looks + 1
        self.outbox.delay(action, min(at + self.timing.poll_interval * 2 ** min(looks, 20), until))

    def _absent(self, action: Action, at: datetime) -> None:
        """The quiet period is over and nothing has changed: it may be sent again, if there is time."""
        self.gate.reserve(self.costs(None, action.receipt.change.target), -1)
        action = self.outbox.move(action, "absent", at, code="NOT_APPLIED", message=_ABSENT, ready_at=at)
        self._may_retry(action, at)

    def _may_retry(self, action: Action, at: datetime) -> None:
        change = action.receipt.change
        waiting = [a for a in self.outbox.lane(change.target) if a.receipt.action_id != action.receipt.action_id]
        newer = [a for a in waiting if a.receipt.state not in IN_FLIGHT and same_aspect(a.receipt.change, change)]
        if newer:
            self.outbox.move(action, "supersede", at, message=f"by {newer[-1].receipt.action_id}")
        elif action.receipt.attempts >= self.timing.max_attempts:
            self.outbox.move(action, "expire", at, code="ATTEMPTS", message=f"not applied after {action.receipt.attempts} attempts")

    def _expire(self, action: Action, at: datetime) -> None:
        self.outbox.move(action, "expire", at, code=action.receipt.code or "EXPIRED", message=action.receipt.message or "not sent in time")

    def _settle(self, action: Action, event: Any, at: datetime, **receipt: Any) -> None:
        self._looks.pop(action.receipt.action_id, None)
        if action.receipt.state in IN_FLIGHT:
            self.gate.reserve(self.costs(None, action.receipt.change.target), -1)
        self.outbox.move(action, event, at, **receipt)

    def survey(self, changes: Sequence[Change], moment: Callable[[], datetime]) -> list[Look]:
        """Read what stands at the targets of changes, as far as the quotas allow now."""
        at, looks, allowed = moment(), [Look(trouble="")] * len(changes), []
        for i, change in enumerate(changes):
            target, at_us = change.target, to_us(at)
            limits, costs = self.limits(target), self.costs(None, target)
            if target.platform not in self.platforms:
                looks[i] = Look(trouble=f"no platform {target.platform} here")
            elif self.gate.wait(at_us, limits, costs) > at_us:
                looks[i] = Look(trouble="no quota left for reading now")
            else:
                self.outbox.stage_request(target.platform, at, self.gate.charge(at_us, limits, costs))
                allowed.append(i)
        self.outbox.flush()
        for i in allowed:
            found = self._states(changes[i], moment())
            if isinstance(found, RejectedError):
                looks[i] = Look()
            elif isinstance(found, Exception):
                looks[i] = Look(trouble=": ".join(_words(found)))
            else:
                looks[i] = Look(found=tuple(found))
        return looks

    def _see(self, change: Change, at: datetime) -> TargetState | Exception | None:
        """Return what stands (None where a creation finds nothing), or what the platform's door raised."""
        found = self._states(change, at)
        if isinstance(found, Exception):
            return found
        return found[0] if found else None

    def _states(self, change: Change, at: datetime) -> Sequence[TargetState] | Exception:
        name = change.target.platform
        platform = self.platforms[name]
        found: Sequence[TargetState]
        try:
            found = platform.find(change, now=at) if change.kind == "create" else (platform.read(change.target, now=at),)
        except RejectedError as error:
            return error
        except Exception as error:  # noqa: BLE001 (a broken adapter must not stop the other platforms; its error becomes a state)
            self._failed(name, at, getattr(error, "retry_at", None))
            return error
        self._failures.pop(name, None)
        return found

    def _failed(self, name: str, at: datetime, retry_at: datetime | None) -> None:
        """Leave a platform alone for a while, longer each time in a row."""
        count = self._failures.get(name, 0)
        self._failures[name] = count + 1
        wait = self.timing.retry_delay * 2 ** min(count, 6)
        self._down_until[name] = to_us(at + wait if retry_at is None else max(retry_at, at + timedelta(microseconds=1)))

    # ---------------------------------------------------------------- sending

    def send(self, moment: Callable[[], datetime]) -> int:
        """Send what the quotas allow, most valuable first; return how many actions were touched."""
        touched = 0
        while True:
            at = moment()
            at_us = to_us(at)
            taken = self.outbox.next_place(at_us)
            if taken is None:
                return touched
            place, action = taken
            if self.outbox.busy(action):
                continue  # it is queued again when the other one settles
            if action.expires_at <= at:
                self._expire(action, at)
                continue
            if self._held_back(place, action, at_us):
                continue
            touched += self._send_next(place, action, moment)

    def _send_next(self, place: Place, action: Action, moment: Callable[[], datetime]) -> int:
        self._send_one(place, action, moment)
        return 1

    def _held_back(self, place: Place, action: Action, at_us: int) -> bool:
        change = action.receipt.change
        name = change.target.platform
        if name not in self.platforms:
            self.outbox.park(place, f"down {name}", place[4], at_us + self.timing.retry_delay // timedelta(microseconds=1))
            return True
        down = self._down_until.get(name, at_us)
        if down > at_us:
            self.outbox.park(place, f"down {name}", place[4], down)
            return True
        need, reserve = self.whole_cost(change)
        try:
            until, scope = self.gate.blocker(at_us, self.limits(change.target), need, reserve=reserve)
        except ConfigurationError as error:  # the platform's limits shrank since the action was recorded
            self._note(action, from_us(at_us), "QUOTA", error.problem, from_us(at_us) + self.timing.retry_delay)
            return True
        if until > at_us:
            self.outbox.park(place, scope, at_us if place[4] < 0 else place[4], until)
            self.outbox.begin_wait(scope, at_us)
        return until > at_us

    def _note(self, action: Action, at: datetime, code: str, message: str, due_at: datetime) -> None:
        """Come back later; record why when that is news."""
        if (code, message) == (action.receipt.code, action.receipt.message):
            self.outbox.delay(action, due_at)
        else:
            self.outbox.move(action, "postpone", at, code=code, message=message, due_at=due_at)

    def _send_one(self, place: Place, action: Action, moment: Callable[[], datetime], *, charged: bool = False) -> None:
        at, receipt = moment(), action.receipt
        change = receipt.change
        target, name = change.target, change.target.platform
        limits = self.limits(target)
        charges = self.gate.charge(to_us(at), limits, self.costs(None, target)) if not charged else []
        if charges:
            self.outbox.stage_request(name, at, charges)
            self.outbox.flush()
        found = self._see(change, at)
        if isinstance(found, RejectedError):
            code, message = _words(found)
            self.outbox.move(action, "refuse", at, code=code, message=message)
            return
        if isinstance(found, Exception):
            code, message = _words(found)
            self._note(action, at, code, message, from_us(self._down_until[name]))
            return
        if in_force(change, found):
            word = "already in force" if receipt.attempts == 0 else ""
            self.outbox.move(action, "confirm", at, prior=receipt.prior or found, code="", message=word)
            return
        if change.kind == "create" and found is not None:
            message = f"the action's mark is on {found.target}, which stands at {describe(found)}"
            self.outbox.move(action, "stale", at, prior=found, code="STALE", message=message)
            return
        if (
            change.kind == "set_budget"
            and action.before is not None
            and not same_amount(action.before, None if found is None else found.budget)
        ):
            message = f"decided on {action.before!r}, but {describe(found)} stands"
            self.outbox.move(action, "stale", at, prior=found, code="STALE", message=message)
            return
        at = moment()
        waited = seconds_waited(place, action, at)
        action = self.outbox.move(
            action,
            "send",
            at,
            prior=found,
            attempts=receipt.attempts + 1,
            sent_at=at,
            accepted_at=None,
            waited_for_quota=receipt.waited_for_quota + waited,
            due_at=at + self.quiet(target),
            code="",
            message="",
        )
        if not charged:
            self.outbox.stage_request(name, at, self.gate.charge(to_us(at), limits, self.costs(change, target)))
        self.gate.reserve(self.costs(None, target))
        if receipt.action_id in self.outbox.flush():  # another worker took it
            self.gate.reserve(self.costs(None, target), -1)
            return
        self._answer(action, self._attempt(change, at), moment())

    def _attempt(self, change: Change, at: datetime) -> AttemptResult:
        try:
            result: AttemptResult = self.platforms[change.target.platform].send(change, now=at, timeout=self.timing.timeout.total_seconds())
        except NotSentError as error:
            return AttemptResult(status="not_sent", code="UNREACHABLE", message=error.problem, retry_at=error.retry_at)
        except Exception as error:  # noqa: BLE001 (whatever happened, the change may have been applied: that is a state, not a crash)
            code, message = _words(error)
            return AttemptResult(status="unknown", code=code, message=message)
        return result

    def _answer(self, action: Action, result: AttemptResult, at: datetime) -> None:
        target = action.receipt.change.target
        words = {"code": result.code, "message": result.message[:_LONGEST_MESSAGE]}
        if result.usage:
            self.gate.observe(to_us(at), result.usage)
            self.outbox.stage_request(target.platform, at, [], result.usage)
        if result.status in ("accepted", "unknown"):
            if result.status == "unknown":
                self.outbox.move(action, "lose", at, due_at=(action.receipt.sent_at or at) + self.quiet(target), **words)
            else:
                until = at + max(self.timing.confirm_within, self.quiet(target))
                self.outbox.move(action, "accept", at, accepted_at=at, due_at=at + self.timing.confirm_delay, look_until=until, **words)
            return
        self.gate.reserve(self.costs(None, target), -1)
        if result.status == "rejected":
            self.outbox.move(action, "refuse", at, **words)
        elif result.status == "throttled":
            retry_at = result.retry_at or at + self.timing.retry_delay
            for scope in (result.scope,) if result.scope else [scope for scope, _, _ in self.limits(target)]:
                self.gate.block(scope, to_us(retry_at))
                self.outbox.note_refusal(scope, at, retry_at)
            self.outbox.move(action, "throttle", at, due_at=retry_at, ready_at=at, **words)
        else:
            self._failed(target.platform, at, result.retry_at)
            due_at = from_us(self._down_until[target.platform])
            self._may_retry(self.outbox.move(action, "postpone", at, due_at=due_at, ready_at=at, **words), at)
