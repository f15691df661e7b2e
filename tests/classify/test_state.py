"""Updating equals refitting; merging equals the union; saved states come back: through the door that users take."""

import io
import zipfile

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from closedloop.classify import BayesClassifier
from closedloop.classify.rates import Learned
from closedloop.classify.state import RateState
from closedloop.errors import ConfigurationError, InputError
from closedloop.records.outcomes import DelayCurve
from closedloop.records.window import AttributionWindow
from closedloop.stats.gamma_poisson import GroupPriors

WINDOW = AttributionWindow(click="7d", view="1d")
DAYS, ARMS = 24, 8
LAST = 20_000 + DAYS - 1
NAMES = [("google" if i % 2 else "meta", f"c{i}") for i in range(ARMS)]
SHARE = np.array([0.3, 0.6, 0.8, 0.9, 0.96, 1.0])
CURVE = DelayCurve(
    observed=np.full(6, 20.0), at_risk=np.full(6, 60.0), shape_a=np.full(6, 20.0), shape_b=np.full(6, 40.0), share_seen=SHARE
)
AGE = DAYS - np.arange(DAYS)
MATURITY = SHARE[np.minimum(AGE, 6) - 1]
RECENCIES = [{}, {"half_life": "10d"}, {"breaks_per_year": 0.0}]


def grids(seed, broken=0.0):
    rng = np.random.default_rng(seed)
    exposures = rng.poisson(150, (ARMS, DAYS)).astype(float)
    path = rng.gamma(3, 0.02, ARMS)[:, None] * np.where(np.arange(DAYS) > 14, np.exp(broken * rng.normal(size=(ARMS, 1))), 1.0)
    return exposures, rng.poisson(path * exposures * MATURITY).astype(float)


@pytest.fixture
def made(outcomes_of):
    """Outcomes of eight arms with a delay curve whose uncertainty is carried along."""
    return lambda exposures, credit: outcomes_of(NAMES, exposures, credit, maturity=MATURITY, delay={"click": CURVE})


def assert_same(one, two, rtol=1e-9):
    for name in ("shape", "rate", "weight"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=rtol, atol=1e-300)


def assert_equal(one, two):
    for name in ("key", "count", "squared", "exposure", "revision"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert_same(one.mixture, two.mixture)


@pytest.mark.parametrize("recency", RECENCIES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_update_equals_a_refit_of_the_restated_outcomes(made, recency, seed):
    """Some cohorts restated, old and new: the updated posterior is that of classifying everything again, to 1e-9, breaks and drift too."""
    classifier = BayesClassifier(WINDOW, **recency)
    exposures, credit = grids(seed, broken=1.0)
    state = classifier.start(made(exposures, credit))["click"]
    assert_same(state.mixture, classifier.classify(made(exposures, credit)).posteriors["click"])
    rng = np.random.default_rng(seed + 10)
    arm, day = np.divmod(rng.choice(ARMS * DAYS, 17, replace=False), DAYS)
    credit[arm, day] += rng.poisson(9, 17)
    exposures[arm, day] += 40
    mature = exposures[arm, day] * MATURITY[day]
    updated = state.update(arm, 20_000 + day, credit[arm, day], mature, revision=2)
    refit = classifier.classify(made(exposures, credit), learned={"click": state.learned})
    assert_same(updated.mixture, refit.posteriors["click"])
    untouched = np.setdiff1d(np.arange(ARMS), arm)
    np.testing.assert_array_equal(updated.mixture.shape[untouched], state.mixture.shape[untouched])


@pytest.mark.parametrize("recency", RECENCIES, ids=str)
def test_merged_parts_and_saved_bytes_are_the_whole(made, recency):
    """Cohorts split between two states and merged either way, or saved and read without pickle, are the state of all."""
    classifier = BayesClassifier(WINDOW, **recency)
    exposures, credit = grids(5, broken=1.0)
    whole = classifier.start(made(exposures, credit))["click"]
    empty = RateState.start(whole.learned, whole.group, whole.mark, half_life_days=whole.half_life_days)
    mine = np.random.default_rng(0).random(len(whole.key)) < 0.5
    parts = [
        empty.update(whole.key[at] >> 20, whole.key[at] & 0xFFFFF, whole.count[at], whole.exposure[at], revision=1) for at in (mine, ~mine)
    ]
    assert_equal(parts[0].merge(parts[1]), whole)
    assert_equal(parts[1].merge(parts[0]).merge(parts[0]), whole)
    assert_equal(RateState.load(whole.to_bytes()), whole)
    with zipfile.ZipFile(io.BytesIO(whole.to_bytes())) as file:
        assert not any(b"pickle" in file.read(name)[:128] or file.read(name)[:2] == b"\x80\x04" for name in file.namelist())


PRIORS = GroupPriors(
    k=np.array([[0.7, 4.0], [2.0, 2.0]]),
    weight=np.array([[0.4, 0.6], [1.0, 0.0]]),
    log_mu=np.log([[0.02, 0.03], [0.05, 0.05]]),
    sd_log_mu=np.array([[0.1, 0.2], [0.0, 0.0]]),
    informed=np.ones(2, dtype=bool),
)
LEARNED = Learned(
    hazard=0.005,
    priors=PRIORS,
    scatter=np.array([1.0, 1.5]),
    share=np.array([0.7, 0.1, 0.05, 0.05, 0.05, 0.05]),
    covariance=np.empty((0, 0)),
)
GROUP = np.array([0, 0, 0, 1, 1, 1], dtype=np.int32)


def start(half_life=None):
    learned = attrs.evolve(LEARNED, hazard=None) if half_life else LEARNED
    return RateState.start(learned, GROUP, np.full(6, float(LAST)), half_life_days=half_life)


rows = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(LAST - 30, LAST)), st.tuples(st.integers(0, 9), st.floats(10, 500)), max_size=20
)


