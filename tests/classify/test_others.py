"""The other classifiers, and what signals say of themselves."""

import numpy as np
import pytest
from scipy import stats

from closedloop.classify import BayesClassifier, LastWindowClassifier, ModelClassifier, SequenceClassifier
from closedloop.errors import ConfigurationError, InputError
from closedloop.interfaces import Classifier
from closedloop.records.interval import Interval
from closedloop.records.window import AttributionWindow

WINDOW = AttributionWindow(click="7d", view="1d")
ARMS = [("google" if i % 2 else "meta", f"c{i:03d}") for i in range(60)]


class Averages:
    """A bandit with MABWiser's interface: greedy on mean rewards."""

    def fit(self, decisions, rewards):
        self.mean = {str(d): float(r) for d, r in zip(decisions, rewards, strict=True)}

    def predict_expectations(self):
        return self.mean


class Ridge:
    """A regressor with scikit-learn's interface."""

    def fit(self, features, y, sample_weight=None):
        w = np.ones(len(y)) if sample_weight is None else sample_weight / sample_weight.mean()
        self.centre = np.average(y, weights=w)
        a = features.T @ (features * w[:, None]) + 0.5 * np.eye(features.shape[1])
        self.slope = np.linalg.solve(a, features.T @ (w * (y - self.centre)))

    def predict(self, features):
        return self.centre + features @ self.slope


def market(seed=0, days=28, volume=200.0, n=60):
    rng = np.random.default_rng(seed)
    rate = rng.gamma(3.0, 0.02 / 3.0, n)
    exposures = rng.poisson(volume, (n, days)).astype(float)
    return rate, exposures, rng.poisson(rate[:, None] * exposures).astype(float)


EVERY = [
    BayesClassifier(WINDOW),
    LastWindowClassifier(WINDOW),
    SequenceClassifier(WINDOW),
    ModelClassifier(WINDOW, Averages()),
    ModelClassifier(WINDOW, Ridge()),
]


@pytest.mark.parametrize("classifier", EVERY, ids=lambda c: type(c).__name__)
def test_every_classifier_ranks_and_can_be_shown(outcomes_of, classifier):
    """Same door, same record: ordered intervals, probabilities that sum to 1, a permutation as order, and the clear winner near the top."""
    rate, exposures, counts = market()
    assert isinstance(classifier, Classifier)
    signals = classifier.classify(outcomes_of(ARMS, exposures, counts, spend=exposures * 0.3, value=counts * 5.0))
    assert sorted(signals.order.tolist()) == list(range(60))
    assert signals.p_best.sum() == pytest.approx(1.0)
    assert int(np.argmax(rate)) in signals.order[:10] or isinstance(getattr(classifier, "model", None), Ridge)
    assert signals.rank_interval is not None
    assert (signals.rank_interval.low >= 1).all()
    for text in (repr(signals), signals._repr_html_(), signals.explain(ARMS[3])):
        assert text


@pytest.mark.parametrize("classifier", EVERY, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize(
    ("exposures", "counts"),
    [([[0.0]], [[0.0]]), ([[5.0]], [[9.0]]), ([[1e12], [3.0]], [[0.0], [1.0]]), (np.empty((0, 2)), np.empty((0, 2)))],
)
def test_every_classifier_survives_thin_data(outcomes_of, classifier, exposures, counts):
    """No data, more conversions than clicks, extremes: an ordered interval."""
    signals = classifier.classify(outcomes_of(ARMS[: len(exposures)], exposures, counts))
    assert not np.isnan(signals.rate.estimate).any()
    assert not np.isnan(signals.p_best).any()


def test_last_window_is_the_raw_ratio(outcomes_of):
    """The estimate is conversions over clicks of the last seven days, nothing else; the interval is the Jeffreys interval."""
    _, exposures, counts = market()
    signals = LastWindowClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, counts))
    np.testing.assert_allclose(signals.rate.estimate, counts[:, -7:].sum(axis=1) / exposures[:, -7:].sum(axis=1))
    expected = stats.gamma.ppf(0.95, counts[:, -7:].sum(axis=1) + 0.5, scale=1 / exposures[:, -7:].sum(axis=1))
    np.testing.assert_allclose(signals.rate.high, expected, rtol=1e-9)


