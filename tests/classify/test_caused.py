"""Caused rather than credited conversions in the signals: background out, tests in, and what arms share kept."""

import attrs
import numpy as np
import pytest

from closedloop.classify import BayesClassifier
from closedloop.records.causes import CausalEvidence
from closedloop.records.lift import LiftResult
from closedloop.records.signal import correlated
from closedloop.records.window import AttributionWindow

WINDOW = AttributionWindow(click="7d", view="1d")
COLUMNS = ("platform", "audience")
ARMS = [("meta", "broad"), ("meta", "lookalike"), ("google", "broad"), ("meta", "visitors"), ("google", "brand")]


@pytest.fixture
def outcomes(outcomes_of):
    """Thirty days; retargeting and brand have the most credit per click."""
    clicks = np.full((5, 30), 100.0)
    credit = np.random.default_rng(5).poisson(clicks * np.array([[0.01], [0.03], [0.015], [0.05], [0.05]]))
    return outcomes_of(ARMS, clicks, credit, spend=clicks * 0.5, columns=COLUMNS)


def classify(outcomes, **known):
    return BayesClassifier(WINDOW, incrementality=CausalEvidence(**known)).classify(outcomes)


def test_untested_credit_is_doubted_and_says_so(outcomes):
    """Without tests intervals are wider than those of credit, retargeting and brand keep the smallest share, and the words say why."""
    credited, caused = BayesClassifier(WINDOW).classify(outcomes), classify(outcomes)
    assert caused.caused_share is not None
    assert credited.caused_share is None
    width = [s.cost_per_conversion.high / s.cost_per_conversion.low for s in (credited, caused)]
    assert (width[1] > 1.3 * width[0]).all()
    assert caused.caused_share.estimate[[3, 4]].max() < caused.caused_share.estimate[[0, 1, 2]].min()
    assert caused.caused_by[3] == "prior: retargeting"
    assert credited[0].arm[1] in ("visitors", "brand")
    assert caused[0].arm[1] == "lookalike"
    assert "caused: 0 tests" in repr(caused)
    assert "Credit is taken for cause" in credited.explain(ARMS[0])
    assert "prior: retargeting" in caused.explain(ARMS[3])


def test_a_holdout_moves_its_arm_and_narrows_it(outcomes):
    """A large holdout that finds no effect takes nearly all of the credit; one that finds all of it caused leaves it."""
    counts = {"treated_users": 8e5, "control_users": 2e5, "attributed": 1000.0, "exposures": 20_000.0}
    where = {"platform": "meta", "audience": "visitors"}
    none = classify(outcomes, tests=[LiftResult(where=where, treated=1000.0, control=250.0, **counts)])
    every = classify(outcomes, tests=[LiftResult(where=where, treated=1000.0, control=0.0, **counts)])
    assert none.caused_by[3] == every.caused_by[3] == "test"
    assert none.caused_share.high[3] < 0.35
    assert every.caused_share.low[3] > 0.7
    assert every.rate.estimate[3] == pytest.approx(0.05, rel=0.25)


def test_a_test_of_several_arms_is_shared_and_of_none_ignored(outcomes):
    """A study of a platform moves it towards the share that it found; one of arms that were never shown changes nothing."""
    study = LiftResult(where={"platform": "google"}, attributed=195.0, estimate=20.0, standard_error=5.0)
    found, plain = classify(outcomes, tests=[study]), classify(outcomes)
    at = [i for i, arm in enumerate(outcomes.arms) if arm[0] == "google"]
    credit = outcomes.per_arm("credit")[at]
    off = [abs((s.caused_share.estimate[at] * credit).sum() / credit.sum() - 20.0 / 195.0) for s in (found, plain)]
    assert off[0] < 0.5 * off[1]
    assert [found.caused_by[i] == "test" for i in range(5)] == [arm[0] == "google" for arm in outcomes.arms]
    elsewhere = classify(outcomes, tests=[attrs.evolve(study, where={"platform": "tiktok"})])
    np.testing.assert_array_equal(elsewhere.rate.estimate, plain.rate.estimate)


def test_all_kinds_of_touch_are_counted_once_per_click(outcomes_of):
    """What views brought is in the rate per click, and the draws of conversions a day count it once."""
    clicks, views = np.full((1, 20), 200.0), np.full((1, 20), 1000.0)
    both = outcomes_of(
        [("meta", "broad")], clicks, clicks * 0.05, spend=clicks, view_exposures=views, view_credit=views * 0.005, columns=COLUMNS
    )
    found = classify(both)
    credited = found.rate.estimate[0] / found.caused_share.estimate[0]
    assert credited == pytest.approx(0.05 + 0.025, rel=0.1)
    a_day = found.draw_conversions_per_day(np.random.default_rng(0), 2000)
    assert np.median(a_day) == pytest.approx(200.0 * found.rate.estimate[0], rel=0.03)


