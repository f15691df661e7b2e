"""What execution works on: changes of targets, results of attempts, actions and receipts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import attrs

from closedloop.display import frame, html_table, text_table
from closedloop.records.decision import Target
from closedloop.records.money import Money

ChangeKind = Literal["set_budget", "pause", "resume", "create"]
ActionState = Literal[
    "recorded", "sending", "accepted", "throttled", "unknown",
    "confirmed", "diverged", "rejected", "stale", "expired", "superseded",
]  # fmt: skip
AttemptStatus = Literal["accepted", "not_sent", "throttled", "rejected", "unknown"]


@attrs.frozen(kw_only=True)
class TargetState:
    """What a platform says of a target now.

    Args:
        target: The target.
        budget: Its budget a day, None when it has none of its own.
        active: Whether it is delivering.
        learning: Whether the platform says it is in its learning phase, None when unknown.
        read_at: When it was read (aware UTC).
    """

    target: Target
    budget: Money | None
    active: bool
    read_at: datetime
    learning: bool | None = None


@attrs.frozen(kw_only=True)
class Change:
    """One absolute change of one target; never relative, so that sending it twice does no more than once.

    Args:
        action_id: The decision's id, carried as marker where the platform can store one.
        target: What to change.
        kind: ``set_budget``, ``pause``, ``resume``, or ``create`` (the target's resource is then the name it shall bear).
        budget: The new budget a day, for ``set_budget`` and ``create``.
    """

    action_id: str
    target: Target
    kind: ChangeKind = "set_budget"
    budget: Money | None = None


@attrs.frozen(kw_only=True)
class AttemptResult:
    """What is known after one attempt to send a change.

    Args:
        status: ``accepted`` (the platform said yes; not yet a confirmation), ``not_sent`` (surely not applied, may be sent again),
            ``throttled`` (surely not applied, not before ``retry_at``), ``rejected`` (for good), ``unknown`` (perhaps applied).
        code, message: The platform's own, redacted.
        retry_at: When it may be tried again.
        request_id: The platform's id of the request.
        scope: For ``throttled``, the quota that refused (one of the platform's `limits`), "" when the platform does not say.
        usage: By scope, the share of the quota that the platform says is used (1 is all of it), where it says so.
    """

    status: AttemptStatus
    code: str = ""
    message: str = ""
    retry_at: datetime | None = None
    request_id: str = ""
    scope: str = ""
    usage: Mapping[str, float] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Receipt:
    """Where one action stands, with every time that matters.

    Args:
        action_id: The decision's id.
        plan_id: The plan it belongs to.
        change: What is changed.
        prior: What stood before it was sent, None while not read.
        state: State of the action's life.
        attempts: Attempts so far.
        decided_at, recorded_at, sent_at, accepted_at, settled_at: Aware UTC times, None while not reached. ``settled_at`` is when
            it was confirmed, or ended otherwise.
        waited_for_quota: Seconds spent waiting for quota.
        code, message: The platform's own words, redacted.
    """

    action_id: str
    plan_id: str
    change: Change
    prior: TargetState | None
    state: ActionState
    attempts: int
    decided_at: datetime
    recorded_at: datetime | None = None
    sent_at: datetime | None = None
    accepted_at: datetime | None = None
    settled_at: datetime | None = None
    waited_for_quota: float = 0.0
    code: str = ""
    message: str = ""


@attrs.frozen(kw_only=True)
class Action:
    """One action as the executor keeps it in a ledger: its receipt, and what is needed to go on after a crash.

    Args:
        receipt: Where it stands.
        before: What the decision saw in force; the change is *stale* when something else stands. None skips the comparison.
        value: Expected gain a day; more valuable actions are sent first when quota is short.
        step: Number of the record in the action's life, from 0; two workers cannot both write the same step.
        expires_at: After this it is no longer sent.
        due_at: When it wants attention next, None for at once.
        ready_at: Since when it could have been sent.
        look_until: Until when an accepted change may take to show.
        worker: Who wrote the record.
    """

    receipt: Receipt
    before: Money | None
    value: float
    step: int
    expires_at: datetime
    due_at: datetime | None = None
    ready_at: datetime | None = None
    look_until: datetime | None = None
    worker: str = ""


DELAY_STEPS = ("decision to ledger", "queue: quota", "queue: other", "platform: until accepted", "platform: until confirmed")


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return 0.0 if start is None or end is None else max((end - start).total_seconds(), 0.0)


def _steps(receipt: Receipt) -> tuple[float, ...]:
    """Return the seconds of one action in each of `DELAY_STEPS`; a step that was not reached takes none."""
    r = receipt
    waited = _seconds(r.recorded_at, r.sent_at or r.settled_at)
    quota = min(r.waited_for_quota, waited)
    return (
        _seconds(r.decided_at, r.recorded_at),
        quota,
        waited - quota,
        _seconds(r.sent_at, r.accepted_at or r.settled_at),
        _seconds(r.accepted_at, r.settled_at),
    )


@attrs.frozen(kw_only=True)
class Receipts:
    """Receipts in the order of the plan, shown as one table."""

    rows: tuple[Receipt, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Receipt]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Receipt:
        return self.rows[index]

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per action."""
        return {
            "action": [r.action_id for r in self.rows],
            "target": [str(r.change.target) for r in self.rows],
            "state": [r.state for r in self.rows],
            "attempts": [r.attempts for r in self.rows],
            "budget": [None if r.change.budget is None else r.change.budget.units for r in self.rows],
            "decided_at": [r.decided_at for r in self.rows],
            "settled_at": [r.settled_at for r in self.rows],
            "message": [f"{r.code} {r.message}".strip() for r in self.rows],
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the receipts as a frame."""
        return frame(self.to_columns(), library)

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=f"Receipts: {len(self)} actions")

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=f"Receipts: {len(self)} actions")

    def delay(self) -> dict[str, float]:
        """Return the mean seconds that settled actions spent in each step from decision to confirmation, {} when none is settled."""
        steps = [_steps(r) for r in self.rows if r.settled_at is not None]
        return {name: sum(s[i] for s in steps) / len(steps) for i, name in enumerate(DELAY_STEPS)} if steps else {}

    def plot(self, ax: Any = None) -> Any:
        """Draw, by platform, where the time from decision to confirmation went (means of settled actions); return the Axes."""
        from closedloop.display import plots

        names = sorted({r.change.target.platform for r in self.rows if r.settled_at is not None})
        means = [Receipts.of([r for r in self.rows if r.change.target.platform == name]).delay() for name in names]
        parts = {step: [m[step] for m in means] for step in DELAY_STEPS}
        return plots.stacked_delay(names, parts, title="Where the delay went", unit="seconds, mean of an action", ax=ax)

    @classmethod
    def of(cls, rows: Sequence[Receipt]) -> Receipts:
        """Return the receipts as one value."""
        return cls(rows=tuple(rows))


@attrs.frozen(kw_only=True)
class Entry:
    """One record for a ledger.

    Args:
        kind: What it records: ``plan``, ``action``, ``cycle``, ``mode``, ``approval``, ``finding``.
        subject: The id of the thing recorded; the newest entry of a kind and subject is its present state.
        at: When (aware UTC).
        body: JSON-ready content.
        key: Idempotency key, distinct in the ledger: an entry with a known key and the same body is not written again.
        is_open: True while more is to come for this subject.
        due_at: When an open subject wants attention next.
    """

    kind: str
    subject: str
    at: datetime
    body: Mapping[str, Any]
    key: str
    is_open: bool = False
    due_at: datetime | None = None


@attrs.frozen(kw_only=True)
class Recorded:
    """An entry as it stands in a ledger, with its place in the sequence (from 1) and its digest."""

    sequence: int
    entry: Entry
    digest: str = ""