def test_sequence_is_wider_and_uses_closed_cohorts_only(outcomes_of):
    """What is not yet closed does not enter; validity at every look costs width."""
    _, exposures, counts = market()
    maturity = np.where(np.arange(28) < 21, 1.0, 0.6)
    signals = SequenceClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, counts, maturity=maturity))
    other = counts.copy()
    other[:, 21:] = 77
    same = SequenceClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, other, maturity=maturity))
    np.testing.assert_array_equal(signals.rate.high, same.rate.high)
    closed = counts[:, :21].sum(axis=1), exposures[:, :21].sum(axis=1)
    fixed = stats.gamma.ppf(0.95, closed[0] + 0.5, scale=1 / closed[1]) - stats.gamma.ppf(0.05, closed[0] + 0.5, scale=1 / closed[1])
    assert (signals.rate.high - signals.rate.low > fixed).all()
    assert signals.rate.kind == "anytime"


def test_sequence_refuses_fractional_credit(outcomes_of):
    """Multi-touch credit is no count."""
    with pytest.raises(InputError, match="whole"):
        SequenceClassifier(WINDOW).classify(outcomes_of(ARMS[:1], [[10.0]], [[0.5]]))


def test_conformal_intervals_hold_the_next_observed_rate(outcomes_of):
    """For exchangeable arms, the interval holds the rate observed over the next stretch about nine times in ten."""
    inside = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rate, exposures, counts = market(seed)
        signals = ModelClassifier(WINDOW, Averages()).classify(outcomes_of(ARMS, exposures, counts))
        following = rng.poisson(rate[:, None] * exposures[:, 14:]).sum(axis=1) / exposures[:, 14:].sum(axis=1)
        inside.append((signals.rate.low <= following) & (following <= signals.rate.high))
    assert 0.87 < np.mean(inside) <= 0.97


def test_too_few_arms_for_a_conformal_interval_is_said(outcomes_of):
    """Five arms cannot carry a 90 % conformal interval: it is unbounded."""
    _, exposures, counts = market(n=5)
    signals = ModelClassifier(WINDOW, Averages()).classify(outcomes_of(ARMS[:5], exposures, counts))
    assert np.isinf(signals.rate.high).all()


def test_a_model_without_an_interface_is_refused():
    """The valid interfaces are listed."""
    with pytest.raises(ConfigurationError, match="predict_expectations"):
        ModelClassifier(WINDOW, object())


def test_untagged_conversions_widen_to_the_identified_set(outcomes_of):
    """The interval reaches what the arm's rate would be with all, and with none, of the untagged conversions its own."""
    arms = [("google", "a"), ("google", "b"), ("google", None), ("meta", "a")]
    exposures, counts = np.full((4, 1), 1e5), np.array([[1000.0], [2000.0], [500.0], [1000.0]])
    exposures[2] = 5e4
    signals = BayesClassifier(WINDOW, breaks_per_year=0).classify(outcomes_of(arms, exposures, counts, spend=exposures))
    assert signals.rate.kind == "identified"
    assert signals.rate.low[0] < 1000 / 1.5e5
    assert signals.rate.high[0] > 1500 / 1e5
    # Imbens and Manski: one-sided ends when the set is wide, here at 90 %.
    assert signals.rate.high[0] == pytest.approx(stats.gamma.ppf(0.9, 1500, scale=1e-5), rel=0.01)
    assert signals.rate.high[2] == pytest.approx(stats.gamma.ppf(0.95, 1000, scale=1e-5), rel=0.01)  # the other platform's arm


def test_signals_filter_sort_take_and_explain(outcomes_of):
    """Parts keep their numbers; words carry them."""
    _, exposures, counts = market()
    signals = BayesClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, counts, spend=exposures * 0.3))
    google = signals.filter(platform="google")
    assert len(google) == 30
    assert google.at(google.arms.index(ARMS[1])).rate == signals.at(1).rate
    assert [s.arm for s in google] == [s.arm for s in signals if s.arm[0] == "google"]
    by_volume = signals.sort("effective_volume")
    assert (np.diff(signals.effective_volume[by_volume.order]) <= 0).all()
    assert len(signals.take(signals.effective_volume > np.median(signals.effective_volume))) == 30
    words = signals.explain(ARMS[1])
    assert "rank" in words
    assert str(signals.at(1).rate) in words
    with pytest.raises(ConfigurationError, match="by"):
        signals.sort("colour")
    with pytest.raises(ConfigurationError, match="no such arm"):
        signals.explain(("nobody", "x"))


def test_signals_can_be_drawn(outcomes_of):
    """A forest plot of any of the intervals."""
    pytest.importorskip("matplotlib").use("Agg")
    _, exposures, counts = market()
    signals = BayesClassifier(WINDOW).classify(outcomes_of(ARMS, exposures, counts, spend=exposures * 0.3))
    assert signals.plot() is not None
    assert signals.plot(what="rank_interval") is not None
    with pytest.raises(ConfigurationError, match="what"):
        signals.plot(what="roas")


