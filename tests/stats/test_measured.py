"""Lift tests as rows: what they counted, in units of what an arm took part in, at the background's level of their time."""

import attrs
import numpy as np
import pytest
from scipy import special, stats

from closedloop.records.arms import Arms
from closedloop.records.causes import CausalEvidence
from closedloop.records.interval import Intervals
from closedloop.records.lift import LiftResult
from closedloop.records.outcomes import Cohorts, ConversionDays, Outcomes, SpendDays
from closedloop.records.window import AttributionWindow
from closedloop.stats.measured import Measured, measured_by

ARMS = Arms.of(("platform",), [("google",), ("meta",)])
COUNTS = {"treated": 90.0, "control": 20.0, "treated_users": 8000.0, "control_users": 2000.0}


def outcomes(credit, joined=None, conversions=(), days=60):
    """Two arms with 100 clicks a day each; credited (and joined) conversions a day of either; the account's conversions by day."""
    day, arm = np.tile(np.arange(days, dtype=np.int32), 2), np.repeat(np.arange(2, dtype=np.int32), days)
    zero, one = np.zeros(2 * days), np.ones(2 * days)

    def of(rate, participation=None):
        c = Cohorts(
            arm=arm, day=day, kind=np.zeros(2 * days, dtype=np.int8), exposures=100 * one, credit=np.array(rate, dtype=float)[arm],
            credit_squared=zero, value=zero, value_squared=zero, maturity=one, age=day[::-1].copy(),
        )  # fmt: skip
        total = np.bincount(arm, c.credit)
        daily = np.array(conversions, dtype=float)
        return Outcomes(
            window=AttributionWindow(), arms=ARMS, cohorts=c, delay={}, conversion_type=None, model="last", currency=None, watermark={},
            spend=SpendDays(arm=arm[:0], day=day[:0], spend=zero[:0]), revision=1, n_conversions=0, n_uncredited=0,
            credits=Intervals(low=total, estimate=total, high=total, level=0.9, kind="credible"), participation=participation,
            daily=ConversionDays.of(np.arange(len(daily)), daily, 0 * daily),
        )  # fmt: skip

    return of(credit, None if joined is None else of(joined))


def row(test, found, **more):
    known = CausalEvidence(tests=[test], moved=0.2, **more)
    rate = np.array([(found.participation or found).per_arm("credit")[i] / 6000.0 for i in range(2)])
    measured, covered = measured_by(known, found, ARMS, np.array([6000.0, 6000.0]), rate)
    assert covered.tolist() == [test.where.get("platform") in (None, "google"), test.where.get("platform") in (None, "meta")]
    return measured


def test_a_test_counts_what_the_arm_took_part_in():
    """Known participation stands; where only credit was noted, it is raised as the arm's participation is over its credit elsewhere."""
    found = outcomes(credit=(1.0, 2.0), joined=(2.0, 2.0))
    test = LiftResult(where={"platform": "google"}, attributed=40.0, participated=70.0, exposures=4000.0, **COUNTS)
    known = row(test, found)
    assert [known.exposures[0], known.control[0], known.odds[0], known.beyond[0]] == [4000.0, 20.0, 4.0, 20.0]
    unknown = row(attrs.evolve(test, participated=None, exposures=None), found)
    assert unknown.beyond[0] == 90.0 - 80.0
    assert unknown.exposures[0] == pytest.approx(80.0 / 0.02)
    alone = row(attrs.evolve(test, participated=None, exposures=None), outcomes(credit=(1.0, 2.0)))
    assert [alone.beyond[0], alone.exposures[0]] == [50.0, pytest.approx(40.0 / 0.01)]


