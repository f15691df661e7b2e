"""The quota gate: exact rolling windows, several at once, with headroom and a reserve for confirmations.

Law of this file: in no window of the declared length, wherever it begins, are more units let through than declared. A token bucket
does not keep this promise (it lets nearly twice the limit through across a refill), so requests are counted in slots, each
charged at the slot's *end*; the count therefore errs on the safe side by at most one slot, a 240th of the window. Time is an
argument, in whole microseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from closedloop.errors import ConfigurationError

SLOTS = 240
Limits = Sequence[tuple[str, float, float]]
Costs = Mapping[str, float]
_TINY = 1e-9  # sums of decimal units must not refuse what fits exactly


class Use(NamedTuple):
    """What a quota has been used for: units that were charged, or the share of it that the platform says is in use."""

    at_us: int
    scope: str
    amount: float
    is_share: bool = False


class RollingWindow:
    """Count units in one rolling window.

    Args:
        limit: Units that may be used within any window.
        window_us: Length in microseconds.
    """

    __slots__ = ("_slot_us", "_slots", "limit", "used", "window_us")

    def __init__(self, limit: float, window_us: int) -> None:
        self.limit = limit
        self.window_us = window_us
        self.used = 0.0
        self._slot_us = max(1, window_us // SLOTS)
        self._slots: deque[list[float]] = deque()  # [end of slot, units], ends ascending

    def forget(self, now_us: int) -> None:
        """Drop what lies wholly before the window that ends now."""
        slots = self._slots
        while slots and slots[0][0] + self.window_us < now_us:
            self.used -= slots.popleft()[1]
        if not slots:
            self.used = 0.0

    def add(self, at_us: int, units: float) -> None:
        """Count units at a time; a time before the last one counts as the last one."""
        end = -(-at_us // self._slot_us) * self._slot_us
        slots = self._slots
        if slots and slots[-1][0] >= end:
            slots[-1][1] += units
        else:
            slots.append([end, units])
        self.used += units

    def take(self, use: Use) -> None:
        """Count a use; a platform's own word raises the count, and never lowers it."""
        if not use.is_share:
            self.add(use.at_us, use.amount)
            return
        self.forget(use.at_us)
        missing = use.amount * self.limit - self.used
        if missing > 0:
            self.add(use.at_us, missing)

    def free_at(self, now_us: int, excess: float) -> int:
        """Return when at least ``excess`` of the used units will have left the window."""
        for end, units in self._slots:
            excess -= units
            if excess <= _TINY:
                return int(end) + self.window_us + 1
        return now_us + self.window_us


