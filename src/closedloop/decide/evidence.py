"""Joint posterior draws of what a set of budgets would bring, and the numbers taken from them.

Law of this file: a plan's gain is a sum inside each draw, never a sum of interval ends. Draws are made in blocks, so that memory grows with
draws x arms once (in single precision) and with nothing else.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from closedloop.decide.problem import Problem
from closedloop.records.interval import Interval, Intervals
from closedloop.records.signal import Signals
from closedloop.stats.response import Response

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
SingleArray = npt.NDArray[np.float32]

_BLOCK = 2_000_000  # elements worked on at once


@attrs.frozen(kw_only=True, eq=False)
class Draws:
    """D joint draws of the response of L arms.

    Args:
        level: Outcome a day at the reference spend, in the plan's unit, shape (D, L).
        theta: Parameter of the curve, shape (D, L).
        response: The curves of the L arms, their reference spend in steps.
    """

    level: SingleArray
    theta: SingleArray
    response: Response

    def first(self, size: int) -> Draws:
        """Return the first ``size`` draws."""
        return self if size >= len(self.level) else attrs.evolve(self, level=self.level[:size], theta=self.theta[:size])

    def gain(self, arms: IntArray, before: FloatArray, after: FloatArray) -> SingleArray:
        """Return draws of the change of outcome a day at positions ``arms`` (shape (m,)), shape (D, m)."""
        out = np.empty((len(self.level), len(arms)), dtype=np.float32)
        part, every = self.response.take(arms), np.array_equal(arms, np.arange(self.theta.shape[1]))
        rows = max(1, _BLOCK // max(1, len(arms)))
        for start in range(0, len(out), rows):
            block = slice(start, start + rows)
            theta, level = self.theta[block], self.level[block]
            if not every:
                theta, level = theta[:, arms], level[:, arms]
            np.multiply(level, part.change(before, after, theta), out=out[block])
        return out


def draw(
    signals: Signals,
    arms: IntArray,
    value: FloatArray,
    response: Response,
    rng: np.random.Generator,
    size: int,
    doubt: FloatArray | None = None,
) -> Draws:
    """Return joint draws for some arms of the signals.

    Args:
        signals: The evidence.
        arms: Positions of L arms in it.
        value: What one conversion is worth in the plan's unit, shape (L,).
        response: Their curves.
        rng: Source of randomness.
        size: D.
        doubt: Spread of the log of a further factor of mean 1, each arm's own, shape (L,); none by default.
    """
    level = np.empty((size, len(arms)), dtype=np.float32)
    theta = np.empty((size, len(arms)), dtype=np.float32)
    rows = max(1, _BLOCK // max(1, len(signals)))
    for start in range(0, size, rows):
        stop = min(size, start + rows)
        level[start:stop] = signals.draw_conversions_per_day(rng, stop - start)[:, arms] * value
        theta[start:stop] = response.draw(rng, stop - start)
        if doubt is not None and doubt.any():
            level[start:stop] *= np.exp(doubt * rng.standard_normal((stop - start, len(arms))) - 0.5 * doubt**2)
    return Draws(level=level, theta=theta, response=response)


def draw_for(p: Problem, arms: IntArray, rng: np.random.Generator, size: int) -> Draws:
    """Return joint draws for some arms of a problem."""
    return draw(p.signals, arms, (p.value / p.uneven)[arms], p.response.take(arms), rng, size, p.doubt[arms])


def summary(gain: npt.NDArray[np.floating], level: float) -> tuple[Interval, float, float]:
    """Return the interval of the draws of a gain, the probability that it is above zero, and the expected loss where it is below.

    >>> summary(np.array([-1.0, 1.0, 3.0, 5.0]), 0.5)[1:]
    (0.75, 1.0)
    """
    lost = gain[gain < 0.0]
    shortfall = float(-lost.mean()) if len(lost) else 0.0
    return Interval.of_draws(gain, level=level), float((gain > 0.0).mean()), shortfall


def intervals(gain: npt.NDArray[np.floating], level: float) -> list[Interval]:
    """Return the interval of each column of draws (shape (D, m)), computed in blocks of columns."""
    found: list[Interval] = []
    columns = max(1, _BLOCK // max(1, len(gain)))
    for j in range(0, gain.shape[1], columns):
        found += list(Intervals.of_draws(gain[:, j : j + columns], level=level, kind="credible"))
    return found


def chance_of_alike(p: Problem, free: npt.NDArray[np.bool_]) -> float:
    """Return the p-value of "the next unit of money brings the same in all free arms" (Cochran's Q on log marginal value).

    The variance of each is that of its rate (one over its count), of its other doubt, and of what its own part of the curve was learned
    from: if all curves are alike, their estimates lie apart by that and no more. One arm alone gives 0.
    """
    index = np.flatnonzero(free & (p.signals.effective_volume > 0.0))
    if len(index) < 2:
        return 0.0
    part, step = p.response.take(index), 1e-4
    mean = np.log(np.maximum(p.curves.take(index).marginal(p.limits.now[index]), 1e-300))
    ends = [np.log(part.elasticity(part.location + d)) for d in (step, -step)]
    noise = np.maximum(part.scale**2 - part.common**2, 0.0) * (1.0 - part.prior_share)
    own = noise * ((ends[0] - ends[1]) / (2 * step)) ** 2
    weight = 1.0 / (1.0 / p.signals.effective_volume[index] + own + p.doubt[index] ** 2)
    q = float((weight * (mean - np.average(mean, weights=weight)) ** 2).sum())
    return float(chdtrc(len(index) - 1, q))


def helps(gain: SingleArray, move: FloatArray, price: float) -> FloatArray:
    """Return, for each move, the probability that it helps at what the same money does elsewhere in the plan.

    Within each draw, money that an arm receives is charged with what the giving arms lose per unit, and money that it gives is
    credited with what the receiving arms win per unit. Money that enters or leaves the plan counts at the expected price.

    Args:
        gain: Draws of each move's change of outcome, shape (D, m).
        move: Change of each budget, shape (m,), none zero.
        price: Expected value of one more unit of the total.
    """
    takes = move > 0.0
    taken, given = float(move[takes].sum()), float(-move[~takes].sum())
    lost = -gain[:, ~takes].sum(axis=1, dtype=float) + price * max(0.0, taken - given)
    won = gain[:, takes].sum(axis=1, dtype=float) + price * max(0.0, given - taken)
    rate = np.stack([lost, won], axis=1) / max(taken, given, 1e-300)  # per unit given, or entering; per unit taken, or leaving
    probability = np.empty(len(move))
    for j in range(0, len(move), 1000):  # blocks of arms bound the memory
        cut = slice(j, j + 1000)
        charge = np.where(takes[cut], rate[:, :1], rate[:, 1:]) * move[cut]
        probability[cut] = (gain[:, cut] > charge).mean(axis=0)
    return probability
