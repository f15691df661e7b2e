"""The quota gate against a server that counts by brute force."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.errors import ConfigurationError
from closedloop.execute import QuotaGate
from closedloop.execute.quota import Use

SECOND = 1_000_000


def most_in_any_window(times: list[int], units: list[float], window_us: int) -> float:
    """Return the largest sum of units in any half-open window, by trying each request as its first."""
    most = 0.0
    for i, at in enumerate(times):
        most = max(most, sum(units[i : bisect_left(times, at + window_us)]))
    return most


def drive(gate: QuotaGate, limits: list[tuple[str, float, float]], gaps: list[int], costs: list[float]) -> tuple[list[int], list[float]]:
    """Ask at each time and send what is let through."""
    now, times, units = 10**15, [], []
    for gap, cost in zip(gaps, costs, strict=True):
        now += gap
        wanted = {scope: cost for scope, _, _ in limits}
        if gate.wait(now, limits, wanted) <= now:
            gate.charge(now, limits, wanted)
            times.append(now)
            units.append(cost)
    return times, units


work = st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 3)), min_size=1, max_size=120)


@settings(max_examples=150, deadline=None)
@given(work, st.integers(3, 12), st.integers(1, 90), st.sampled_from([1.0, 0.9, 0.5]))
def test_no_window_is_ever_over_its_limit(steps: list[tuple[int, int]], limit: int, seconds: int, headroom: float) -> None:
    """In no window, wherever it begins, is more let through than the limit (times headroom, but never less than one request)."""
    gate = QuotaGate(headroom=headroom)
    times, units = drive(gate, [("a", limit, seconds)], [s[0] for s in steps], [float(s[1]) for s in steps])
    most = most_in_any_window(times, units, seconds * SECOND)
    assert most <= limit
    assert most <= max(limit * headroom, 3) + 1e-9


@settings(max_examples=60, deadline=None)
@given(work, st.integers(3, 6), st.integers(1, 20), st.integers(7, 30), st.integers(21, 120))
def test_several_windows_hold_at_once(steps: list[tuple[int, int]], few: int, short: int, many: int, long: int) -> None:
    """Limits of a second, a minute and a day on one scope, or on several, all hold."""
    gate = QuotaGate(headroom=1.0)
    limits = [("app", float(few), float(short)), ("app", float(many), float(long)), ("account", float(many), float(short))]
    times, units = drive(gate, limits, [s[0] for s in steps], [float(s[1]) for s in steps])
    assert most_in_any_window(times, units, short * SECOND) <= few
    assert most_in_any_window(times, units, long * SECOND) <= many


@settings(max_examples=80, deadline=None)
@given(work, st.integers(3, 8), st.integers(1, 60))
def test_the_time_given_is_the_time_it_fits(steps: list[tuple[int, int]], limit: int, seconds: int) -> None:
    """A request that is held back fits at the time it was given, at most one slot later than an exact count would allow."""
    gate = QuotaGate(headroom=1.0)
    limits = [("a", float(limit), float(seconds))]
    times, units = drive(gate, limits, [s[0] for s in steps], [float(s[1]) for s in steps])
    now = times[-1]
    until = gate.wait(now, limits, {"a": 3.0})
    assert gate.wait(until, limits, {"a": 3.0}) <= until
    if until > now:
        window, slot = seconds * SECOND, seconds * SECOND // 240
        left = [(at, u) for at, u in zip(times, units, strict=True) if at + window > now]
        exact, excess = now, sum(u for _, u in left) + 3.0 - limit
        for at, u in left:
            if excess <= 0:
                break
            excess -= u
            exact = at + window
        assert exact <= until <= exact + slot + 2


@settings(max_examples=60, deadline=None)
@given(work, st.integers(0, 119), st.integers(3, 9), st.integers(1, 60))
def test_a_restart_changes_nothing(steps: list[tuple[int, int]], cut: int, limit: int, seconds: int) -> None:
    """A gate rebuilt from the record of charges lets through exactly what the old one would have."""
    limits = [("a", float(limit), float(seconds))]
    gaps, costs = [s[0] for s in steps], [float(s[1]) for s in steps]
    whole = drive(QuotaGate(headroom=1.0), limits, gaps, costs)
    cut = min(cut, len(steps))
    first = drive(QuotaGate(headroom=1.0), limits, gaps[:cut], costs[:cut])
    rebuilt = QuotaGate(headroom=1.0, history=lambda window_us: [Use(at, "a", u) for at, u in zip(*first, strict=True)])
    second = drive(
        rebuilt, limits, [sum(gaps[:cut], 0) + (gaps[cut] if cut < len(gaps) else 0), *gaps[cut + 1 :]][: len(steps) - cut], costs[cut:]
    )
    assert (first[0] + second[0], first[1] + second[1]) == whole


def test_clock_that_jumps_back_breaks_nothing() -> None:
    """Requests made at times before the last one still count: nothing is let through until the window has really passed."""
    gate, limits = QuotaGate(headroom=1.0), [("a", 2.0, 60.0)]
    now = 10**15
    gate.charge(now, limits, {"a": 2.0})
    assert gate.wait(now - 3600 * SECOND, limits, {"a": 1.0}) > now


def test_reserve_keeps_room_for_confirmations() -> None:
    """What is set aside for confirmations is not given to new changes, and is there for the confirmations."""
    gate, limits = QuotaGate(headroom=1.0), [("a", 10.0, 60.0)]
    now = 10**15
    gate.charge(now, limits, {"a": 7.0})
    gate.reserve({"a": 3.0})
    assert gate.wait(now, limits, {"a": 1.0}) > now
    assert gate.wait(now, limits, {"a": 1.0}, own=True) == now
    gate.reserve({"a": 3.0}, -1)
    assert gate.wait(now, limits, {"a": 1.0}, reserve={"a": 2.0}) == now
    assert gate.wait(now, limits, {"a": 1.0}, reserve={"a": 2.5}) > now


def test_the_platform_has_the_last_word() -> None:
    """A block by the platform holds; its own count of use raises ours and never lowers it."""
    gate, limits = QuotaGate(headroom=1.0), [("a", 10.0, 60.0)]
    now = 10**15
    gate.block("a", now + 5 * SECOND)
    assert gate.blocker(now, limits, {"a": 1.0}) == (now + 5 * SECOND, "a")
    assert gate.wait(now + 5 * SECOND, limits, {"a": 1.0}) == now + 5 * SECOND
    gate.charge(now, limits, {"a": 4.0})
    gate.observe(now, {"a": 0.2, "unknown scope": 1.0})
    assert gate.wait(now + 6 * SECOND, limits, {"a": 6.0}) == now + 6 * SECOND
    gate.observe(now, {"a": 0.95})
    assert gate.wait(now + 6 * SECOND, limits, {"a": 1.0}) > now + 6 * SECOND


def test_scopes_that_cost_nothing_do_not_hold_back() -> None:
    """A read that does not count against a scope passes although the scope is full or blocked."""
    gate, limits = QuotaGate(headroom=1.0), [("changes", 1.0, 3600.0), ("calls", 100.0, 60.0)]
    now = 10**15
    gate.charge(now, limits, {"changes": 1.0, "calls": 1.0})
    assert gate.wait(now, limits, {"changes": 1.0, "calls": 1.0}) > now
    assert gate.wait(now, limits, {"calls": 1.0}) == now


@pytest.mark.parametrize("headroom", [0.0, 1.1, -1.0])
def test_headroom_is_a_share(headroom: float) -> None:
    """Headroom outside (0, 1] is refused."""
    with pytest.raises(ConfigurationError, match="headroom"):
        QuotaGate(headroom=headroom)


def test_what_never_fits_is_said() -> None:
    """A request larger than the limit raises and names the quota; so does a quota of nothing."""
    gate = QuotaGate()
    with pytest.raises(ConfigurationError, match="account"):
        gate.wait(0, [("account", 2.0, 60.0)], {"account": 3.0})
    with pytest.raises(ConfigurationError):
        gate.wait(0, [("account", 0.0, 60.0)], {"account": 1.0})


def test_what_the_platform_said_is_rebuilt() -> None:
    """Charges and the platform's own word, taken from the past in their order, give the gate that heard them at the time."""
    past = [Use(0, "a", 2.0), Use(SECOND, "a", 0.5, is_share=True), Use(2 * SECOND, "a", 1.0), Use(3 * SECOND, "a", 0.1, is_share=True)]
    limits = [("a", 10.0, 60.0), ("a", 1000.0, 3600.0)]
    live = QuotaGate(headroom=1.0)
    live.wait(0, limits, {"a": 1.0})
    live.absorb(past)
    rebuilt = QuotaGate(headroom=1.0, history=lambda window_us: past)
    for gate in (live, rebuilt):
        now = 4 * SECOND
        assert gate.wait(now, limits[:1], {"a": 4.0}) == now, "5 by the platform's word, 1 charged since"
        assert gate.wait(now, limits[:1], {"a": 5.0}) > now
        assert gate.wait(now, limits[1:], {"a": 499.0}) == now
        assert gate.wait(now, limits[1:], {"a": 500.0}) > now
