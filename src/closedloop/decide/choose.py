"""Which arms move: from the best allocation to one whose every move the evidence, the limits and the timing carry.

Law of this file: arms are only ever taken out. What is taken out keeps its money, gets its reason, and the rest is solved again, so that
the moves that are left balance exactly.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.decide.allocate import Allocation, affordable_total, allocate, can_meet, free_groups, keep_few
from closedloop.decide.evidence import Draws, chance_of_alike, helps
from closedloop.decide.groups import within
from closedloop.decide.holds import Why
from closedloop.decide.limits import Limits
from closedloop.decide.objectives import Objective, objective
from closedloop.decide.problem import Problem
from closedloop.decide.reasons import alike, cannot_fall, stuck, too_many, wait_for_more, weak_move
from closedloop.decide.timing import Timing, switching_cost, value_of_timing
from closedloop.errors import ConfigurationError
from closedloop.records.decision import Constraints
from closedloop.records.money import MICROS
from closedloop.stats.concave import Curves

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

_SCREEN = 1_000_000  # draws x arms that weak moves are looked for with
_PASSES = 3  # times that waiting arms are taken out and the rest is timed again


@attrs.frozen(kw_only=True)
class Rules:
    """How a decider chooses, beside its constraints.

    Args:
        objective: What is maximised (`closedloop.decide.objectives`).
        risk: Tail of ``lower`` and ``cvar``.
        learning_loss: Share of an arm's outcome that a change costs while the platform learns, in [0, 1].
        learning_days: For how many days.
        alike: Level of a test that the arms earn the same: above it nothing moves between them (unless the total changes, or no
            evidence is asked for: ``min_probability`` of a half or less).
        looks: Days of waiting that are weighed against acting; empty switches the timing off.
        scenarios: Simulated futures for it.
    """

    objective: Objective
    risk: float
    learning_loss: float
    learning_days: float
    alike: float
    looks: tuple[float, ...]
    scenarios: int


@attrs.frozen(kw_only=True, eq=False)
class Chosen:
    """The moves of a plan.

    Args:
        allocation: Budgets of all arms.
        moved: Positions of the m arms that move.
        gains: Joint draws of their gains, shape (D, m).
        chances: Probability that each helps, shape (m,).
        holds: Reasons that were found on the way, by position.
        timing: Values of acting and waiting of the moved arms, None when not asked for.
        asked: The total that was asked for, in steps; the allocation is as near to it as holds and limits allow.
    """

    allocation: Allocation
    moved: Int64
    gains: npt.NDArray[np.float32]
    chances: FloatArray
    holds: Mapping[int, Why]
    timing: Timing | None
    asked: float


def choose(p: Problem, rules: Rules, found: Mapping[int, Why], joint: Draws, rng: np.random.Generator, horizon: float) -> Chosen:
    """Return the moves of a plan.

    Args:
        p: The problem.
        rules: How to choose.
        found: Arms that are held already.
        joint: Joint draws over the arms with a known budget.
        rng: For the objective and the timing.
        horizon: Days for which the plan is meant.
    """
    c, limits = p.constraints, p.limits
    free = p.known.copy()
    free[list(found)] = False
    more = {int(i): stuck(p, int(i)) for i in np.flatnonzero(free & limits.stuck)}
    free &= ~limits.stuck
    if not _feasible(limits, free, p.known):  # the total has to fall: no budget rises first, to a floor or to a whole step
        rising = np.flatnonzero(free & (limits.low >= limits.now))
        more.update({int(i): cannot_fall(p, int(i)) for i in rising})
        free[rising] = False
    for g in limits.groups:  # nor in a group that has to fall
        if _room(g.members, limits, free)[0] > g.high + 1e-6:
            rising = g.members[free[g.members] & (limits.low[g.members] >= limits.now[g.members])]
            more.update({int(i): cannot_fall(p, int(i), g.name) for i in rising})
            free[rising] = False
    position = np.cumsum(p.known) - 1
    platform = p.signals.arms.groups(("platform",))[0].astype(np.int64)
    curves, limits = objective(rules.objective, p, joint, free, rules.risk, rng)
    limits = _affordable(c, p, curves, limits, free)
    duties = Duties.of(limits, p.limits, free, p.known, total=c.target_cost is None and c.target_roas is None)
    chance = chance_of_alike(p, free)
    if rules.objective != "thompson" and c.min_probability > 0.5 and chance > rules.alike and duties.met(limits, duties.forced, p.known):
        more.update(dict.fromkeys(map(int, np.flatnonzero(free & ~duties.forced)), alike(p, chance, rules.alike)))
        free = duties.forced.copy()
    unsure: dict[int, tuple[float, float]] = {}  # the first move that was too unsure, by arm: its budget and its chance
    few = joint.first(max(200, _SCREEN // max(1, int(p.known.sum()))))
    for turn in range(_PASSES + 1):
        sample = few  # a part of the draws finds the weak moves, all of them judge what is left
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
            gains = sample.gain(position[moved], limits.now[moved], allocation.after[moved])
            chances = helps(gains, move[moved], allocation.price)
            small = np.abs(move) < np.maximum(np.maximum(c.min_change * limits.now, c.min_step * MICROS / limits.step), 1.0) - 1e-9
            thin = np.zeros(len(free), dtype=bool)
            thin[moved] = chances < c.min_probability
            weak = np.flatnonzero(free & (move != 0.0) & (small | thin) & ~duties.forced)
            if not len(weak):
                if sample is joint:
                    break
                sample = joint
                continue
            for i in np.flatnonzero(thin):
                unsure.setdefault(int(i), (float(allocation.after[i]), float(chances[np.searchsorted(moved, i)])))
            ranking = np.ones(len(free))
            ranking[moved] = chances
            ranking[small] -= 2.0  # what is not worth a call goes first
            weak = weak[np.argsort(ranking[weak], kind="stable")]
            dropped = _drop(limits, free, p.known, duties, weak)
            if not len(dropped) and sample is joint:
                break  # they must move for the total to be met
            sample = sample if len(dropped) else joint
            for i in dropped:
                more[int(i)] = weak_move(p, int(i), *unsure.get(int(i), (float(allocation.after[i]), None)))
                free[i] = False
            limits = _affordable(c, p, curves, limits, free)
        timing = _time(p, rules, curves, limits, free, allocation, joint, horizon, rng)
        if timing is None or turn == _PASSES or rules.learning_loss == 0.0:  # a free change can be taken back: no wait
            break
        late = np.flatnonzero(timing.waits)
        late = late[np.argsort(timing.act[late] - timing.wait[late], kind="stable")]
        later = _drop(limits, free, p.known, duties, moved[late][~duties.forced[moved[late]]])
        if not len(later):
            break
        for i in later:
            j = int(np.searchsorted(moved, i))
            more[int(i)] = wait_for_more(p, float(timing.act[j]), float(timing.wait[j]), float(timing.days[j]), horizon)
            free[i] = False
        limits = _affordable(c, p, curves, limits, free)
    for i in np.flatnonzero(free & (allocation.after == limits.now)):
        more[int(i)] = weak_move(p, int(i), *unsure.get(int(i), (float(limits.now[i]), None)))
    asked = limits.total if c.total is None else min(limits.total, p.limits.total)  # an affordable total is never more than the stated
    return Chosen(allocation=allocation, moved=moved, gains=gains, chances=chances, holds=more, timing=timing, asked=asked)


def _time(
    p: Problem, rules: Rules, curves: Curves, limits: Limits, free: BoolArray, allocation: Allocation, joint: Draws, horizon: float,
    rng: np.random.Generator,
) -> Timing | None:  # fmt: skip
    looks = tuple(k for k in rules.looks if 0.0 < k < horizon)
    moved = np.flatnonzero(allocation.after != p.limits.now)
    if not looks or not len(moved) or rules.objective == "thompson":  # a draw's move explores: its expected value is not its point
        return None
    cost = switching_cost(p, moved, rules.learning_loss, rules.learning_days)
    return value_of_timing(p, limits, free, allocation, joint, horizon=horizon, cost=cost, looks=looks, scenarios=rules.scenarios, rng=rng)


def _affordable(c: Constraints, p: Problem, curves: Curves, limits: Limits, free: BoolArray) -> Limits:
    """Return the limits with the total that a target cost or return leaves; the stated total is its ceiling."""
    if c.target_cost is None and c.target_roas is None:
        return limits
    in_steps = MICROS / limits.step
    most = np.inf if c.total is None else p.limits.total
    if c.target_cost is not None:
        counted, ratio = 1.0 / np.maximum(p.value, 1e-300), 1.0 / (c.target_cost * in_steps)
    elif c.target_roas is not None and p.unit != "conversions":
        counted, ratio = np.ones(len(p.value)), c.target_roas / in_steps
    else:
        raise ConfigurationError("a target return needs values of conversions", "target_roas", c.target_roas, "use target_cost")
    total = affordable_total(p.curves, counted, limits, free, p.known, ratio=ratio, most=float(most))
    return attrs.evolve(limits, total=total)


def _attainable(limits: Limits, free: BoolArray, known: BoolArray) -> float:
    held = float(limits.now[known & ~free].sum())
    return min(max(limits.total, held + float(limits.low[free].sum())), held + float(limits.high[free].sum()))


def _feasible(limits: Limits, free: BoolArray, known: BoolArray) -> bool:
    held = float(limits.now[known & ~free].sum())
    return limits.total - held >= float(limits.low[free].sum()) - 1e-6


@attrs.frozen(kw_only=True, eq=False)
class Duties:
    """What must be met whatever the evidence says, as far as the arms that are free at first can meet it.

    Args:
        total: Sum of all known budgets, in steps.
        spend: Whether the total is a duty; if not it is enough that it is not passed.
        forced: Arms whose budget lies a step or more outside its floor or ceiling, shape (A,).
        groups: Members and ends of each group.
    """

    total: float
    spend: bool
    forced: BoolArray
    groups: tuple[tuple[Int64, float, float], ...]

    @classmethod
    def of(cls, limits: Limits, asked: Limits, free: BoolArray, known: BoolArray, *, total: bool) -> Duties:
        """Return the duties of a problem.

        Args:
            limits: As the objective left them.
            asked: As the user asked.
            free, known: As in `allocate`.
            total: Whether the total is a duty.
        """
        forced = free & ((asked.low >= asked.now + 1.0) | (asked.high <= asked.now - 1.0))
        groups = []
        for g in asked.groups:
            least, most = _room(g.members, limits, free)
            groups.append((g.members, min(g.low, most), max(g.high, least)))
        reach = min(_attainable(limits, free, known), _most(limits, free, known))
        return cls(total=reach, spend=total, forced=forced, groups=tuple(groups))

    def met(self, limits: Limits, free: BoolArray, known: BoolArray) -> bool:
        """Return whether the arms that are free can still meet them, to less than a step each."""
        if not can_meet(limits, free, known, self.total) and (self.spend or not _feasible(limits, free, known)):
            return False
        if self.spend and self.groups and _most(limits, free, known) < self.total - len(free):
            return False
        for members, low, high in self.groups:
            least, most = _room(members, limits, free)
            if least > high + len(members) or most < low - len(members):
                return False
        return True


def _most(limits: Limits, free: BoolArray, known: BoolArray) -> float:
    """Return the most that all known budgets can add up to, groups and all."""
    ends = free_groups(limits, free)
    return float(limits.now[known & ~free].sum()) + within(np.inf, ends, limits.low[free], limits.high[free])


def _room(members: Int64, limits: Limits, free: BoolArray) -> tuple[float, float]:
    moves = free[members]
    held = float(limits.now[members[~moves]].sum())
    return held + float(limits.low[members[moves]].sum()), held + float(limits.high[members[moves]].sum())


def _drop(limits: Limits, free: BoolArray, known: BoolArray, duties: Duties, weak: Int64) -> Int64:
    """Return the arms to hold next: the weaker half of the weak ones, fewer where a duty would be out of reach."""
    count = (len(weak) + 1) // 2
    while count:
        trial = free.copy()
        trial[weak[:count]] = False
        if duties.met(limits, trial, known):
            return weak[:count]
        count //= 2
    return weak[:0]
