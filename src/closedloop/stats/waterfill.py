"""Water-filling: the exact optimum of a separable concave allocation, vectorised.

Law of this file: arrays in, arrays out; it knows no marketing word. Every curve is a sum of K *shifted powers* with marginal value
``a (s + h)^-p``: a power law has ``h = 0, p = 1 - beta``, a logarithm ``p = 1``, a Hill curve of slope one ``p = 2``. The sum over k is
the expectation over a posterior of the curve, so the optimum below is that of the *expected* value.

At the optimum every quantity strictly between its ends has the same marginal value, the price (Karush-Kuhn-Tucker; Everett 1963).
``log marginal`` is close to linear in ``log(s + h)``, exactly linear for K = 1, so Newton's method on the quantities and the price
together needs a handful of evaluations; the price itself is found by a bracketed Newton step on the linear model, one exponential an arm.
Groups (a tree of sums with their own ends) are solved by the same price argument one level at a time.

References:
    Everett (1963), Generalized Lagrange multiplier method. Patriksson (2008), A survey on the continuous nonlinear resource
    allocation problem, European Journal of Operational Research 185.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import InfeasibleError, InvariantError
from closedloop.stats.concave import Curves

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_TINY = 1e-300


@attrs.frozen(kw_only=True)
class Group:
    """A set of arms whose sum has ends of its own.

    Args:
        members: Positions of its arms.
        low, high: Ends of the sum.
        name: For errors.
    """

    members: IntArray = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))
    low: float = 0.0
    high: float = np.inf
    name: str = "group"


@attrs.frozen(kw_only=True, eq=False)
class Filled:
    """An optimum.

    Args:
        spend: Quantities, shape (A,).
        price: Marginal value at which the top level is filled (the value of one more unit of the total).
        prices: The price that holds for each arm: that of its innermost tight group, else ``price``. Shape (A,).
        evaluations: Evaluations of all curves that were needed.
    """

    spend: FloatArray
    price: float
    prices: FloatArray
    evaluations: int


def fill(curves: Curves, low: FloatArray, high: FloatArray, total: float, groups: Sequence[Group] = (), *, rounds: int = 60) -> Filled:
    """Return the quantities that maximise the summed value with ``low <= s <= high`` and ``sum(s) = total``.

    Args:
        curves: One concave curve per arm.
        low, high: Ends, shape (A,), ``0 <= low <= high < inf``.
        total: The sum, between the sums of the ends.
        groups: Sums with own ends; any two are nested or disjoint.
        rounds: Largest number of Newton rounds.

    Raises:
        InfeasibleError: The ends leave no room for the total, or a group's ends contradict those of its members.
        InvariantError: No convergence, or groups that cross.

    >>> two = Curves.power_law(level=np.array([1.0, 2.0]), at=np.ones(2), exponent=np.full((2, 1), 0.5))
    >>> fill(two, np.zeros(2), np.full(2, 10.0), 5.0).spend.round(6)
    array([1., 4.])
    """
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    if np.any(low > high) or np.any(low < 0.0) or not np.all(np.isfinite(high)):
        raise InfeasibleError("the ends of the arms contradict each other", "low", int(np.sum(~(low <= high))))
    tree = _tree(list(groups), len(low))
    least, most = _room(tree, low, high)
    slack = 1e-9 * max(1.0, abs(total), most)
    if not least - slack <= total <= most + slack:
        raise InfeasibleError(f"a total of {total:g} does not lie in [{least:g}, {most:g}]", "total", total)
    total = min(max(total, least), most)
    if len(low) == 0:
        return Filled(spend=low.copy(), price=0.0, prices=low.copy(), evaluations=0)
    if not groups:
        spend, price, used = _flat(curves, low, high, total, rounds)
        return Filled(spend=spend, price=price, prices=np.full(len(low), price), evaluations=used)
    return _nested(curves, low, high, total, tree, rounds)


def _flat(curves: Curves, low: FloatArray, high: FloatArray, total: float, rounds: int) -> tuple[FloatArray, float, int]:
    alive = (curves.scale.sum(axis=1) > 0.0) & (high > low)
    spend = low.copy()
    rest = total - float(low[~alive].sum())
    if not alive.any():
        return _spread(spend, high, total), 0.0, 0
    room = float(high[alive].sum())
    if rest >= room:  # everything worth something is full; what is left goes where it is worth nothing
        spend[alive] = high[alive]
        marginals = curves.take(alive).marginal(high[alive])
        return _spread(spend, high, total), float(marginals.min()), 1
    part = curves if alive.all() else curves.take(alive)
    spend[alive], price, used = _newton(part, low[alive], high[alive], rest, rounds)
    return spend, price, used


def _spread(spend: FloatArray, high: FloatArray, total: float) -> FloatArray:
    room = high - spend
    left = total - float(spend.sum())
    return spend if left <= 0.0 or not room.any() else np.minimum(spend + room * min(1.0, left / float(room.sum())), high)


def _newton(curves: Curves, low: FloatArray, high: FloatArray, total: float, rounds: int) -> tuple[FloatArray, float, int]:
    centre = np.broadcast_to(curves.shift, curves.scale.shape).mean(axis=1) if curves.shift.any() else np.zeros(len(low))
    smallest = 1e-12 * max(total / len(low), _TINY)
    z_low = np.log(np.maximum(low, np.where(centre > 0.0, 0.0, smallest)) + centre)
    z_high = np.maximum(np.log(high + centre), z_low)
    span = float((high - low).sum())
    share = (total - float(low.sum())) / span if span > 0.0 else 0.0
    z = np.clip(np.log(low + share * (high - low) + centre + smallest), z_low, z_high)
    log_price, limit, used = 0.0, np.full(len(low), np.inf), 0
    moved_before = np.inf
    while used < rounds:
        used += 1
        log_m, slope = curves.log_marginal(np.exp(z) - centre, centre)
        new, log_price = _price(z, log_m, slope, z_low, z_high, float(total + centre.sum()), limit)
        moved = float(np.abs(new - z).max())
        if moved > 0.5 * moved_before:  # curves far from linear in the logarithm: shorter steps from here on
            limit = np.minimum(limit, 0.5 * np.maximum(np.abs(new - z), 1e-12))
        z, moved_before = new, moved
        if moved < 1e-11:
            break
    spend = np.clip(np.exp(z) - centre, low, high)
    return _exact(curves, spend, low, high, total, log_price, centre), float(np.exp(log_price)), used


def _exact(
    curves: Curves, spend: FloatArray, low: FloatArray, high: FloatArray, total: float, log_price: float, centre: FloatArray
) -> FloatArray:
    """Return the quantities with their rounding error spread over the arms at the price, the most elastic first."""
    for _ in range(60):
        gap = total - float(spend.sum())
        if abs(gap) <= 1e-12 * max(1.0, total):
            break
        room = (high - spend) if gap > 0.0 else (spend - low)
        log_m, slope = curves.log_marginal(spend, centre)
        near = np.abs(log_m - log_price) < 1e-6
        weight = np.where(near, (spend + centre) / -slope, 0.0) if (near & (room > 0.0)).any() else spend + centre
        weight = np.where(room > 0.0, weight, 0.0)
        if weight.sum() <= 0.0:
            break
        spend = np.clip(spend + np.sign(gap) * np.minimum(room, abs(gap) * weight / weight.sum()), low, high)
    return spend


def _price(
    z: FloatArray, log_m: FloatArray, slope: FloatArray, z_low: FloatArray, z_high: FloatArray, total: float, limit: FloatArray
) -> tuple[FloatArray, float]:
    """Return the step of the linear model whose quantities add up to ``total``, and its log price."""
    at_low, at_high = log_m + slope * (z_low - z), log_m + slope * (z_high - z)
    bottom, top = float(at_high.min()), float(at_low.max())  # at the bottom price all are full, at the top all empty
    # The marginal-weighted middle of the prices is close to the answer when most arms are inside their ends.
    inside = (z > z_low) & (z < z_high)
    guess = float(log_m[inside].mean()) if inside.any() else 0.5 * (bottom + top)
    price = min(max(guess, bottom), top)
    lower, upper = z - limit, z + limit
    new = z
    for _ in range(200):
        free = z + (price - log_m) / slope
        new = np.clip(np.clip(free, lower, upper), z_low, z_high)
        amount = np.exp(new)
        gap = float(amount.sum()) - total
        if abs(gap) <= 1e-13 * max(1.0, total):
            return new, price
        if gap > 0.0:
            bottom = price
        else:
            top = price
        if top - bottom <= 4e-16 * max(1.0, abs(price)):
            break
        rate = float((amount / slope)[new == free].sum())
        step = price - gap / rate if rate < 0.0 else np.inf
        price = step if bottom < step < top else 0.5 * (bottom + top)
    # Straight arms jump at the price: take the part of the jump that meets the total.
    full = np.exp(np.clip(np.clip(z + (bottom - log_m) / slope, lower, upper), z_low, z_high))
    empty = np.exp(np.clip(np.clip(z + (top - log_m) / slope, lower, upper), z_low, z_high))
    jump = float((full - empty).sum())
    theta = 0.0 if jump <= 0.0 else min(1.0, max(0.0, (total - float(empty.sum())) / jump))
    return np.clip(np.log(np.maximum(empty + theta * (full - empty), _TINY)), z_low, z_high), price


# ---- groups -------------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False)
class _Node:
    members: IntArray  # all arms below
    own: IntArray  # arms in no child
    low: float
    high: float
    name: str
    children: tuple[_Node, ...]


def _tree(groups: list[Group], size: int) -> _Node:
    ordered = sorted(groups, key=lambda g: len(g.members))
    roots: list[_Node] = []
    for group in ordered:
        inside: list[_Node] = []
        outside: list[_Node] = []
        members = set(group.members.tolist())
        for node in roots:
            common = len(members.intersection(node.members.tolist()))
            if common and common < len(node.members):
                raise InvariantError(f"groups {node.name} and {group.name} cross", "groups", group.name, "nest them or keep them apart")
            (inside if common else outside).append(node)
        roots = [*outside, _node(np.unique(group.members), tuple(inside), group.low, group.high, group.name)]
    return _node(np.arange(size), tuple(roots), 0.0, np.inf, "total")


def _node(members: IntArray, children: tuple[_Node, ...], low: float, high: float, name: str) -> _Node:
    taken = np.concatenate([c.members for c in children]) if children else np.empty(0, dtype=np.int64)
    own = np.setdiff1d(members, taken, assume_unique=True)
    return _Node(members=members, own=own, low=low, high=high, name=name, children=children)


def _room(node: _Node, low: FloatArray, high: FloatArray) -> tuple[float, float]:
    """Return the smallest and largest sum that a node can have."""
    least, most = float(low[node.own].sum()), float(high[node.own].sum())
    for child in node.children:
        child_least, child_most = _room(child, low, high)
        least, most = least + child_least, most + child_most
    slack = 1e-9 * max(1.0, most)
    if node.low > most + slack:
        raise InfeasibleError(f"{node.name} cannot reach its floor of {node.low:g}: its arms allow {most:g}", "groups", node.name)
    if node.high < least - slack:
        raise InfeasibleError(f"{node.name} cannot stay under its ceiling of {node.high:g}: its arms need {least:g}", "groups", node.name)
    return min(max(least, node.low), most), max(min(most, node.high), least)


def _answer(curves: Curves, log_price: float, low: FloatArray, high: FloatArray, start: FloatArray) -> tuple[FloatArray, int]:
    """Return the quantities whose marginal value is the price, clipped to the ends, by Newton's method within a bracket."""
    centre = np.broadcast_to(curves.shift, curves.scale.shape).mean(axis=1)
    z_low = np.log(np.maximum(low + centre, 1e-12 * np.maximum(high, _TINY)))
    z_high = np.maximum(np.log(np.maximum(high + centre, _TINY)), z_low)
    bottom, top, z = z_low.copy(), z_high.copy(), np.clip(np.log(np.maximum(start + centre, _TINY)), z_low, z_high)
    used = 0
    while used < 60:
        used += 1
        log_m, slope = curves.log_marginal(np.maximum(np.exp(z) - centre, 0.0), centre)
        above = log_m > log_price
        bottom, top = np.where(above, z, bottom), np.where(above, top, z)
        step = z + (log_price - log_m) / slope
        new = np.where((step < bottom) | (step > top), np.where(step < bottom, bottom, top), step)
        new = np.where(np.abs(new - z) > 0.0, new, z)
        moved = float(np.abs(new - z).max()) if len(z) else 0.0
        z = new
        if moved < 1e-12:
            break
    return np.clip(np.exp(z) - centre, low, high), used


