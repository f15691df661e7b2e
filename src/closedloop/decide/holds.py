"""When to leave a budget alone, and what would lift the hold.

Law of this file: a hold is a value with numbers, never an exception. The first reason that applies is the one that is given, in the order
of `HOLD_ORDER`: what is broken before what is merely thin.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import number
from closedloop.records.arms import Arm
from closedloop.records.decision import Constraints, HoldReason
from closedloop.records.signal import Signals

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_WEEK = 7.0


@attrs.frozen(kw_only=True)
class Why:
    """The reason of one hold.

    Args:
        reason: One of the fixed reasons.
        explanation: In plain words with numbers.
        lift: What would lift it.
        triggers: The numbers, ready for JSON.
    """

    reason: HoldReason
    explanation: str
    lift: str
    triggers: Mapping[str, Any] = attrs.field(factory=dict)


def find_holds(
    signals: Signals,
    constraints: Constraints,
    known: BoolArray,
    *,
    now: datetime,
    last_changed: Mapping[Arm, datetime],
    held: Mapping[Arm, HoldReason],
) -> dict[int, Why]:
    """Return the reason of every arm that evidence or rules hold, by position.

    Args:
        signals: The evidence.
        constraints: The limits.
        known: Arms with a known budget and spend, shape (A,).
        now: The time of the decision.
        last_changed: When each arm's budget was last changed.
        held: Arms that the caller holds (integration, health, window, approval, paused).
    """
    found: dict[int, Why] = {}
    for find in (_outside, _no_spend, _untagged, _immature, _low_volume, _learning):
        for i, why in find(signals, constraints, known, now, last_changed, held).items():
            found.setdefault(i, why)
    return found


_Args = tuple[Signals, Constraints, BoolArray, datetime, Mapping[Arm, datetime], Mapping[Arm, HoldReason]]

_OUTSIDE = {
    "integration": ("an integration is broken", "repair the integration; the loop checks it at every cycle"),
    "window_mismatch": ("its evidence was made under another attribution window", "use one window in every layer"),
    "health": ("the health check holds it", "see the health report"),
    "approval": ("a person has to approve its changes", "approve the plan"),
    "paused": ("it is paused", "resume it"),
    "learning": ("the platform says it is in its learning phase", "wait until the platform ends the learning phase"),
}


def _outside(
    signals: Signals, c: Constraints, known: BoolArray, now: datetime, changed: Mapping[Arm, datetime], held: Mapping[Arm, HoldReason]
) -> dict[int, Why]:
    if not held:
        return {}
    found = {}
    for i, arm in enumerate(signals.arms):
        if arm in held:
            explanation, lift = _OUTSIDE.get(held[arm], (f"held from outside ({held[arm]})", "release it where it was held"))
            found[i] = Why(reason=held[arm], explanation=explanation, lift=lift)
    return found


def _no_spend(
    signals: Signals, c: Constraints, known: BoolArray, now: datetime, changed: Mapping[Arm, datetime], held: Mapping[Arm, HoldReason]
) -> dict[int, Why]:
    found = {}
    for i in np.flatnonzero(~known):
        spend = float(signals.spend_per_day[i])
        words = "no spend in the recent days" if spend <= 0.0 else "no current budget is known"
        lift = "spend on it for some days, by hand" if spend <= 0.0 else "give its current budget"
        found[int(i)] = Why(reason="no_spend", explanation=words, lift=lift, triggers={"spend_per_day": spend})
    return found


def _untagged(
    signals: Signals, c: Constraints, known: BoolArray, now: datetime, changed: Mapping[Arm, datetime], held: Mapping[Arm, HoldReason]
) -> dict[int, Why]:
    share = signals.tagged_share
    return {
        int(i): Why(
            reason="untagged",
            explanation=f"only {share[i]:.0%} of the exposures it may own carry all tags (needs {c.min_tagged_share:.0%})",
            lift=f"tag {c.min_tagged_share - share[i]:.0%} more of them",
            triggers={"tagged_share": float(share[i]), "min_tagged_share": c.min_tagged_share},
        )
        for i in np.flatnonzero(share < c.min_tagged_share)
    }


def _immature(
    signals: Signals, c: Constraints, known: BoolArray, now: datetime, changed: Mapping[Arm, datetime], held: Mapping[Arm, HoldReason]
) -> dict[int, Why]:
    mature = signals.maturity
    seen = [curve.share_seen for curve in signals.outcomes.delay.values()]
    found = {}
    for i in np.flatnonzero(mature < c.min_maturity):
        # Days until a cohort shows the needed share, less those its evidence has had already.
        needed = max((int(np.searchsorted(s, c.min_maturity)) + 1 for s in seen), default=1)
        days = max(1.0, float(np.ceil(needed - signals.evidence_age[i])))
        found[int(i)] = Why(
            reason="immature",
            explanation=f"about {mature[i]:.0%} of its conversions can have been seen by now (needs {c.min_maturity:.0%})",
            lift=f"wait about {number(days)} more day{'s' * (days != 1)}",
            triggers={"maturity": float(mature[i]), "min_maturity": c.min_maturity, "days": days},
        )
    return found


def _low_volume(
    signals: Signals, c: Constraints, known: BoolArray, now: datetime, changed: Mapping[Arm, datetime], held: Mapping[Arm, HoldReason]
) -> dict[int, Why]:
    if c.gate != "volume" or not len(signals):
        return {}
    columns = ("platform", "campaign") if "campaign" in signals.arms.columns else signals.arms.columns
    code, names = signals.arms.groups(columns)
    weekly = np.bincount(code, weights=signals.weekly_conversions, minlength=len(names)).astype(np.float64)
    low = np.flatnonzero(weekly < c.minimum_volume)
    if not len(low):
        return {}
    partners = _partners(signals, code, names, weekly, c.minimum_volume)
    what = "campaign" if "campaign" in signals.arms.columns else "arm"
    why: dict[int, Why] = {}
    for g in low:
        missing = c.minimum_volume - float(weekly[g])
        days = _WEEK * c.minimum_volume / float(weekly[g]) if weekly[g] > 0.0 else None
        merge, together = partners[int(g)]
        pace = "it has none now" if days is None else f"at the current pace {number(c.minimum_volume)} take {number(days)} days"
        lift = f"{number(missing)} more conversions a week ({pace})"
        if merge:
            more = f" and {len(merge) - 3} more" if len(merge) > 3 else ""
            lift += f", or merge it with {', '.join(merge[:3])}{more} ({number(together)} a week together)"
        why[int(g)] = Why(
            reason="low_volume",
            explanation=f"its {what} {names[g]} has {number(float(weekly[g]))} conversions a week, {number(c.minimum_volume)} are needed",
            lift=lift,
            triggers={
                "weekly_conversions": float(weekly[g]), "minimum_volume": c.minimum_volume, "conversions_missing": missing,
                "days_at_current_pace": days, "merge_with": merge, "weekly_if_merged": together if merge else None,
            },
        )  # fmt: skip
    return {int(i): why[int(code[i])] for i in np.flatnonzero(weekly[code] < c.minimum_volume)}


def _partners(
    signals: Signals, code: npt.NDArray[np.int32], names: list[str], weekly: FloatArray, needed: float
) -> dict[int, tuple[list[str], float]]:
    """Return, for each campaign under the volume, the fewest others on its platform that together reach it, and their sum with it.

    Only campaigns that are themselves under the volume are proposed: one that can be steered is left alone. Empty when all are not enough.
    """
    first = np.zeros(len(names), dtype=np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    platform = signals.arms.groups(("platform",))[0][first]
    found: dict[int, tuple[list[str], float]] = {}
    for p in np.unique(platform):
        thin = np.flatnonzero((platform == p) & (weekly < needed))
        thin = thin[np.argsort(-weekly[thin], kind="stable")]
        reach = np.cumsum(weekly[thin])
        for place, g in enumerate(thin):
            own = float(weekly[g])
            count = int(np.searchsorted(reach, needed - own))  # the largest others, when it is not among them
            if count >= place:
                count = int(np.searchsorted(reach, needed))  # it is among them: its own volume is in the sum already
                others = [int(o) for o in thin[: count + 1] if o != g]
                together = float(reach[min(count, len(reach) - 1)])
            else:
                others, together = [int(o) for o in thin[: count + 1]], float(reach[count]) + own
            found[int(g)] = ([names[o] for o in others[:50]], together) if together >= needed else ([], own)
    return found


def _learning(
    signals: Signals, c: Constraints, known: BoolArray, now: datetime, changed: Mapping[Arm, datetime], held: Mapping[Arm, HoldReason]
) -> dict[int, Why]:
    if not changed or c.cool_down_days <= 0.0:
        return {}
    pause = timedelta(days=c.cool_down_days)
    found = {}
    for i, arm in enumerate(signals.arms):
        at = changed.get(arm)
        if at is not None and now - at < pause:
            ago, left = (now - at) / timedelta(days=1), (pause - (now - at)) / timedelta(days=1)
            found[i] = Why(
                reason="learning",
                explanation=f"its budget was changed {number(ago)} days ago (cool-down {number(c.cool_down_days)} days)",
                lift=f"wait until {(at + pause).isoformat(timespec='minutes')}",
                triggers={"last_changed": at.isoformat(), "cool_down_days": c.cool_down_days, "days": left},
            )
    return found
