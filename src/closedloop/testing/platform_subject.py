"""What a platform's certificate is about: the adapter, and the platform behind it as far as its author can control that.

Law of this file: it is used by the checks and knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from closedloop.records.action import AttemptResult, Change, ChangeKind, TargetState
from closedloop.records.decision import Target
from closedloop.records.money import Money
from closedloop.testing.certificate import CheckFailedError

PLATFORM_FAULTS: Mapping[str, str] = {
    "throttle": "the next change is refused by a quota",
    "lose_reply": "the next change is applied, and no answer comes",
    "lose_request": "the next change is not applied, and no answer comes",
    "late": "the next change is applied later, within the quiet period",
    "ignore": "the next change is answered with yes and not applied",
    "server_error": "the next change is applied and answered with a failure of the server",
    "unreachable": "from now on nobody listens",
    "revoke": "from now on the credentials do not serve",
}


@attrs.define(kw_only=True)
class PlatformSubject:
    """An adapter together with the platform behind it, as its author can control that.

    Args:
        platform: The adapter.
        target: A target that exists, delivers, and has a daily budget of its own.
        amounts: Two budgets a day that the platform takes exactly, both different from the present one.
        now: The present moment (aware); `later` moves it.
        advance: Moves the clock of the platform behind the adapter by a time, where it has one.
        faults: By name (`PLATFORM_FAULTS`), a function that arms the fault.
        writes: Returns how many requests to change something the platform has received.
        alter: Lets someone else set the target's budget, past the adapter.
        other: A second target, which nothing here changes.
        unknown: A target that does not exist.
        refused: A change that the platform refuses for good, such as a budget below its minimum.
        foreign: Another currency than that of the account.
        secrets: Secrets that the adapter's client holds, or fake ones put there.
        report_span: ``(since, until)`` for which the platform has something to report.
        excused: By name of a check, why it cannot be run: which capability the platform lacks.
    """

    platform: Any
    target: Target
    amounts: tuple[Money, Money]
    now: datetime
    unknown: Target
    refused: Change
    foreign: str = "XTS"
    advance: Callable[[timedelta], None] | None = None
    faults: Mapping[str, Callable[[], None]] = attrs.field(factory=dict)
    writes: Callable[[], int] | None = None
    alter: Callable[[Money], None] | None = None
    other: Target | None = None
    secrets: tuple[str, ...] = ()
    report_span: tuple[datetime, datetime] | None = None
    excused: Mapping[str, str] = attrs.field(factory=dict)

    def offers(self, part: str) -> bool:
        """Return whether the subject has a part or a fault (``fault:late``)."""
        if part.startswith("fault:"):
            return part.removeprefix("fault:") in self.faults
        return bool(getattr(self, part))

    def later(self, seconds: float) -> None:
        """Let time pass, here and on the platform."""
        step = timedelta(seconds=seconds)
        self.now += step
        if self.advance is not None:
            self.advance(step)

    def settle(self) -> None:
        """Let the quiet period pass, and a second more."""
        self.later(float(self.platform.quiet_period) + 1.0)

    def change(self, kind: ChangeKind = "set_budget", budget: Money | None = None, target: Target | None = None) -> Change:
        """Return a change of the target."""
        return Change(action_id="certificate-1", target=target or self.target, kind=kind, budget=budget)

    def send(self, change: Change) -> AttemptResult:
        """Send a change through the adapter; an exception fails the check."""
        result = self.platform.send(change, now=self.now)
        if not isinstance(result, AttemptResult):
            raise CheckFailedError(f"send returned {type(result).__name__}, not an AttemptResult")
        return result

    def read(self, target: Target | None = None) -> TargetState:
        """Read a target through the adapter."""
        state = self.platform.read(target or self.target, now=self.now)
        if not isinstance(state, TargetState):
            raise CheckFailedError(f"read returned {type(state).__name__}, not a TargetState")
        return state
