"""What every loopback server shares: a clock moved by hand, scripted faults, changes and reads that lag."""

from __future__ import annotations

import copy
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any


class World:
    """The objects of one account behind a server, as the platform holds them and as it shows them.

    ``clock`` is moved by ``advance``; nothing here sleeps. A late change stands in ``queue`` until its time; ``lag`` seconds after
    a change the old value is still shown.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clock = 0.0
        self.objects: dict[str, dict[str, Any]] = {}
        self.shown: list[tuple[float, dict[str, dict[str, Any]]]] = []
        self.queue: list[tuple[float, Callable[[], None]]] = []
        self.faults: dict[str, deque[Any]] = defaultdict(deque)
        self.always: dict[str, Any] = {}
        self.lag = 0.0
        self.writes: list[tuple[float, str, dict[str, Any]]] = []
        self.requests: list[tuple[str, str, dict[str, Any]]] = []

    def script(self, kind: str, *faults: Any) -> None:
        """Let the next requests of a kind (``read``, ``write``, ``report``) meet these faults, one each."""
        self.faults[kind].extend(faults)

    def fault(self, kind: str) -> Any:
        """Return what the next request of a kind meets: what is scripted, else what ``always`` holds or draws."""
        with self.lock:
            found = self.faults[kind].popleft() if self.faults[kind] else self.always.get(kind)
            return found() if callable(found) else found

    def advance(self, seconds: float) -> None:
        with self.lock:
            self.clock += seconds
            due = [(at, run) for at, run in self.queue if at <= self.clock]
            self.queue = [(at, run) for at, run in self.queue if at > self.clock]
            for _, run in sorted(due, key=lambda pair: pair[0]):
                run()

    def change(self, name: str, values: dict[str, Any], delay: float = 0.0) -> None:
        """Apply values to an object now, or ``delay`` seconds from now."""

        def run() -> None:
            self.shown.append((self.clock, copy.deepcopy(self.objects)))
            self.objects.setdefault(name, {}).update(values)
            self.writes.append((self.clock, name, dict(values)))

        with self.lock:
            if delay:
                self.queue.append((self.clock + delay, run))
            else:
                run()

    def view(self) -> dict[str, dict[str, Any]]:
        """Return the objects as a reader sees them now: with a lag, the oldest state replaced within it."""
        with self.lock:
            stale = [before for at, before in self.shown if self.clock < at + self.lag]
            return copy.deepcopy(stale[0] if stale else self.objects)