def _nested(curves: Curves, low: FloatArray, high: FloatArray, total: float, tree: _Node, rounds: int) -> Filled:
    spend, prices, used = low.copy(), np.zeros(len(low)), 0

    def taken(
        node: _Node, s: FloatArray, stopped: dict[int, tuple[_Node, float]], known: Mapping[int, tuple[_Node, float]] = MappingProxyType({})
    ) -> float:
        """Return what a node takes when its arms want ``s`` and every node below keeps its own ends; note the stopped ones.

        Nodes that are ``known`` to be stopped take what they take, and nobody looks below them: that is solved on its own.
        """
        amount = float(s[node.own].sum())
        for child in node.children:
            if id(child) in known:
                amount += known[id(child)][1]
                continue
            below: dict[int, tuple[_Node, float]] = {}
            wants = taken(child, s, below, known)
            least, most = _room(child, low, high)
            takes = min(max(wants, least), most)
            if abs(takes - wants) > 1e-12 * max(1.0, most):
                stopped[id(child)] = (child, takes)
            else:
                stopped.update(below)
            amount += takes
        return amount

    def solve(node: _Node, amount: float) -> float:
        nonlocal used
        part, start = curves.take(node.members), spend.copy()
        zero = np.zeros(len(node.members))
        top = float(part.log_marginal(np.maximum(low[node.members], 1e-12 * high[node.members]), zero)[0].max()) + 1.0
        bottom = float(part.log_marginal(high[node.members], zero)[0].min()) - 1.0
        stopped: dict[int, tuple[_Node, float]] = {}
        gap_bottom = gap_top = 0.0
        price = 0.5 * (bottom + top)
        for turn in range(100):
            start[node.members], n = _answer(part, price, low[node.members], high[node.members], start[node.members])
            used += n
            stopped = {}
            gap = taken(node, start, stopped) - amount
            if abs(gap) <= 1e-10 * max(1.0, amount) or top - bottom < 1e-14 * max(1.0, abs(price)):
                break
            if gap > 0.0:
                bottom, gap_bottom = price, gap
            else:
                top, gap_top = price, gap
            # Regula falsi, with a bisection at every third turn so that the bracket closes.
            secant = bottom + (top - bottom) * gap_bottom / (gap_bottom - gap_top) if gap_bottom > 0.0 > gap_top else np.nan
            price = 0.5 * (bottom + top) if turn % 3 == 2 or not bottom < secant < top else secant
        while True:
            arms = np.setdiff1d(node.members, np.concatenate([np.empty(0, np.int64), *(c.members for c, _ in stopped.values())]))
            rest = min(max(amount - sum(a for _, a in stopped.values()), float(low[arms].sum())), float(high[arms].sum()))
            spend[arms], exact, n = _flat(curves.take(arms), low[arms], high[arms], rest, rounds)
            used, prices[arms] = used + n, exact
            more: dict[int, tuple[_Node, float]] = {}
            taken(node, spend, more, stopped)
            if not more:
                break
            stopped.update(more)
            inside = {k for k, (c, _) in stopped.items() for _, (o, _) in stopped.items() if c is not o and set(c.members) < set(o.members)}
            stopped = {k: v for k, v in stopped.items() if k not in inside}
        for child, takes in stopped.values():
            solve(child, takes)
        return exact

    price = solve(tree, total)
    return Filled(spend=spend, price=price, prices=prices, evaluations=used)
