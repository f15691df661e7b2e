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

from closedloop.decide.allocate import allocate, worth
from closedloop.decide.choose import Chosen, Rules, choose
from closedloop.decide.curves import certain_moves, learn
from closedloop.decide.evidence import Draws, draw, intervals, summary
from closedloop.decide.excite import Excitation, excite
from closedloop.decide.holds import Why, find_holds
from closedloop.decide.identity import decision_id, digest_of, plan_id, provenance_of
from closedloop.decide.limits import check_total, find_limits, step_micros
from closedloop.decide.objectives import OBJECTIVES, Objective
from closedloop.decide.problem import Problem, read_budgets
from closedloop.display import number
from closedloop.errors import ConfigurationError
from closedloop.records.arms import Arm
from closedloop.records.decision import Constraints, Decision, Hold, HoldReason, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.moments import US_PER_DAY, from_us, to_us
from closedloop.records.money import MICROS, Money
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow
from closedloop.stats.response import Response, ResponsePrior

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
        learning_loss: Share of an arm's outcome that each change costs while the platform learns, for ``learning_days`` days. With it,
            a move is put off where waiting is worth more.
        alike: Level of a test that all free arms earn the same; above it nothing moves between them. 1 switches it off.
        looks: Days of waiting that are weighed against acting; empty switches that off.
        scenarios: Simulated futures for it.
        discrepancy: Spread of the log of caused per credited conversion, each arm's own: what attribution may get wrong. It widens every
            interval and lowers every probability; 0 takes credit for cause.
        excitation: Small random changes to learn the curves; None, the default, makes none (see `closedloop.decide.excite`).
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
        learning_loss: float = 0.0,
        learning_days: float = 3.0,
        alike: float = 0.05,
        looks: tuple[float, ...] = (1.0, 3.0),
        scenarios: int = 16,
        discrepancy: float = 0.0,
        excitation: Excitation | None = None,
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
        if not 0.0 <= learning_loss <= 1.0:
            raise ConfigurationError("a share lies in [0, 1]", "learning_loss", learning_loss)
        if not 0.0 <= alike <= 1.0:
            raise ConfigurationError("a level lies in [0, 1]", "alike", alike)
        if not 0.0 <= discrepancy <= 3.0:
            raise ConfigurationError("a discrepancy lies in [0, 3]", "discrepancy", discrepancy)
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
        self.rules = Rules(
            objective=objective,
            risk=risk,
            learning_loss=learning_loss,
            learning_days=learning_days,
            alike=alike,
            looks=tuple(looks),
            scenarios=scenarios,
        )
        self.window = window
        self.discrepancy = discrepancy
        if excitation is not None and self.constraints.max_changes is not None:
            raise ConfigurationError("random changes and a largest number of changes exclude each other", "excitation", None, "drop one")
        self.excitation = excitation

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
        joint = draw(signals, index, problem.value[index], problem.response.take(index), generator, self.draws, self.discrepancy)
        ideal = self._ideal(problem)
        chosen = choose(problem, self.rules, found, joint, generator, horizon)
        excitation: dict[str, Any] | None = None
        if self.excitation is not None:
            still = np.zeros(len(signals), dtype=bool)
            still[list(found)] = True
            chosen, excitation = excite(problem, chosen, joint, still, self.excitation, now_us // US_PER_DAY)
        found.update(chosen.holds)
        return self._plan(problem, digest, made_at, horizon, found, joint, ideal, chosen, excitation)

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
        joint = draw(signals, moved, p.value[moved], p.response.take(moved), generator, self.draws, self.discrepancy)
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
        if self.constraints.total is not None:  # budgets that are given but not spent stay, and count
            limits = attrs.evolve(limits, total=limits.total - float(budgets[given & ~known].sum()) / step)
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
        least = float(p.limits.low[free].sum() + p.limits.now[p.known & ~free].sum())
        return allocate(p.curves, attrs.evolve(p.limits, total=max(p.limits.total, least)), free, p.known).after

    def _plan(
        self,
        p: Problem,
        digest: str,
        made_at: datetime,
        horizon: float,
        found: Mapping[int, Why],
        joint: Draws,
        ideal: FloatArray,
        chosen: Chosen,
        excitation: Mapping[str, Any] | None,
    ) -> Plan:
        allocation, moved, gains = chosen.allocation, chosen.moved, chosen.gains
        position = np.cumsum(p.known) - 1
        whole = gains.sum(axis=1, dtype=float) if len(moved) else np.zeros(self.draws)
        gain, p_gain, shortfall = summary(whole, self.level)
        added = worth(p.curves, p.limits, allocation)
        order = np.argsort(-added[moved], kind="stable")
        sure = certain_moves(p.signals, moved, allocation.after[moved] > p.limits.now[moved], 1.0 - self.level)
        part = p.curves.take(moved)
        marginals, elasticities = part.marginal(p.limits.now[moved]), p.response.take(moved).elasticity()
        alone = intervals(gains, self.level)
        decisions = tuple(
            self._decision(p, digest, chosen, int(j), alone[j], sure[j], float(marginals[j]), float(elasticities[j])) for j in order
        )
        still = np.array(sorted(found), dtype=np.int64)
        still_known = still[p.known[still]]
        missed = joint.gain(position[still_known], p.limits.now[still_known], ideal[still_known])
        best = dict(zip(still_known.tolist(), intervals(missed, self.level), strict=True))
        holds = tuple(self._hold(p, i, found[i], best.get(i), float(ideal[i])) for i in still.tolist())
        provenance = provenance_of(p, self, digest, allocation) | {"alternatives": self._alternatives(p, joint, ideal)}
        if chosen.timing is not None:
            act, wait = float(chosen.timing.act.sum()), float(chosen.timing.wait.sum())
            words = f"over {number(horizon)} days moving now is worth {number(act)} {p.unit}, waiting and deciding then {number(wait)}."
            provenance["timing"] = {"value_of_acting": act, "value_of_waiting": wait, "words": words}
        if excitation is not None:
            provenance["excitation"] = dict(excitation)
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
        self, p: Problem, digest: str, chosen: Chosen, j: int, gain: Interval, sure: bool | None, marginal: float, elasticity: float
    ) -> Decision:
        allocation, i = chosen.allocation, int(chosen.moved[j])
        arm, signals, money = p.signals.arms[i], p.signals, MICROS / p.limits.step
        marginal, price = marginal * money, float(allocation.prices[i]) * money
        up = allocation.after[i] > p.limits.now[i]
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

    def _hold(self, p: Problem, i: int, why: Why, missed: Interval | None, ideal: float) -> Hold:
        arm = p.signals.arms[i]
        unknown = Interval(low=-np.inf, estimate=0.0, high=np.inf, level=self.level, kind="credible")
        return Hold(
            arm=arm,
            target=self.target(p.signals, arm),
            budget=Money(int(p.budgets[i]), p.currency) if p.known[i] or p.budgets[i] > 0 else None,
            reason=why.reason,
            explanation=why.explanation,
            lift=why.lift,
            gain=unknown if missed is None else missed,
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
