"""What a plan maximises: the expected value, one posterior draw, a lower bound arm by arm, or the mean of the worst cases.

Law of this file: an objective is a choice of curves (and of the side of today's budget an arm may move to); the allocation, its limits and
the stated gains are the same for all of them.

- ``expected``: the posterior mean of the value.
- ``thompson``: one joint posterior draw per plan; explores in proportion to the probability of being better (Thompson 1933).
- ``lower``: money goes to an arm only if the arm's *low* level beats what the giving arms lose at their *high* level (box uncertainty;
  Ben-Tal & Nemirovski 1999). Nothing moves where the evidence is thin.
- ``cvar``: the mean of the plan's worst draws (conditional value at risk, Rockafellar & Uryasev 2000), by fictitious play between the
  allocation and the worst draws.
"""

from __future__ import annotations

from typing import Literal, get_args

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.decide.allocate import allocate, free_groups
from closedloop.decide.evidence import Draws
from closedloop.decide.groups import within
from closedloop.decide.limits import Limits
from closedloop.decide.problem import Problem
from closedloop.stats.concave import Curves
from closedloop.stats.waterfill import Group, fill

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Objective = Literal["expected", "thompson", "lower", "cvar"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)

_SCENARIOS = 200  # draws that the worst cases are looked for in
_ROUNDS = 30


def objective(name: str, p: Problem, joint: Draws, free: BoolArray, risk: float, rng: np.random.Generator) -> tuple[Curves, Limits]:
    """Return the curves to maximise and the limits to keep.

    Args:
        name: One of `OBJECTIVES`.
        p: The problem, with its expected curves.
        joint: Joint draws over the arms with a known budget.
        free: Arms that may move, shape (A,).
        risk: Share of the worst cases (``cvar``), or the tail of a level's lower and upper bound (``lower``).
        rng: For the draw of ``thompson``.
    """
    if name == "thompson":
        pick = int(rng.integers(len(joint.level)))
        return _spread(p, joint, joint.theta[pick][:, None].astype(float), joint.level[pick][:, None].astype(float)), p.limits
    if name == "lower":
        return _lower(p, joint, free, risk)
    if name == "cvar":
        return _worst(p, joint, free, risk), p.limits
    return p.curves, p.limits


def _spread(p: Problem, joint: Draws, theta: FloatArray, level: FloatArray) -> Curves:
    """Return curves over all arms of the problem; those without a budget are worth nothing."""
    part = joint.response.curves_at(theta, level)
    whole = [np.zeros((len(p.known), a.shape[1])) for a in (part.scale, part.shift, part.power)]
    for target, source in zip(whole, (part.scale, part.shift, part.power), strict=True):
        target[p.known] = source
    return Curves(scale=whole[0], shift=whole[1], power=whole[2])


def _scaled(p: Problem, level: FloatArray) -> Curves:
    """Return the expected shapes of all arms at other levels."""
    return p.response.curves(level)


def _lower(p: Problem, joint: Draws, free: BoolArray, risk: float) -> tuple[Curves, Limits]:
    low, high = np.zeros(len(p.known)), np.zeros(len(p.known))
    low[p.known], high[p.known] = np.quantile(joint.level, [risk, 1.0 - risk], axis=0)
    limits, index = p.limits, np.flatnonzero(free)
    down, up = _scaled(p, high), _scaled(p, low)  # what a cut loses at most, what a rise wins at least
    if not len(index):
        return p.curves, limits
    now, least, most = limits.now[index], limits.low[index], limits.high[index]
    # Each arm is two: the part below today's budget at the high level, the part above it at the low one.
    below, above = down.take(index), up.take(index)
    above = attrs.evolve(above, shift=np.broadcast_to(above.shift, above.scale.shape) + now[:, None])
    below = attrs.evolve(below, shift=np.broadcast_to(below.shift, below.scale.shape))
    both = Curves(
        scale=np.concatenate([below.scale, above.scale]),
        shift=np.concatenate([below.shift, above.shift]),
        power=np.concatenate([below.power, above.power]),
    )
    start = np.concatenate([np.minimum(least, now), np.maximum(least, now) - now])
    end = np.concatenate([np.minimum(most, now), np.maximum(most, now) - now])
    groups = tuple(
        Group(members=np.concatenate([g.members, g.members + len(index)]), low=g.low, high=g.high, name=g.name)
        for g in free_groups(limits, free)
    )
    rest = limits.total - float(limits.now[p.known & ~free].sum())
    amount = within(min(max(rest, float(start.sum())), float(end.sum())), groups, start, end)
    found = fill(both, start, end, amount, groups).spend
    wanted = found[: len(index)] + found[len(index) :]
    rises = wanted > now + 1e-6
    falls = wanted < now - 1e-6
    scale, shift, power = (np.broadcast_to(a, p.curves.scale.shape).copy() for a in (p.curves.scale, p.curves.shift, p.curves.power))
    new_low, new_high = limits.low.copy(), limits.high.copy()
    for chosen, curves in ((rises, up), (falls, down)):
        arms = index[chosen]
        scale[arms] = curves.scale[arms]
        shift[arms] = np.broadcast_to(curves.shift, curves.scale.shape)[arms]
        power[arms] = curves.power[arms]
    still = index[~rises & ~falls]
    forced = np.clip(limits.now[still], limits.low[still], limits.high[still])  # a floor above today's budget must still be met
    new_low[still] = new_high[still] = forced
    new_low[index[rises]] = np.maximum(new_low[index[rises]], np.ceil(limits.now[index[rises]]))
    new_high[index[falls]] = np.minimum(new_high[index[falls]], np.floor(limits.now[index[falls]]))
    crossed = new_low > new_high
    new_low[crossed], new_high[crossed] = limits.low[crossed], limits.high[crossed]
    return Curves(scale=scale, shift=shift, power=power), attrs.evolve(limits, low=new_low, high=new_high)


def _worst(p: Problem, joint: Draws, free: BoolArray, risk: float) -> Curves:
    size = min(_SCENARIOS, len(joint.level))
    theta, level = joint.theta[:size].T.astype(float), joint.level[:size].T.astype(float)
    few = Draws(level=joint.level[:size], theta=joint.theta[:size], response=joint.response)
    worst = max(1, round(risk * size))
    weight = np.full(size, 1.0 / size)
    best, chosen = -np.inf, p.curves
    position = np.cumsum(p.known) - 1
    for turn in range(_ROUNDS):
        curves = _spread(p, joint, theta, level * weight)
        after = allocate(curves, p.limits, free, p.known, whole=False).continuous
        moved = np.flatnonzero(after != p.limits.now)
        gain = few.gain(position[moved], p.limits.now[moved], after[moved]).sum(axis=1, dtype=float)
        order = np.argsort(gain, kind="stable")[:worst]
        tail = float(gain[order].mean())
        if tail > best:
            best, chosen = tail, curves
        reply = np.zeros(size)
        reply[order] = 1.0 / worst
        weight = weight + (reply - weight) / (turn + 2.0)
    return chosen
