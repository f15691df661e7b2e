"""Curves from signals: two stages with clicks, one without, the prior where nothing varies."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from scipy.special import expit

from closedloop.decide import BudgetDecider
from closedloop.decide.curves import learn
from closedloop.records.decision import Constraints
from closedloop.records.outcomes import Cohorts, SpendDays
from closedloop.stats.response import ResponsePrior

DAYS, TODAY = 60, 20_000


def varied(signals, seed, exponent, *, clicks=True):
    """The signals with outcomes whose spend varies by the day and whose clicks (or views' conversions) answer as a power law."""
    rng = np.random.default_rng(seed)
    n = len(signals)
    spend = 100.0 * np.exp(0.3 * rng.standard_normal((n, DAYS)))
    answer = (spend / 100.0) ** np.asarray(exponent)[:, None]
    exposures = rng.poisson(400.0 * answer) if clicks else np.full((n, DAYS), 1e5)
    credit = rng.poisson(exposures * 0.05) if clicks else rng.poisson(80.0 * answer)
    arm = np.repeat(np.arange(n, dtype=np.int32), DAYS)
    day = np.tile(np.arange(TODAY - DAYS, TODAY, dtype=np.int32), n)
    flat = np.zeros(n * DAYS)
    cohorts = Cohorts(
        arm=arm, day=day, kind=np.full(len(arm), 0 if clicks else 1, dtype=np.int8), exposures=exposures.ravel().astype(float),
        credit=credit.ravel().astype(float), credit_squared=credit.ravel().astype(float), value=flat, value_squared=flat,
        maturity=flat + 1.0, age=(TODAY - day).astype(np.int32),
    )  # fmt: skip
    outcomes = attrs.evolve(signals.outcomes, cohorts=cohorts, spend=SpendDays(arm=arm, day=day, spend=spend.ravel()))
    return attrs.evolve(signals, outcomes=outcomes)


@pytest.mark.parametrize("clicks", [True, False])
def test_curves_are_learned_from_clicks_or_from_conversions(signals_of, clicks):
    """Two exponents are told apart, whichever stage reports them."""
    signals = varied(signals_of([20] * 6, [100] * 6), 1, [0.4, 0.4, 0.4, 0.8, 0.8, 0.8], clicks=clicks)
    found = learn(signals, np.full(6, 100.0), ResponsePrior(shared=0.3), 1.0).response
    elasticity = found.elasticity()
    assert elasticity[:3].max() < elasticity[3:].min()
    assert expit(found.location[:3]).mean() == pytest.approx(0.4, abs=0.1)
    assert expit(found.location[3:]).mean() == pytest.approx(0.8, abs=0.1)
    assert np.all(found.prior_share < 0.5)


def test_equal_spend_teaches_nothing(signals_of):
    """The posterior stays at the prior, and a plan says that nothing was learned."""
    signals = signals_of([10, 30], [100, 100])
    found = learn(signals, np.full(2, 100.0), ResponsePrior(), 0.5).response
    np.testing.assert_allclose(found.scale, 1.0)
    np.testing.assert_allclose(found.location, 0.75)
    assert BudgetDecider().decide(signals).decisions[0].triggers["response_learned"] == pytest.approx(0.0, abs=1e-9)


def test_a_saturated_arm_gives_money_to_a_straight_one(signals_of):
    """Equal cost per conversion, other curves: the *next* unit decides, not the average one."""
    signals = varied(signals_of([20, 20], [100, 100]), 3, [0.2, 0.9])
    plan = BudgetDecider(Constraints(), prior=ResponsePrior(shared=0.3)).decide(signals)
    assert {d.arm[1]: d.after.units for d in plan.decisions} == {"c00": 80.0, "c01": 120.0}
    assert plan.p_gain > 0.95


def test_the_part_of_today_is_left_out(signals_of):
    """Rows of the day that the data are not complete for do not count."""
    signals = signals_of([20], [100])
    early = attrs.evolve(signals, outcomes=attrs.evolve(signals.outcomes, watermark={"google": (TODAY - 28) * 86_400_000_000}))
    assert learn(early, np.full(1, 100.0), ResponsePrior(), 0.5).response.prior_share[0] == 1.0
