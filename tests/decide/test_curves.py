"""Curves from signals: two stages with clicks, one without, the prior where nothing varies."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from scipy.special import expit

from closedloop.decide import BudgetDecider, curves
from closedloop.decide.curves import _DAYS, _RECENT_DAYS, certain_moves, daily_counts, learn
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


def test_daily_counts_are_those_of_a_loop_over_rows(signals_of):
    """Clicks, and credit of all kinds with its share seen, by arm and day with spend; arms left out and days without spend do not count."""
    rng = np.random.default_rng(4)
    outcomes = signals_of([10, 20, 30], [100, 100, 100], days=6).outcomes
    c = outcomes.cohorts
    views = attrs.evolve(c, kind=np.ones_like(c.kind), exposures=c.exposures * 3, credit=c.credit * 0.5)
    both = {
        f.name: np.concatenate([getattr(c, f.name), getattr(views, f.name)]) for f in attrs.fields(type(c)) if f.name != "participation"
    }
    order = np.lexsort((both["kind"], both["day"], both["arm"]))
    both = {k: v[order] for k, v in both.items()} | {"maturity": rng.uniform(0.2, 1.0, len(order)), "credit": rng.normal(2, 2, len(order))}
    spend = outcomes.spend
    some = np.arange(len(spend.day)) % 4 != 1
    less = attrs.evolve(spend, arm=spend.arm[some], day=spend.day[some], spend=rng.uniform(50, 150, some.sum()))
    made = attrs.evolve(outcomes, cohorts=attrs.evolve(c, **both), spend=less)
    clicks, credits = daily_counts(made, np.array([1, -1, 0]))
    wanted = []
    for arm, day, amount in zip(less.arm, less.day, less.spend, strict=True):
        if arm == 1:
            continue
        at = (both["arm"] == arm) & (both["day"] == day)
        x, m = both["exposures"][at], both["maturity"][at]
        seen = x[both["kind"][at] == 0].sum()
        wanted.append(({0: 1, 2: 0}[int(arm)], int(day), amount, seen, max(both["credit"][at].sum(), 0.0), (x * m).sum() / x.sum()))
    for column, name in enumerate(("arm", "day", "spend")):
        for found in (clicks, credits):
            assert getattr(found, name).tolist() == [w[column] for w in wanted]
    np.testing.assert_allclose(clicks.count, [w[3] for w in wanted])
    np.testing.assert_allclose(credits.count, [w[4] for w in wanted])
    np.testing.assert_allclose(credits.maturity, [w[5] for w in wanted])
    assert set(clicks.maturity) == {1.0}
    nothing = attrs.evolve(less, arm=less.arm[:0], day=less.day[:0], spend=less.spend[:0])
    assert all(len(part.count) == 0 for part in daily_counts(attrs.evolve(made, spend=nothing), np.arange(3)))


def with_a_day(signals, day):
    """The signals with one more day of the first arm: five times its usual spend, and as many clicks as ever."""
    c, s = signals.outcomes.cohorts, signals.outcomes.spend
    more = {
        "arm": 0,
        "day": day,
        "kind": 0,
        "exposures": 400.0,
        "credit": 20.0,
        "credit_squared": 20.0,
        "maturity": 1.0,
        "age": TODAY - day,
    }
    rows = {f.name: np.append(getattr(c, f.name), more.get(f.name, 0)).astype(getattr(c, f.name).dtype) for f in attrs.fields(type(c))}
    order = np.lexsort((rows["day"], rows["arm"]))
    spend = {"arm": np.append(s.arm, 0), "day": np.append(s.day, day), "spend": np.append(s.spend, 500.0)}
    outcomes = attrs.evolve(
        signals.outcomes,
        cohorts=attrs.evolve(c, **{k: v[order] for k, v in rows.items()}),
        spend=attrs.evolve(s, **{k: v[order].astype(getattr(s, k).dtype) for k, v in spend.items()}),
    )
    return attrs.evolve(signals, outcomes=outcomes)


def test_days_that_teach_are_whole_and_not_too_old(signals_of):
    """Today's rows, a part of a day, change nothing, nor do those older than the window; its first day does."""
    signals = varied(signals_of([20] * 2, [100] * 2), 1, [0.4, 0.8])

    def learned(given):
        return learn(given, np.full(2, 100.0), ResponsePrior(), 1.0).response.location.tolist()

    plain = learned(signals)
    assert learned(with_a_day(signals, TODAY)) == plain
    assert learned(with_a_day(signals, TODAY - _DAYS - 1)) == plain
    assert learned(with_a_day(signals, TODAY - _DAYS)) != plain