def test_views_and_clicks_add_up_in_the_cost(outcomes_of):
    """An arm with both kinds of touch: cost per conversion agrees with draws of the sum from scipy."""
    exposures, counts = np.full((1, 1), 1e4), np.full((1, 1), 100.0)
    views, view_counts = np.full((1, 1), 1e5), np.full((1, 1), 50.0)
    outcomes = outcomes_of(ARMS[:1], exposures, counts, spend=[[300.0]], view_exposures=views, view_credit=view_counts)
    signals = BayesClassifier(WINDOW, breaks_per_year=0).classify(outcomes)
    draws = stats.gamma.rvs(100, size=200_000, random_state=0) + stats.gamma.rvs(50, size=200_000, random_state=1)
    assert signals.cost_per_conversion.high[0] == pytest.approx(np.quantile(300 / draws, 0.95), rel=0.03)
    assert signals.cost_per_conversion.low[0] == pytest.approx(np.quantile(300 / draws, 0.05), rel=0.03)


def test_incrementality_multiplies_with_its_uncertainty(outcomes_of):
    """Caused rates follow the product of scipy's Gamma and the factor's distribution; arms without a factor stay as they are."""
    exposures, counts = np.full((2, 1), 1e5), np.full((2, 1), 400.0)
    factor = Interval(low=0.2, estimate=0.4, high=0.6, level=0.9, kind="credible")
    outcomes = outcomes_of(ARMS[:2], exposures, counts, spend=exposures)
    plain = BayesClassifier(WINDOW, breaks_per_year=0).classify(outcomes)
    caused = BayesClassifier(WINDOW, breaks_per_year=0, incrementality={ARMS[0]: factor}).classify(outcomes)
    rng = np.random.default_rng(0)
    draws = rng.gamma(400, 1e-5, 400_000) * np.abs(rng.normal(0.4, 0.2 / 1.6449, 400_000))  # below zero in 5 of 10,000 draws
    found = [caused.rate.low[0], caused.rate.estimate[0], caused.rate.high[0]]
    np.testing.assert_allclose(found, np.quantile(draws, [0.05, 0.5, 0.95]), rtol=0.02)
    assert caused.rate.high[1] == pytest.approx(plain.rate.high[1], rel=1e-4)
    assert caused[0].arm == ARMS[1]
    assert "caused" in caused.classifier


def test_an_unbounded_incrementality_is_refused(outcomes_of):
    """The arm and what would do are named."""
    unknown = Interval(low=0.0, estimate=0.5, high=np.inf, level=0.9, kind="credible")
    with pytest.raises(ConfigurationError, match="c000"):
        BayesClassifier(WINDOW, incrementality={ARMS[0]: unknown}).classify(outcomes_of(ARMS[:1], [[10.0]], [[1.0]]))


def test_a_real_bandit_and_a_real_regressor_serve(outcomes_of):
    """MABWiser's greedy bandit gives the raw ratios back; scikit-learn's forest gives finite rates, both with intervals."""
    mab = pytest.importorskip("mabwiser.mab")
    ensemble = pytest.importorskip("sklearn.ensemble")
    _, exposures, counts = market()
    outcomes = outcomes_of(ARMS, exposures, counts)
    bandit = mab.MAB(arms=outcomes.arms.labels(), learning_policy=mab.LearningPolicy.EpsilonGreedy(epsilon=0.0))
    found = ModelClassifier(WINDOW, bandit).classify(outcomes)
    np.testing.assert_allclose(found.rate.estimate, counts.sum(axis=1) / exposures.sum(axis=1), rtol=1e-9)
    forest = ModelClassifier(WINDOW, ensemble.RandomForestRegressor(20, random_state=0)).classify(outcomes)
    assert (forest.rate.high > forest.rate.low).all()


def test_groups_of_one_and_groups_of_zeros(outcomes_of):
    """A group of one arm borrows from the other groups; a group without any conversion keeps a finite upper end."""
    arms = [("a", "x"), ("b", "x"), ("b", "y"), ("b", "z"), ("c", "x"), ("c", "y"), ("d", "x")]
    exposures = np.full((7, 3), 200.0)
    counts = np.array([[4.0], [0], [0], [0], [3], [5], [2]]) * np.ones((1, 3))
    signals = BayesClassifier(WINDOW).classify(outcomes_of(arms, exposures, counts))
    assert np.isfinite(signals.rate.high).all()
    assert (signals.rate.high[1:4] < signals.rate.low[4:6].max()).all()
    assert signals.rate.low[0] <= 0.02 <= signals.rate.high[0]
