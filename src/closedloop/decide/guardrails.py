"""Limits that no Decider can pass: they look at what came out, whatever made it.

Law of this file: it trusts nothing of a plan. Amounts, currencies and targets are checked as if an enemy had written them, the current
budget is the caller's and never the plan's, and what does not pass becomes a hold. A guardrail only removes moves; it never makes one, and
it removes rises until the money that the removed cuts would have freed is not spent.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import attrs
import numpy as np

from closedloop.errors import ConfigurationError, InvariantError
from closedloop.interfaces import Decider
from closedloop.records.arms import Arm
from closedloop.records.decision import Decision, Hold, HoldReason, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.moments import from_us, to_us
from closedloop.records.money import MICROS, Money
from closedloop.records.signal import Signals


@runtime_checkable
class EvaluatesBudgets(Protocol):
    """A decider that can say what other budgets than its own would bring."""

    def evaluate(
        self, signals: Signals, current_budgets: Mapping[Arm, Money] | None, after: Mapping[Arm, Money]
    ) -> tuple[Interval, float, float]:
        """Return the gain a day, the probability that it is above zero, and the expected shortfall."""
        ...


def _money(value: float | None) -> int | None:
    return None if value is None else round(value * MICROS)


class Guardrails:
    """Wrap a Decider; what it returns is cut down to what is allowed.

    Args:
        decider: Any Decider.
        max_budget: Largest budget a day of any arm, in units of the currency.
        max_budgets: The same for single arms; the smaller one counts.
        platform_caps: Largest sum of budgets by platform tag.
        total_cap: Largest sum of all budgets.
        max_step: Largest relative change of one budget.
        max_daily_move: Largest sum of absolute changes a day, those of earlier plans of the day (``moved_today``) included.
        blackouts: Pairs of aware times (from, until) in which nothing moves.
        allow: When given, only these arms may move.
        deny: These arms never move.
        targets: When given, a decision must name exactly this target for its arm.
        approve_above: Moves of more than this amount wait for a person: they are held unless their id is in ``approved``.

    Raises:
        ConfigurationError: A limit is negative or not finite, or a blackout ends before it begins.
    """

    def __init__(
        self,
        decider: Decider,
        *,
        max_budget: float | None = None,
        max_budgets: Mapping[Arm, float] | None = None,
        platform_caps: Mapping[str, float] | None = None,
        total_cap: float | None = None,
        max_step: float | None = None,
        max_daily_move: float | None = None,
        blackouts: Sequence[tuple[datetime, datetime]] = (),
        allow: Collection[Arm] | None = None,
        deny: Collection[Arm] = (),
        targets: Mapping[Arm, Target] | None = None,
        approve_above: float | None = None,
    ) -> None:
        singles = {"max_budget": max_budget, "total_cap": total_cap, "max_daily_move": max_daily_move, "approve_above": approve_above}
        every = [*singles.items(), ("max_step", max_step), *(("max_budgets", v) for v in (max_budgets or {}).values())]
        every += [("platform_caps", v) for v in (platform_caps or {}).values()]
        for name, value in every:
            if value is not None and not 0.0 <= value < 1e12:
                raise ConfigurationError("a guardrail is zero or more, and finite", name, value)
        for start, end in blackouts:
            if to_us(start) >= to_us(end):
                raise ConfigurationError("a blackout ends after it begins", "blackouts", (start.isoformat(), end.isoformat()))
        self.decider = decider
        self.max_budget = _money(max_budget)
        self.max_budgets = {tuple(a): round(v * MICROS) for a, v in (max_budgets or {}).items()}
        self.platform_caps = {p: round(v * MICROS) for p, v in (platform_caps or {}).items()}
        self.total_cap = _money(total_cap)
        self.max_step = max_step
        self.max_daily_move = _money(max_daily_move)
        self.blackouts = tuple(blackouts)
        self.allow = None if allow is None else frozenset(tuple(a) for a in allow)
        self.deny = frozenset(tuple(a) for a in deny)
        self.targets = targets
        self.approve_above = _money(approve_above)

    def __repr__(self) -> str:
        return f"Guardrails({self.decider!r}, {', '.join(f'{k}={v}' for k, v in self._settings().items())})"

    def _settings(self) -> dict[str, Any]:
        money = {n: getattr(self, n) for n in ("max_budget", "total_cap", "max_daily_move", "approve_above")}
        found: dict[str, Any] = {n: v / MICROS for n, v in money.items() if v is not None}
        found |= {
            n: {str(k): v / MICROS for k, v in getattr(self, n).items()} for n in ("max_budgets", "platform_caps") if getattr(self, n)
        }
        found |= {"max_step": self.max_step} if self.max_step is not None else {}
        found |= {"blackouts": [[a.isoformat(), b.isoformat()] for a, b in self.blackouts]} if self.blackouts else {}
        found |= {"allow": len(self.allow)} if self.allow is not None else {}
        return found | ({"deny": len(self.deny)} if self.deny else {})

    def decide(
        self,
        signals: Signals,
        current_budgets: Mapping[Arm, Money] | None = None,
        *,
        horizon: float = 7.0,
        now: datetime | None = None,
        rng: np.random.Generator | None = None,
        moved_today: float = 0.0,
        approved: Collection[str] = (),
        **more: Any,
    ) -> Plan:
        """Return the decider's plan, cut down to what is allowed.

        Args:
            signals, current_budgets, horizon, now, rng: As in `Decider.decide`.
            moved_today: Sum of the absolute changes that earlier plans of this day made, in units of the currency.
            approved: Ids of decisions that a person approved.
            more: Handed to the decider.

        Raises:
            InvariantError: What the decider returned is no plan.
        """
        plan = self.decider.decide(signals, current_budgets, horizon=horizon, now=now, rng=rng, **more)
        if not isinstance(plan, Plan):
            raise InvariantError("a decider returns a Plan", "plan", type(plan).__name__)
        return self.apply(plan, signals, current_budgets, now=now, moved_today=moved_today, approved=approved)

    def apply(
        self,
        plan: Plan,
        signals: Signals,
        current_budgets: Mapping[Arm, Money] | None = None,
        *,
        now: datetime | None = None,
        moved_today: float = 0.0,
        approved: Collection[str] = (),
    ) -> Plan:
        """Return a plan without the moves that are not allowed."""
        if not 0.0 <= moved_today < math.inf:
            raise ConfigurationError("the sum already moved is zero or more", "moved_today", moved_today)
        if self.platform_caps and "platform" not in signals.arms.columns:
            raise ConfigurationError("caps by platform need arms with a platform tag", "platform_caps", None, None, signals.arms.columns)
        place = signals.arms.columns.index("platform") if "platform" in signals.arms.columns else 0
        at = from_us(signals.now_us) if now is None else now
        budgets, currency = _current(signals, current_budgets)
        kept: list[Decision] = []
        refused: list[tuple[Any, HoldReason, str]] = []
        arms, targets = set(budgets), set()
        for decision in plan.decisions:
            why = self._refuse(decision, budgets, arms, currency, at, approved)
            if why is None and decision.target in targets:
                why = ("guardrail", "its target is moved already")
            if why is None:
                kept.append(decision)
                targets.add(decision.target)
                arms.discard(decision.arm)
            else:
                refused.append((decision, *why))
        kept, dropped = self._fit(kept, refused, budgets, round(moved_today * MICROS), place)
        refused += dropped
        return plan if not refused else self._without(plan, kept, refused, signals, current_budgets, budgets, currency)

    def _refuse(
        self, d: Any, budgets: Mapping[Arm, int], arms: set[Arm], currency: str | None, now: datetime, approved: Collection[str]
    ) -> tuple[HoldReason, str] | None:
        """Return why a single decision may not pass, None when it may."""
        wrong = _unsound(d, arms, currency)
        if wrong:
            return "guardrail", wrong
        before, after = budgets[d.arm], int(d.after.micros)
        if d.before.micros != before:
            return "guardrail", f"it starts from {d.before!r}, the current budget is {before / MICROS:,.2f}"
        if self.targets is not None and self.targets.get(d.arm) != d.target:
            return "guardrail", f"its target {d.target} is not the arm's"
        for start, end in self.blackouts:
            if start <= now < end:
                return "guardrail", f"blackout until {end.isoformat(timespec='minutes')}"
        if self.allow is not None and d.arm not in self.allow:
            return "guardrail", "the arm is not on the allow list"
        if d.arm in self.deny:
            return "guardrail", "the arm is on the deny list"
        if self.max_step is not None and abs(after - before) > self.max_step * before * (1 + 1e-12):
            return "guardrail", f"the change is larger than {self.max_step:.0%}"
        caps = [c for c in (self.max_budget, self.max_budgets.get(d.arm)) if c is not None]
        if caps and after > before and after > min(caps):
            return "guardrail", f"the new budget is above the cap of {min(caps) / MICROS:,.2f}"
        if self.approve_above is not None and abs(after - before) > self.approve_above and d.decision_id not in approved:
            return "approval", f"a move of more than {self.approve_above / MICROS:,.2f} needs a person's approval"
        return None

    def _fit(
        self, kept: list[Decision], refused: list[tuple[Any, HoldReason, str]], budgets: Mapping[Arm, int], moved: int, place: int
    ) -> tuple[list[Decision], list[tuple[Decision, HoldReason, str]]]:
        """Drop moves until every sum is within its limit, the least valuable first (a plan lists the most valuable first)."""
        dropped: list[tuple[Decision, HoldReason, str]] = []

        def move(d: Decision) -> int:
            return int(d.after.micros) - budgets[d.arm]

        def cut_rises(rule: str, excess: int, arms: Collection[Arm] | None = None) -> None:
            for d in list(reversed(kept)):
                if excess > 0 and move(d) > 0 and (arms is None or d.arm in arms):
                    kept.remove(d)
                    dropped.append((d, "guardrail", rule))
                    excess -= move(d)

        if self.max_daily_move is not None:
            rule = f"the day's moves would pass {self.max_daily_move / MICROS:,.2f}"
            while kept and moved + sum(abs(move(d)) for d in kept) > self.max_daily_move:
                net = sum(move(d) for d in kept)  # drop from the heavier side, so that what is left balances
                heavier = [d for d in kept if net == 0 or move(d) * net > 0]
                kept.remove(heavier[-1])
                dropped.append((heavier[-1], "guardrail", rule))
        for platform, cap in self.platform_caps.items():
            arms = {a for a in budgets if len(a) > place and a[place] == platform}
            excess = sum(budgets[a] for a in arms) + sum(move(d) for d in kept if d.arm in arms) - cap
            cut_rises(f"{platform} would pass its cap of {cap / MICROS:,.2f}", excess, arms)
        standing = sum(budgets.values())
        if self.total_cap is not None:
            rule = f"all budgets would pass the cap of {self.total_cap / MICROS:,.2f}"
            cut_rises(rule, standing + sum(move(d) for d in kept) - self.total_cap)
        if refused or dropped:  # money that refused cuts would have freed must not be spent
            every = [d for d, _, _ in (*refused, *dropped) if isinstance(d, Decision) and _is_arm(d.arm)]
            lost = [d for d in every if _amount(d) is not None and d.arm in budgets]
            planned = sum(move(d) for d in (*kept, *lost))
            allowed = max(0, min(planned, self._room(standing)))
            cut_rises("the cuts that would pay for it are not made", sum(move(d) for d in kept) - allowed)
        return kept, dropped

    def _room(self, standing: int) -> int:
        return 0 if self.total_cap is None else max(0, self.total_cap - standing)

    def _without(
        self,
        plan: Plan,
        kept: list[Decision],
        refused: list[tuple[Any, HoldReason, str]],
        signals: Signals,
        current: Mapping[Arm, Money] | None,
        budgets: Mapping[Arm, int],
        currency: str | None,
    ) -> Plan:
        level = plan.gain.level
        unknown = Interval(low=-math.inf, estimate=0.0, high=math.inf, level=level, kind="credible")
        gain, p_gain, shortfall = Interval(low=0, estimate=0, high=0, level=level, kind="credible"), 0.0, 0.0
        if kept and isinstance(self.decider, EvaluatesBudgets):
            gain, p_gain, shortfall = self.decider.evaluate(signals, current, {d.arm: d.after for d in kept})
        elif kept:
            gain, shortfall = unknown, math.inf
        holds = list(plan.holds)
        moving = {d.arm for d in kept}
        for d, reason, words in refused:
            named = getattr(d, "arm", None)
            arm: Arm | None = named if _is_arm(named) and named in budgets else None
            if arm in moving:
                continue  # a second decision for an arm whose first one stands
            target, was = getattr(d, "target", None), getattr(d, "gain", None)
            holds.append(
                Hold(
                    arm=("?",) if arm is None else arm,
                    target=target if isinstance(target, Target) else None,
                    budget=Money(budgets[arm], currency) if arm is not None and currency else None,
                    reason=reason,
                    explanation=words,
                    lift="approve the decision" if reason == "approval" else "change the guardrail, if it is wrong",
                    gain=was if isinstance(was, Interval) else unknown,
                    triggers={"decision_id": str(getattr(d, "decision_id", "")), "wanted": _wanted(d)},
                )
            )
        body = json.dumps([plan.plan_id, [d.decision_id for d in kept]])
        return attrs.evolve(
            plan,
            plan_id=f"plan-{hashlib.sha256(body.encode()).hexdigest()[:16]}",
            decisions=tuple(kept),
            holds=tuple(holds),
            gain=gain,
            p_gain=p_gain,
            expected_shortfall=shortfall,
            provenance={**plan.provenance, "guardrails": self._settings(), "refused": len(refused), "plan_before_guardrails": plan.plan_id},
        )


def _current(signals: Signals, current: Mapping[Arm, Money] | None) -> tuple[dict[Arm, int], str | None]:
    """Return the current budgets in micros as the caller knows them, and their currency."""
    if current is not None:
        currencies = {m.currency for m in current.values()}
        return {tuple(a): int(m.micros) for a, m in current.items()}, currencies.pop() if len(
            currencies
        ) == 1 else signals.outcomes.currency
    spend = np.rint(signals.spend_per_day * MICROS).astype(np.int64)
    return {arm: int(spend[i]) for i, arm in enumerate(signals.arms) if spend[i] > 0}, signals.outcomes.currency


def _amount(d: Any) -> int | None:
    """Return the micros of a decision's new budget, None when it is no sound amount."""
    after = getattr(d, "after", None)
    micros = getattr(after, "micros", None)
    if not isinstance(after, Money) or isinstance(micros, bool) or not isinstance(micros, int | np.integer):
        return None
    return int(micros) if 0 <= micros < 2**62 else None


def _is_arm(arm: Any) -> bool:
    return isinstance(arm, tuple) and all(tag is None or isinstance(tag, str) for tag in arm)


def _wanted(d: Any) -> float | None:
    amount = _amount(d)
    return None if amount is None else amount / MICROS


def _unsound(d: Any, arms: set[Arm], currency: str | None) -> str | None:
    """Return what is wrong with a decision as an object, None when nothing is."""
    if not isinstance(d, Decision):
        return "it is no decision"
    if not _is_arm(d.arm) or d.arm not in arms:
        return "its arm has no known budget, or is moved already"
    named = isinstance(d.target, Target) and isinstance(d.target.platform, str) and isinstance(d.target.resource, str)
    if not named or not isinstance(d.decision_id, str) or not d.decision_id:
        return "it has no target or no id"
    if _amount(d) is None:
        return "its new budget is no amount of zero or more"
    if not isinstance(d.before, Money) or d.after.currency != d.before.currency or (currency is not None and d.after.currency != currency):
        return "its amounts are in another currency"
    if not isinstance(d.gain, Interval) or not isinstance(d.p_gain, float | int) or not 0.0 <= d.p_gain <= 1.0:
        return "it has no valid interval or probability"
    return None
