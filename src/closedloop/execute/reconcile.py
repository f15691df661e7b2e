"""What was intended beside what stands, each difference explained; and the way back to what stood before a plan.

Law of this file: it looks and proposes; it changes nothing. Pure: the executor reads the platforms and hands the states in. A
difference is never "fixed" over someone else's change: the mend is to decide again from what stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import attrs

from closedloop.display import frame, html_table, text_table
from closedloop.execute.lifecycle import FINAL
from closedloop.execute.standing import Look, in_force, same_amount
from closedloop.records.action import Change, Receipt, TargetState
from closedloop.records.decision import Constraints, Decision, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow

Verdict = Literal[
    "agrees",  # what stands is what was last confirmed, and nothing else is wanted
    "pending",  # an action of the target is open
    "not_sent",  # the last action ended without reaching the platform
    "lost",  # the platform accepted the last action without effect
    "changed_by_other",  # something stands that nobody here ever wanted
    "changed_by_platform",  # the platform keeps another amount than was asked, by rounding
    "paused_by_other",  # it is not delivering, and nobody here paused it
    "duplicate",  # a creation is there more than once
    "gone",  # it does not exist
    "overspend_allowed",  # it spent more than its budget, as the platform's daily rule allows
    "overspent",  # it spent more than even that rule allows
    "unread",  # it could not be read
]
_MENDS: dict[str, str] = {
    "agrees": "",
    "pending": "wait for the action to settle",
    "not_sent": "decide again: the evidence may be old",
    "lost": "send it again, or set it by hand on the platform",
    "changed_by_other": "decide again from what stands, or ask who changed it",
    "changed_by_platform": "none needed; decide in the platform's steps",
    "paused_by_other": "resume it, or leave it out of the plan",
    "duplicate": "remove all but one on the platform",
    "gone": "take the target out of the plan",
    "overspend_allowed": "none needed: the platform evens it out over the month",
    "overspent": "ask the platform for the difference back",
    "unread": "reconcile again later",
}
_ROUNDING = 0.01  # a platform that keeps an amount within this share of what was asked has rounded it


@attrs.frozen(kw_only=True)
class Difference:
    """One target: what was intended and what stands.

    Args:
        target: The target.
        verdict: What the difference is.
        intended: The budget that should stand, None when none was ever confirmed here.
        actual: The budget that stands, None when unread or gone.
        action_id: The last action of the target.
        because: In plain words.
        mend: What to do.
        change: The change that would restore what was intended, where that is a sound thing to do.
    """

    target: Target
    verdict: Verdict
    intended: Money | None
    actual: Money | None
    action_id: str
    because: str
    mend: str
    change: Change | None = None


@attrs.frozen(kw_only=True)
class Reconciliation:
    """All targets that were ever acted on, those that differ first.

    Args:
        rows: One difference per target.
        at: When it was looked at.
    """

    rows: tuple[Difference, ...]
    at: datetime

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def differing(self) -> tuple[Difference, ...]:
        """The targets at which something else stands than intended."""
        return tuple(row for row in self.rows if row.verdict not in ("agrees", "pending", "overspend_allowed"))

    @property
    def changes(self) -> tuple[Change, ...]:
        """Changes that would restore what was intended; pass them to `OutboxExecutor.submit`."""
        return tuple(row.change for row in self.rows if row.change is not None)

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per target."""
        return {
            "target": [str(row.target) for row in self.rows],
            "verdict": [row.verdict for row in self.rows],
            "intended": [None if row.intended is None else row.intended.units for row in self.rows],
            "actual": [None if row.actual is None else row.actual.units for row in self.rows],
            "because": [row.because for row in self.rows],
            "mend": [row.mend for row in self.rows],
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the rows as a frame."""
        return frame(self.to_columns(), library)

    def _title(self) -> str:
        return f"Reconciliation of {len(self):,} targets: {len(self.differing):,} differ"

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=self._title())


def by_target(receipts: Sequence[Receipt]) -> dict[Target, list[Receipt]]:
    """Return the receipts of each target in the order in which they were recorded."""
    grouped: dict[Target, list[Receipt]] = {}
    for receipt in sorted(receipts, key=lambda r: r.recorded_at or r.decided_at):
        grouped.setdefault(receipt.change.target, []).append(receipt)
    return grouped


def compare(history: Sequence[Receipt], look: Look, *, spent: Money | None = None, overspend: float = 0.0) -> Difference:
    """Explain one target.

    Args:
        history: All receipts of the target, oldest first; at least one.
        look: What was read.
        spent: What it spent on the last full day, None when unknown.
        overspend: Share of the daily budget that the platform may overspend on a single day.
    """
    last = history[-1]
    confirmed = [r for r in history if r.state == "confirmed"]
    budgets = [r for r in confirmed if r.change.budget is not None]
    wanted = budgets[-1].change.budget if budgets else None

    def verdict(name: Verdict, because: str, change: Change | None = None) -> Difference:
        actual = look.found[0].budget if look.found else None
        return Difference(
            target=last.change.target,
            verdict=name,
            intended=wanted,
            actual=actual,
            action_id=last.action_id,
            because=because,
            mend=_MENDS[name],
            change=change,
        )

    if last.state not in FINAL:
        return verdict("pending", f"the last action is {last.state}")
    if look.trouble:
        return verdict("unread", look.trouble)
    if not look.found:
        return verdict("gone", "the platform does not know it")
    if len(look.found) > 1:
        return verdict("duplicate", f"{len(look.found)} bear the mark of the action: {', '.join(str(s.target) for s in look.found)}")
    stands = look.found[0]
    if wanted is not None and not same_amount(wanted, stands.budget):
        return _explain(verdict, last, wanted, stands)
    if last.state == "diverged" and last.code == "NO_EFFECT":
        return verdict("lost", last.message, attrs.evolve(last.change, action_id=f"{last.action_id}/again"))
    if last.state in ("expired", "superseded", "stale", "rejected") and not in_force(last.change, stands):
        return verdict("not_sent", f"the last action ended {last.state}: {last.message or last.code}".rstrip(": "))
    if last.state == "diverged":
        return verdict("changed_by_other", last.message)
    delivery = [r.change.kind for r in confirmed if r.change.kind in ("pause", "resume")]
    if not stands.active and (not delivery or delivery[-1] == "resume"):
        return verdict("paused_by_other", "it is not delivering, and nobody here paused it")
    if spent is not None and stands.budget is not None and stands.budget < spent:
        allowed = Money(int(stands.budget.micros * (1.0 + overspend)), spent.currency)
        name: Verdict = "overspend_allowed" if spent <= allowed else "overspent"
        return verdict(name, f"spent {spent!r} on a budget of {stands.budget!r}; up to {allowed!r} a day is within the platform's rule")
    return verdict("agrees", "")


def _explain(verdict: Any, last: Receipt, wanted: Money, stands: TargetState) -> Difference:
    actual = stands.budget
    if actual is not None and actual.currency == wanted.currency and abs(actual.micros - wanted.micros) <= _ROUNDING * abs(wanted.micros):
        found: Difference = verdict("changed_by_platform", f"asked for {wanted!r}, the platform keeps {actual!r}")
    elif last.state == "diverged" and last.code == "NO_EFFECT":
        found = verdict("lost", last.message, attrs.evolve(last.change, action_id=f"{last.action_id}/again"))
    else:
        found = verdict("changed_by_other", f"{wanted!r} was confirmed here, but {actual!r} stands")
    return found


def restoring(
    decisions: Sequence[Decision], receipts: Sequence[Receipt], *, constraints: Constraints | None = None, suffix: str = "/revert"
) -> tuple[Decision, ...]:
    """Return the decisions that restore what stood before a plan, as far as the guardrails allow in one step.

    Args:
        decisions: Those of the plan.
        receipts: Their receipts; only what was confirmed is taken back.
        constraints: Largest step, floors and ceilings to keep; None for no guardrail.
        suffix: Added to each decision's id.
    """
    done = {r.action_id: r for r in receipts if r.state == "confirmed" and r.prior is not None and r.attempts > 0}
    restored = []
    for decision in decisions:
        receipt = done.get(decision.decision_id)
        before = None if receipt is None or receipt.prior is None else receipt.prior.budget
        if before is None:
            continue
        after = before if constraints is None else _guarded(decision, before, constraints)
        if same_amount(after, decision.after):
            continue
        short = "" if after == before else f", {before!r} being further than the guardrails allow in one step"
        restored.append(
            attrs.evolve(
                decision,
                decision_id=decision.decision_id + suffix,
                before=decision.after,
                after=after,
                gain=_unknown(decision.gain),
                p_gain=1.0 - decision.p_gain,
                reason=f"taken back to {after!r}{short}",
                triggers={"reverts": decision.decision_id},
            )
        )
    return tuple(restored)


def way_back(
    plan_id: str,
    of: Decision,
    restored: tuple[Decision, ...],
    *,
    made_at: datetime,
    window: AttributionWindow,
    horizon_days: float,
    unit: str,
) -> Plan:
    """Return the plan of what `restoring` gave; what it gains is unknown, on the scale of the plan's decision ``of``."""
    return Plan(
        plan_id=f"{plan_id}/revert",
        made_at=made_at,
        window=window,
        decisions=restored,
        holds=(),
        gain=_unknown(of.gain),
        p_gain=0.5,
        expected_shortfall=0.0,
        horizon_days=horizon_days,
        unit=unit,
        provenance={"reverts": plan_id},
    )


def _guarded(decision: Decision, wanted: Money, constraints: Constraints) -> Money:
    stands = decision.after.micros
    low, high = stands * (1.0 - constraints.max_step), stands * (1.0 + constraints.max_step)
    floor = constraints.floors.get(decision.arm, constraints.floor) * 1e6
    ceiling = constraints.ceilings.get(decision.arm, constraints.ceiling)
    micros = min(max(float(wanted.micros), low, floor), high)
    if ceiling is not None:
        micros = min(micros, ceiling * 1e6)
    if micros == wanted.micros:
        return wanted
    rounded = Money(int(micros), wanted.currency).rounded()
    return rounded if low <= rounded.micros <= high else Money(int(micros), wanted.currency)


def _unknown(gain: Interval) -> Interval:
    return attrs.evolve(gain, low=float("-inf"), estimate=0.0, high=float("inf"))
