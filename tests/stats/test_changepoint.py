"""The posterior of the last break, against enumeration with scipy and against simulated histories."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from closedloop.stats.changepoint import last_break, shares, walk, weights


def enumerated(count, exposure, days, k, mu, k_after, hazard):
    """Sum over every segmentation, with scipy's negative binomial as evidence of a block given the segment so far."""
    blocks = len(count)
    gap = [(days[i] + days[i + 1]) / 2 for i in range(blocks - 1)]
    out = np.zeros(blocks)
    for size in range(blocks):
        for cuts in combinations(range(1, blocks), size):
            log_p = sum(np.log(1 - (1 - hazard) ** g) if i + 1 in cuts else g * np.log(1 - hazard) for i, g in enumerate(gap))
            edges = [0, *cuts, blocks]
            for first, end in pairwise(edges):
                shape, rate = (k, k / mu) if first == 0 else (k_after, k_after / mu)
                for b in range(first, end):
                    log_p += stats.nbinom.logpmf(count[b], shape, rate / (rate + exposure[b]))
                    shape, rate = shape + count[b], rate + exposure[b]
            out[edges[-2]] += np.exp(log_p)
    return out / out.sum()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.floats(1, 500), st.integers(1, 20)), min_size=1, max_size=5), st.floats(0.001, 0.3))
def test_equals_the_sum_over_all_segmentations(rows, hazard):
    """Dynamic programming gives what enumeration gives."""
    count, exposure, days = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = last_break(count[None], exposure[None], days, k=np.array([2.5]), mu=np.array([0.07]), k_after=0.8, hazards=[hazard])[0][0, 0]
    np.testing.assert_allclose(found, enumerated(count, exposure, days, 2.5, 0.07, 0.8, hazard), rtol=1e-7, atol=1e-12)


def test_units_do_not_touch_each_other():
    """Chunks or not, each unit's answer is its own."""
    rng = np.random.default_rng(0)
    count, exposure = rng.poisson(5, (40_000, 4)).astype(float), np.full((40_000, 4), 100.0)
    args = {"k": np.ones(40_000), "mu": np.full(40_000, 0.05), "k_after": 1.0, "hazards": [0.01]}
    whole = last_break(count, exposure, np.ones(4), **args)[0][0]
    one = last_break(count[-1:], exposure[-1:], np.ones(4), k=np.ones(1), mu=np.full(1, 0.05), k_after=1.0, hazards=[0.01])[0][0]
    np.testing.assert_allclose(whole[-1], one[0], rtol=1e-12)
    np.testing.assert_allclose(whole.sum(axis=1), 1.0)


def test_is_calibrated_when_the_model_is_true():
    """Where it says p, a break is found in a share p of histories (reliability over 20,000 draws from the model)."""
    rng = np.random.default_rng(1)
    n, blocks, hazard, mu, k = 20_000, 8, 0.05, 0.05, 1.5
    exposure = np.full((n, blocks), 200.0)
    start = np.zeros(n, dtype=int)
    rate = rng.gamma(k, mu / k, n)
    count = np.empty((n, blocks))
    for b in range(blocks):
        broke = (rng.random(n) < hazard) & (b > 0)
        rate = np.where(broke, rng.gamma(k, mu / k, n), rate)
        start[broke] = b
        count[:, b] = rng.poisson(rate * exposure[:, b])
    p = 1 - last_break(count, exposure, np.ones(blocks), k=np.full(n, k), mu=np.full(n, mu), k_after=k, hazards=[hazard])[0][0, :, 0]
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.01)):
        bin_ = (p >= low) & (p < high)
        said, true = p[bin_].mean(), (start[bin_] > 0).mean()
        assert abs(said - true) < 4 * np.sqrt(said * (1 - said) / bin_.sum()) + 1e-3


def test_no_hazard_never_breaks():
    """With hazard 0 the whole history is one segment, whatever the counts."""
    found = last_break(np.array([[0.0, 900.0]]), np.ones((1, 2)), np.ones(2), k=np.ones(1), mu=np.ones(1), k_after=1.0, hazards=[0.0])[0][0]
    assert found.tolist() == [[pytest.approx(1.0), 0.0]]


def test_a_walk_without_steps_is_calm():
    """A walk that stands still is the calm model: same evidence, same posterior."""
    rng = np.random.default_rng(2)
    count, exposure = rng.poisson(5, (20, 6)).astype(float), rng.uniform(50, 150, (20, 6))
    k, mu = np.full(20, 2.0), np.full(20, 0.05)
    shape, rate, left, evidence = (found[0] for found in walk(count, exposure, np.ones(6), k=k, mu=mu, sd=[0.0]))
    _, calm = last_break(count, exposure, np.ones(6), k=k, mu=mu, k_after=1.0, hazards=[0.0])
    np.testing.assert_allclose(evidence, calm[0], rtol=1e-8)
    np.testing.assert_allclose(shape, 2.0 + count.sum(axis=1))
    np.testing.assert_allclose(rate, 40.0 + exposure.sum(axis=1), rtol=1e-6)
    assert (left == 1.0).all()


