"""Small randomised changes of budgets, so that a loop can learn its curves: off by default, proposed only where they pay.

Law of this file: seeded and logged. A change is drawn once for a block of days from the seed and the block's number alone; arms are
paired, one gets what the other gives, so the total never moves. What it would teach and what it costs are computed before, arm by arm:

- A power law at relative changes ``delta`` over ``T`` days of ``c`` conversions tells ``beta`` with information ``c T delta^2 / phi``.
- It costs ``beta (1 - beta) c delta^2 / 2`` a day (the curve is concave, to second order).
- Knowing ``beta`` better is worth ``beta c / (2 (1 - beta))`` times the variance that is removed from ``log`` marginal value, a day, from
  then on: budgets would be moved by ``1 / (1 - beta)`` times the error (same expansion).

Where arms look alike (their returns differ no more than chance explains) there is nothing to move, and nothing is proposed. In a trial
this bought nothing in most markets (STATISTICS.md section 12): that is why it is off.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.decide.allocate import Allocation
from closedloop.decide.choose import Chosen
from closedloop.decide.evidence import Draws, chance_of_alike, helps
from closedloop.decide.problem import Problem
from closedloop.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@attrs.frozen(kw_only=True)
class Excitation:
    """How large, how long and how dear random changes may be.

    Args:
        amplitude: Relative change, in (0, 0.5].
        block_days: Days for which a change stands, at least the platform's own dwell time.
        use_days: Days over which what is learned will be used.
        max_cost: Largest expected loss, as a share of the outcome of all arms.
        alike: Level of the test that arms look alike: no excitation when its p-value is above.
        seed: Of the random signs.
    """

    amplitude: float = 0.1
    block_days: int = 7
    use_days: float = 56.0
    max_cost: float = 0.005
    alike: float = 0.05
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.amplitude <= 0.5:
            raise ConfigurationError("an amplitude lies in (0, 0.5]", "amplitude", self.amplitude)
        if self.block_days < 1 or not self.use_days > 0.0:
            raise ConfigurationError("a block lasts a day or more", "block_days", self.block_days)
        if not 0.0 <= self.max_cost <= 1.0:
            raise ConfigurationError("a share lies in [0, 1]", "max_cost", self.max_cost)


@attrs.frozen(kw_only=True, eq=False)
class Power:
    """What excitation would teach of each arm, and whether it is worth it. All of shape (A,).

    Args:
        sd_before, sd_after: Posterior spread of the elasticity before and after one block.
        cost: Expected outcome lost a day while it lasts.
        worth: Expected outcome won a day by what was learned.
        proposed: Whether it pays over the time of use.
    """

    sd_before: FloatArray
    sd_after: FloatArray
    cost: FloatArray
    worth: FloatArray
    proposed: BoolArray


def power(p: Problem, free: BoolArray, e: Excitation) -> Power:
    """Return what excitation would teach of each arm and what it would cost."""
    beta = np.clip(p.response.elasticity(), 0.01, 0.99)
    step = 1e-4  # the elasticity's slope in theta, by a central difference: three shapes, one line
    slope = (p.response.elasticity(p.response.location + step) - p.response.elasticity(p.response.location - step)) / (2 * step)
    before = p.response.scale * np.abs(slope)
    level = p.curves.value(p.limits.now)
    conversions = level / np.maximum(p.value, 1e-300)
    information = conversions * e.block_days * e.amplitude**2 / np.maximum(p.signals.dispersion, 1.0)
    after = 1.0 / np.sqrt(1.0 / np.maximum(before, 1e-12) ** 2 + information)
    cost = 0.5 * beta * (1.0 - beta) * level * e.amplitude**2
    worth = 0.5 * beta / (1.0 - beta) * level * (before**2 - after**2) / beta**2
    pays = free & (worth * e.use_days > cost * e.block_days)
    if chance_of_alike(p, free) > e.alike:
        pays = np.zeros(len(free), dtype=bool)
    return Power(sd_before=before, sd_after=after, cost=cost, worth=worth, proposed=pays)


def excite(p: Problem, chosen: Chosen, joint: Draws, held: BoolArray, e: Excitation, day: int) -> tuple[Chosen, dict[str, Any]]:
    """Return the moves with the random part added, and its log.

    Nothing is added but on the first day of a block, and nothing to arms on hold for their data.

    Args:
        p: The problem.
        chosen: The moves so far.
        joint: Joint draws over the arms with a known budget.
        held: Arms that must not move, shape (A,).
        e: The settings.
        day: Day number of the decision.
    """
    block, phase = divmod(day, e.block_days)
    free = p.known & ~held & ~p.limits.stuck
    table = power(p, free, e)
    log: dict[str, Any] = {
        "block": int(block),
        "amplitude": e.amplitude,
        "seed": e.seed,
        "proposed": int(table.proposed.sum()),
        "changes": {},
    }
    if phase or table.proposed.sum() < 2:
        return chosen, log
    rng = np.random.default_rng([e.seed, block])
    arms = rng.permutation(np.flatnonzero(table.proposed))
    inside = np.zeros((len(free), len(p.limits.groups)), dtype=bool)
    for g, group in enumerate(p.limits.groups):
        inside[group.members, g] = True
    after, budget = chosen.allocation.after.copy(), e.max_cost * float(p.curves.value(p.limits.now).sum())
    spent = 0.0
    for up, down in zip(arms[::2], arms[1::2], strict=False):
        size = float(np.floor(e.amplitude * min(after[up], after[down])))
        size = min(size, np.floor(p.limits.high[up] - after[up]), np.floor(after[down] - p.limits.low[down]))
        cost = float(table.cost[up] + table.cost[down])
        if size < 1.0 or spent + cost > budget or (inside[up] != inside[down]).any():
            continue
        after[up], after[down], spent = after[up] + size, after[down] - size, spent + cost
        for arm, sign in ((up, 1.0), (down, -1.0)):
            log["changes"][p.signals.arms.label(int(arm))] = sign * size * p.limits.step / 1e6
    log["cost_a_day"] = spent
    if not log["changes"]:
        return chosen, log
    moved = np.flatnonzero(after != p.limits.now)
    position = np.cumsum(p.known) - 1
    gains = joint.gain(position[moved], p.limits.now[moved], after[moved])
    allocation: Allocation = attrs.evolve(chosen.allocation, after=after)
    holds = {i: why for i, why in chosen.holds.items() if i not in set(moved.tolist())}
    chances = helps(gains, (after - p.limits.now)[moved], allocation.price)
    return attrs.evolve(chosen, allocation=allocation, moved=moved, gains=gains, chances=chances, holds=holds, timing=None), log
