"""Updating equals refitting; merging equals the union; saved states come back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from closedloop.classify.state import RateState
from closedloop.errors import ConfigurationError, InputError
from closedloop.stats.gamma_poisson import GroupPriors

DAY = 20_000
ARMS = 6
PRIORS = GroupPriors(
    k=np.array([[0.7, 4.0], [2.0, 2.0]]),
    weight=np.array([[0.4, 0.6], [1.0, 0.0]]),
    log_mu=np.log([[0.02, 0.03], [0.05, 0.05]]),
    sd_log_mu=np.array([[0.1, 0.2], [0.0, 0.0]]),
    informed=np.ones(2, dtype=bool),
)
GROUP = np.array([0, 0, 0, 1, 1, 1], dtype=np.int32)


def start(half_life=10.0):
    return RateState.start(GROUP, PRIORS, np.array([1.0, 1.5]), day=DAY, half_life=half_life)


rows = st.dictionaries(
    st.tuples(st.integers(0, ARMS - 1), st.integers(DAY - 9, DAY)), st.tuples(st.integers(0, 9), st.floats(10, 500)), max_size=20
)


def put(state, cohorts, revision):
    keys = list(cohorts)
    arm, day = np.array([k[0] for k in keys], dtype=np.int64), np.array([k[1] for k in keys], dtype=np.int64)
    count, exposure = np.array([float(cohorts[k][0]) for k in keys]), np.array([cohorts[k][1] for k in keys])
    return state.update(arm, day, count, exposure, revision=revision)


def equal(one, two):
    for name in ("key", "count", "exposure", "revision"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    for name in ("shape", "rate", "weight"):
        np.testing.assert_allclose(getattr(one.mixture, name), getattr(two.mixture, name), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows, rows)
def test_update_equals_refit(first, second):
    """Restating some cohorts gives the posterior of all cohorts as they stand, to 1e-9."""
    updated = put(put(start(), first, 1), second, 2)
    whole = put(start(), {**first, **second}, 2)
    np.testing.assert_allclose(updated.mixture.shape, whole.mixture.shape, rtol=1e-9)
    np.testing.assert_allclose(updated.mixture.rate, whole.mixture.rate, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows, rows)
def test_merge_is_the_union_and_commutes(first, second):
    """Two parts merged, either way and even twice, are one update after the other in revision order."""
    a, b = put(start(), first, 1), put(start(), second, 2)
    both = put(a, second, 2)
    equal(a.merge(b), both)
    equal(b.merge(a), both)
    equal(a.merge(b).merge(b), both)


@settings(max_examples=20, deadline=None)
@given(rows)
def test_saved_state_comes_back(cohorts):
    """Bytes, no pickle, same numbers; equal states give equal posteriors."""
    state = put(start(np.inf), cohorts, 3)
    equal(RateState.load(state.to_bytes()), state)


def test_an_older_revision_changes_nothing():
    """Restatements may arrive in any order."""
    new = put(start(), {(0, DAY): (5, 100.0)}, 2)
    equal(put(new, {(0, DAY): (1, 90.0)}, 1), new)


def test_posterior_is_the_conjugate_one():
    """A group with one node and a known mean: scipy's Gamma, recency and tempering applied by hand."""
    state = put(start(10.0), {(4, DAY): (6, 100.0), (4, DAY - 10): (4, 100.0)}, 1)
    expected = stats.gamma(2.0 + (6 + 2) / 1.5, scale=1 / (40.0 + 150 / 1.5))
    assert state.mixture.mean[4] == pytest.approx(expected.mean(), rel=1e-9)


def test_strange_updates_are_named():
    """Unknown arm, future day, negative count, a pair twice, foreign bytes, another start."""
    for cohorts, match in (({(9, DAY): (1, 1.0)}, "arm"), ({(0, DAY + 1): (1, 1.0)}, "future"), ({(0, DAY): (-1, 1.0)}, "count")):
        with pytest.raises(InputError, match=match):
            put(start(), cohorts, 1)
    twice = np.array([0, 0]), np.array([DAY, DAY]), np.ones(2), np.ones(2)
    with pytest.raises(InputError, match="twice"):
        start().update(*twice, revision=1)
    with pytest.raises(InputError, match="no saved rates"):
        RateState.load(b"x")
    with pytest.raises(ConfigurationError, match="merge"):
        start().merge(start(3.0))