def test_a_test_is_read_at_the_level_of_its_time():
    """With 100 conversions a day while it ran and 200 in the last two months the background was at half of what it is."""
    test = LiftResult(where={"platform": "google"}, attributed=40.0, exposures=4000.0, conversions_per_day=100.0, **COUNTS)
    assert row(test, outcomes((1.0, 1.0), conversions=[200.0] * 60)).level.tolist() == [0.5]
    assert row(attrs.evolve(test, conversions_per_day=None), outcomes((1.0, 1.0), conversions=[200.0] * 60)).level.tolist() == [1.0]
    assert row(test, outcomes((1.0, 1.0))).level.tolist() == [1.0]
    week = [200.0] * 53 + [300.0] * 7  # of late there are more: weights of a half-life of 14 days, on means over seven days
    smooth = np.array([np.mean(week[max(0, d - 3) : min(59, d + 4)]) for d in range(59)] + [300.0])
    weight = 0.5 ** ((59 - np.arange(60)) / 14)
    late = row(test, outcomes((1.0, 1.0), conversions=week)).level[0]
    assert late == pytest.approx(100.0 / ((weight * smooth).sum() / weight.sum()), rel=0.01)


def test_a_test_of_several_arms_is_shared_and_trusted_less():
    found = outcomes((1.0, 1.0))
    measured = row(LiftResult(attributed=80.0, exposures=8000.0, **COUNTS), found)
    assert measured.exposures.tolist() == [4000.0, 4000.0]
    assert measured.control.tolist() == [10.0, 10.0]
    assert measured.moved.tolist() == [pytest.approx(np.hypot(0.2, 0.5))] * 2
    stated = row(LiftResult(where={"platform": "meta"}, attributed=40.0, estimate=12.0, standard_error=3.0), found)
    assert [stated.effect[0], stated.error[0], stated.arm[0]] == [12.0, 3.0, 1]


def test_a_test_of_no_arm_counts_nothing():
    """One that covers an arm without exposures adds no row; beside another test it leaves that one as it is."""
    found = outcomes((1.0, 1.0))
    test = LiftResult(where={"platform": "google"}, attributed=40.0, exposures=4000.0, **COUNTS)
    gone = attrs.evolve(test, where={"platform": "tiktok"})
    rate = np.array([0.01, 0.01])
    alone, covered = measured_by(CausalEvidence(tests=[test]), found, ARMS, np.array([6000.0, 6000.0]), rate)
    both, covered_too = measured_by(CausalEvidence(tests=[gone, test]), found, ARMS, np.array([6000.0, 6000.0]), rate)
    assert covered.tolist() == covered_too.tolist() == [True, False]
    assert both.control.tolist() == alone.control.tolist() == [20.0]
    none, covered_none = measured_by(CausalEvidence(tests=[gone]), found, ARMS, np.array([6000.0, 6000.0]), rate)
    assert not len(none.control)
    assert not covered_none.any()


@pytest.mark.parametrize(("level", "late", "moved", "beyond"), [(1.0, 0.0, 0.0, 0.0), (0.5, 0.1, 0.3, 12.0), (2.0, 0.2, 0.1, -4.0)])
def test_a_holdout_counts_as_a_negative_binomial(level, late, moved, beyond):
    """scipy's, of the stated mean, with the noise of what is not credited and what the background does meanwhile beside Poisson's."""
    n, control, odds = 5000.0, 18.0, 4.0
    one, r, b, v = np.ones(1), np.array([0.004, 0.01]), np.array([0.02, 0.015]), np.array([1.3, 1.1])
    measured = Measured(
        arm=np.zeros(1, dtype=int), exposures=n * one, control=control * one, odds=odds * one, beyond=beyond * one, effect=np.nan * one,
        error=np.nan * one, moved=moved * one, level=level * one, late=late,
    )  # fmt: skip
    seen = v * (1 - late)
    mean = (n * (level * b - (seen - 1) * r) + beyond) / odds
    more = (max(beyond, 0.0) + 1) / odds**2 + (moved * mean) ** 2
    k = mean**2 / more
    peer = stats.nbinom.logpmf(control, k, k / (k + mean)) + special.gammaln(control + 1)
    np.testing.assert_allclose(measured.log_likelihood(0, r, b, v), peer, rtol=1e-9)
    low = measured.log_likelihood(0, r, 0.0 * b, 9.0 * v)  # where the mean would be negative: two hundredths of what is credited
    mean = np.full(2, 0.02 * n * r / odds)
    k = mean**2 / ((max(beyond, 0.0) + 1) / odds**2 + (moved * mean) ** 2)
    np.testing.assert_allclose(low, stats.nbinom.logpmf(control, k, k / (k + mean)) + special.gammaln(control + 1), rtol=1e-9)


