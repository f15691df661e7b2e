"""The simulated platform as a server with books of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.errors import ConfigurationError, InputError, NotSentError, RejectedError, UnknownPlatformError
from closedloop.interfaces import AppliesChanges, LimitsRequests, ReadsState
from closedloop.platforms import SimulatedPlatform, available_platforms, load_platform
from closedloop.records.action import Change
from closedloop.records.decision import Target
from closedloop.records.holdout import HoldoutCounts
from closedloop.records.money import Money

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def euros(amount: float) -> Money:
    return Money.of(amount, "EUR")


def change(amount: float, *, resource: str = "a", action_id: str = "x", kind: Any = "set_budget") -> Change:
    return Change(
        action_id=action_id, target=Target("simulated", resource), kind=kind, budget=euros(amount) if kind == "set_budget" else None
    )


def read(platform: SimulatedPlatform, at: datetime, resource: str = "a") -> Money | None:
    return platform.read(Target("simulated", resource), now=at).budget


def test_offers_every_door() -> None:
    """It reads, applies and declares limits."""
    platform = SimulatedPlatform({"a": euros(1)})
    assert isinstance(platform, ReadsState)
    assert isinstance(platform, AppliesChanges)
    assert isinstance(platform, LimitsRequests)
    assert platform.limits(Target("simulated", "a")) == ()


def test_latency_and_read_lag() -> None:
    """A change comes into force after the latency and is seen after the read lag, to the microsecond."""
    platform = SimulatedPlatform({"a": euros(100)}, latency=5 * MINUTE, read_lag=2 * MINUTE)
    assert platform.send(change(120), now=START).status == "accepted"
    tick = timedelta(microseconds=1)
    assert platform.budget_at("a", START + 5 * MINUTE - tick) == euros(100)
    assert platform.budget_at("a", START + 5 * MINUTE) == euros(120)
    assert read(platform, START + 7 * MINUTE - tick) == euros(100)
    assert read(platform, START + 7 * MINUTE) == euros(120)
    assert platform.quiet_period == 420
    assert platform.history("a") == [(None, euros(100)), (START + 5 * MINUTE, euros(120))]


def test_pause_and_resume() -> None:
    """A paused resource keeps its budget and has none in force."""
    platform = SimulatedPlatform({"a": euros(100)})
    platform.send(change(0, kind="pause"), now=START)
    state = platform.read(Target("simulated", "a"), now=START)
    assert (state.active, state.budget, platform.budget_at("a", START)) == (False, euros(100), euros(0))
    platform.send(change(0, kind="resume"), now=START + MINUTE)
    assert platform.budget_at("a", START + MINUTE) == euros(100)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (change(5), "BUDGET_BELOW_MINIMUM"),
        (change(50, resource="gone"), "NOT_FOUND"),
        (Change(action_id="x", target=Target("simulated", "a"), budget=Money.of(50, "USD")), "WRONG_CURRENCY"),
    ],
)
def test_refusals(asked: Change, code: str) -> None:
    """Refused with a code, nothing applied."""
    platform = SimulatedPlatform({"a": euros(100)}, minimum=euros(10))
    result = platform.send(asked, now=START)
    assert (result.status, result.code) == ("rejected", code)
    assert platform.applied() == []


def test_unknown_resource_cannot_be_read() -> None:
    """Reading or asking the books for what does not exist raises and lists what does."""
    platform = SimulatedPlatform({"a": euros(100)})
    with pytest.raises(RejectedError, match="valid: a"):
        platform.read(Target("simulated", "gone"), now=START)
    with pytest.raises(RejectedError):
        platform.budget_at("gone", START)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=5, max_size=60), st.integers(1, 6), st.integers(10, 120))
def test_quota_is_a_rolling_window(gaps: list[int], limit: int, seconds: int) -> None:
    """Never more than the quota in any window; a throttled change fits at the time it is given, and not a microsecond before."""
    platform = SimulatedPlatform({"a": euros(100)}, quota=(limit, seconds))
    now, last = START, None
    for gap in gaps:
        now += timedelta(seconds=gap)
        last = platform.send(change(100), now=now)
    admitted = [at for at, _ in platform.requests()]
    for i, at in enumerate(admitted):  # brute force over windows that begin at each request
        inside = [other for other in admitted[i:] if other < at + timedelta(seconds=seconds)]
        assert len(inside) <= limit
    if last is not None and last.status == "throttled":
        assert last.retry_at is not None
        early = platform.send(change(100), now=last.retry_at - timedelta(microseconds=1))
        assert early.status == "throttled"
        assert platform.send(change(100), now=last.retry_at).status == "accepted"


def test_lost_replies_are_applied_in_half_of_the_cases() -> None:
    """The share of losses is as asked, and about half of them were applied; the same seed loses the same."""
    outcome = []
    for _ in range(2):
        platform = SimulatedPlatform({"a": euros(100)}, lost_replies=0.4, seed=7)
        replies = [platform.send(change(100, action_id=f"x{i}"), now=START).status for i in range(1000)]
        applied = {c.action_id for c in platform.applied()}
        lost = [f"x{i}" for i, status in enumerate(replies) if status == "unknown"]
        outcome.append((len(lost), sum(name in applied for name in lost)))
        assert sum(f"x{i}" in applied for i, status in enumerate(replies) if status == "accepted") == replies.count("accepted")
    assert outcome[0] == outcome[1]
    assert 340 < outcome[0][0] < 460  # 400 expected, standard deviation 15.5
    assert 0.38 < outcome[0][1] / outcome[0][0] < 0.62


@pytest.mark.parametrize(
    ("fault", "status", "applied"),
    [
        ("lose_request", "unknown", 0),
        ("lose_reply", "unknown", 1),
        ("refuse", "rejected", 0),
        ("throttle", "throttled", 0),
        ("ignore", "accepted", 0),
        ("unreachable", "not_sent", 0),
        ("late", "accepted", 1),
    ],
)
def test_faults_on_request(fault: Any, status: str, applied: int) -> None:
    """Each fault meets the asked number of changes of the asked resource, and no other."""
    platform = SimulatedPlatform({"a": euros(100), "b": euros(100)})
    platform.fault(fault, times=1, resource="a", seconds=60)
    assert platform.send(change(120, resource="b"), now=START).status == "accepted"
    assert platform.send(change(120), now=START).status == status
    assert len(platform.applied()) == 1 + applied
    assert platform.send(change(130), now=START).status == "accepted"
    if fault == "late":
        assert platform.budget_at("a", START + MINUTE) == euros(120), "the late change wins over the newer one"


def test_outage_and_alteration() -> None:
    """During an outage nothing is reached; someone else's change shows from its time on."""
    platform = SimulatedPlatform({"a": euros(100)})
    platform.outage(START, START + MINUTE)
    platform.alter("a", euros(77), at=START + MINUTE)
    assert platform.send(change(120), now=START).status == "not_sent"
    with pytest.raises(NotSentError):
        read(platform, START)
    assert read(platform, START + MINUTE) == euros(77)
    assert platform.applied() == []


