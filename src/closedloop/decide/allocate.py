"""Which budgets, in whole steps: the continuous optimum, rounded, with at most so many changes.

Law of this file: it knows curves and limits, no evidence. Held arms keep their budgets to the last unit; what is free balances.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.decide.groups import room_of, within
from closedloop.decide.limits import Limits
from closedloop.stats.concave import Curves
from closedloop.stats.waterfill import Group, fill

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@attrs.frozen(kw_only=True, eq=False)
class Allocation:
    """Budgets in steps.

    Args:
        after: New budgets, whole steps where they differ from the current ones, shape (A,).
        continuous: The optimum before rounding, shape (A,).
        price: Value of one more step of the total.
        prices: The same at each arm (that of its innermost tight group), shape (A,).
        unallocated: Steps of the total that no arm may take.
    """

    after: FloatArray
    continuous: FloatArray
    price: float
    prices: FloatArray
    unallocated: float


def free_total(limits: Limits, free: BoolArray, known: BoolArray) -> tuple[float, float, float]:
    """Return what the free arms should add up to, and the least and the most they can."""
    rest = limits.total - float(limits.now[known & ~free].sum())
    return rest, float(limits.low[free].sum()), float(limits.high[free].sum())


def can_meet(limits: Limits, free: BoolArray, known: BoolArray, total: float) -> bool:
    """Return whether the free arms can still bring the sum of all budgets to ``total``, to less than a step each."""
    rest = total - float(limits.now[known & ~free].sum())
    count = int(free.sum())
    slack = 1e-6 if count == 0 else 1.0  # a fraction of a step may be left over by rounding
    return float(limits.low[free].sum()) - 1e-6 <= rest <= float(limits.high[free].sum()) + slack


def allocate(curves: Curves, limits: Limits, free: BoolArray, known: BoolArray, *, whole: bool = True) -> Allocation:
    """Return the best budgets of the free arms under the total.

    Args:
        curves: Expected value by budget in steps, A arms.
        limits: Ends in steps.
        free: Arms that may move, shape (A,).
        known: Arms whose budget is known and counts towards the total, shape (A,).
        whole: Round to whole steps; without, ``after`` is the continuous optimum.

    A total out of reach (what is held and the ends leave too little or too much for it) is approached as far as the ends allow.
    """
    after, continuous, prices = limits.now.copy(), limits.now.copy(), np.zeros(len(limits.now))
    rest, least, most = free_total(limits, free, known)
    index = np.flatnonzero(free)
    if not len(index):
        return Allocation(after=after, continuous=continuous, price=0.0, prices=prices, unallocated=max(0.0, rest))
    low, high = limits.low[index], limits.high[index]
    groups = free_groups(limits, free)
    amount = min(max(rest, least), most)
    part = curves.take(index)
    filled = fill(part, low, high, within(amount, groups, low, high), groups)
    first = part.marginal(np.ones(len(index)))  # a power law's first unit is worth any price: money moves in whole steps
    continuous[index], prices[index] = filled.spend, np.minimum(filled.prices, first)
    after[index] = filled.spend if not whole else to_steps(part, filled.spend, low, high, int(np.floor(amount + 1e-6)), groups)
    return Allocation(
        after=after,
        continuous=continuous,
        price=min(filled.price, float(first.max())),
        prices=prices,
        unallocated=max(0.0, rest - float(after[index].sum())),
    )


def free_groups(limits: Limits, free: BoolArray) -> tuple[Group, ...]:
    """Return the groups over the free arms alone: what held members take is subtracted, and ends out of reach are approached."""
    found: list[Group] = []
    position = np.cumsum(free) - 1
    for group in sorted(limits.groups, key=lambda g: len(g.members)):
        inside = group.members[free[group.members]]
        if not len(inside):
            continue
        held = float(limits.now[group.members[~free[group.members]]].sum())
        members = position[inside]
        anything = Group(members=members, name=group.name)
        least, most = room_of(anything, tuple(found), limits.low[free], limits.high[free])
        low, high = min(max(group.low - held, 0.0), most), max(group.high - held, least)
        found.append(attrs.evolve(anything, low=low, high=high))
    return tuple(found)


def to_steps(
    curves: Curves, spend: FloatArray, low: FloatArray, high: FloatArray, total: int, groups: tuple[Group, ...] = ()
) -> FloatArray:
    """Return whole steps next to the continuous optimum: rounded down, then one step at a time to where it is worth most.

    The sum is at most ``total``; it is less only where groups leave no room. Floors of groups are met first.
    """
    near = np.rint(spend)
    whole = np.clip(np.where(np.abs(spend - near) < 1e-7, near, np.floor(spend)), low, high)
    for group in sorted(groups, key=lambda g: len(g.members)):
        lacking = int(np.ceil(group.low - 1e-6) - whole[group.members].sum())
        allowed = np.zeros(len(whole), dtype=bool)
        allowed[group.members] = True
        whole = _hand_out(curves, whole, high, lacking, groups, allowed)
    return _hand_out(curves, whole, high, total - int(whole.sum()), groups, np.ones(len(whole), dtype=bool))


def _hand_out(curves: Curves, whole: FloatArray, high: FloatArray, count: int, groups: tuple[Group, ...], allowed: BoolArray) -> FloatArray:
    whole = whole.copy()
    while count > 0:
        open_arms = allowed & (whole + 1.0 <= high)
        rooms = [(g, int(np.floor(g.high - whole[g.members].sum() + 1e-6))) for g in groups if np.isfinite(g.high)]
        for group, room in rooms:
            if room <= 0:
                open_arms[group.members] = False
        index = np.flatnonzero(open_arms)
        if not len(index):
            break
        part = curves.take(index)
        worth = part.value(whole[index] + 1.0) - part.value(whole[index])
        order = index[np.argsort(-worth, kind="stable")]
        keep = np.ones(len(order), dtype=bool)
        for group, room in rooms:
            inside = np.isin(order, group.members)
            keep &= ~inside | (np.cumsum(inside) <= room)
        chosen = order[keep][:count]
        whole[chosen] += 1.0
        count -= len(chosen)
    return whole


def worth(curves: Curves, limits: Limits, allocation: Allocation) -> FloatArray:
    """Return what each arm's move adds to the plan at the price of a unit of money, shape (A,); zero where nothing moves."""
    moved = np.flatnonzero(allocation.after != limits.now)
    added = np.zeros(len(limits.now))
    if len(moved):
        part = curves.take(moved)
        before, after = limits.now[moved], allocation.after[moved]
        added[moved] = part.value(after) - part.value(before) - allocation.prices[moved] * (after - before)
    return added


