"""Every Protocol of the library: what a room, a ledger or a platform must offer.

Law of this file: Protocols of one to four methods, and nothing to inherit from. An implementation needs these types and no
code of ours; it is certified by ``closedloop.testing``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import numpy as np

from closedloop.records.action import AttemptResult, Change, Entry, Receipt, Receipts, Recorded, TargetState
from closedloop.records.arms import Arm
from closedloop.records.batch import EventBatch
from closedloop.records.decision import Plan, Target
from closedloop.records.holdout import HoldoutCounts
from closedloop.records.money import Money
from closedloop.records.outcomes import Outcomes
from closedloop.records.quarantine import Ingested
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow


@runtime_checkable
class Ingestor(Protocol):
    """Attach meaning to raw rows, and lose none."""

    def ingest(self, rows: Any) -> Ingested:
        """Return accepted events, quarantined rows and the state of the tags for any table of raw rows."""
        ...


class State(Protocol):
    """What attribution remembers between cycles: small, mergeable, saved without pickle."""

    def to_bytes(self) -> bytes:
        """Return the state as bytes; equal states give equal bytes."""
        ...


@runtime_checkable
class AttributionFeedback(Protocol):
    """Credit outcomes to touches inside one window, and restate them as data arrive."""

    @property
    def window(self) -> AttributionWindow:
        """The attribution window."""
        ...

    def attribute(
        self, batch: EventBatch, receipts: Sequence[Receipt] = (), *, state: State | None = None, now: datetime | None = None
    ) -> Outcomes:
        """Return the outcomes of all events seen: those in ``state`` and the new batch.

        ``outcomes.state`` is the state after the batch; the given one is not changed, and None starts empty.
        """
        ...

    def load(self, data: bytes) -> State:
        """Return the state saved by its ``to_bytes``."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """Rank arms by probability, from recency, volume and variance at once."""

    @property
    def window(self) -> AttributionWindow:
        """The attribution window."""
        ...

    def classify(self, outcomes: Outcomes, *, now: datetime | None = None) -> Signals:
        """Return the arms ranked, each number with its interval."""
        ...


@runtime_checkable
class Decider(Protocol):
    """Say where the next unit of money goes, and when to leave it alone."""

    def decide(
        self,
        signals: Signals,
        current_budgets: Mapping[Arm, Money] | None = None,
        *,
        horizon: float = 7.0,
        now: datetime | None = None,
        rng: np.random.Generator | None = None,
    ) -> Plan:
        """Return a plan: a decision or a hold for every arm."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Record, send within limits, confirm."""

    def execute(self, plan: Plan, *, now: datetime) -> Receipts:
        """Record every decision of the plan durably, then begin to send; return where each action stands."""
        ...

    def tick(self, now: datetime) -> datetime | None:
        """Do what is due now; return when to call again, None when nothing is open."""
        ...

    def receipts(self, plan_id: str | None = None) -> Receipts:
        """Return where the actions of a plan stand, or of all plans that have open actions."""
        ...


@runtime_checkable
class Ledger(Protocol):
    """Append-only memory; what was appended is durable when the call returns."""

    def append(self, entries: Sequence[Entry], *, states: Mapping[str, bytes] | None = None) -> int:
        """Write entries and named states in one transaction; return how many entries were new.

        An entry whose key is known is skipped when the body is the same, and refused (`LedgerError`, nothing written) when not.
        """
        ...

    def entries(
        self, *, kind: str | None = None, subject: str | None = None, after: int = 0, since: datetime | None = None
    ) -> Iterator[Recorded]:
        """Yield records in sequence, filtered; ``after`` is a sequence number, ``since`` a time that `Entry.at` has reached."""
        ...

    def newest(
        self, kind: str, *, subject: str | None = None, only_open: bool = False, due_by: datetime | None = None
    ) -> Sequence[Recorded]:
        """Return the newest record of each subject of a kind (or of one), ordered by due time and sequence."""
        ...

    def state(self, name: str) -> bytes | None:
        """Return the named state as last written, None when there is none."""
        ...


@runtime_checkable
class Claims(Protocol):
    """A ledger that several workers share, each of which must know what the others are doing."""

    def claim(self, name: str, *, wait: bool = False) -> AbstractContextManager[bool]:
        """Hold a name against every other worker while the context lasts, and also give it up when this process dies.

        The context's value is False when another worker holds the name; with ``wait`` it is waited for.
        """
        ...


@runtime_checkable
class ReadsState(Protocol):
    """A platform whose targets can be read."""

    def read(self, target: Target, *, now: datetime) -> TargetState:
        """Return what the platform says of a target now.

        Raises:
            PlatformError: It cannot be read; `RejectedError` when it does not exist.
        """
        ...


@runtime_checkable
class AppliesChanges(Protocol):
    """A platform that can be told to change a target."""

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        """Send one change once; never retries, never raises for what a platform can do, reports what is known."""
        ...

    @property
    def quiet_period(self) -> float:
        """Seconds after a send within which the platform may still apply it: no re-send before they have passed."""
        ...


@runtime_checkable
class FindsCreated(Protocol):
    """A platform on which something can be created, and found again by the action's id that it carries."""

    def find(self, change: Change, *, now: datetime) -> Sequence[TargetState]:
        """Return everything that bears the mark of the change's action; more than one is a duplicate.

        Raises:
            PlatformError: It cannot be searched.
        """
        ...


@runtime_checkable
class LimitsRequests(Protocol):
    """A platform with declared quotas."""

    def limits(self, target: Target) -> Sequence[tuple[str, float, float]]:
        """Return the quotas that a request to the target counts against: (scope, units, window in seconds)."""
        ...

    def cost(self, change: Change | None) -> float:
        """Return the units of a change, or of a read for None."""
        ...


@runtime_checkable
class WeighsRequests(Protocol):
    """A platform whose quotas count different things: calls here, changes of one budget there."""

    def costs(self, change: Change | None, target: Target) -> Mapping[str, float]:
        """Return the units by scope of a change of the target, or of a read for None; a scope left out costs nothing.

        Where a platform offers this, it stands in place of `LimitsRequests.cost`.
        """
        ...


@runtime_checkable
class ReportsSpend(Protocol):
    """A platform that reports spend and its own count of conversions."""

    def report(self, *, since: datetime, until: datetime) -> Any:
        """Return raw rows of spend and of conversions as the platform counts them, any table the ingestor reads."""
        ...


@runtime_checkable
class RunsHoldouts(Protocol):
    """A platform that can keep its ads from a share of users, drawn at random, and count what both groups do."""

    def start_holdout(self, holdout_id: str, targets: Sequence[Target], share: float, *, now: datetime) -> None:
        """Begin to keep the targets' ads from a share of users; begun again under the same id it is the same holdout.

        Raises:
            RejectedError: A target does not exist, is in another holdout, or the id is known with other targets or another share.
            PlatformError: It cannot be begun, or perhaps was; ask again.
        """
        ...

    def read_holdout(self, holdout_id: str, *, now: datetime) -> HoldoutCounts:
        """Return what both groups did since it began.

        Raises:
            RejectedError: There is no such holdout.
            PlatformError: It cannot be read.
        """
        ...

    def end_holdout(self, holdout_id: str, *, now: datetime) -> None:
        """Show the ads to everyone again; one that has ended stays as it is.

        Raises:
            RejectedError: There is no such holdout.
            PlatformError: It cannot be ended, or perhaps was; ask again.
        """
        ...
