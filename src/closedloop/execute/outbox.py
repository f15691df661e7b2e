"""The outbox: what the ledger says of open actions, held in memory in the order in which it is needed.

Law of this file: the ledger is the truth and this is a view of it; after any failure to write, the view is thrown away and read
again. A record is *staged* here and becomes durable at the next `flush`; nothing is sent before its flush has returned. It knows
no platform.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs

from closedloop.errors import ConflictError
from closedloop.execute.lifecycle import FINAL, IN_FLIGHT, Event, after
from closedloop.execute.quota import Use
from closedloop.execute.waiting import WAIT, Waits
from closedloop.interfaces import Ledger
from closedloop.records.action import Action, Entry
from closedloop.records.codec import decode, encode
from closedloop.records.decision import Target
from closedloop.records.moments import from_us, to_us

KIND = "action"
REQUEST = "request"
Place = tuple[int, float, int, str, int]  # cuts before raises, most valuable, oldest; the action's id; since when it is parked (us)


def order_of(action: Action) -> tuple[int, float]:
    """Return the rank of an action in the queue: cuts and pauses first, so that the total is never overspent; then by value."""
    change, before = action.receipt.change, action.before
    cut = change.kind == "pause" or (change.budget is not None and before is not None and change.budget.micros < before.micros)
    return (0 if cut else 1, -action.value)


class Outbox:
    """Keep open actions by target, by time and by value; write their records.

    Args:
        ledger: Where records are kept.
        worker: Name of this process in records; no two that run at once may share one.
    """

    def __init__(self, ledger: Ledger, worker: str) -> None:
        self.ledger = ledger
        self.worker = worker
        self._mark = f"{worker}:{uuid.uuid4().hex[:8]}"  # of this process: a worker of the same name may have died before
        self._written = 0  # requests recorded by this process; with the mark it makes their keys distinct
        self.waits = Waits(ledger, self._mark)
        self.forget()

    def forget(self) -> None:
        """Throw the view away."""
        self.loaded = False
        self.actions: dict[str, Action] = {}
        self._lanes: dict[Target, list[str]] = {}
        self._timers: list[tuple[int, int, str]] = []
        self._ready: list[Place] = []
        self._parked: dict[str, list[Place]] = {}
        self._parked_until: dict[str, int] = {}
        self._queued: set[str] = set()
        self._inherited: dict[str, int] = {}
        self._staged: list[Entry] = []
        self._order = 0
        self.seen = 0  # sequence number up to which other workers' records are known
        self._requests_seen = 0
        self.last_at: datetime | None = None  # of what was recorded before this view was read

    def load(self) -> None:
        """Read the open actions from the ledger, unless that was done."""
        if self.loaded:
            return
        self.forget()
        times = []
        for found in self.ledger.newest(KIND, only_open=True):
            self._take(decode(found.entry.body["action"]))
            self.seen = max(self.seen, found.sequence)
            times.append(found.entry.at)
        requests = self.ledger.newest(REQUEST)
        self._requests_seen = max((r.sequence for r in requests), default=0)
        self.last_at = max([*times, *(r.entry.at for r in requests), *(r.entry.at for r in self.ledger.newest(WAIT))], default=None)
        self.waits.load()
        self.loaded = True

    def catch_up(self) -> None:
        """Take in what other workers recorded since."""
        for found in self.ledger.entries(kind=KIND, after=self.seen):
            self.seen = found.sequence
            action: Action = decode(found.entry.body["action"])
            known = self.actions.get(action.receipt.action_id)
            if known is None and action.receipt.state in FINAL:
                continue
            if known is None or known.step < action.step:
                self._take(action)

    def fresh(self, action: Action) -> Action | None:
        """Return an action after taking in what others recorded; None when another worker has moved it on."""
        self.catch_up()
        found = self.actions.get(action.receipt.action_id)
        return found if found is not None and found.step == action.step else None

    def others_charges(self) -> Iterator[Use]:
        """Yield what other workers charged to quotas, or were told of them, since the last call, oldest first."""
        mine = f"{REQUEST}:{self._mark}:"
        for found in self.ledger.entries(kind=REQUEST, after=self._requests_seen):
            self._requests_seen = found.sequence
            if not found.entry.key.startswith(mine):
                yield from uses_of(found.entry)

    # ---------------------------------------------------------------- records

    def stage(self, action: Action, at: datetime) -> Action:
        """Stage the newest record of an action."""
        receipt = action.receipt
        action = attrs.evolve(action, worker=self.worker)
        self._staged.append(
            Entry(
                kind=KIND,
                subject=receipt.action_id,
                at=at,
                body={"action": encode(action)},
                key=f"{KIND}:{receipt.action_id}:{action.step}",
                is_open=receipt.state not in FINAL,
                due_at=action.due_at,
            )
        )
        self._take(action)
        return action

    def stage_entry(self, entry: Entry) -> None:
        """Stage any other record, for the same transaction."""
        self._staged.append(entry)

    def stage_request(
        self, platform: str, at: datetime, charges: list[tuple[str, float]], usage: Mapping[str, float] | None = None
    ) -> None:
        """Stage what a request will use of the quotas, and what the platform says is used; nothing where there is nothing to say."""
        if charges or usage:
            self._written += 1
            body: dict[str, Any] = {"charges": [[scope, units] for scope, units in charges]}
            if usage:
                body["usage"] = dict(usage)
            self._staged.append(Entry(kind=REQUEST, subject=platform, at=at, body=body, key=f"{REQUEST}:{self._mark}:{self._written}"))

    def flush(self) -> set[str]:
        """Make everything staged durable; return the actions of which another worker was quicker (their records here are void).

        Raises:
            LedgerError: The ledger refused; nothing staged was kept.
        """
        staged, self._staged = self._staged, []
        if not staged:
            return set()
        try:
            self.ledger.append(staged)
        except ConflictError:
            return self._flush_one_by_one(staged)
        return set()

    def _flush_one_by_one(self, staged: list[Entry]) -> set[str]:
        lost: set[str] = set()
        for entry in staged:
            try:
                self.ledger.append([entry])
            except ConflictError:
                if entry.kind != KIND:
                    raise
                lost.add(entry.subject)
                self.reread(entry.subject)
        return lost

    def reread(self, action_id: str) -> Action | None:
        """Take what the ledger says of one action; return it while it is open."""
        found = self.ledger.newest(KIND, subject=action_id)
        if not found:
            self._drop(action_id)
            return None
        action: Action = decode(found[0].entry.body["action"])
        self._take(action)
        return self.actions.get(action_id)

    def move(self, action: Action, event: Event, at: datetime, **receipt: Any) -> Action:
        """Stage the record of a move, with changed fields of the receipt."""
        state = after(action.receipt.state, event)
        if state in FINAL:
            receipt.setdefault("settled_at", at)
        due_at = receipt.pop("due_at", None)
        extra = {name: receipt.pop(name) for name in ("look_until", "ready_at") if name in receipt}
        changed = attrs.evolve(action.receipt, state=state, **receipt)
        return self.stage(attrs.evolve(action, receipt=changed, step=action.step + 1, due_at=due_at, **extra), at)

    # ---------------------------------------------------------------- the view

    def _take(self, action: Action) -> None:
        receipt = action.receipt
        key, target = receipt.action_id, receipt.change.target
        if receipt.state in FINAL:
            self._drop(key, target)
            return
        lane = self._lanes.setdefault(target, [])
        if key not in self.actions:
            lane.append(key)
        self.actions[key] = action
        if receipt.state in IN_FLIGHT:
            if action.due_at is not None:
                self._timer(to_us(action.due_at), key)
            return
        self._timer(to_us(action.expires_at), key)
        if action.due_at is None:
            self.queue(key)
        else:
            self._timer(to_us(action.due_at), key)
        if len(lane) > 1:
            self._wake(target)

    def _drop(self, key: str, target: Target | None = None) -> None:
        gone = self.actions.pop(key, None)
        target = target if gone is None else gone.receipt.change.target
        if gone is None or target is None:
            return
        lane = self._lanes[target]
        lane.remove(key)
        if lane:
            self._wake(target)
        else:
            del self._lanes[target]

    def _wake(self, target: Target) -> None:
        """Let the actions that waited for another one on their target be looked at again."""
        for key in self._lanes.get(target, ()):
            action = self.actions[key]
            if action.receipt.state not in IN_FLIGHT and action.due_at is None:
                self.queue(key)

    def lane(self, target: Target) -> list[Action]:
        """Return the open actions of a target, oldest first."""
        return [self.actions[key] for key in self._lanes.get(target, ())]

    def busy(self, action: Action) -> bool:
        """Return whether another action of the same target is under way."""
        return any(other.receipt.state in IN_FLIGHT for other in self.lane(action.receipt.change.target) if other is not action)

    def _timer(self, us: int, key: str) -> None:
        self._order += 1
        heapq.heappush(self._timers, (us, self._order, key))

    def delay(self, action: Action, until: datetime) -> None:
        """Come back to an action later, without a record: its state has not changed."""
        key = action.receipt.action_id
        known = self.actions.get(key)
        if known is not None and known.step == action.step:  # else another worker has moved it on
            self.actions[key] = attrs.evolve(known, due_at=until)
            self._timer(to_us(until), key)

    def fired(self, now: datetime) -> Iterator[Action]:
        """Yield the open actions whose time has come, each once; those that could be sent are queued as well."""
        now_us, seen = to_us(now), set()
        while self._timers and self._timers[0][0] <= now_us:
            key = heapq.heappop(self._timers)[2]
            action = self.actions.get(key)
            if action is None or key in seen or not self._is_due(action, now):
                continue
            seen.add(key)
            if action.receipt.state not in IN_FLIGHT and action.expires_at > now:
                self.actions[key] = action = attrs.evolve(action, due_at=None)
                self.queue(key)
            yield action

    @staticmethod
    def _is_due(action: Action, now: datetime) -> bool:
        if action.receipt.state in IN_FLIGHT:
            return action.due_at is not None and action.due_at <= now
        return action.expires_at <= now or (action.due_at is not None and action.due_at <= now)

    # ---------------------------------------------------------------- the queue

    def queue(self, key: str) -> None:
        """Let an action be considered for sending at the next opportunity."""
        if key not in self._queued:
            self._queued.add(key)
            self._order += 1
            rank, value = order_of(self.actions[key])
            heapq.heappush(self._ready, (rank, value, self._order, key, -1))

    def park(self, place: Place, scope: str, since_us: int, until_us: int) -> None:
        """Put an action aside until a quota frees up; ``since_us`` says since when it waits for quota, -1 when it does not."""
        rank, value, order, key, _ = place
        heapq.heappush(self._parked.setdefault(scope, []), (rank, value, order, key, since_us))
        self._parked_until[scope] = until_us
        self._queued.add(key)

    def begin_wait(self, scope: str, at_us: int) -> None:
        """Stage the record that actions wait for a scope, unless that is known."""
        self._staged += self.waits.begin(scope, from_us(at_us))

    def note_refusal(self, scope: str, at: datetime, until: datetime) -> None:
        """Stage the record that a platform refuses a scope."""
        self._staged += self.waits.refuse(scope, at, until)

    def inherit(self, action: Action, since: datetime) -> None:
        """Note since when an action has waited for quota, in an earlier process too."""
        if action.receipt.state == "throttled":
            self.actions[action.receipt.action_id] = attrs.evolve(action, ready_at=since)
        else:
            self._inherited[action.receipt.action_id] = to_us(since)

    def next_place(self, now_us: int) -> tuple[Place, Action] | None:
        """Take the most valuable action that may be considered now out of the queue."""
        while True:
            best: list[Place] | None = self._ready or None
            for scope, places in list(self._parked.items()):
                if not places:
                    del self._parked[scope], self._parked_until[scope]
                    self._staged += self.waits.end(scope, from_us(now_us))
                elif self._parked_until[scope] <= now_us and (best is None or places[0] < best[0]):
                    best = places
            if best is None:
                return None
            place = heapq.heappop(best)
            self._queued.discard(place[3])
            action = self.actions.get(place[3])
            if action is not None and action.receipt.state not in IN_FLIGHT and action.due_at is None:
                since_us = self._inherited.pop(place[3], place[4])
                return (*place[:4], since_us), action

    def next_due(self) -> datetime | None:
        """Return when something will have to be done next, None when nothing is open."""
        while self._timers:
            us, _, key = self._timers[0]
            action = self.actions.get(key)
            wanted = () if action is None else (action.due_at, None if action.receipt.state in IN_FLIGHT else action.expires_at)
            if any(w is not None and to_us(w) == us for w in wanted):
                break
            heapq.heappop(self._timers)
        times = [self._timers[0][0]] if self._timers else []
        times += [self._parked_until[scope] for scope, places in self._parked.items() if places]
        return from_us(min(times)) if times else None


def charges_since(ledger: Ledger, since: datetime) -> Iterator[Use]:
    """Yield what was charged to quotas, and what platforms said of them, since a time, oldest first."""
    for found in ledger.entries(kind=REQUEST, since=since):
        yield from uses_of(found.entry)


def uses_of(entry: Entry) -> Iterator[Use]:
    """Yield what the record of a request says of quotas."""
    at_us = to_us(entry.at)
    for scope, units in entry.body["charges"]:
        yield Use(at_us, scope, units)
    for scope, share in entry.body.get("usage", {}).items():
        yield Use(at_us, scope, share, is_share=True)


def seconds_waited(place: Place, action: Action, at: datetime) -> float:
    """Return the seconds that an action waited for quota since it could have been sent."""
    since = place[4]
    parked = 0.0 if since < 0 else (to_us(at) - since) / 1e6
    throttled = 0.0
    if action.receipt.state == "throttled" and action.ready_at is not None:
        throttled = (at - action.ready_at).total_seconds()
    return max(parked, throttled, 0.0)
