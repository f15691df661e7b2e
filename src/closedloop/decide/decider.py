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

from closedloop.decide.allocate import allocate
from closedloop.decide.choose import Rules, choose
from closedloop.decide.compose import compose
from closedloop.decide.curves import Learned, learn
from closedloop.decide.evidence import draw_for, summary
from closedloop.decide.excite import Excitation, excite
from closedloop.decide.holds import find_holds
from closedloop.decide.identity import digest_of, provenance_of
from closedloop.decide.limits import find_limits, step_micros
from closedloop.decide.objectives import OBJECTIVES, Objective
from closedloop.decide.problem import Problem, read_budgets
from closedloop.errors import ConfigurationError
from closedloop.records.arms import Arm
from closedloop.records.decision import Constraints, HoldReason, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.moments import US_PER_DAY, from_us, to_us
from closedloop.records.money import MICROS, Money
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow
from closedloop.stats.response import ResponsePrior

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

    Each arm's outcome saturates in its spend, by a curve that is uncertain; budgets move to equal *expected* marginal value
    (water-filling) within floors, ceilings and the largest step. Moves that the joint posterior does not support become holds, their money
    stays, and the others are balanced again.

    Intervals are of the *mean* outcome a day under the new budgets less that under today's: the curves, the levels, the delays and the
    scatter of the recent week are in them; the chance of single conversions in the days to come is not.

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
        alike: Level of a test that all free arms earn the same; above it nothing moves between them. 1 switches it off: among thousands of
            thin arms (``gate="evidence"``) the test sees little, because each leans on its group.
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
            InfeasibleError: The constraints contradict each other; they are named. (A total that cannot be reached in one plan is no
            conflict: the plan goes as far as it may and ``provenance["total"]`` says how far that is.)
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
        joint = draw_for(problem, index, generator, self.draws)
        ideal = self._ideal(problem)
        chosen = choose(problem, self.rules, found, joint, generator, horizon)
        excitation: dict[str, Any] | None = None
        if self.excitation is not None:
            still = np.zeros(len(signals), dtype=bool)
            still[list(found)] = True
            chosen, excitation = excite(problem, chosen, joint, still, self.excitation, now_us // US_PER_DAY)
        found.update(chosen.holds)
        source = provenance_of(problem, self, digest, chosen) | ({} if excitation is None else {"excitation": dict(excitation)})

        def target(arm: Arm) -> Target:
            return self.target(signals, arm)

        return compose(problem, target, digest, made_at, horizon, self.level, found, joint, ideal, chosen, source)

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
        joint = draw_for(p, moved, generator, self.draws)
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
        if self.constraints.total is not None:  # budgets that are given but not spent stay, and count
            limits = attrs.evolve(limits, total=limits.total - float(budgets[given & ~known].sum()) / step)
        at = np.where(spend > 0.0, spend, 1.0)
        fitted = self.response == "fitted"
        learned = learn(signals, at, self.prior, self.observed_weight) if fitted else Learned.nothing(self.prior, at)
        response = attrs.evolve(learned.response, at=at * MICROS / step)  # everything from here on is counted in steps
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
            curves=response.curves(np.where(known, conversions / learned.uneven * value, 0.0)),
            value=value,
            uneven=learned.uneven,
            doubt=np.hypot(learned.scatter, self.discrepancy),
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
