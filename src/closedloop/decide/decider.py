"""`BudgetDecider`: from signals to a plan of moves and holds, each with its interval and its reason.

Law of this file: pure. The same signals, budgets, constraints, seed and time give the same plan with the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.decide.allocate import Allocation, affordable_total, allocate, can_meet, keep_few, worth
from closedloop.decide.curves import certain_moves, learn
from closedloop.decide.evidence import Draws, draw, helps, summary
from closedloop.decide.holds import Why, find_holds
from closedloop.decide.identity import decision_id, digest_of, plan_id, provenance_of
from closedloop.decide.limits import Limits, check_total, find_limits, step_micros
from closedloop.decide.objectives import OBJECTIVES, Objective, objective
from closedloop.decide.problem import Problem, read_budgets
from closedloop.decide.reasons import held_too_much, stuck, too_many
from closedloop.decide.reasons import weak as weak_why
from closedloop.display import number
from closedloop.errors import ConfigurationError
from closedloop.records.arms import Arm
from closedloop.records.decision import Constraints, Decision, Hold, HoldReason, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.moments import from_us, to_us
from closedloop.records.money import MICROS, Money
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow
from closedloop.stats.response import Response, ResponsePrior
from closedloop.stats.waterfill import Curves

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

_DELIVERS = 0.5  # an arm that spends less than this share of its budget is not limited by the budget


def default_target(arms_columns: tuple[str, ...], arm: Arm) -> Target:
    """Return the target an arm has when none is given: its platform, and its other tags joined by "/".

    >>> str(default_target(("platform", "campaign"), ("google", "spring")))
    'google:spring'
    """
    platform = "default"
    rest = []
    for name, tag in zip(arms_columns, arm, strict=True):
        if name == "platform" and tag:
            platform = tag
        else:
            rest.append(tag or "?")
    return Target(platform, "/".join(rest) or "all")


class BudgetDecider:
    """Say where the next unit of money goes, and when to leave it alone.

    Each arm's outcome is a power law of its spend whose exponent is uncertain; budgets move to equal *expected* marginal value
    (water-filling) within floors, ceilings and the largest step. Moves that the joint posterior does not support become holds, their money
    stays, and the others are balanced again.

    Args:
        constraints: What a plan must respect.
        targets: The target of each arm; by default the platform tag (or "default") and the other tags joined by "/".
        level: Level of every interval.
        draws: Joint posterior draws, at least 100.
        seed: Seed of the draws when `decide` gets no generator.
        prior: Prior of the response curves.
        response: ``fitted`` learns the curves from daily spend and clicks (conversions where no clicks are reported); ``prior`` does not.
        observed_weight: Weight in (0, 1] of past spend as evidence of the curve: under 1, because it was not randomised.
        objective: ``expected``, ``thompson``, ``lower`` or ``cvar`` (see `closedloop.decide.objectives`).
        risk: Tail of ``lower`` and ``cvar``, in (0, 0.5].
        window: When given, signals made under another window are held, not used.

    References:
        STATISTICS.md sections 5, 6 and 9.
    """

    def __init__(
        self,
        constraints: Constraints | None = None,
        *,
        targets: Mapping[Arm, Target] | None = None,
        level: float = 0.9,
        draws: int = 2000,
        seed: int = 0,
        prior: ResponsePrior | None = None,
        response: Literal["fitted", "prior"] = "fitted",
        observed_weight: float = 0.5,
        objective: Objective = "expected",
        risk: float = 0.1,
        window: AttributionWindow | None = None,
    ) -> None:
        if not 0.0 < level < 1.0:
            raise ConfigurationError("a level lies between 0 and 1", "level", level, "use 0.9 for a 90 % interval")
        if draws < 100:
            raise ConfigurationError("intervals need at least 100 draws", "draws", draws)
        if response not in ("fitted", "prior"):
            raise ConfigurationError("no such response", "response", response, None, ("fitted", "prior"))
        if not 0.0 < observed_weight <= 1.0:
            raise ConfigurationError("a weight lies in (0, 1]", "observed_weight", observed_weight)
        if objective not in OBJECTIVES:
            raise ConfigurationError("no such objective", "objective", objective, None, OBJECTIVES)
        if not 0.0 < risk <= 0.5:
            raise ConfigurationError("a risk lies in (0, 0.5]", "risk", risk)
        self.constraints = Constraints() if constraints is None else constraints
        self.targets = dict(targets or {})
        self.level = level
        self.draws = draws
        self.seed = seed
        self.prior = ResponsePrior() if prior is None else prior
        self.response = response
        self.observed_weight = observed_weight
        self.objective = objective
        self.risk = risk
        self.window = window

    def __repr__(self) -> str:
        return f"BudgetDecider({self.constraints}, level={self.level}, draws={self.draws}, seed={self.seed})"

    def target(self, signals: Signals, arm: Arm) -> Target:
        """Return the target of an arm."""
        return self.targets.get(arm) or default_target(signals.arms.columns, arm)

    def decide(
        self,
        signals: Signals,
        current_budgets: Mapping[Arm, Money] | None = None,
        *,
        horizon: float = 7.0,
        now: datetime | None = None,
        rng: np.random.Generator | None = None,
        last_changed: Mapping[Arm, datetime] | None = None,
        held: Mapping[Arm, HoldReason] | None = None,
    ) -> Plan:
        """Return a decision or a hold for every arm.

        Args:
            signals: The evidence, ranked arms.
            current_budgets: Budget a day of each arm; None takes the spend a day of the signals.
            horizon: Days for which the plan is meant.
            now: The time of the decision, by default that of the signals.
            rng: Source of randomness, by default a generator seeded with the decider's seed.
            last_changed: When each arm's budget was last changed, for the cool-down.
            held: Arms that the caller holds, and why (a broken integration, a learning phase that the platform reports, ...).

        Raises:
            InfeasibleError: The constraints contradict each other; they are named.
            InputError: Budgets are negative, or in several currencies.
        """
        if not horizon > 0.0:
            raise ConfigurationError("a horizon is above zero days", "horizon", horizon)
        now_us = signals.now_us if now is None else to_us(now)
        made_at = from_us(now_us)
        problem = self.problem(signals, current_budgets)
        digest = digest_of(problem, self, now_us=now_us, horizon=horizon, rng=rng, changed=last_changed, held=held)
        generator = np.random.default_rng(self.seed) if rng is None else rng
        found = find_holds(
            signals, self.constraints, problem.known, now=made_at, last_changed=last_changed or {}, held=self._held(signals, held)
        )
        index = np.flatnonzero(problem.known)
        joint = draw(signals, index, problem.value[index], problem.response.take(index), generator, self.draws)
        ideal = self._ideal(problem)
        allocation, moved, gains, chances, more = self._choose(problem, found, joint, generator)
        found.update(more)
        return self._plan(problem, digest, made_at, horizon, found, joint, ideal, allocation, moved, gains, chances)

    def evaluate(
        self, signals: Signals, current_budgets: Mapping[Arm, Money] | None, after: Mapping[Arm, Money]
    ) -> tuple[Interval, float, float]:
        """Return the gain a day of given budgets over the current ones, the probability that it is above zero, and the shortfall.

        Args:
            signals: The evidence.
            current_budgets: As in `decide`.
            after: New budgets of some arms; the others stay.
        """
        p = self.problem(signals, current_budgets)
        new = p.limits.now.copy()
        for arm, money in after.items():
            new[signals.arms.index(arm)] = money.micros / p.limits.step
        moved = np.flatnonzero(p.known & (new != p.limits.now))
        generator = np.random.default_rng(self.seed)
        joint = draw(signals, moved, p.value[moved], p.response.take(moved), generator, self.draws)
        gains = joint.gain(np.arange(len(moved)), p.limits.now[moved], new[moved])
        return summary(gains.sum(axis=1, dtype=float), self.level)

    # ---- the parts of a plan --------------------------------------------------------------------------------------------------

    def problem(self, signals: Signals, current_budgets: Mapping[Arm, Money] | None) -> Problem:
        """Return the arrays that a plan is made from."""
        budgets, given, currency = read_budgets(signals, current_budgets)
        spend = signals.spend_per_day
        known = given & (spend > 0.0)
        step = step_micros(self.constraints, currency)
        limits = find_limits(self.constraints, signals.arms, budgets, known, spend < _DELIVERS * budgets / MICROS, step)
        check_total(limits, self.constraints, known)
        at = np.where(spend > 0.0, spend, 1.0)
        fitted = self.response == "fitted" and len(signals) > 0
        response = learn(signals, at, self.prior, self.observed_weight) if fitted else Response.from_prior(self.prior, at)
        response = attrs.evolve(response, at=at * MICROS / step)  # everything from here on is counted in steps
        conversions = np.zeros(len(signals))
        for kind, posterior in signals.posteriors.items():
            conversions += posterior.mean * signals.exposures_per_day[kind]
        valued = signals.roas is not None
        value = signals.value_per_conversion if valued else np.ones(len(signals))
        return Problem(
            signals=signals,
            constraints=self.constraints,
            limits=limits,
            known=known,
            budgets=budgets,
            currency=currency,
            response=response,
            curves=response.curves(np.where(known, conversions * value, 0.0)),
            value=value,
            unit=currency if valued else "conversions",
        )

    def _held(self, signals: Signals, held: Mapping[Arm, HoldReason] | None) -> Mapping[Arm, HoldReason]:
        if self.window is not None and signals.window != self.window:
            return dict.fromkeys(signals.arms, "window_mismatch")
        return held or {}

    def _ideal(self, p: Problem) -> FloatArray:
        """Return the best budgets if nothing were held (what a hold gives up)."""
        free = p.known & ~p.limits.stuck
        return allocate(p.curves, p.limits, free, p.known).after

    def _choose(
        self, p: Problem, found: Mapping[int, Why], joint: Draws, rng: np.random.Generator
    ) -> tuple[Allocation, Int64, npt.NDArray[np.float32], FloatArray, dict[int, Why]]:
        """Return the allocation, the arms it moves, their joint gains and chances, and the holds that the evidence adds."""
        c, limits = self.constraints, p.limits
        free = p.known.copy()
        free[list(found)] = False
        more = {int(i): stuck(p, int(i)) for i in np.flatnonzero(free & limits.stuck)}
        free &= ~limits.stuck
        position = np.cumsum(p.known) - 1
        if free.any() and not _feasible(limits, free, p.known):
            short = held_too_much(p, free)
            more.update(dict.fromkeys(map(int, np.flatnonzero(free)), short))
            free[:] = False
        platform = p.signals.arms.groups(("platform",))[0].astype(np.int64)
        curves, limits = objective(self.objective, p, joint, free, self.risk, rng)
        limits = self._affordable(p, curves, limits, free)
        total = _attainable(limits, free, p.known)
        unsure: dict[int, tuple[float, float]] = {}  # the first move that was too unsure, by arm: its budget and its chance
        while True:
            if c.max_changes is None:
                allocation = allocate(curves, limits, free, p.known)
            else:
                allocation, left = keep_few(curves, limits, free, p.known, platform, c.max_changes)
                for i in np.flatnonzero(free & ~left):
                    more[int(i)] = too_many(c.max_changes)
                free = left
            move = allocation.after - limits.now
            moved = np.flatnonzero(move)
            gains = joint.gain(position[moved], limits.now[moved], allocation.after[moved])
            chances = helps(gains, move[moved], allocation.price) if len(moved) else np.empty(0)
            small = np.abs(move) < np.maximum(np.maximum(c.min_change * limits.now, c.min_step * MICROS / limits.step), 1.0) - 1e-9
            thin = np.zeros(len(free), dtype=bool)
            thin[moved] = chances < c.min_probability
            weak = np.flatnonzero(free & (move != 0.0) & (small | thin))
            if not len(weak):
                break
            for i in np.flatnonzero(thin):
                unsure.setdefault(int(i), (float(allocation.after[i]), float(chances[np.searchsorted(moved, i)])))
            ranking = np.ones(len(free))
            ranking[moved] = chances
            ranking[small] -= 2.0  # what is not worth a call goes first
            weak = weak[np.argsort(ranking[weak], kind="stable")]
            duty = c.target_cost is None and c.target_roas is None
            dropped = _drop(limits, free, p.known, total, weak, duty=duty)
            if not len(dropped):
                break  # they must move for the total to be met
            for i in dropped:
                more[int(i)] = weak_why(p, int(i), *unsure.get(int(i), (float(allocation.after[i]), None)))
                free[i] = False
            limits = self._affordable(p, curves, limits, free)
        for i in np.flatnonzero(free & (allocation.after == limits.now)):
            more[int(i)] = weak_why(p, int(i), *unsure.get(int(i), (float(limits.now[i]), None)))
        return allocation, moved, gains, chances, more

    def _affordable(self, p: Problem, curves: Curves, limits: Limits, free: BoolArray) -> Limits:
        """Return the limits with the total that a target cost or return leaves; the stated total is its ceiling."""
        c = self.constraints
        if c.target_cost is None and c.target_roas is None:
            return limits
        in_steps = MICROS / limits.step
        most = np.inf if c.total is None else np.floor(c.total * in_steps + 1e-9)
        if c.target_cost is not None:
            counted, ratio = 1.0 / np.maximum(p.value, 1e-300), 1.0 / (c.target_cost * in_steps)
        elif c.target_roas is not None and p.unit != "conversions":
            counted, ratio = np.ones(len(p.value)), c.target_roas / in_steps
        else:
            raise ConfigurationError("a target return needs values of conversions", "target_roas", c.target_roas, "use target_cost")
        total = affordable_total(p.curves, counted, limits, free, p.known, ratio=ratio, most=float(most))
        return attrs.evolve(limits, total=total)

    def _plan(
        self,
        p: Problem,
        digest: str,
        made_at: datetime,
        horizon: float,
        found: Mapping[int, Why],
        joint: Draws,
        ideal: FloatArray,
        allocation: Allocation,
        moved: Int64,
        gains: npt.NDArray[np.float32],
        chances: FloatArray,
    ) -> Plan:
        position = np.cumsum(p.known) - 1
        whole = gains.sum(axis=1, dtype=float) if len(moved) else np.zeros(self.draws)
        gain, p_gain, shortfall = summary(whole, self.level)
        added = worth(p.curves, p.limits, allocation)
        order = np.argsort(-added[moved], kind="stable")
        sure = certain_moves(p.signals, moved, allocation.after[moved] > p.limits.now[moved], 1.0 - self.level)
        decisions = tuple(
            self._decision(p, digest, allocation, int(moved[j]), summary(gains[:, j], self.level)[0], float(chances[j]), sure[j])
            for j in order
        )
        still = np.array(sorted(found), dtype=np.int64)
        still_known = still[p.known[still]]
        missed = joint.gain(position[still_known], p.limits.now[still_known], ideal[still_known])
        best = dict(zip(still_known.tolist(), missed.T, strict=True))
        holds = tuple(self._hold(p, i, found[i], best.get(i), float(ideal[i])) for i in still.tolist())
        provenance = provenance_of(p, self, digest, allocation) | {"alternatives": self._alternatives(p, joint, ideal)}
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
            provenance=provenance,
        )

    def _alternatives(self, p: Problem, joint: Draws, ideal: FloatArray) -> list[dict[str, Any]]:
        """Return what other budgets would bring by the same draws: no change, nothing held, an equal split as far as limits allow."""
        index = np.flatnonzero(p.known)
        now = p.limits.now[index]
        equal = np.clip(now.mean() if len(index) else 0.0, p.limits.low[index], p.limits.high[index])
        found = [{"name": "change nothing", "gain": [0.0, 0.0, 0.0], "p_gain": 0.0}]
        for name, after in (("the same without holds", ideal[index]), ("towards an equal split", equal)):
            moved = np.flatnonzero(after != now)
            gain, chance, _ = summary(joint.gain(moved, now[moved], after[moved]).sum(axis=1, dtype=float), self.level)
            found.append({"name": name, "gain": [gain.low, gain.estimate, gain.high], "p_gain": chance})
        return found

    def _decision(
        self, p: Problem, digest: str, allocation: Allocation, i: int, gain: Interval, chance: float, sure: bool | None
    ) -> Decision:
        arm, signals, money = p.signals.arms[i], p.signals, MICROS / p.limits.step
        now = p.limits.now[[i]]
        marginal = float(p.curves.take([i]).marginal(now)[0]) * money
        price = float(allocation.prices[i]) * money
        up = allocation.after[i] > now[0]
        word = "conversions" if p.unit == "conversions" else p.unit
        reason = (
            f"the next {p.currency} a day here brings {number(marginal)} {word}, {'more' if up else 'less'} than the {number(price)} "
            f"it brings where the plan puts it"
        )
        return Decision(
            decision_id=decision_id(digest, arm, int(allocation.after[i]) * p.limits.step),
            arm=arm,
            target=self.target(signals, arm),
            before=Money(int(p.budgets[i]), p.currency),
            after=Money(int(allocation.after[i]) * p.limits.step, p.currency),
            gain=gain,
            p_gain=chance,
            reason=reason,
            triggers={
                "certain": sure,
                "marginal_value": marginal,
                "price": price,
                "elasticity": float(p.response.take([i]).elasticity()[0]),
                "response_learned": float(1.0 - p.response.prior_share[i]),
                "spend_per_day": float(signals.spend_per_day[i]),
                "weekly_conversions": float(signals.weekly_conversions[i]),
                "effective_volume": float(signals.effective_volume[i]),
                "maturity": float(signals.maturity[i]),
                "p_best": float(signals.p_best[i]),
                "continuous_optimum": float(allocation.continuous[i]) / money,
            },
        )

    def _hold(self, p: Problem, i: int, why: Why, missed: npt.NDArray[np.float32] | None, ideal: float) -> Hold:
        arm = p.signals.arms[i]
        if missed is None:
            gain = Interval(low=-np.inf, estimate=0.0, high=np.inf, level=self.level, kind="credible")
        else:
            gain = summary(missed, self.level)[0]
        return Hold(
            arm=arm,
            target=self.target(p.signals, arm),
            budget=Money(int(p.budgets[i]), p.currency) if p.known[i] or p.budgets[i] > 0 else None,
            reason=why.reason,
            explanation=why.explanation,
            lift=why.lift,
            gain=gain,
            triggers={**why.triggers, "best_budget": ideal * p.limits.step / MICROS},
        )


def _attainable(limits: Limits, free: BoolArray, known: BoolArray) -> float:
    held = float(limits.now[known & ~free].sum())
    return min(max(limits.total, held + float(limits.low[free].sum())), held + float(limits.high[free].sum()))


def _feasible(limits: Limits, free: BoolArray, known: BoolArray) -> bool:
    held = float(limits.now[known & ~free].sum())
    return limits.total - held >= float(limits.low[free].sum()) - 1e-6


def _drop(limits: Limits, free: BoolArray, known: BoolArray, total: float, weak: Int64, *, duty: bool) -> Int64:
    """Return the arms to hold next: the weaker half of the weak ones, fewer where the total would be out of reach.

    Without a duty to spend the total it is enough that the total is not passed.
    """
    count = (len(weak) + 1) // 2
    while count:
        trial = free.copy()
        trial[weak[:count]] = False
        if can_meet(limits, trial, known, total) or (not duty and _feasible(limits, trial, known)):
            return weak[:count]
        count //= 2
    return weak[:0]
