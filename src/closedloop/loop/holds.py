"""Turn the moves of a plan into holds, when the loop knows what the decider could not."""

from __future__ import annotations

from collections.abc import Mapping

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


def explained(plan: Plan, unreadable: Mapping[Arm, str], held: Mapping[Arm, tuple[str, str]]) -> Plan:
    """Return the plan with its holds explained where the loop knows more than the decider.

    Args:
        plan: What was decided.
        unreadable: Why the budget of an arm could not be read.
        held: Evidence and mend of arms that health holds.
    """

    def explain(hold: Hold) -> Hold:
        if hold.arm in unreadable:
            mend = "Mend the platform connection, or register an adapter."
            return attrs.evolve(hold, reason="integration", explanation=f"Its budget could not be read: {unreadable[hold.arm]}.", lift=mend)
        if hold.arm in held and hold.reason == "health":
            evidence, mend = held[hold.arm]
            return attrs.evolve(hold, explanation=evidence, lift=mend)
        return hold

    return attrs.evolve(plan, holds=tuple(explain(h) for h in plan.holds))
