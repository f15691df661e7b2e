"""What a plan claims is what happens: coverage of gains, and no certainty where there is no difference."""

from __future__ import annotations

import os

import attrs
import numpy as np
import pytest

from closedloop.decide import BudgetDecider
from closedloop.records.decision import Constraints
from closedloop.records.outcomes import Cohorts, SpendDays
from closedloop.records.signal import GammaMixture
from closedloop.stats.response import Response, ResponsePrior

FULL = bool(os.environ.get("CLOSEDLOOP_FULL"))


def with_posterior(signals, shape, rate_days):
    """The signals with levels a posteriori Gamma(shape, rate_days) conversions a day (100 clicks a day)."""
    gamma = GammaMixture(shape=shape[:, None], rate=(100.0 * rate_days)[:, None], weight=np.ones((len(shape), 1)))
    return attrs.evolve(signals, posteriors={"click": gamma})


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_true_gains_lie_inside_the_intervals_at_the_stated_rate(signals_of, level):
    """Worlds drawn from the prior, ten days of counts, a plan: its true gain, and that of each move, against the intervals.

    The plan is chosen by the same data that its interval comes from; a posterior stays honest under that choice.
    """
    worlds = 1500 if FULL else 250
    rng = np.random.default_rng(2)
    prior, arms = ResponsePrior(), 6
    decider = BudgetDecider(
        Constraints(minimum_volume=0, min_probability=0.6), prior=prior, response="prior", level=level, draws=400, looks=()
    )
    inside, alone = [], []
    for world in range(worlds):
        truth = rng.gamma(3.0, 2.0, arms)
        curves = Response.from_prior(prior, np.full(arms, 100.0))
        theta = curves.draw(rng, 1)
        counts = rng.poisson(truth * 10.0)
        shape, rate = 3.0 + counts, np.full(arms, 0.5 + 10.0)
        plan = decider.decide(with_posterior(signals_of(shape / rate, [100.0] * arms), shape, rate), rng=np.random.default_rng(world))
        after = np.full(arms, 100.0)
        for d in plan.decisions:
            after[int(d.arm[1][1:])] = d.after.units
        gains = truth * (curves.ratio(after, theta)[0] - 1.0)
        if plan.decisions:
            inside.append(gains.sum() in plan.gain)
            alone += [gains[int(d.arm[1][1:])] in d.gain for d in plan.decisions]
    error = 3.0 * np.sqrt(level * (1 - level) / len(inside))
    assert len(inside) > worlds / 2
    assert np.mean(inside) == pytest.approx(level, abs=error)
    assert np.mean(alone) == pytest.approx(level, abs=0.04)


def cycles(signals_of, budgets_of, seed, *, days, strength, probability, arms=6, level=8.0, beta=0.65):
    """Daily cycles on identical arms: how often a move was called certain, and the outcome against holding still."""
    rng = np.random.default_rng(seed)
    budgets = np.full(arms, 100.0)
    rules = Constraints(min_probability=probability, minimum_volume=0.0 if probability == 0.0 else 50.0)
    decider = BudgetDecider(rules, draws=200, looks=(), response="prior")
    counts, spends, certain, moves = [], [], 0, 0
    won = held = 0.0
    for day in range(days):
        mean = level * (budgets / 100.0) ** beta
        counts.append(rng.poisson(mean))
        spends.append(budgets.copy())
        won, held = won + mean.sum(), held + arms * level
        c, s = np.array(counts), np.array(spends)
        # Shrinkage towards the common mean, worth ``strength`` days: 20 is about what a group of alike arms would have.
        x = (s / 100.0) ** beta
        common = c.sum() / x.sum()
        shape, rate = strength * common + c.sum(axis=0), strength + x.sum(axis=0)
        signals = with_posterior(signals_of(shape / rate, np.full(arms, 100.0)), shape, rate)
        signals = attrs.evolve(signals, outcomes=observed(signals.outcomes, c, s), now_us=(20_000 + day) * 86_400_000_000)
        plan = decider.decide(signals, budgets_of(signals, budgets.round(2)))
        certain += sum(d.triggers["certain"] is True for d in plan.decisions)
        moves += len(plan.decisions)
        for d in plan.decisions:
            budgets[int(d.arm[1][1:])] = d.after.units
    return certain, moves, won / held - 1.0


