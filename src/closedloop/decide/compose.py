"""From chosen budgets to a plan: every move and hold with its interval, its numbers, what else was considered, and where it comes from.

Law of this file: it decides nothing; it states. Everything it adds to triggers and provenance is ready for JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from closedloop.decide.allocate import worth
from closedloop.decide.choose import Chosen
from closedloop.decide.curves import certain_moves
from closedloop.decide.evidence import Draws, intervals, summary
from closedloop.decide.holds import Why
from closedloop.decide.identity import decision_id, plan_id
from closedloop.decide.problem import Problem
from closedloop.display import number
from closedloop.records.arms import Arm
from closedloop.records.decision import Decision, Hold, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.money import MICROS, Money

FloatArray = npt.NDArray[np.float64]


def compose(
    p: Problem, target: Callable[[Arm], Target], digest: str, made_at: datetime, horizon: float, level: float, found: Mapping[int, Why],
    joint: Draws, ideal: FloatArray, chosen: Chosen, provenance: Mapping[str, Any],
) -> Plan:  # fmt: skip
    """Return the plan.

    Args:
        p: The problem.
        target: Gives an arm's target.
        digest: Of everything that determines the plan.
        made_at: When.
        horizon: Days for which it is meant.
        level: Of every interval.
        found: Why arms are held, by position.
        joint: Joint draws over the arms with a known budget.
        ideal: The best budgets if nothing were held, shape (A,).
        chosen: The moves.
        provenance: Where the plan comes from; alternatives and timing are added.
    """
    allocation, moved, gains = chosen.allocation, chosen.moved, chosen.gains
    position = np.cumsum(p.known) - 1
    gain, p_gain, shortfall = summary(gains.sum(axis=1, dtype=float), level)
    added = worth(p.curves, p.limits, allocation)
    order = np.argsort(-added[moved], kind="stable")
    sure = certain_moves(p.signals, moved, allocation.after[moved] > p.limits.now[moved], 1.0 - level)
    part = p.curves.take(moved)
    marginals, elasticities = part.marginal(p.limits.now[moved]), p.response.take(moved).elasticity()
    alone = intervals(gains, level)
    arms = list(p.signals.arms)
    decisions = tuple(
        _decision(p, arms[int(moved[j])], target, digest, chosen, int(j), alone[j], sure[j], float(marginals[j]), float(elasticities[j]))
        for j in order
    )
    still = np.array(sorted(found), dtype=np.int64)
    still_known = still[p.known[still]]
    missed = joint.gain(position[still_known], p.limits.now[still_known], ideal[still_known])
    best = dict(zip(still_known.tolist(), intervals(missed, level), strict=True))
    unknown = Interval(low=-np.inf, estimate=0.0, high=np.inf, level=level, kind="credible")
    holds = tuple(_hold(p, arms[i], target, i, found[i], best.get(i, unknown), float(ideal[i])) for i in still.tolist())
    source = dict(provenance) | {"alternatives": _alternatives(p, joint, ideal, level)}
    if chosen.timing is not None:
        act, wait = float(chosen.timing.act.sum()), float(chosen.timing.wait.sum())
        words = f"over {number(horizon)} days moving now is worth {number(act)} {p.unit}, waiting and deciding then {number(wait)}."
        source["timing"] = {"value_of_acting": act, "value_of_waiting": wait, "words": words}
    return Plan(
        plan_id=plan_id(digest),
        made_at=made_at,
        window=p.signals.window,
        decisions=decisions,
        holds=holds,
        gain=gain,
        p_gain=p_gain,
        expected_shortfall=shortfall,
        horizon_days=horizon,
        unit=p.unit,
        provenance=source,
    )


def _alternatives(p: Problem, joint: Draws, ideal: FloatArray, level: float) -> list[dict[str, Any]]:
    """Return what other budgets would bring by the same draws: no change, nothing held, an equal split as far as limits allow."""
    index = np.flatnonzero(p.known)
    now = p.limits.now[index]
    equal = np.clip(now.mean() if len(index) else 0.0, p.limits.low[index], p.limits.high[index])
    found = [{"name": "change nothing", "gain": [0.0, 0.0, 0.0], "p_gain": 0.0}]
    for name, after in (("the same without holds", ideal[index]), ("towards an equal split", equal)):
        moved = np.flatnonzero(after != now)
        gain, chance, _ = summary(joint.gain(moved, now[moved], after[moved]).sum(axis=1, dtype=float), level)
        found.append({"name": name, "gain": [gain.low, gain.estimate, gain.high], "p_gain": chance})
    return found


def _decision(
    p: Problem, arm: Arm, target: Callable[[Arm], Target], digest: str, chosen: Chosen, j: int, gain: Interval, sure: bool | None,
    marginal: float, elasticity: float,
) -> Decision:  # fmt: skip
    allocation, i = chosen.allocation, int(chosen.moved[j])
    signals, money = p.signals, MICROS / p.limits.step
    marginal, price = marginal * money, float(allocation.prices[i]) * money
    up = allocation.after[i] > p.limits.now[i]
    reason = (
        f"the next {p.currency} a day here brings {number(marginal)} {p.unit}, {'more' if up else 'less'} than the {number(price)} "
        f"it brings where the plan puts it"
    )
    return Decision(
        decision_id=decision_id(digest, arm, int(allocation.after[i]) * p.limits.step),
        arm=arm,
        target=target(arm),
        before=Money(int(p.budgets[i]), p.currency),
        after=Money(int(allocation.after[i]) * p.limits.step, p.currency),
        gain=gain,
        p_gain=float(chosen.chances[j]),
        reason=reason,
        triggers={
            "certain": sure,
            "marginal_value": marginal,
            "price": price,
            "elasticity": elasticity,
            "response_learned": float(1.0 - p.response.prior_share[i]),
            "spend_per_day": float(signals.spend_per_day[i]),
            "weekly_conversions": float(signals.weekly_conversions[i]),
            "effective_volume": float(signals.effective_volume[i]),
            "maturity": float(signals.maturity[i]),
            "p_best": float(signals.p_best[i]),
            "continuous_optimum": float(allocation.continuous[i]) / money,
            **_timing(chosen, j),
        },
    )


def _hold(p: Problem, arm: Arm, target: Callable[[Arm], Target], i: int, why: Why, missed: Interval, ideal: float) -> Hold:
    return Hold(
        arm=arm,
        target=target(arm),
        budget=Money(int(p.budgets[i]), p.currency) if p.known[i] or p.budgets[i] > 0 else None,
        reason=why.reason,
        explanation=why.explanation,
        lift=why.lift,
        gain=missed,
        triggers={**why.triggers, "best_budget": ideal * p.limits.step / MICROS},
    )


def _timing(chosen: Chosen, j: int) -> dict[str, float]:
    t = chosen.timing
    if t is None:
        return {}
    return {
        "value_of_acting": float(t.act[j]),
        "value_of_waiting": float(t.wait[j]),
        "days_of_waiting": float(t.days[j]),
        "switching_cost": float(t.cost[j]),
    }