class QuotaGate:
    """Let requests through within every declared quota.

    Args:
        headroom: Share of each limit that is used, in (0, 1]; the rest is left for other users of the account and for the time
            that a request travels.
        workers: How many workers share the quotas at most. A request is counted when it is charged and arrives a little later, so
            each other worker may have one action on its way that the server counts in a later window: room is left for them.
        history: Called with a window's length in microseconds when that length is first met; returns the past uses of it, oldest first.

    >>> gate = QuotaGate(headroom=1.0)
    >>> limits = [("account", 2.0, 60.0)]
    >>> [gate.wait(0, limits, {"account": 1.0}) for _ in range(3) if gate.charge(0, limits, {"account": 1.0})]
    [0, 60000001, 60000001]
    """

    def __init__(self, *, headroom: float = 0.9, workers: int = 1, history: Callable[[int], Iterable[Use]] | None = None) -> None:
        if not 0.0 < headroom <= 1.0:
            raise ConfigurationError("a share lies in (0, 1]", "headroom", headroom)
        if workers < 1:
            raise ConfigurationError("there is at least one worker", "workers", workers)
        self.headroom = headroom
        self._under_way = workers if workers > 1 else 0
        self._largest: dict[str, float] = {}
        self._history = history
        self._horizon_us = 0
        self._past: dict[str, list[Use]] = {}
        self._windows: dict[tuple[str, float, float], RollingWindow] = {}
        self._blocked: dict[str, int] = {}
        self._reserved: dict[str, float] = {}
        self._by_scope: dict[str, list[RollingWindow]] = {}

    def _window(self, scope: str, units: float, seconds: float) -> RollingWindow:
        found = self._windows.get((scope, units, seconds))
        if found is None:
            if not (units > 0 and seconds > 0):
                raise ConfigurationError("a quota needs units and seconds above zero", scope, (units, seconds))
            window_us = int(seconds * 1e6)
            if window_us > self._horizon_us and self._history is not None:
                self._horizon_us = window_us
                self._past = {}
                for use in self._history(window_us):
                    self._past.setdefault(use.scope, []).append(use)
            found = self._windows[scope, units, seconds] = RollingWindow(units, window_us)
            for use in self._past.get(scope, ()):
                found.take(use)
            self._by_scope.setdefault(scope, []).append(found)
        return found

    def wait(self, now_us: int, limits: Limits, costs: Costs, *, reserve: Costs | None = None, own: bool = False) -> int:
        """Return when a request fits: ``now_us`` when it does now.

        Args:
            now_us: Now.
            limits: The quotas it counts against: (scope, units, seconds).
            costs: Its units by scope.
            reserve: Units that must stay free beside it (its own later confirmation).
            own: It uses what was reserved for it, so what is reserved for others only is left out.

        Raises:
            ConfigurationError: It can never fit.
        """
        return self.blocker(now_us, limits, costs, reserve=reserve, own=own)[0]

    def blocker(self, now_us: int, limits: Limits, costs: Costs, *, reserve: Costs | None = None, own: bool = False) -> tuple[int, str]:
        """Return when a request fits and the quota that holds it back longest ("" when none does); see `wait`."""
        latest, who = now_us, ""
        for scope, units, seconds in limits:
            cost = costs.get(scope, 0.0)
            if cost <= 0.0:
                continue
            until = self._blocked.get(scope)
            if until is not None:
                if until <= now_us:
                    del self._blocked[scope]
                elif until > latest:
                    latest, who = until, scope
            window = self._window(scope, units, seconds)
            window.forget(now_us)
            need = cost + (0.0 if reserve is None else reserve.get(scope, 0.0))
            if need > units + _TINY:
                problem = f"one action needs {need:g} units of a quota of {units:g} (change, look before, confirmation)"
                raise ConfigurationError(problem, "quota", scope, "ask the platform for more, or drop the quota")
            most = units * self.headroom
            if self._under_way:
                largest = self._largest[scope] = max(self._largest.get(scope, 0.0), need)
                most = min(most, units - self._under_way * largest)
            most = max(most, need)  # a small quota is not made smaller than one action
            held = self._reserved.get(scope, 0.0)
            held = max(0.0, held - cost) if own else held
            excess = window.used + held + need - most
            if excess > _TINY:
                free = window.free_at(now_us, excess)
                if free > latest:
                    latest, who = free, scope
        return latest, who

    def charge(self, now_us: int, limits: Limits, costs: Costs) -> list[tuple[str, float]]:
        """Count a request, and return what was charged as (scope, units)."""
        charged = []
        for scope, units, seconds in limits:
            cost = costs.get(scope, 0.0)
            if cost > 0.0:
                self._window(scope, units, seconds).add(now_us, cost)
                if (scope, cost) not in charged:
                    charged.append((scope, cost))
        return charged

    def absorb(self, uses: Iterable[Use]) -> None:
        """Count what other workers used, or were told is used."""
        for use in uses:
            for window in self._by_scope.get(use.scope, ()):
                window.take(use)

    def reserve(self, costs: Costs, sign: int = 1) -> None:
        """Set units aside for a confirmation to come, or give them back with ``sign=-1``."""
        for scope, cost in costs.items():
            self._reserved[scope] = max(0.0, self._reserved.get(scope, 0.0) + sign * cost)

    def block(self, scope: str, until_us: int) -> None:
        """Let nothing through a scope before a time: the platform said so."""
        self._blocked[scope] = max(self._blocked.get(scope, until_us), until_us)

    def observe(self, now_us: int, usage: Mapping[str, float]) -> None:
        """Take the platform's own word on a scope: the share of its quota in use (1 is all of it), never below our own count."""
        self.absorb(Use(now_us, scope, share, is_share=True) for scope, share in usage.items())
