"""The table of legal moves."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import get_args

import pytest

from closedloop.errors import InvariantError
from closedloop.execute import FINAL, MOVES, diagram
from closedloop.execute.lifecycle import FIRST, IN_FLIGHT, Event, after
from closedloop.records.action import ActionState

STATES = get_args(ActionState)


def test_every_state_is_reached_and_every_open_state_can_end() -> None:
    """No state is out of reach and none is a trap; only final states have no move."""
    reached, front = {FIRST}, {FIRST}
    while front:
        front = {then for (state, _), then in MOVES.items() if state in front} - reached
        reached |= front
    assert reached == set(STATES)
    assert {"confirmed", "diverged", "rejected", "stale", "expired", "superseded"} == FINAL
    can_end = set(FINAL)
    while True:
        more = {state for (state, _), then in MOVES.items() if then in can_end} - can_end
        if not more:
            break
        can_end |= more
    assert can_end == set(STATES)


def test_nothing_is_sent_again_without_a_look_or_a_sure_word() -> None:
    """From a state in flight, the only ways back to sending lead through absent, postpone or throttle."""
    back = {event for (state, event), then in MOVES.items() if state in IN_FLIGHT and then not in IN_FLIGHT and then not in FINAL}
    assert back == {"absent", "postpone", "throttle"}
    assert {state for (state, event) in MOVES if event == "absent"} == {"unknown"}
    assert {state for (state, event) in MOVES if event == "send"} == {"recorded", "throttled"}


def test_unlisted_moves_raise() -> None:
    """Every move that is not in the table raises and lists those that are."""
    for state, event in itertools.product(STATES, get_args(Event)):
        if (state, event) in MOVES:
            assert after(state, event) == MOVES[state, event]
        else:
            with pytest.raises(InvariantError, match="no such move"):
                after(state, event)


def test_diagram_shows_every_move() -> None:
    """The diagram has one line for each move and for each end."""
    lines = diagram().splitlines()
    assert len(lines) == 2 + len(MOVES) + len(FINAL)
    assert "    recorded --> sending: send" in lines


def test_the_documents_show_the_table_as_it_is() -> None:
    """The page on the life of an action lists exactly the moves of the table."""
    page = Path(__file__).resolve().parents[2] / "docs" / "pages" / "explanation" / "actions.md"
    rows = dict(re.findall(r"^\| (\w+) \| (.+) \|$", page.read_text(encoding="utf-8"), re.M))
    shown = {(state, *move.split(" → ")) for state, moves in rows.items() if " → " in moves for move in moves.split(", ")}
    assert shown == {(state, event, then) for (state, event), then in MOVES.items()}
    assert {state for state, moves in rows.items() if moves == "(final)"} == FINAL
