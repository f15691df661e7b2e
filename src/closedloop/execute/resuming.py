"""Go on where an earlier process stopped: what it had under way, what it was refused, what waited for quota and since when.

Law of this file: nothing is sent and nothing is written; what the ledger says is put into the gate and the outbox.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from closedloop.errors import ConfigurationError
from closedloop.execute.dispatch import Dispatcher
from closedloop.execute.lifecycle import IN_FLIGHT
from closedloop.records.action import Action
from closedloop.records.moments import to_us


def resume(dispatcher: Dispatcher, at: datetime) -> None:
    """Reserve the confirmations of what is under way, close refused scopes, and let waits keep their beginning.

    Of the time in which no process ran, the quota owns what it would have held an action back, and no more.

    Args:
        dispatcher: Whose outbox has just been read.
        at: Now.
    """
    outbox, gate = dispatcher.outbox, dispatcher.gate
    last = at if outbox.last_at is None else min(outbox.last_at, at)
    for scope, until in outbox.waits.refused(last).items():
        gate.block(scope, to_us(until))
    waiting = []
    for action in outbox.actions.values():
        if action.receipt.state in IN_FLIGHT:
            gate.reserve(dispatcher.costs(None, action.receipt.change.target))
        else:
            waiting.append(action)
    for action in waiting:
        since = _waits_since(dispatcher, action, last, at)
        if since is not None:
            outbox.inherit(action, since)
    outbox.last_at = None  # from here on, this process's own time counts


def _waits_since(dispatcher: Dispatcher, action: Action, last: datetime, at: datetime) -> datetime | None:
    """Return since when an action would have waited for quota, had a process run all the time; None when it does not wait."""
    change = action.receipt.change
    limits = dispatcher.limits(change.target)
    throttled = action.receipt.state == "throttled"
    begun = action.ready_at if throttled else dispatcher.outbox.waits.since(scope for scope, _, _ in limits)
    if begun is None or action.ready_at is None:
        return None
    need, reserve = dispatcher.whole_cost(change)
    try:
        free_us = dispatcher.gate.wait(to_us(last), limits, need, reserve=reserve)
    except ConfigurationError:  # the limits shrank: that is said when the action's turn comes
        return None
    if action.due_at is not None:
        free_us = max(free_us, to_us(action.due_at))
    return max(begun, action.ready_at) + timedelta(microseconds=max(0, to_us(at) - free_us))