@pytest.mark.parametrize("moved", [0.0, 0.2])
def test_a_stated_effect_weighs_as_its_normal(moved):
    """Of the caused conversions of the treated: exposures times what is caused and seen of it, with the doubt about now and then."""
    one, r = np.ones(1), np.array([0.01, 0.02])
    measured = Measured(
        arm=np.zeros(1, dtype=int), exposures=4000 * one, control=0 * one, odds=one, beyond=0 * one, effect=70 * one, error=9 * one,
        moved=moved * one, level=one, late=0.1,
    )  # fmt: skip
    found = measured.log_likelihood(0, r, r, np.full(2, 1.2))
    mean = 4000 * 1.2 * 0.9 * r
    peer = stats.norm.logpdf(70.0, mean, np.hypot(9.0, moved * mean))
    assert found[1] - found[0] == pytest.approx(peer[1] - peer[0])


def test_levels_far_apart_are_cut_at_twenty():
    """A test at a hundredth, or at a hundred times today's conversions, is read at a twentieth, or at twenty times."""
    found = outcomes((1.0, 1.0), conversions=[200.0] * 60)
    for then, level in ((2.0, 0.05), (20_000.0, 20.0)):
        test = LiftResult(where={"platform": "google"}, attributed=40.0, exposures=4000.0, conversions_per_day=then, **COUNTS)
        assert row(test, found).level.tolist() == [level]


def test_a_stated_effect_is_shared_by_exposure():
    """Of an effect of 30 and an error of 6, an arm of a third of the exposures takes 10, with the error of independent parts."""
    found = outcomes((1.0, 1.0))
    test = LiftResult(attributed=40.0, estimate=30.0, standard_error=6.0)
    measured, _ = measured_by(CausalEvidence(tests=[test]), found, ARMS, np.array([2000.0, 4000.0]), np.array([0.01, 0.02]))
    np.testing.assert_allclose(measured.effect, [10.0, 20.0])
    np.testing.assert_allclose(measured.error, [6.0 / 3**0.5, 6.0 * (2 / 3) ** 0.5])
    total = 40.0 / (0.01 / 3 + 0.02 * 2 / 3)
    np.testing.assert_allclose(measured.exposures, [total / 3, 2 * total / 3])


def test_it_does_not_matter_which_day_is_counted_from():
    """All days a thousand later, or conversions known only since a while: levels follow the days, not their numbers."""
    test = LiftResult(where={"platform": "google"}, attributed=40.0, exposures=4000.0, conversions_per_day=100.0, **COUNTS)
    rising = np.linspace(100.0, 400.0, 60)

    def level(start, later):
        found = outcomes((1.0, 1.0))
        daily = ConversionDays.of(np.arange(start, 60) + later, rising[start:], 0 * rising[start:])
        cohorts = attrs.evolve(found.cohorts, day=found.cohorts.day + later)
        return row(test, attrs.evolve(found, cohorts=cohorts, daily=daily)).level[0]

    assert level(0, 1000) == pytest.approx(level(0, 0))
    assert level(30, 1000) == pytest.approx(level(30, 0))
    window = [rising[30 + max(0, d - 3) : 30 + min(29, d + 4)].mean() for d in range(29)]  # the last day is not over yet
    smooth = np.array([*np.full(30, window[0]), *window, window[-1]])
    weight = 0.5 ** ((59 - np.arange(60)) / 14)
    assert level(30, 0) == pytest.approx(100.0 / ((weight * smooth).sum() / weight.sum()), rel=0.01)


def test_credit_of_less_than_one_conversion_still_says_how_much_is_taken_part_in():
    """Twice as much participation as credit raises a test's credit twofold, even where both are parts of one conversion; none does not."""
    test = LiftResult(where={"platform": "google"}, attributed=40.0, exposures=4000.0, **COUNTS)
    for credit, beyond in ((0.002, 90.0 - 80.0), (0.0, 90.0 - 40.0)):
        assert row(test, outcomes((credit, 2.0), joined=(2 * credit, 2.0))).beyond[0] == pytest.approx(beyond)
