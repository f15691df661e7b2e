"""A plan in plain words.

Law of this file: it says what the plan holds and nothing else; every number in the text is in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from closedloop.display import number
from closedloop.records.moments import from_us

if TYPE_CHECKING:
    from closedloop.records.arms import Arm
    from closedloop.records.decision import Plan

_SHOWN = 50  # decisions and holds spelled out; the rest is counted


def _name(arm: Arm) -> str:
    return " / ".join("?" if tag is None else tag for tag in arm)


def _numbers(triggers: Mapping[str, Any]) -> str:
    parts = []
    for key, value in triggers.items():
        if value is None or value == [] or isinstance(value, Mapping):
            continue
        shown = number(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
        parts.append(f"{key.replace('_', ' ')} {shown}")
    return "; ".join(parts)


def explain(plan: Plan) -> str:
    """Return a plan in plain words."""
    p = plan.provenance
    lines = [
        f"Plan {plan.plan_id}, made at {plan.made_at.isoformat(timespec='minutes')} for {number(plan.horizon_days)} days, {plan.window}.",
        f"It moves {len(plan.decisions)} budgets and leaves {len(plan.holds)} alone. Expected change a day: {plan.gain!r} {plan.unit}; "
        f"it helps with probability {plan.p_gain:.2f}; where it does not, it loses {number(plan.expected_shortfall)} a day on average.",
    ]
    if "total_before" in p:
        lines.append(f"Total a day: {number(p['total_before'], 6)} before, {number(p['total_after'], 6)} after {p.get('currency', '')}.")
    if "total" in p:
        lines.append(f"The total is out of reach for now: {p['total']['words']}")
    for d in plan.decisions[:_SHOWN]:
        lines += [
            "",
            f"MOVE {_name(d.arm)} ({d.target}): {d.before!r} -> {d.after!r}.",
            f"  Why: {d.reason}.",
            f"  Alone it changes {d.gain!r} {plan.unit} a day; with the rest of the plan it helps with probability {d.p_gain:.2f}.",
            f"  Triggered by: {_numbers(d.triggers)}.",
        ]
    if len(plan.decisions) > _SHOWN:
        lines.append(f"... and {len(plan.decisions) - _SHOWN:,} more moves.")
    for h in plan.holds[:_SHOWN]:
        lines += ["", f"HOLD {_name(h.arm)} ({h.reason}): {h.explanation}.", f"  Lifted by: {h.lift}."]
        if h.triggers:
            lines.append(f"  Numbers: {_numbers(h.triggers)}.")
        lines.append(f"  Its best move would change {h.gain!r} {plan.unit} a day.")
    if len(plan.holds) > _SHOWN:
        lines.append(f"... and {len(plan.holds) - _SHOWN:,} more holds.")
    if p.get("alternatives"):
        lines += ["", "Alternatives considered:"]
        for a in p["alternatives"]:
            low, middle, high = (number(v) for v in a["gain"])
            lines.append(f"  {a['name']}: {middle} [{low}, {high}] {plan.unit} a day, P(gain > 0) {a['p_gain']:.2f}.")
    if p.get("timing"):
        t = p["timing"]
        lines += ["", f"Act now or wait: {t['words']}"]
    marks = ", ".join(f"{k} until {from_us(v).isoformat(timespec='minutes')}" for k, v in p.get("watermark", {}).items())
    lines += ["", "Made from:"]
    known = ("version", "seed", "draws", "classifier", "model", "conversion_type", "revision", "objective", "digest")
    lines += [f"  {key.replace('_', ' ')}: {p[key]}" for key in known if p.get(key) is not None]
    if marks:
        lines.append(f"  data: {marks}")
    if "constraints" in p:
        lines.append(f"  constraints: {_numbers(p['constraints'])}")
    return "\n".join(lines)
