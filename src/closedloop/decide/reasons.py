"""Holds that come from the allocation itself: limits, too many changes, nothing to gain, evidence too thin.

Law of this file: words and numbers only; each says what would lift the hold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from closedloop.decide.holds import Why
from closedloop.decide.problem import Problem
from closedloop.display import number
from closedloop.records.money import MICROS

FloatArray = npt.NDArray[np.float64]


def _money(p: Problem, steps: float) -> str:
    return f"{number(steps * p.limits.step / MICROS, 6)} {p.currency}"


def stuck(p: Problem, i: int) -> Why:
    """Return why no whole step can change an arm's budget."""
    if p.budgets[i] <= 0:
        return Why(reason="no_spend", explanation="its budget is zero", lift="give it a budget by hand")
    return Why(
        reason="limits",
        explanation=f"its limits leave no whole step around its budget of {_money(p, float(p.limits.now[i]))}",
        lift="widen max_step, floor or ceiling",
    )


def cannot_fall(p: Problem, i: int, group: str = "the total") -> Why:
    """Return why an arm stays while the total, or the ceiling of a group, is out of reach."""
    return Why(
        reason="limits",
        explanation=(
            f"{group} is under what holds and limits leave, and this budget of {_money(p, float(p.limits.now[i]))} could only rise "
            f"to {_money(p, float(p.limits.low[i]))}"
        ),
        lift=f"raise {group}, or lower floors or budgets on hold",
        triggers={"total": p.limits.total * p.limits.step / MICROS},
    )


def out_of_reach(p: Problem, after: FloatArray, asked: float) -> dict[str, Any] | None:
    """Return what keeps the budgets from adding up to the total, and how many plans it takes at least; None when they do.

    Args:
        p: The problem.
        after: New budgets in steps, shape (A,).
        asked: The total asked for, in steps.
    """
    total = float(after[p.known].sum())
    if -1.0 <= asked - total <= 1e-6:
        return None
    money, step = p.limits.step / MICROS, p.constraints.max_step
    moves = p.known & (after != p.limits.now)
    held, moving = float(after[p.known & ~moves].sum()), float(after[moves].sum())
    words = f"{_money(p, asked)} a day were asked for, {_money(p, total)} is as near as "
    words += "holds, floors and the largest step allow" if total > asked else "holds, ceilings and the largest step allow"
    plans: int | None = None
    if moving <= 0.0:
        words += "; nothing may move"
    elif asked <= held:
        words += f"; budgets that stay keep {_money(p, held)}, so it is never reached unless they are lowered by hand"
    elif total < asked or step < 1.0:
        plans = math.ceil(math.log((asked - held) / moving) / math.log(1.0 + step if total < asked else 1.0 - step) - 1e-9)
        words += f"; at least {plans} more plan{'s' * (plans != 1)} like this to go"
    return {"asked": asked * money, "reached": total * money, "kept": held * money, "plans_to_go": plans, "words": words + "."}


def too_many(most: int) -> Why:
    """Return why a change is left out when a platform takes only so many."""
    return Why(
        reason="limits",
        explanation=f"its change is not among the {most} most valuable ones on its platform",
        lift="raise max_changes, or wait for the next plan",
        triggers={"max_changes": most},
    )


def weak_move(p: Problem, i: int, after: float, chance: float | None) -> Why:
    """Return why a move is left out: too small (no ``chance``), or too unsure."""
    c = p.constraints
    volume = float(p.signals.effective_volume[i])
    if chance is None:
        return Why(
            reason="no_gain",
            explanation=f"the best budget, {_money(p, after)}, is within the smallest change of {_money(p, float(p.limits.now[i]))} now",
            lift="nothing to lift: it stands where it should",
            triggers={"best_move": (after - float(p.limits.now[i])) * p.limits.step / MICROS, "min_change": c.min_change},
        )
    # The spread of a posterior falls with the square root of the volume: what is missing until the same difference would pass.
    z, needed = float(ndtri(max(chance, 0.5))), float(ndtri(c.min_probability)) if c.min_probability > 0.5 else 0.0
    factor = (needed / z) ** 2 if z > 0.02 else None
    missing = None if factor is None else (factor - 1.0) * volume
    weekly = float(p.signals.weekly_conversions[i])
    days = None if missing is None or weekly <= 0.0 else 7.0 * missing / weekly
    if missing is None:
        lift = "more data: the difference is too small to say how much"
    else:
        lift = f"about {number(missing)} more conversions" + (f" ({number(days)} days at the current pace)" if days is not None else "")
        lift += ", if the difference stays"
    return Why(
        reason="thin_evidence",
        explanation=f"moving it to {_money(p, after)} helps with probability {chance:.2f}, {c.min_probability:.2f} is needed",
        lift=lift,
        triggers={"p_gain": chance, "min_probability": c.min_probability, "conversions_missing": missing, "days_at_current_pace": days},
    )


def wait_for_more(p: Problem, act: float, wait: float, days: float, horizon: float) -> Why:
    """Return why a move is put off: deciding later is worth more than moving now."""
    return Why(
        reason="waiting",
        explanation=(
            f"over {number(horizon)} days moving now is worth {number(act)} {p.unit}, waiting {number(days)} days and deciding then "
            f"{number(wait)}"
        ),
        lift=f"wait {number(days)} day{'s' * (days != 1)}",
        triggers={"value_of_acting": act, "value_of_waiting": wait, "days": days},
    )


def alike(p: Problem, chance: float, level: float) -> Why:
    """Return why nothing moves between arms that cannot be told apart."""
    return Why(
        reason="thin_evidence",
        explanation=(
            f"what the next {p.currency} brings differs between arms by no more than chance "
            f"(p-value {chance:.2f}, under {level:.2f} is needed)"
        ),
        lift="more data, if they do differ; nothing, if they are alike",
        triggers={"p_value": chance, "alike": level},
    )