def put(state, cohorts, revision):
    keys = list(cohorts)
    arm, day = np.array([k[0] for k in keys], dtype=np.int64), np.array([k[1] for k in keys], dtype=np.int64)
    count, exposure = np.array([float(cohorts[k][0]) for k in keys]), np.array([cohorts[k][1] for k in keys])
    return state.update(arm, day, count, exposure, revision=revision)


@settings(max_examples=25, deadline=None)
@given(rows, rows, st.sampled_from([None, 10.0]))
def test_laws_of_updating_and_merging(first, second, half_life):
    """Restating in two steps is stating the outcome; merging commutes, is idempotent, and is one update after the other by revision."""
    a, b = put(start(half_life), first, 1), put(start(half_life), second, 2)
    both = put(a, second, 2)
    assert_same(both.mixture, put(start(half_life), {**first, **second}, 2).mixture)
    assert_equal(a.merge(b), both)
    assert_equal(b.merge(a), both)
    assert_equal(a.merge(b).merge(b), both)
    assert_equal(RateState.load(both.to_bytes()), both)
    assert_equal(put(both, first, 1), both)  # an older revision changes nothing


def test_posterior_is_the_conjugate_one():
    """A group with one node and a known mean: scipy's Gamma, recency and tempering applied by hand."""
    state = put(start(10.0), {(4, LAST): (6, 100.0), (4, LAST - 10): (4, 100.0)}, 1)
    expected = stats.gamma(2.0 + (6 + 2) / 1.5, scale=1 / (40.0 + 150 / 1.5))
    assert state.mixture.mean[4] == pytest.approx(expected.mean(), rel=1e-9)


def test_strange_updates_are_named():
    """Unknown arm, future day, negative count, a pair twice, foreign bytes, another start, both kinds of recency."""
    for cohorts, match in (({(9, LAST): (1, 1.0)}, "arm"), ({(0, LAST + 1): (1, 1.0)}, "future"), ({(0, LAST): (-1, 1.0)}, "count")):
        with pytest.raises(InputError, match=match):
            put(start(), cohorts, 1)
    twice = np.array([0, 0]), np.array([LAST, LAST]), np.ones(2), np.ones(2)
    with pytest.raises(InputError, match="twice"):
        start().update(*twice, revision=1)
    with pytest.raises(InputError, match="no saved rates"):
        RateState.load(b"x")
    with pytest.raises(ConfigurationError, match="started alike"):
        start().merge(start(3.0))
    with pytest.raises(ConfigurationError, match="half"):
        RateState.start(LEARNED, GROUP, np.zeros(6), half_life_days=3.0)
