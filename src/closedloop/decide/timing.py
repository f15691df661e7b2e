"""Act now or wait: the value of a move today against the value of the same decision with more data.

Law of this file: preposterior analysis (Raiffa & Schlaifer 1961). Scenarios of the truth are drawn from the posterior, future counts from
the truth, the posterior is updated with them and the budgets are chosen again. Over a horizon of ``H`` days, with a switching cost for each
budget that is changed (the learning phase), for each arm at the plan's price of money:

- ``V_act(k) = k g_now + (H - k) E[best of keeping or changing again, data gathered under acting] - cost``
- ``V_wait(k) = (H - k) E[best of moving then or never, data gathered under holding]``, the cost being paid only if it moves.

The same scenarios and the same random numbers serve both. Both allow a later revision. STATISTICS.md section 6.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.decide.allocate import Allocation, allocate
from closedloop.decide.evidence import Draws
from closedloop.decide.limits import Limits
from closedloop.decide.problem import Problem
from closedloop.stats.concave import Curves

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@attrs.frozen(kw_only=True, eq=False)
class Timing:
    """Values over the horizon, for each of the m arms that would move.

    Args:
        act: Value of moving today, for the best later look, shape (m,).
        wait: Value of waiting ``days`` days and deciding then, shape (m,).
        days: The number of days of waiting that is worth most, shape (m,).
        cost: Switching cost of each move, shape (m,).
        waits: Where waiting is worth more by at least two standard errors of the paired futures, shape (m,).
    """

    act: FloatArray
    wait: FloatArray
    days: FloatArray
    cost: FloatArray
    waits: BoolArray


def switching_cost(p: Problem, arms: Int64, loss: float, days: float) -> FloatArray:
    """Return what a learning phase costs each arm: a share of its outcome for some days, shape (m,)."""
    return loss * days * p.curves.take(arms).value(p.limits.now[arms])


def value_of_timing(
    p: Problem,
    limits: Limits,
    free: BoolArray,
    allocation: Allocation,
    joint: Draws,
    *,
    horizon: float,
    cost: FloatArray,
    looks: tuple[float, ...],
    scenarios: int,
    rng: np.random.Generator,
) -> Timing:
    """Return the value of acting now and of waiting, for the arms that the allocation moves.

    Args:
        p: The problem.
        limits: Ends in steps, as the allocation used them.
        free: Arms that may move, shape (A,).
        allocation: The plan to be timed.
        joint: Joint draws over the arms with a known budget.
        horizon: ``H`` in days.
        cost: Switching cost of each moved arm, shape (m,).
        looks: Days of waiting to consider, each under the horizon.
        scenarios: Number of simulated futures.
        rng: Source of randomness.
    """
    moved = np.flatnonzero(allocation.after != p.limits.now)
    position = np.cumsum(p.known) - 1
    value, phi = np.maximum(p.value[moved], 1e-300), np.maximum(p.signals.dispersion[moved], 1.0)
    conversions = joint.level[:, position[moved]].astype(float) / value
    mean, spread = conversions.mean(axis=0), np.maximum(conversions.var(axis=0), 1e-300)
    # The posterior of a level as a Gamma with the same mean and variance; its rate is days of evidence at the recent spend.
    shape, rate = mean**2 / spread, mean / spread
    before, after, price = p.limits.now[moved], allocation.after[moved], allocation.prices[moved]
    base = p.curves.take(moved)
    start, end = base.value(before), base.value(after)
    own = np.maximum(base.value(p.response.at[moved]), 1e-300)
    g_now = end - start - price * (after - before)
    truths = conversions[rng.integers(0, len(conversions), scenarios)]
    noise = int(rng.integers(0, 2**62))
    act, wait = np.zeros((len(looks), scenarios, len(moved))), np.zeros((len(looks), scenarios, len(moved)))
    for j, k in enumerate(looks):
        left, seen = horizon - k, k * share_seen(p, k)
        for s in range(scenarios):
            for level, out, acting in ((end, act, True), (start, wait, False)):
                days = seen * level / own
                same = np.random.default_rng([noise, j, s])  # common random numbers for acting and holding
                counts = same.poisson(truths[s] * days) / phi
                weight = (rate + days / phi) * np.maximum(mean, 1e-300)
                factor = np.divide(shape + counts, weight, out=np.ones_like(weight), where=weight > 0)  # nothing known stays as it is
                curves = _scaled(p.curves, moved, factor)
                then = allocate(curves, limits, free, p.known, whole=False)
                part, charge = curves.take(moved), then.prices[moved]
                stay = part.value(before)
                new = part.value(then.continuous[moved]) - stay - charge * (then.continuous[moved] - before)
                keep = part.value(after) - stay - charge * (after - before) if acting else np.zeros(len(moved))
                out[j, s] = left * np.maximum(keep, new - cost / left)
        act[j] += k * g_now - cost
    best, row = np.argmax(wait.mean(axis=1), axis=0), np.arange(len(moved))
    better = (wait - act)[best, :, row]  # paired by scenario, shape (m, scenarios)
    noise_of_mean = better.std(axis=1) / np.sqrt(scenarios)
    return Timing(
        act=act.mean(axis=1)[best, row],
        wait=wait.mean(axis=1)[best, row],
        days=np.asarray(looks, dtype=float)[best],
        cost=cost,
        waits=better.mean(axis=1) > 2.0 * noise_of_mean,
    )


def share_seen(p: Problem, days: float) -> float:
    """Return the share of the conversions of the next ``days`` days' cohorts that will have been seen by the end of them."""
    curves = [c.share_seen for c in p.signals.outcomes.delay.values() if len(c.share_seen)]
    if not curves:
        return 1.0
    ages = np.arange(max(1, round(days)))
    return float(np.mean([[c[min(int(a), len(c) - 1)] for a in ages] for c in curves]))


def _scaled(curves: Curves, arms: Int64, factor: FloatArray) -> Curves:
    scale = curves.scale.copy()
    scale[arms] *= factor[:, None]
    return attrs.evolve(curves, scale=scale)