def test_books_outlive_the_process(tmp_path: Path) -> None:
    """With a path, a second platform object goes on with the same books, faults and quota."""
    first = SimulatedPlatform({"a": euros(100)}, quota=(2, 60), path=tmp_path / "server.db")
    first.send(change(120), now=START)
    first.fault("refuse")
    second = SimulatedPlatform({"a": euros(1), "b": euros(5)}, quota=(2, 60), path=tmp_path / "server.db")
    assert second.budget_at("a", START) == euros(120)
    assert second.budget_at("b", START) == euros(5)
    assert second.send(change(130), now=START).status == "rejected"
    assert second.send(change(130), now=START).status == "throttled"
    assert [c.action_id for c in first.applied()] == ["x"]


@pytest.mark.parametrize("wrong", [{"lost_replies": 1.5}, {"quota": (0, 60)}, {"latency": -MINUTE}])
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    """A setting out of range raises and is named."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        SimulatedPlatform({"a": euros(1)}, **wrong)


def test_unknown_name_in_the_registry() -> None:
    """Asking for a platform that no package offers lists those that are."""
    assert list(available_platforms()) == sorted(available_platforms())
    with pytest.raises(UnknownPlatformError, match="no such platform"):
        load_platform("certainly-not-there")


def _holdout(latency: timedelta = MINUTE, **settings: Any) -> tuple[SimulatedPlatform, list[Target]]:
    platform = SimulatedPlatform({"a": euros(1), "b": euros(1)}, latency=latency, audience=1000, **settings)
    return platform, [Target("simulated", "a"), Target("simulated", "b")]


def test_a_holdout_begins_counts_and_ends() -> None:
    """In force after the latency, counted while it runs, read as old as the lag, ended once; it survives the process."""
    platform, targets = _holdout(read_lag=MINUTE)
    platform.start_holdout("h", targets, 0.2, now=START)
    assert platform.holdouts_at(START) == {}
    assert platform.holdouts_at(START + MINUTE) == {"a": 0.2, "b": 0.2}
    platform.count_holdouts({"a": (40, 9), "b": (2, 1)}, at=START + MINUTE, known_at=START + 9 * MINUTE)
    early = platform.read_holdout("h", now=START + 9 * MINUTE)
    assert (early.treated, early.control, early.since, early.until) == (0, 0, START + MINUTE, None)
    assert (early.treated_users, early.control_users) == (800, 200)
    platform.end_holdout("h", now=START + 10 * MINUTE)
    platform.end_holdout("h", now=START + 20 * MINUTE)
    late = platform.read_holdout("h", now=START + 10 * MINUTE)
    assert (late.treated, late.control, late.until) == (42, 10, START + 11 * MINUTE)
    assert platform.holdouts_at(START + 11 * MINUTE) == {}
    assert late.lift(30.0, {"campaign": "a"}).caused()[0] == pytest.approx(42 - 10 * 4)


def test_a_holdout_asked_for_twice_is_one() -> None:
    """The same id and content does nothing; other content, a busy or unknown target, and an unknown id are refused with the reason."""
    platform, targets = _holdout()
    platform.start_holdout("h", targets[:1], 0.2, now=START)
    platform.start_holdout("h", targets[:1], 0.2, now=START + MINUTE)
    assert platform.read_holdout("h", now=START).since == START + MINUTE
    for share, which in ((0.3, targets[:1]), (0.2, targets)):
        with pytest.raises(RejectedError, match="begun otherwise"):
            platform.start_holdout("h", which, share, now=START)
    with pytest.raises(RejectedError, match="end 'h' first"):
        platform.start_holdout("other", targets, 0.2, now=START)
    with pytest.raises(RejectedError, match=r"no such resource.*valid: a, b"):
        platform.start_holdout("other", [Target("simulated", "gone")], 0.2, now=START)
    for act in (platform.read_holdout, platform.end_holdout):
        with pytest.raises(RejectedError, match="no such holdout"):
            act("other", now=START)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigurationError, match="share"):
            platform.start_holdout("other", targets, share, now=START)
    with pytest.raises(ConfigurationError, match="at least one target"):
        platform.start_holdout("other", [], 0.2, now=START)
    platform.end_holdout("h", now=START + MINUTE)
    platform.start_holdout("other", targets, 0.5, now=START + MINUTE)


def test_an_outage_or_quota_keeps_a_holdout_from_beginning() -> None:
    """Not sent is said so, and nothing has begun."""
    platform, targets = _holdout(quota=(1, 60))
    platform.outage(START, START + MINUTE)
    with pytest.raises(NotSentError, match="cannot be reached"):
        platform.start_holdout("h", targets, 0.2, now=START)
    platform.start_holdout("h", targets, 0.2, now=START + MINUTE)
    with pytest.raises(NotSentError, match="quota"):
        platform.end_holdout("h", now=START + MINUTE)
    assert platform.read_holdout("h", now=START + 3 * MINUTE).until is None


def test_a_holdout_without_users_is_no_holdout() -> None:
    """An audience must divide; counts of a group without users are refused."""
    with pytest.raises(ConfigurationError, match="audience"):
        SimulatedPlatform({}, audience=1)
    with pytest.raises(InputError, match="control_users"):
        HoldoutCounts(holdout_id="h", treated=1, control=1, treated_users=1, control_users=0, since=START)