def observed(outcomes, counts, spends):
    days, arms = counts.shape
    arm, day = np.repeat(np.arange(arms, dtype=np.int32), days), np.tile(np.arange(19_000, 19_000 + days, dtype=np.int32), arms)
    credit, flat = counts.T.ravel().astype(float), np.zeros(arms * days)
    cohorts = Cohorts(
        arm=arm, day=day, kind=np.zeros(len(arm), dtype=np.int8), exposures=flat + 100.0, credit=credit, credit_squared=credit, value=flat,
        value_squared=flat, maturity=flat + 1.0, age=(20_000 - day).astype(np.int32),
    )  # fmt: skip
    return attrs.evolve(outcomes, cohorts=cohorts, spend=SpendDays(arm=arm, day=day, spend=spends.T.ravel()))


def test_identical_arms_are_never_called_different(signals_of, budgets_of):
    """Over daily cycles on identical arms, by a loop that chases every difference: a certain move in at most 10 % of the runs."""
    runs, days = (40, 56) if FULL else (3, 40)
    results = [cycles(signals_of, budgets_of, seed, days=days, strength=1.0, probability=0.0) for seed in range(runs)]
    assert min(moves for _, moves, _ in results) > days  # it does move, all the time
    assert sum(certain > 0 for certain, _, _ in results) <= 0.1 * runs + 0.5


def test_identical_arms_cost_next_to_nothing(signals_of, budgets_of):
    """With the default thresholds the loop loses less than 1 % against holding still."""
    runs, days = (20, 56) if FULL else (2, 40)
    results = [cycles(signals_of, budgets_of, seed, days=days, strength=5.0, probability=0.8) for seed in range(runs)]
    assert np.mean([cost for _, _, cost in results]) > -0.01


def test_a_stated_discrepancy_widens_as_log_normal(signals_of):
    """Known levels and curve, a discrepancy of 0.3: the plan's interval is that of a difference of two log-normals of mean 1."""
    sure = ResponsePrior(power=(0.0, 1e-6))
    days = np.full(2, 1e8)
    signals = with_posterior(signals_of([10, 30], [100, 100]), np.array([10.0, 30.0]) * days, days)
    plan = BudgetDecider(prior=sure, response="prior", discrepancy=0.3, draws=40_000, looks=()).decide(signals)
    z = np.random.default_rng(9).standard_normal((400_000, 2))
    factor = np.exp(0.3 * z - 0.045)
    gain = factor @ (np.array([10, 30]) * (np.sqrt([0.8, 1.2]) - 1))
    np.testing.assert_allclose([plan.gain.low, plan.gain.estimate, plan.gain.high], np.quantile(gain, [0.05, 0.5, 0.95]), rtol=0.02)
    assert plan.p_gain < BudgetDecider(prior=sure, response="prior", looks=()).decide(signals).p_gain + 1e-12


def test_arms_that_cannot_be_told_apart_stay(signals_of):
    """28 against 34 conversions differ no more than chance explains (so says an exact binomial test); 28 against 70 do."""
    from scipy.stats import binomtest

    sure = ResponsePrior(power=(0.0, 1e-6))
    rules = Constraints(minimum_volume=0, min_probability=0.6)
    same = BudgetDecider(rules, prior=sure, response="prior").decide(signals_of([4.0, 34 / 7], [100, 100], days=7))
    assert not same.decisions
    stated = same.holds[0].triggers["p_value"]
    assert stated == pytest.approx(binomtest(28, 62).pvalue, abs=0.1)
    assert (
        len(BudgetDecider(rules, prior=sure, response="prior", alike=1.0).decide(signals_of([4.0, 34 / 7], [100, 100], days=7)).decisions)
        == 2
    )
    assert len(BudgetDecider(rules, prior=sure, response="prior").decide(signals_of([4.0, 10.0], [100, 100], days=7)).decisions) == 2
    grown = BudgetDecider(Constraints(minimum_volume=0, min_probability=0.6, total=220), prior=sure, response="prior")
    more = grown.decide(signals_of([4.0, 34 / 7], [100, 100], days=7))
    assert sum(d.after.micros - d.before.micros for d in more.decisions) == 20_000_000  # new money goes out all the same
