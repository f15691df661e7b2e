"""The policies that the loop is measured against, each on the numbers its users would look at.

A policy sees the market's daily sums (clicks, spend, last-click conversions, what platforms claim) and sets tomorrow's budgets of the same
total. During the warm-up every policy holds an equal split. The oracle alone sees the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaincinv, gammaincinv

from closedloop.simulation import Market, Tally

Spend = np.ndarray


class Equal:
    """The same for every arm, for ever."""

    name = "equal split"

    def __init__(self, market: Market, seed: int) -> None:
        self.market, self.total = market, market.scenario.total
        self.rng = np.random.default_rng([seed, 77])
        self.arms = len(market.arms)

    def budgets(self, day: int, history: Sequence[Tally], now: Spend) -> Spend:
        return np.full(self.arms, self.total / self.arms)

    def states(self, day: int, history: Sequence[Tally]) -> tuple[Spend, Spend] | None:
        """Return the 90 % interval of conversions per unit of spend that the policy's own numbers imply, None where they imply none."""
        return None


def _of_counts(counts: Spend, spent: Spend) -> tuple[Spend, Spend]:
    """Return the 90 % Gamma interval of a rate (half a count added, as for Jeffreys' prior)."""
    return tuple(gammaincinv(counts + 0.5, level) / np.maximum(spent, 1e-9) for level in (0.05, 0.95))


class Planner(Equal):
    """A planner who knows each arm's first-unit return within a factor (standard deviation of its log 0.7) and its size within 0.5.

    He takes what the platforms claim for retargeting and brand as caused (a factor of three), and sets the split once.
    """

    name = "planner's prior"

    def budgets(self, day: int, history: Sequence[Tally], now: Spend) -> Spend:
        if not hasattr(self, "split"):
            from closedloop.simulation.curves import best_split

            value, half = self.market.parameters.curve(day)
            role = {c.campaign: c.role for c in self.market.scenario.campaigns}
            flattered = np.array([3.0 if role[str(a[1])] != "prospecting" else 1.0 for a in self.market.arms])
            guess = value * flattered * np.exp(self.rng.normal(0, 0.7, self.arms))
            size = half * np.exp(self.rng.normal(0, 0.5, self.arms))
            self.split = best_split(self.total, guess, size)
            self.at_split = guess * size / (size + self.split)
        return self.split

    def states(self, day: int, history: Sequence[Tally]) -> tuple[Spend, Spend] | None:
        return self.at_split * np.exp(-1.645 * 0.7), self.at_split * np.exp(1.645 * 0.7)


class GreedyLastClick(Equal):
    """Every week budgets in proportion to the last-click conversions of the last two weeks (half a conversion added to each)."""

    name = "weekly greedy, last click"

    def budgets(self, day: int, history: Sequence[Tally], now: Spend) -> Spend:
        if day % 7:
            return now
        credit = sum(t.last_click for t in history[-14:]) + 0.5
        return self.total * credit / credit.sum()

    def states(self, day: int, history: Sequence[Tally]) -> tuple[Spend, Spend] | None:
        return _of_counts(sum(t.last_click for t in history[-14:]), sum(t.spent for t in history[-14:]))


class TwentyPercent(Equal):
    """Every week 20 % more for arms whose platform claims a cost per conversion under the average, 20 % less for the others."""

    name = "+/-20 % on platform numbers"

    def budgets(self, day: int, history: Sequence[Tally], now: Spend) -> Spend:
        if day % 7:
            return now
        claimed, spent = (sum(getattr(t, n) for t in history[-7:]) for n in ("claimed", "spent"))
        good = claimed / np.maximum(spent, 1e-9) > claimed.sum() / spent.sum()
        moved = np.maximum(now, 0.002 * self.total) * np.where(good, 1.2, 0.8)
        return self.total * moved / moved.sum()

    def states(self, day: int, history: Sequence[Tally]) -> tuple[Spend, Spend] | None:
        return _of_counts(sum(t.claimed for t in history[-7:]), sum(t.spent for t in history[-7:]))


