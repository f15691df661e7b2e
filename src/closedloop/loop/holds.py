"""Turn the moves of a plan into holds, when the loop knows what the decider could not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from closedloop.records.arms import Arm
from closedloop.records.decision import Decision, Hold, HoldReason, Plan
from closedloop.records.interval import Interval


def _held(decision: Decision, reason: HoldReason, explanation: str, lift: str) -> Hold:
    return Hold(
        arm=decision.arm,
        target=decision.target,
        budget=decision.before,
        reason=reason,
        explanation=f"{explanation} Without this the budget would have gone to {decision.after}.",
        lift=lift,
        gain=decision.gain,
        triggers=decision.triggers,
    )


def hold_all(plan: Plan, reason: HoldReason, explanation: str, lift: str) -> Plan:
    """Return the plan with every move turned into a hold; it then changes nothing, so its gain is exactly zero."""
    holds = tuple(_held(d, reason, explanation, lift) for d in plan.decisions)
    nothing = Interval(low=0.0, estimate=0.0, high=0.0, level=plan.gain.level, kind=plan.gain.kind)
    return attrs.evolve(plan, decisions=(), holds=(*holds, *plan.holds), gain=nothing, p_gain=0.0, expected_shortfall=0.0)


def hold_unreadable(plan: Plan, unreadable: Mapping[Arm, str]) -> Plan:
    """Return the plan with the holds of arms whose budget could not be read explained as a broken integration."""

    def explain(hold: Hold) -> Hold:
        if hold.arm not in unreadable:
            return hold
        why = unreadable[hold.arm]
        mend = "Mend the platform connection, or register an adapter."
        return attrs.evolve(hold, reason="integration", explanation=f"Its budget could not be read: {why}.", lift=mend)

    return attrs.evolve(plan, holds=tuple(explain(h) for h in plan.holds))


def overridden(plan: Plan, provenance: Mapping[str, Any]) -> Plan:
    """Return the decider's plan as the loop hands it on.

    Args:
        plan: What the decider decided.
        provenance: What the loop adds to the plan's own; ``override`` says what the loop knew: ``unreadable`` (pairs of arm and reason) and
            ``hold`` (reason, explanation, what would lift it; None to let the plan stand).
    """
    plan = attrs.evolve(plan, provenance={**plan.provenance, **provenance})
    override = provenance["override"]
    plan = hold_unreadable(plan, {tuple(arm): why for arm, why in override["unreadable"]})
    return plan if override["hold"] is None else hold_all(plan, *override["hold"])