def test_the_cost_is_that_of_the_days_just_past(outcomes_of):
    """A click that cost 1 for weeks and costs 2 for ten days is priced near 2; an arm with few clicks looks further back."""
    clicks = np.stack([np.full(40, 100.0), np.full(40, 1.0)])
    price = np.where(np.arange(40) < 30, 1.0, 2.0)
    found = classify(outcomes_of(ARMS[:2], clicks, clicks * 0.02, spend=clicks * price, columns=COLUMNS))
    paid = found.cost_per_conversion.estimate * found.rate.estimate
    assert paid[0] == pytest.approx(2.0, rel=0.15)
    assert paid[1] < 1.8


def test_the_first_day_has_a_cost(outcomes_of):
    """On the first cycle, with a day that is all there is, costs are known already."""
    clicks = np.full((2, 1), 100.0)
    found = classify(outcomes_of(ARMS[:2], clicks, clicks * 0.05, spend=clicks, columns=COLUMNS))
    assert np.isfinite(found.cost_per_conversion.estimate).all()


def test_correlated_keeps_each_arm_and_gives_the_stated_correlation():
    """Sorted draws stay the same to the last bit; normal scores of arms correlate as the product of their loadings says."""
    rng = np.random.default_rng(1)
    draws = rng.gamma(2.0, size=(20_000, 3))
    found = correlated(draws, np.array([[0.8, 0.0], [0.6, 0.0], [0.0, 0.9]]), rng)
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(draws, axis=0))
    ranks = np.argsort(np.argsort(found, axis=0), axis=0)
    spearman = np.corrcoef(ranks.T)
    assert spearman[0, 1] == pytest.approx(6 / np.pi * np.arcsin(0.48 / 2), abs=0.02)
    assert spearman[0, 2] == pytest.approx(0.0, abs=0.02)


def test_the_order_in_which_arms_are_listed_does_not_matter(outcomes_of):
    """Arms listed backwards have the same intervals and shares, to the last bit."""
    clicks = np.full((5, 12), 100.0)
    credit = np.random.default_rng(5).poisson(clicks * 0.03)
    test = LiftResult(where={"platform": "google"}, attributed=50.0, estimate=20.0, standard_error=5.0)
    one = classify(outcomes_of(ARMS, clicks, credit, spend=clicks, columns=COLUMNS), tests=[test])
    other = classify(outcomes_of(ARMS[::-1], clicks, credit[::-1], spend=clicks, columns=COLUMNS), tests=[test])
    for i, arm in enumerate(ARMS):
        j = other.arms.index(arm)
        assert one.cost_per_conversion[i] == other.cost_per_conversion[j]
        assert one.caused_share[i] == other.caused_share[j]


def test_a_part_keeps_what_it_shares(outcomes):
    """A part of the signals keeps its arms' shares and correlations."""
    found = classify(outcomes)
    part = found.filter(platform="meta")
    at = [i for i, arm in enumerate(outcomes.arms) if arm[0] == "meta"]
    np.testing.assert_array_equal(part.shared, found.shared[at])
    np.testing.assert_array_equal(part.caused_share.estimate, found.caused_share.estimate[at])
    assert part.caused_by == tuple(found.caused_by[i] for i in at)


def test_missing_tags_leave_an_identified_set_and_no_warning(outcomes_of):
    """Arms without all their tags take part as what could belong to others: intervals widen and say so, and nothing overflows."""
    clicks = np.full((3, 12), 100.0)
    arms = [("meta", "broad"), ("meta", "lookalike"), ("meta", None)]
    with np.errstate(over="raise", invalid="raise"):
        found = classify(outcomes_of(arms, clicks, clicks * 0.04, spend=clicks, columns=COLUMNS))
    whole = classify(outcomes_of(arms[:2], clicks[:2], clicks[:2] * 0.04, spend=clicks[:2], columns=COLUMNS))
    assert found.rate.kind == "identified"
    assert (found.rate.high / found.rate.low > whole.rate.high / whole.rate.low).all()


def test_whoever_owns_the_untagged_the_interval_holds_what_would_have_been_found(outcomes_of):
    """By giving the rows without tags to nobody, to one arm, or to both by halves: each estimate lies in the intervals."""
    clicks = np.array([[100.0] * 12, [80.0] * 12, [30.0] * 12])
    credit = clicks * np.array([[0.05], [0.04], [0.05]])
    arms = [("meta", "broad"), ("meta", "lookalike"), ("meta", None)]
    found = classify(outcomes_of(arms, clicks, credit, spend=clicks, columns=COLUMNS))
    for share in ((0.0, 0.0), (1.0, 0.0), (0.5, 0.5)):
        given = [part[:2] + np.array(share)[:, None] * part[2] for part in (clicks, credit)]
        truth = classify(outcomes_of(arms[:2], *given, spend=given[0], columns=COLUMNS))
        for i, arm in enumerate(truth.arms):
            for name in ("rate", "caused_share", "cost_per_conversion"):
                mine, would = getattr(found, name)[found.arms.index(arm)], getattr(truth, name)[i]
                assert mine.low * 0.999 <= would.estimate <= mine.high * 1.001, (name, arm, mine, would)