class Thompson(Equal):
    """MABWiser's Thompson sampling, every unit of 10 in currency a trial that succeeds when it brings a last-click conversion.

    Budgets are the shares of 300 predictions; what was learned is refitted daily from the last 28 days.
    """

    name = "MABWiser Thompson sampling"

    def budgets(self, day: int, history: Sequence[Tally], now: Spend) -> Spend:
        from mabwiser.mab import MAB, LearningPolicy

        bandit = MAB(list(range(self.arms)), LearningPolicy.ThompsonSampling(), seed=int(self.rng.integers(1 << 30)))
        spent = sum(t.spent for t in history[-28:])
        credit = sum(t.last_click for t in history[-28:])
        units = np.maximum(np.round(spent / 10.0), 1).astype(int)
        wins = np.minimum(credit, units).astype(int)
        decisions = np.repeat(np.arange(self.arms), units)
        rewards = np.concatenate([np.r_[np.ones(w), np.zeros(u - w)] for w, u in zip(wins, units, strict=True)]).astype(int)
        bandit.fit(decisions=decisions, rewards=rewards)
        shares = np.bincount([bandit.predict() for _ in range(300)], minlength=self.arms) / 300.0
        return self.total * shares

    def states(self, day: int, history: Sequence[Tally]) -> tuple[Spend, Spend] | None:
        spent = sum(t.spent for t in history[-28:])
        units = np.maximum(np.round(spent / 10.0), 1)
        wins = np.minimum(sum(t.last_click for t in history[-28:]), units)
        return tuple(betaincinv(wins + 1.0, units - wins + 1.0, level) / 10.0 for level in (0.05, 0.95))


class Saturation(Equal):
    """A saturation curve for every arm, as mix models fit: Poisson last-click conversions, ``c = exp(a) s^b``, priors on a and b.

    Weekly MAP over the last 56 days, then equal marginals under the total, with a largest step of 30 % a week.
    """

    name = "saturation curves, equal marginals"

    def budgets(self, day: int, history: Sequence[Tally], now: Spend) -> Spend:
        if day % 7:
            return now
        spent = np.stack([t.spent for t in history[-56:]])
        credit = np.stack([t.last_click for t in history[-56:]])
        log_spend = np.log(np.maximum(spent, 1e-3))
        pooled = np.log(max(credit.sum(), 1) / spent.sum())

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            a, b = theta[: self.arms], theta[self.arms :]
            mean = np.exp(np.clip(a + b * log_spend, -30, 30)) * (spent > 0)
            rest = mean - credit
            level = pooled + (1 - b) * np.log(self.total / self.arms)  # the prior's level is that of the average arm at an equal share
            value = (mean - credit * (a + b * log_spend)).sum() + ((a - level) ** 2).sum() / 2 + ((b - 0.7) ** 2).sum() / (2 * 0.15**2)
            shift = np.log(self.total / self.arms)
            grad_a = rest.sum(axis=0) + (a - level)
            grad_b = (rest * log_spend).sum(axis=0) + (a - level) * shift + (b - 0.7) / 0.15**2
            return value, np.concatenate([grad_a, grad_b])

        start = np.concatenate([np.full(self.arms, pooled + 0.3 * np.log(self.total / self.arms)), np.full(self.arms, 0.7)])
        bounds = [(-30, 30)] * self.arms + [(0.2, 0.95)] * self.arms
        theta = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
        a, b = theta[: self.arms], theta[self.arms :]
        low, high = 0.7 * now, 1.3 * np.maximum(now, 0.002 * self.total)

        def at(log_price: float) -> np.ndarray:
            return np.clip(np.exp((a + np.log(b) - log_price) / (1 - b)), low, high)

        ends = [-60.0, 60.0]
        for _ in range(100):
            middle = sum(ends) / 2
            ends[int(at(middle).sum() < self.total)] = middle  # dearer spends less
        split = at(ends[0])
        return self.total * split / split.sum()


class Oracle(Equal):
    """The best split of the true curves, each day."""

    name = "oracle (knows the truth)"

    def budgets(self, day: int, history: Sequence[Tally], now: Spend) -> Spend:
        return np.array(list(self.market.best_budgets(self.total, day).values()))


PEERS = (Equal, Planner, GreedyLastClick, TwentyPercent, Thompson, Saturation, Oracle)