@pytest.mark.parametrize("sd", [0.03, 0.1])
@pytest.mark.parametrize("daily", [2.0, 40.0, 1000.0])
def test_a_walk_is_followed_as_well_as_the_kalman_filter_can(sd, daily):
    """Rates that walk at random: intervals hold 90 %, and the log rate's spread is the steady state of the scalar Riccati equation."""
    rng = np.random.default_rng(3)
    n, days = 1000, 40
    path = rng.gamma(3, 1 / 3, n)[:, None] * np.exp(np.cumsum(rng.normal(0, sd, (n, days)), axis=1))
    count, exposure = rng.poisson(daily * path).astype(float), np.full((n, days), daily)
    shape, rate = (found[1] for found in walk(count, exposure, np.ones(days), k=np.full(n, 3.0), mu=np.ones(n), sd=[0.5, sd])[:2])
    low, high = stats.gamma.ppf([[0.05], [0.95]], shape, scale=1 / rate)
    assert abs(((low < path[:, -1]) & (path[:, -1] < high)).mean() - 0.9) < 3 * np.sqrt(0.09 / n) + 0.01
    if daily >= 40:  # variance p of the log rate r: 1 / p = 1 / (p + sd^2) + daily * r
        information = daily * path[:, -1]
        p = 0.5 * (-(sd**2) + np.sqrt(sd**4 + 4 * sd**2 / information))
        assert np.median(np.sqrt(1 / shape) / np.sqrt(p)) == pytest.approx(1.0, abs=0.06)


def test_a_steady_trend_is_followed_to_its_end():
    """Rates that rise or fall by a known share a day: with that slope the posterior is that of counts put forward to today, by scipy."""
    rng = np.random.default_rng(5)
    days, slope = np.array([3.0, 2.0, 1.0]), 0.2
    count, exposure = rng.poisson(6, (4, 3)).astype(float), rng.uniform(50, 150, (4, 3))
    shape, rate, left, evidence = (
        found[1]
        for found in walk(count, exposure, days, k=np.full(4, 2.0), mu=np.full(4, 0.05), sd=np.zeros(2), slope=np.array([0.0, slope]))
    )
    before = np.exp(-slope * np.array([4.0, 1.5, 0.0]))  # from the middle of each block to that of the newest
    np.testing.assert_allclose(shape, 2.0 + count.sum(axis=1))
    np.testing.assert_allclose(rate, 40.0 * before[0] + (exposure * before).sum(axis=1), rtol=1e-9)
    for i in range(4):  # evidence: each block given those before it, less what all models leave out
        a, b, log_p = 2.0, 40.0 * before[0], 0.0
        for c, x in zip(count[i], exposure[i] * before, strict=True):
            log_p += stats.nbinom.logpmf(c, a, b / (b + x)) - (c * np.log(x) - special.gammaln(c + 1))
            a, b = a + c, b + x
        shift = (count[i] * np.log(before)).sum()  # put forward, a count's exposure is smaller: its own factor
        assert evidence[i] == pytest.approx(log_p + shift, abs=1e-6)
    assert (left == 1.0).all()


TEMPLATES, PRIOR = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([0.8, 0.2])


def test_shares_find_the_mixture():
    """With decisive evidence and thousands of units, the shares are those of the units."""
    evidence = np.zeros((2, 3000))
    evidence[0, :2100] = 50
    evidence[1, 2100:] = 50
    np.testing.assert_allclose(shares(evidence, TEMPLATES, PRIOR), [0.7, 0.3], atol=0.005)


def test_many_units_that_each_say_little_choose_a_template():
    """Two to one for the second model, from each of fifty units, is much; from one it is not."""
    weak = np.log(np.array([[1.0], [2.0]]))
    few, many = shares(weak, TEMPLATES, PRIOR), shares(np.repeat(weak, 50, axis=1), TEMPLATES, PRIOR)
    assert few[0] > 0.6
    assert many[1] > 0.9
    # Bayes' rule by hand for one unit: the template's probability, then the model's.
    first = 0.8 * (0.9 + 2 * 0.1)
    template = first / (first + 0.2 * (0.1 + 2 * 0.9))
    base = template * 0.9 + (1 - template) * 0.1
    share = few[0]
    posterior = share / (share + 2 * (1 - share))
    assert share == pytest.approx((20 * base + posterior) / 21, rel=1e-9)


def test_weights_are_bayes_rule():
    """Shares times evidence, made to sum to one for each unit, however large the evidences."""
    evidence = np.array([[1000.0, 0.0], [1000.0 + np.log(3.0), -2.0]])
    found, whole = weights(evidence, np.array([0.6, 0.4]))
    np.testing.assert_allclose(found[:, 0], [0.6 / 1.8, 1.2 / 1.8])
    np.testing.assert_allclose(found[:, 1], np.array([0.6, 0.4 * np.exp(-2)]) / (0.6 + 0.4 * np.exp(-2)))
    np.testing.assert_allclose(whole, [1000.0 + np.log(1.8), np.log(0.6 + 0.4 * np.exp(-2))])
