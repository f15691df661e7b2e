"""From constraints to the ends of every budget, and the names of those that contradict each other.

Law of this file: amounts are integers here, counted in *steps* (the currency's minor unit, or ``Constraints.rounding``), so that what is
sent to a platform respects every limit exactly and sums are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.decide.groups import within
from closedloop.errors import ConfigurationError, InfeasibleError
from closedloop.records.arms import Arm, Arms, Coded
from closedloop.records.decision import Constraints, GroupLimit
from closedloop.records.money import MICROS, Money
from closedloop.stats.waterfill import Group

FloatArray = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_UNBOUNDED = 1e15  # of a budget without a ceiling, where sums of them are taken


def step_micros(constraints: Constraints, currency: str) -> int:
    """Return the size of a step of a budget in millionths of the currency.

    >>> step_micros(Constraints(), "EUR"), step_micros(Constraints(rounding=5), "JPY")
    (10000, 5000000)
    """
    smallest = MICROS // Money.of(1, currency).minor_units
    if constraints.rounding is None:
        return smallest
    step = Money.of(constraints.rounding, currency).micros
    if step % smallest:
        raise ConfigurationError(f"budgets in {currency} move by whole minor units", "rounding", constraints.rounding)
    return step


@attrs.frozen(kw_only=True, eq=False)
class Limits:
    """Ends of each budget and of sums, in steps.

    Args:
        now: Current budgets in steps; a budget between two steps is a fraction, shape (A,).
        low, high: Whole steps, ``low <= high``; where no whole step fits, both are ``now`` and the arm is `stuck`. Shape (A,).
        stuck: Arms that no whole step can change, shape (A,).
        total: Steps a day for all known budgets, a float only when the current ones are kept.
        groups: Ends of sums.
        step: Micros of one step.
    """

    now: FloatArray
    low: FloatArray
    high: FloatArray
    stuck: BoolArray
    total: float
    groups: tuple[Group, ...]
    step: int


def _per_arm(default: float, single: Mapping[Arm, float], arms: Arms, name: str, index: Mapping[Arm, int]) -> FloatArray:
    values = np.full(len(arms), default, dtype=float)
    for arm, value in single.items():
        at = index.get(tuple(arm))
        if at is not None:  # an arm without data today is no error: it has no budget that could be moved
            values[at] = value
        elif len(tuple(arm)) != len(arms.columns):
            raise ConfigurationError(f"an arm here has {len(arms.columns)} tags", name, arm, None, arms.columns)
    return values


def find_limits(constraints: Constraints, arms: Arms, budgets_micros: Int64, known: BoolArray, capped: BoolArray, step: int) -> Limits:
    """Return the ends of every budget.

    Args:
        constraints: What the user asked for.
        arms: A arms.
        budgets_micros: Current budgets a day in millionths, shape (A,).
        known: Where a current budget is known, shape (A,).
        capped: Where a higher budget would not be spent, shape (A,).
        step: Micros of a step.

    A floor or ceiling that the largest step does not reach yet is approached by that step.

    Raises:
        InfeasibleError: A floor lies above a ceiling.
    """
    c = constraints
    in_steps = MICROS / step
    now = budgets_micros / step
    index = {arm: i for i, arm in enumerate(arms)} if c.floors or c.ceilings else {}
    floor = _per_arm(c.floor, c.floors, arms, "floors", index)
    ceiling = _per_arm(math.inf if c.ceiling is None else c.ceiling, c.ceilings, arms, "ceilings", index)
    crossed = np.flatnonzero(known & (floor > ceiling))
    if len(crossed):
        i = int(crossed[0])
        raise InfeasibleError(
            f"the floor of {arms.label(i)} lies above its ceiling of {ceiling[i]:g}",
            "floor",
            float(floor[i]),
            "lower the floor or raise the ceiling",
        )
    down, up = now * (1.0 - min(c.max_step, 1.0)), now * (1.0 + c.max_step)
    low = np.ceil(np.minimum(np.maximum(down, floor * in_steps), up) - 1e-9)
    high = np.floor(np.maximum(np.minimum(up, ceiling * in_steps), down) + 1e-9)
    low = np.where(floor * in_steps > up, np.floor(up + 1e-9), low)
    high = np.where(ceiling * in_steps < down, np.ceil(down - 1e-9), high)
    high = np.where(capped, np.minimum(high, np.maximum(np.floor(now), low)), high)
    low, high = np.maximum(low, np.ceil(down - 1e-9)), np.minimum(high, np.floor(up + 1e-9))
    stuck = ~known | (low > high) | (now <= 0.0)
    low, high = np.where(stuck, now, low), np.where(stuck, now, high)
    total = float(now[known].sum()) if c.total is None else math.floor(c.total * in_steps + 1e-9)
    _check_groups(c, arms, known, floor, ceiling)
    _check_total(c, arms, known, floor)
    return Limits(now=now, low=low, high=high, stuck=stuck, total=total, groups=_groups(c, arms, known, in_steps), step=step)


def _inside(limit: GroupLimit, arms: Arms, known: BoolArray) -> BoolArray:
    inside = known.copy()
    for name, value in limit.tags.items():
        column: Coded = arms.column(name)
        code = np.flatnonzero(column.vocab == value)
        inside &= np.isin(column.codes, code)
    return inside


def _groups(c: Constraints, arms: Arms, known: BoolArray, in_steps: float) -> tuple[Group, ...]:
    found: dict[str, Group] = {}
    for limit in c.groups:
        low: float = math.ceil(limit.floor * in_steps - 1e-9)
        high = math.inf if limit.ceiling is None else math.floor(limit.ceiling * in_steps + 1e-9)
        members, name = np.flatnonzero(_inside(limit, arms, known)), str(limit)
        if name in found:  # one group limited twice: neither would lie inside the other
            low, high = max(low, found[name].low), min(high, found[name].high)
        if len(members):
            found[name] = Group(members=members, low=low, high=high, name=name)
    return tuple(found.values())


def _check_total(c: Constraints, arms: Arms, known: BoolArray, floor: FloatArray) -> None:
    """Raise where the floors of arms and groups add up to more than a stated total.

    A total that is merely too far from today's budgets is no conflict: it is approached by the largest step.

    Raises:
        InfeasibleError: They do.
    """
    if c.total is None:
        return
    floors = np.where(known, floor, 0.0)
    alone = float(floors.sum())
    least = within(0.0, _groups(c, arms, known, 1.0), floors, np.full(len(floors), _UNBOUNDED))
    if least > c.total + 1e-9:
        whose = f"{int(known.sum())} arms" if alone > c.total + 1e-9 else "arms and groups"
        raise InfeasibleError(
            f"the floors of {whose} add up to {least:g}, more than the total", "total", c.total, "lower floors, or raise total",
            ("total", "floor", "floors", "groups"),
        )  # fmt: skip


def _check_groups(c: Constraints, arms: Arms, known: BoolArray, floor: FloatArray, ceiling: FloatArray) -> None:
    """Raise where the ends of a group contradict those of its arms, of a group inside it, or the total, whatever the budgets are now.

    Raises:
        InfeasibleError: They do; both are named.
    """
    sets = [(limit, _inside(limit, arms, known)) for limit in c.groups]
    for limit, inside in sets:
        if not inside.any():
            continue
        most = math.inf if limit.ceiling is None else limit.ceiling
        if floor[inside].sum() > most:
            raise InfeasibleError(f"the floors of the arms of {limit} add up to more than its ceiling of {most:g}", "groups", str(limit))
        if ceiling[inside].sum() < limit.floor:
            raise InfeasibleError(
                f"the ceilings of the arms of {limit} add up to less than its floor of {limit.floor:g}", "groups", str(limit)
            )
        if c.total is not None and limit.floor > c.total:
            raise InfeasibleError(f"the floor of {limit} lies above the total of {c.total:g}", "groups", str(limit))
        for other, inner in sets:
            if other is not limit and not (inner & ~inside).any() and other.floor > most:
                raise InfeasibleError(f"the floor of {other} lies above the ceiling of {limit} around it", "groups", str(other))