def test_what_a_moving_budget_brought_on_average(signals_of):
    """A recent week of 50 and 150 in turns brings the mean of the curve there, less than at 100; clicks scatter by their root."""
    prior = ResponsePrior(power=(np.log(0.6 / 0.4), 1e-6), hill=(np.log(0.6 / 0.4), 1e-6))
    base = signals_of([20] * 2, [100] * 2, days=DAYS)
    c, s = base.outcomes.cohorts, base.outcomes.spend
    turns = np.where(np.arange(len(s.day)) % 2 == 0, 50.0, 150.0) * (s.arm == 0) + 100.0 * (s.arm == 1)
    last = s.day >= TODAY - _RECENT_DAYS
    at = np.array([turns[last & (s.arm == a)].mean() for a in (0, 1)])
    made = attrs.evolve(base, outcomes=attrs.evolve(base.outcomes, spend=attrs.evolve(s, spend=turns)))
    found = learn(made, at, prior, 1.0)
    curve = found.response.take(np.array([0]))
    ratios = [curve.ratio(np.array([x]), curve.location[None])[0][0] for x in turns[last & (s.arm == 0)]]
    assert found.uneven == pytest.approx([np.mean(ratios), 1.0], rel=1e-6)
    assert found.uneven[0] < 0.995
    clicks = np.bincount(c.arm[last], weights=c.exposures[last])
    assert found.scatter[1] == pytest.approx(np.sqrt(1 / clicks[1]), rel=0.35)
    other = learn(made, at * 1.02, prior, 1.0)  # signals that speak of other days: nothing is known of the week
    assert other.uneven.tolist() == [1.0, 1.0]


def test_only_days_that_can_have_been_credited_make_a_move_certain(signals_of):
    """A day of 420 against 20 is certain once the window of seven days and the day itself are over; a day later it is not looked at."""
    base = signals_of([20, 20], [100, 100], days=DAYS)
    c = base.outcomes.cohorts
    for day, found in ((TODAY - 8, True), (TODAY - 7, False)):
        credit = c.credit + 400.0 * ((c.arm == 1) & (c.day == day))
        cohorts = attrs.evolve(c, credit=credit, credit_squared=credit)
        signals = attrs.evolve(base, outcomes=attrs.evolve(base.outcomes, cohorts=cohorts))
        assert certain_moves(signals, np.array([0, 1]), np.array([False, True]), 0.1) == [found, found]
        assert certain_moves(signals, np.array([0, 1]), np.array([True, False]), 0.1) == [False, False]
    shared = attrs.evolve(base, outcomes=attrs.evolve(base.outcomes, cohorts=attrs.evolve(c, credit=c.credit + 0.5)))
    assert certain_moves(shared, np.array([0, 1]), np.array([False, True]), 0.1) == [None, None]
    assert certain_moves(base, np.array([], dtype=int), np.array([], dtype=bool), 0.1) == []


def test_no_answer_where_no_day_is_closed_or_there_are_too_many(signals_of, monkeypatch):
    """None says that nothing was looked at: neither days of the last week alone, nor more days and arms than are computed."""
    move = np.array([0, 1]), np.array([False, True]), 0.1
    assert certain_moves(signals_of([20, 90], [100, 100], days=7), *move) == [None, None]
    assert certain_moves(signals_of([20, 90], [100, 100], days=9), *move) == [True, True]
    for most, found in ((4, True), (3, None)):  # two closed days of two arms
        monkeypatch.setattr(curves, "_CELLS", most)
        assert certain_moves(signals_of([20, 90], [100, 100], days=9), *move) == [found] * 2
