"""Evidence valid at every look: a martingale by enumeration, false alarms by simulation, power by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate
from scipy.stats import binom, norm

from closedloop.stats.sequences_share import certain, log_evidence


def test_its_expectation_under_the_null_is_one():
    """One period, 12 events, a share of 0.3: the e-values weighted by exact binomial probabilities sum to 1, on both sides."""
    share, n = 0.3, 12
    k = np.arange(n + 1)
    pairs = [log_evidence(np.array([[x, n - x]], dtype=float), np.array([[share, 1 - share]]), exponents=(1.0,)) for x in k]
    weights = binom.pmf(k, n, share)
    for side in (0, 1):
        assert (weights * np.exp([p[side][0, 0] for p in pairs])).sum() == pytest.approx(1.0, rel=1e-12)


def test_evidence_multiplies_over_periods():
    """The path ends where the whole ends: each row is what the data up to then say."""
    rng = np.random.default_rng(5)
    count, exposure = rng.poisson(9.0, (10, 3)).astype(float), rng.uniform(1, 2, (10, 3))
    more, less = log_evidence(count, exposure)
    part = log_evidence(count[:4], exposure[:4])
    np.testing.assert_allclose(more[3], part[0][-1])
    np.testing.assert_allclose(less[3], part[1][-1])


def test_the_answer_is_that_of_the_path():
    """What is certain at the end is what the path's last row says, for all streams or for some."""
    rng = np.random.default_rng(6)
    count, exposure = rng.poisson([9.0, 14.0, 9.0, 3.0], (30, 4)).astype(float), rng.uniform(1, 1.2, (30, 4))
    more, less = log_evidence(count, exposure)
    better, worse = certain(count, exposure, alpha=0.1)
    np.testing.assert_array_equal(better, more[-1] >= np.log(80))
    np.testing.assert_array_equal(worse, less[-1] >= np.log(80))
    assert better[1]
    assert worse[3]
    some = certain(count, exposure, alpha=0.1, streams=[3, 1])
    np.testing.assert_array_equal(some[0], better[[3, 1]])


@pytest.mark.parametrize("arm", [0, 1, 2, 3])
def test_the_answer_turns_where_the_evidence_meets_its_limit(arm):
    """With a level at which the path's last row just passes (or just misses) ``log(2 A / alpha)``, the answer is yes (or no)."""
    rng = np.random.default_rng(6)
    count, exposure = rng.poisson([9.0, 14.0, 9.0, 3.0], (30, 4)).astype(float), rng.uniform(1, 1.2, (30, 4))
    for side, evidence in enumerate(log_evidence(count, exposure)):
        for shift, wanted in ((1e-9, True), (-1e-9, False)):
            alpha = 8.0 / np.exp(evidence[-1, arm] - shift)
            assert certain(count, exposure, alpha=alpha, streams=[arm])[side].tolist() == [wanted]


def run(rng, arms, effect, *, days=56, beta=0.65, widest=4.0):
    """Paths of evidence of one run in which spend chases yesterday's winners, at most ``widest``-fold from the start."""
    spend = np.full(arms, 100.0)
    counts, exposures = [], []
    for _ in range(days):
        level = 6.0 * (spend / 100.0) ** beta
        level[0] *= effect
        counts.append(rng.poisson(level).astype(float))
        exposures.append(spend.copy())
        rate = np.sum(counts, axis=0) / np.sum(exposures, axis=0)
        spend = np.clip(spend * np.clip(rate / rate.mean(), 0.9, 1.1), 100.0 / widest, 100.0 * widest)
    return np.array(counts), np.array(exposures)


def test_false_alarms_stay_under_the_level():
    """Identical arms, 56 looks, budgets that chase noise: an alarm at any look in at most 10 % of 300 runs."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        more, less = log_evidence(*run(rng, 6, 1.0))
        alarms += bool(max(more.max(), less.max()) >= np.log(2 * 6 / 0.1))
    assert alarms <= 30


def test_a_real_difference_is_found():
    """An arm that is 1.8 times as good is certain within 56 days in most runs in which budgets move by at most a fifth."""
    rng = np.random.default_rng(1)
    found = [certain(*run(rng, 6, 1.8, widest=1.2), alpha=0.1)[0] for _ in range(20)]
    assert np.mean([f[0] for f in found]) >= 0.75
    assert not np.any([f[1:] for f in found])


def test_empty_and_single_streams_say_nothing():
    """No data and no rivals are no evidence."""
    better, worse = certain(np.zeros((0, 3)), np.zeros((0, 3)), alpha=0.1)
    assert not better.any()
    assert not worse.any()
    for answer in (
        *certain(np.zeros((4, 0)), np.zeros((4, 0)), alpha=0.1),
        *certain(np.ones((4, 3)), np.ones((4, 3)), alpha=0.1, streams=[]),
    ):
        assert answer.tolist() == []
    more, _ = log_evidence(np.array([[5.0]]), np.array([[10.0]]))
    np.testing.assert_allclose(more, 0.0, atol=1e-12)


def test_it_is_the_mean_over_half_a_normal_of_the_log_odds():
    """Quadrature over a half-Normal of scale one half, of exact binomial likelihood ratios; the least over the documented exponents."""
    count, exposure = np.array([[12.0, 5.0], [9.0, 8.0]]), np.array([[4.0, 6.0], [5.0, 2.0]])
    more, less = log_evidence(count, exposure)
    for side, sign, found in ((0, 1.0, more), (1, -1.0, less)):
        least = np.inf
        for beta in (0.3, 0.5, 0.7, 0.85, 1.0):
            share = exposure[:, 0] ** beta / (exposure**beta).sum(axis=1)

            def ratio(g, share=share, sign=sign):
                tilted = np.exp(sign * g) * share / (1 + np.expm1(sign * g) * share)
                logs = binom.logpmf(count[:, 0], count.sum(axis=1), tilted) - binom.logpmf(count[:, 0], count.sum(axis=1), share)
                return 2 * norm.pdf(g, 0, 0.5) * np.exp(logs.sum())

            least = min(least, integrate.quad(ratio, 0, 4)[0])
        assert found[-1, 0] == pytest.approx(np.log(least), abs=0.02), side


def test_streams_without_exposure_say_nothing_and_are_asked_nothing():
    """A period that only one stream was shown in has no null to test; a stream without exposure takes no part of the others'."""
    count, exposure = np.array([[9.0, 0.0, 4.0]]), np.array([[5.0, 0.0, 5.0]])
    more, less = log_evidence(count, exposure)
    assert more[0, 1] == pytest.approx(0.0, abs=1e-12)
    assert less[0, 1] == pytest.approx(0.0, abs=1e-12)
    alone = log_evidence(count[:, [0, 2]], exposure[:, [0, 2]])
    np.testing.assert_allclose(more[0, [0, 2]], alone[0][0])
    both, weak = certain(np.repeat([[60.0, 0.0, 10.0]], 9, axis=0), np.repeat(exposure, 9, axis=0), alpha=0.1)
    assert both.tolist() == [True, False, False]
    assert weak.tolist() == [False, False, True]
