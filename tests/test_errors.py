"""Errors say who moves next, name field, value and mend, and travel between processes."""

import copy
import inspect
import pickle
from datetime import UTC, datetime

import pytest

from closedloop import errors

EVERY = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.ClosedLoopError)]


@pytest.mark.parametrize("kind", EVERY)
def test_survives_pickle_and_copy(kind: type[errors.ClosedLoopError]) -> None:
    """Every exception arrives whole in another process, attributes and text."""
    error = kind("it broke", "budget", -1, "use a positive number", ("0", "1"))
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert (twin.problem, twin.field, twin.value, twin.mend, twin.valid) == (
            "it broke",
            "budget",
            -1,
            "use a positive number",
            ("0", "1"),
        )
        assert str(twin) == str(error) == "it broke; field 'budget' has -1; valid: 0, 1; use a positive number"


def test_retry_time_travels_too() -> None:
    """When a change may be sent again is kept."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    error = errors.NotSentError("throttled", retry_at=at)
    assert pickle.loads(pickle.dumps(error)).retry_at == at


def test_a_huge_value_does_not_flood_the_message() -> None:
    """Ten million characters in a field give a short message."""
    message = str(errors.InputError("too long", "campaign", "x" * 10_000_000, "shorten it"))
    assert len(message) < 300
    assert "10000000 characters" in message