_TRIES = 200  # allocations that the search for a better choice of few changes may cost


def keep_few(
    curves: Curves, limits: Limits, free: BoolArray, known: BoolArray, platform: IntArray, most: int
) -> tuple[Allocation, BoolArray]:
    """Return the best allocation found with at most ``most`` changes per platform, and the arms still free.

    The least valuable half of the excess is fixed and the rest solved again, until the excess is gone: at the end one arm at a time.
    Where so few changes cannot meet the total, the ones with the most room towards it are made.
    Then single arms are exchanged or added while that helps (at most 200 trials): choosing few changes is a knapsack, and this is a
    heuristic; ``tests/decide/test_allocate.py`` states its gap to brute force.
    """
    every, free = free.copy(), free.copy()
    held = float(limits.now[known & ~free].sum())
    total = min(max(limits.total, held + float(limits.low[free].sum())), held + float(limits.high[free].sum()))
    ranking: IntArray | None = None
    still = every
    while True:
        allocation = allocate(curves, limits, free, known)
        moved = allocation.after != limits.now
        over = _over(moved, platform, most)
        added = worth(curves, limits, allocation)
        if ranking is None:
            ranking = np.flatnonzero(every)[np.argsort(-added[every], kind="stable")]
            still = every & ~moved
        if not len(over):
            break
        fixed = False
        for code in over:
            arms = np.flatnonzero(moved & (platform == code))
            drop = arms[np.argsort(added[arms], kind="stable")][: max(1, (len(arms) - most) // 2)]
            trial = free.copy()
            trial[drop] = False
            if can_meet(limits, trial, known, total):
                free, fixed = trial, True
        if not fixed:
            few = _towards(limits, every, known, platform, most, total)
            return allocate(curves, limits, few, known), few
    allocation, chosen = _exchange(curves, limits, moved.copy(), known, platform, most, total, allocation, ranking)
    return allocation, chosen | still  # an arm that would not have moved anyway is not one that was left out


def _towards(limits: Limits, free: BoolArray, known: BoolArray, platform: IntArray, most: int, total: float) -> BoolArray:
    """Return, for each platform, the ``most`` free arms that can change the sum of all budgets furthest towards the total."""
    missing = total - float(limits.now[known].sum())
    room = np.where(free, limits.high - limits.now if missing > 0.0 else limits.now - limits.low, -np.inf)
    order = np.lexsort((-room, platform))
    first = np.searchsorted(platform[order], platform[order])  # where each platform begins
    few = np.zeros(len(free), dtype=bool)
    few[order[np.arange(len(order)) - first < most]] = True
    return few & free & (room > 0.0)


def _over(moved: BoolArray, platform: IntArray, most: int) -> IntArray:
    return np.flatnonzero(np.bincount(platform[moved]) > most)


def _exchange(
    curves: Curves,
    limits: Limits,
    free: BoolArray,
    known: BoolArray,
    platform: IntArray,
    most: int,
    total: float,
    allocation: Allocation,
    ranking: IntArray,
) -> tuple[Allocation, BoolArray]:
    """Return the allocation after exchanging arms that move for arms that do not, as long as that helps."""

    def value(a: Allocation) -> float:
        changed = np.flatnonzero(a.after != limits.now)
        part = curves.take(changed)
        return float((part.value(a.after[changed]) - part.value(limits.now[changed])).sum())

    best, tries, better = value(allocation), 0, True
    while better and tries < _TRIES:
        better = False
        moving = np.flatnonzero(allocation.after != limits.now)[::-1].tolist()
        waiting = [int(i) for i in ranking if not free[i]][:50]
        for taken, given in _exchanges(waiting, moving):
            trial = free.copy()
            trial[list(taken)], trial[list(given)] = True, False
            if tries >= _TRIES:
                break
            if not can_meet(limits, trial, known, total):
                continue
            tries += 1
            other = allocate(curves, limits, trial, known)
            if not len(_over(other.after != limits.now, platform, most)) and value(other) > best * (1 + 1e-9) + 1e-15:
                allocation, free, best, better = other, other.after != limits.now, value(other), True
                break
    return allocation, free


def _exchanges(waiting: list[int], moving: list[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield arms to take in and arms to give up: single ones first, then pairs."""
    for size in (1, 2):
        for taken in combinations(waiting, size):
            for out in range(size + 1):
                for given in combinations(moving, out):
                    yield taken, given


def affordable_total(
    curves: Curves, counted: FloatArray, limits: Limits, free: BoolArray, known: BoolArray, *, ratio: float, most: float
) -> float:
    """Return the largest total, at most ``most``, at which outcome per unit of money of all known arms is at least ``ratio``.

    The best outcome is concave in the total, so outcome per unit falls with it and bisection finds the last total that is good enough;
    where even the least that the steps allow is not, the least is returned.

    Args:
        curves: Value by budget.
        counted: What one unit of each arm's value counts in the ratio (1 for value, conversions per value for a cost), shape (A,).
        limits: Ends in steps.
        free, known: As in `allocate`.
        ratio: Outcome per step of money.
        most: Ceiling of the total, in steps.
    """
    held = known & ~free
    fixed = float(limits.now[held].sum())
    least, top = fixed + float(limits.low[free].sum()), min(most, fixed + float(limits.high[free].sum()))
    if top <= least:
        return least

    counts = curves.take(known)

    def good(total: float) -> bool:
        spend = allocate(curves, attrs.evolve(limits, total=total), free, known, whole=False).continuous
        return float((counts.value(spend[known]) * counted[known]).sum()) >= ratio * total

    if good(top):
        return top
    for _ in range(50):
        middle = 0.5 * (least + top)
        least, top = (middle, top) if good(middle) else (least, middle)
        if top - least < 0.5:
            break
    return float(np.floor(least + 1e-9)) if least > fixed + float(limits.low[free].sum()) else least
