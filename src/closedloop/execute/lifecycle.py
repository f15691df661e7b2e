"""The life of an action: one table of legal moves, with one reader.

Law of this file: an unlisted move raises. An action in ``sending`` may or may not have reached the platform; nothing leads from
there back to a send but a sure word of the platform (``postpone``, ``throttle``) or a look after the quiet period (``absent``).
"""

from __future__ import annotations

from typing import Literal, get_args

from closedloop.errors import InvariantError
from closedloop.records.action import ActionState

Event = Literal[
    "send",  # the intent to send is about to be made durable
    "accept",  # the platform said yes
    "postpone",  # surely not applied: the platform could not be reached or read
    "throttle",  # surely not applied: over a quota
    "refuse",  # the platform said no for good
    "lose",  # no reply, or the sender died: perhaps applied
    "confirm",  # read back: as intended
    "absent",  # looked after the quiet period: not applied
    "diverge",  # read back: neither as intended nor as before, or accepted without effect
    "stale",  # something else stands than what the decision saw
    "expire",  # too late, or tried too often
    "supersede",  # a newer decision for the same target
]

MOVES: dict[tuple[ActionState, Event], ActionState] = {
    ("recorded", "send"): "sending",
    ("recorded", "postpone"): "recorded",
    ("recorded", "throttle"): "throttled",
    ("recorded", "refuse"): "rejected",
    ("recorded", "confirm"): "confirmed",
    ("recorded", "stale"): "stale",
    ("recorded", "expire"): "expired",
    ("recorded", "supersede"): "superseded",
    ("throttled", "send"): "sending",
    ("throttled", "postpone"): "recorded",
    ("throttled", "throttle"): "throttled",
    ("throttled", "refuse"): "rejected",
    ("throttled", "confirm"): "confirmed",
    ("throttled", "stale"): "stale",
    ("throttled", "expire"): "expired",
    ("throttled", "supersede"): "superseded",
    ("sending", "accept"): "accepted",
    ("sending", "postpone"): "recorded",
    ("sending", "throttle"): "throttled",
    ("sending", "refuse"): "rejected",
    ("sending", "lose"): "unknown",
    ("accepted", "confirm"): "confirmed",
    ("accepted", "diverge"): "diverged",
    ("accepted", "refuse"): "rejected",
    ("unknown", "confirm"): "confirmed",
    ("unknown", "absent"): "recorded",
    ("unknown", "diverge"): "diverged",
    ("unknown", "refuse"): "rejected",
}

FIRST: ActionState = "recorded"
FINAL: frozenset[ActionState] = frozenset(get_args(ActionState)) - {state for state, _ in MOVES}
IN_FLIGHT: frozenset[ActionState] = frozenset(("sending", "accepted", "unknown"))  # the target is left alone until they settle


def after(state: ActionState, event: Event) -> ActionState:
    """Return the state that follows.

    Raises:
        InvariantError: The move is not legal; the legal ones are listed.

    >>> after("recorded", "send"), after("unknown", "absent")
    ('sending', 'recorded')
    """
    found = MOVES.get((state, event))
    if found is None:
        raise InvariantError(f"an action in state {state!r} has no such move", "event", event, None, [e for s, e in MOVES if s == state])
    return found


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", f"    [*] --> {FIRST}"]
    lines += [f"    {state} --> {then}: {event}" for (state, event), then in MOVES.items()]
    lines += [f"    {state} --> [*]" for state in sorted(FINAL)]
    return "\n".join(lines)
