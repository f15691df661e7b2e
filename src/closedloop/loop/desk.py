"""What people do to a loop between its cycles: pause, approve, revert, tell it of tests, and look at its books.

Law of this file: everything said here is recorded with who said it, and is read back from the ledger: a loop opened again knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import attrs

from closedloop.errors import ConfigurationError, LedgerError
from closedloop.execute import OutboxExecutor, Reconciliation
from closedloop.health import Trends, trends_of
from closedloop.interfaces import Decider, Executor, Ledger
from closedloop.ledger import decode
from closedloop.loop.cycle import Mode
from closedloop.loop.deciding import differences
from closedloop.loop.holdouts import Holdout, Holdouts
from closedloop.loop.recording import approval_entry, lift_entry, mode_entry, revert_entry
from closedloop.records.action import Receipts
from closedloop.records.causes import CausalEvidence
from closedloop.records.decision import Plan
from closedloop.records.feedback import Finding
from closedloop.records.lift import LiftResult


class Desk:
    """The part of a loop that people use between cycles; `ClosedLoop` adds the cycle itself."""

    mode: Mode
    ledger: Ledger
    executor: Executor
    decider: Decider
    _assumed: CausalEvidence
    _holdouts: Holdouts | None

    @property
    def cycles(self) -> int:
        """How many cycles the ledger holds as complete."""
        done = self.ledger.newest("cycle", subject="loop")
        return int(done[0].entry.body["cycle"]) if done else 0

    def trends(self, *, last: int = 28, level: float = 0.9) -> Trends:
        """Return where health is going: the slope of each condition, and of what stood in each of the last cycles.

        Args:
            last: How many cycles are looked at.
            level: Level of the intervals.

        Raises:
            ConfigurationError: The level is not in (0, 1), or ``last`` is under 1.
        """
        if last < 1:
            raise ConfigurationError("is at least 1", "last", last)
        done = [r.entry.body for r in self.ledger.entries(kind="cycle", subject="loop")][-last:]
        kept = [{(name, scope): value for name, scope, value in body["measured"]} for body in done if "measured" in body]
        return trends_of(kept, level=level)

    @property
    def paused(self) -> str | None:
        """Why the loop is paused, None when it is not."""
        found = self.ledger.newest("mode", subject="loop")
        body = found[0].entry.body if found else {}
        return str(body["reason"]) if body.get("paused") else None

    def _set_paused(self, paused: bool, reason: str, by: str, now: datetime) -> None:
        number = sum(1 for _ in self.ledger.entries(kind="mode", subject="loop")) + 1
        self.ledger.append([mode_entry(number, paused=paused, reason=reason, by=by, now=now)])

    def pause(self, reason: str, *, by: str, now: datetime) -> None:
        """Send nothing more and hold every arm, and record who said so and why; learning and looking go on."""
        self._set_paused(True, reason, by, now)

    def resume(self, *, by: str, now: datetime) -> None:
        """Let the loop act again, and record who said so."""
        self._set_paused(False, "", by, now)

    def awaiting_approval(self) -> Sequence[Plan]:
        """Return the plans that wait for a person, oldest first."""
        return [decode(r.entry.body["plan"]) for r in self.ledger.newest("plan", only_open=True)]

    def approve(self, plan_id: str, *, by: str, now: datetime) -> Receipts:
        """Send a plan that waits, and record who approved it.

        Raises:
            ConfigurationError: No such plan waits; those that do are listed.
        """
        for found in self.ledger.newest("plan", only_open=True):
            entry = found.entry
            if entry.body["plan_id"] == plan_id:
                closed = attrs.evolve(entry, at=now, key=f"{entry.key}:approved", is_open=False)
                self.ledger.append([approval_entry(plan_id, by, now), closed])
                self._let_send()
                return self.executor.execute(decode(entry.body["plan"]), now=now)
        waiting = tuple(p.plan_id for p in self.awaiting_approval())
        raise ConfigurationError("no such plan waits for approval", "plan_id", plan_id, None, waiting)

    def receipts(self, *, since: datetime | None = None) -> Receipts:
        """Return the receipts of every plan made since a time (by default of all plans), oldest first."""
        plans = [r.entry.body["plan_id"] for r in self.ledger.entries(kind="plan", since=since)]
        return Receipts.of([receipt for plan_id in dict.fromkeys(plans) for receipt in self.executor.receipts(plan_id)])

    def reconcile(self, *, now: datetime) -> Reconciliation:
        """Compare what was intended with what stands at every target; explain each difference and propose the mend, change nothing.

        Raises:
            ConfigurationError: The executor is your own and cannot reconcile.
        """
        return self._own_executor("reconcile").reconcile(now=now)

    def _reconciled(self, now: datetime) -> list[Finding]:
        """On start: what stands elsewhere than intended, as findings."""
        return differences(self.reconcile(now=now)) if isinstance(self.executor, OutboxExecutor) and self.cycles else []

    def revert(self, plan_id: str, *, by: str, now: datetime) -> Plan:
        """Restore what stood before a plan, within the constraints, as a plan like any other: sent in ``auto``, else waiting for `approve`.

        Raises:
            ConfigurationError: No such plan was executed, or the executor is your own and cannot revert.
        """
        limits = getattr(self.decider, "constraints", None)
        plan = self._own_executor("revert").revert(plan_id, now=now, constraints=limits)
        plan = attrs.evolve(plan, provenance={**plan.provenance, "reverts": plan_id, "by": by})
        self.ledger.append([revert_entry(plan, self.mode, now)])
        if self.mode == "auto":
            self._let_send()
            self.executor.execute(plan, now=now)
        return plan

    def _own_executor(self, verb: str) -> OutboxExecutor:
        if isinstance(self.executor, OutboxExecutor):
            return self.executor
        raise ConfigurationError(f"this executor cannot {verb}", "executor", type(self.executor).__name__, "use OutboxExecutor")

    def add_lift_test(self, test: LiftResult, *, by: str, now: datetime) -> None:
        """Remember a lift test: from the next cycle on arms are ranked and moved by caused conversions, as far as tests and priors know."""
        self.ledger.append([lift_entry(len(self.lift_tests()) + 1, test, by, now)])

    def lift_tests(self) -> Sequence[LiftResult]:
        """Return the lift tests that the ledger holds, oldest first."""
        return [decode(r.entry.body["test"]) for r in self.ledger.entries(kind="lift")]

    def _may_test(self) -> bool:
        return self.mode == "auto" or (self.mode == "shadow" and self._holdouts is not None and self._holdouts.policy.in_shadow)

    def holdouts(self) -> Sequence[Holdout]:
        """Return the holdouts that the loop asked for, oldest first, with what each was expected to cost."""
        return [] if self._holdouts is None else self._holdouts.all()

    def causes(self) -> CausalEvidence:
        """Return what is known and assumed of the cause of credit: the priors, and every test that the ledger holds."""
        return attrs.evolve(self._assumed, tests=(*self._assumed.tests, *self.lift_tests()))

    def tick(self, now: datetime) -> datetime | None:
        """Let the executor do what is due; return when to call again, None when nothing is open.

        While the loop is paused nothing is sent: what is in flight is looked at, what is queued stays recorded until it expires.
        """
        self._let_send()
        return self.executor.tick(now)

    def _let_send(self) -> None:
        if hasattr(self.executor, "sending"):
            self.executor.sending = self.paused is None

    def verify(self) -> None:
        """Check the ledger's own evidence, where the ledger offers it.

        Raises:
            LedgerError: A record was edited, removed or reordered.
        """
        check = getattr(self.ledger, "verify", None)
        if check is None:
            raise LedgerError("this ledger cannot verify itself", "ledger", type(self.ledger).__name__)
        check()
