"""The promises of `BayesClassifier`."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy import stats

from closedloop.classify import BayesClassifier
from closedloop.errors import InputError, WindowMismatchError
from closedloop.interfaces import Classifier
from closedloop.records.window import AttributionWindow

WINDOW = AttributionWindow(click="7d", view="1d")
ARMS = [("google", f"c{i:03d}") for i in range(40)]


def market(seed, n=40, days=28, mu=0.02, k=3.0, volume=60.0):
    rng = np.random.default_rng(seed)
    rate = rng.gamma(k, mu / k, n)
    exposures = rng.poisson(np.exp(rng.normal(np.log(volume), 1.0, n))[:, None], (n, days)).astype(float)
    return rate, exposures, rng.poisson(rate[:, None] * exposures).astype(float)


def test_is_a_classifier():
    """It offers what the loop asks of any classifier."""
    assert isinstance(BayesClassifier(WINDOW), Classifier)


def test_covers_the_truth_of_pooled_arms(outcomes_of):
    """Ninety-per-cent intervals hold the true rate in about ninety per cent of arms."""
    inside = []
    for seed in range(25):
        rate, exposures, counts = market(seed)
        signals = BayesClassifier(WINDOW, breaks_per_year=0).classify(outcomes_of(ARMS, exposures, counts))
        inside.append((signals.rate.low <= rate) & (rate <= signals.rate.high))
    assert abs(np.mean(inside) - 0.9) < 3 * np.sqrt(0.09 / 1000) + 0.005


def test_large_volume_matches_the_conjugate_posterior(outcomes_of):
    """With plenty of data and nothing to forget, the interval is scipy's Gamma posterior to a per cent."""
    exposures = np.full((2, 10), 1e6)
    counts = np.array([[20_000.0] * 10, [10_000.0] * 10])
    signals = BayesClassifier(WINDOW, breaks_per_year=0).classify(outcomes_of(ARMS[:2], exposures, counts))
    expected = stats.gamma.ppf([0.05, 0.5, 0.95], 200_000, scale=1 / 1e7)
    found = [signals.rate.low[0], signals.rate.estimate[0], signals.rate.high[0]]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_cost_is_the_inverse_image_of_the_rate(outcomes_of):
    """With clicks only, cost per conversion is cost per click over the rate, end by end."""
    _, exposures, counts = market(1)
    spend = exposures * 0.5
    s = BayesClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, counts, spend=spend))
    np.testing.assert_allclose(s.cost_per_conversion.high, 0.5 / s.rate.low, rtol=1e-8)
    np.testing.assert_allclose(s.cost_per_conversion.low, 0.5 / s.rate.high, rtol=1e-8)


def test_no_spend_means_unbounded_cost(outcomes_of):
    """Without spend nothing is claimed of the cost."""
    _, exposures, counts = market(1)
    s = BayesClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, counts))
    assert np.isinf(s.cost_per_conversion.high).all()
    assert (s.cost_per_conversion.low == 0).all()


def test_spend_of_zero_means_unbounded_cost(outcomes_of):
    """Free clicks beside paid ones: nothing is claimed of the free arm's cost, and the paid arms come first."""
    _, exposures, counts = market(1)
    spend = exposures * 0.5
    spend[7] = 0.0
    s = BayesClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, counts, spend=spend))
    assert np.isinf(s.cost_per_conversion.high[7])
    assert int(s.order[-1]) == 7
    assert np.isfinite(np.delete(s.cost_per_conversion.high, 7)).all()


def test_permuting_arms_permutes_the_signals(outcomes_of):
    """The listing order of arms does not matter, draws included."""
    _, exposures, counts = market(2)
    rng = np.random.default_rng(0)
    perm = rng.permutation(40)
    one = BayesClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, counts, spend=exposures))
    two = BayesClassifier(WINDOW).classify(outcomes_of([ARMS[i] for i in perm], exposures[perm], counts[perm], spend=exposures[perm]))
    for name in ("p_best", "expected_loss", "effective_volume", "weekly_conversions", "borrowed_share", "evidence_age"):
        np.testing.assert_array_equal(getattr(one, name)[perm], getattr(two, name))
    np.testing.assert_array_equal(one.rate.low[perm], two.rate.low)
    assert [one.arms[i] for i in one.order] == [two.arms[i] for i in two.order]


def test_the_currency_unit_does_not_matter(outcomes_of):
    """Cents or euros: costs scale, nothing else moves."""
    _, exposures, counts = market(3)
    one = BayesClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, counts, spend=exposures, value=counts * 7))
    two = BayesClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, counts, spend=exposures * 64, value=counts * 7 * 64))
    np.testing.assert_allclose(two.cost_per_conversion.high, one.cost_per_conversion.high * 64, rtol=1e-12)
    np.testing.assert_allclose(two.roas.estimate, one.roas.estimate, rtol=1e-9)
    np.testing.assert_array_equal(one.order, two.order)
    np.testing.assert_allclose(one.p_best, two.p_best)


def test_immature_exposure_counts_for_less(outcomes_of):
    """The same zero from half-mature cohorts rules out less."""
    exposures, counts = np.full((3, 4), 100.0), np.zeros((3, 4))
    counts[0] = 5
    whole = BayesClassifier(WINDOW).classify(outcomes_of(ARMS[:3], exposures, counts))
    half = BayesClassifier(WINDOW).classify(outcomes_of(ARMS[:3], exposures, counts, maturity=[1, 1, 0.5, 0.5]))
    assert (half.rate.high[1:] > whole.rate.high[1:]).all()
    assert (half.maturity < whole.maturity).all()


def test_probabilities_of_best_sum_to_one_and_find_the_best(outcomes_of):
    """One clearly better arm takes the probability and the first rank."""
    exposures = np.full((5, 14), 1000.0)
    counts = np.full((5, 14), 10.0)
    counts[3] = 30.0
    s = BayesClassifier(WINDOW).classify(outcomes_of(ARMS[:5], exposures, counts, spend=exposures))
    assert s.p_best.sum() == pytest.approx(1.0)
    assert s[0].arm == ARMS[3]
    assert s.p_best[3] > 0.99
    assert s.expected_loss[3] < 0.01


def test_evidence_decays_with_the_half_life(outcomes_of):
    """One half-life after the last data, the effective exposure has halved: the interval is that of half the data."""
    exposures, counts = np.full((1, 1), 1e5), np.full((1, 1), 1000.0)
    s = BayesClassifier(WINDOW, half_life="1d").classify(outcomes_of(ARMS[:1], exposures, counts))
    expected = stats.gamma.ppf(0.95, 500, scale=1 / 5e4)
    assert s.rate.high[0] == pytest.approx(expected, rel=0.01)
    assert s.evidence_age[0] == pytest.approx(1.0)


def test_untagged_exposure_lowers_the_tagged_share(outcomes_of):
    """Clicks of a platform without campaign weigh on that platform's arms only, and are not ranked."""
    arms = [("google", "a"), ("google", "b"), ("google", None), ("meta", "a")]
    exposures = np.array([[60.0], [40.0], [25.0], [10.0]])
    s = BayesClassifier(WINDOW).classify(outcomes_of(arms, exposures, np.zeros((4, 1))))
    assert len(s) == 3
    np.testing.assert_allclose(s.tagged_share, [0.8, 0.8, 1.0])


def test_kinds_of_touch_weigh_on_the_tagged_share_by_their_credit(outcomes_of):
    """All clicks are tagged and bring nine conversions of ten; of the views, which bring one, half lack a tag: 0.9 + 0.1 / 2."""
    arms = [("google", "a"), ("google", None)]
    clicks, views = np.array([[1000.0], [0.0]]), np.array([[50.0], [50.0]])
    outcomes = outcomes_of(arms, clicks, [[9.0], [0.0]], view_exposures=views, view_credit=[[1.0], [0.0]])
    np.testing.assert_allclose(BayesClassifier(WINDOW).classify(outcomes).tagged_share, [0.95])


def test_other_window_is_refused(outcomes_of):
    """Evidence made under another window is not mixed in."""
    outcomes = outcomes_of(ARMS[:1], [[1.0]], [[0.0]])
    with pytest.raises(WindowMismatchError, match="7d"):
        BayesClassifier(AttributionWindow(click="1d")).classify(outcomes)


@pytest.mark.parametrize(
    ("exposures", "counts"),
    [
        ([[0.0]], [[0.0]]),
        ([[0.0]], [[3.0]]),
        ([[5.0]], [[9.0]]),
        ([[1e12]], [[0.0]]),
        ([[1e12]], [[1e10]]),
        ([[10.0], [20.0], [30.0]], [[0.0], [0.0], [0.0]]),
        (np.empty((0, 3)), np.empty((0, 3))),
    ],
)
def test_thin_and_strange_counts_give_ordered_intervals(outcomes_of, exposures, counts):
    """Nothing at all, nothing but zeros, more conversions than clicks, a trillion: an interval, finite or said to be unbounded."""
    s = BayesClassifier(WINDOW).classify(outcomes_of(ARMS[: len(exposures)], exposures, counts))
    assert len(s) == len(exposures)
    for intervals in (s.rate, s.cost_per_conversion):
        assert not np.isnan(intervals.estimate).any()
    assert np.isfinite(s.p_best).all()
    if np.sum(exposures) == 0:
        assert np.isinf(s.rate.high).all()
    repr(s), s.to_frame(), s._repr_html_()


def test_cohort_in_the_future_is_named(outcomes_of):
    """A clock gone wrong is an error with the arm and the day."""
    outcomes = outcomes_of(ARMS[:1], [[1.0]], [[0.0]])
    with pytest.raises(InputError, match=r"c000.*future"):
        BayesClassifier(WINDOW).classify(outcomes, now=datetime(2024, 9, 1, tzinfo=UTC))
    BayesClassifier(WINDOW).classify(outcomes, now=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=20_001))


def test_negative_credit_is_named(outcomes_of):
    """A refund is not a conversion count."""
    with pytest.raises(InputError, match="credit"):
        BayesClassifier(WINDOW).classify(outcomes_of(ARMS[:1], [[10.0]], [[-1.0]]))


def test_import_is_light():
    """Importing the room loads no heavy library."""
    code = "import sys, closedloop.classify; print([m for m in ('scipy.stats', 'pandas', 'matplotlib', 'pandera') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
