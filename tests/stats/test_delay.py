"""The prior of delays against the log-normal distribution that it is made of."""

import numpy as np
import pytest
from scipy import integrate, stats

from closedloop.stats.delay import (
    draw_share_seen,
    maturity,
    posterior,
    prior_shares,
    reach,
    reverse_sums,
    reverse_sums_by_group,
    share_seen,
    shrinkage,
)


def test_the_prior_is_a_log_normal_seen_from_a_uniform_start():
    """The share seen by the end of a day is the distribution's, cut at the window's end, over starts spread evenly in day 0."""
    median, sigma, n = 2.0, 1.2, 8
    shares = prior_shares(n, median=median, sigma=sigma)
    delay = stats.lognorm(sigma, scale=median)
    seen = [integrate.quad(lambda start, j=j: delay.cdf(min(j + 1 - start, n - 1)), 0, 1)[0] / delay.cdf(n - 1) for j in range(n - 1)]
    np.testing.assert_allclose(np.cumsum(shares)[:-1], seen, atol=2e-4)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)


def test_late_days_share_what_is_late_evenly():
    """With three late days, their share is as stated and even; the days inside keep their proportions."""
    plain, late = prior_shares(8), prior_shares(8, 3, late_share=0.06)
    np.testing.assert_allclose(late[8:], 0.02)
    np.testing.assert_allclose(late[:8], 0.94 * plain)


def cohorts(seed, n, groups):
    rng = np.random.default_rng(seed)
    bins, age = rng.integers(0, n, 200), rng.integers(0, n + 3, 200)
    return rng.integers(0, groups, 200), bins, age, rng.uniform(0.5, 3, 200)


@pytest.mark.parametrize("seed", range(5))
def test_reverse_sums_are_counted_one_by_one(seed):
    """``N[j]``: outcomes of delay j in cohorts older than j; ``R[j]``: those of delay at most j in the same cohorts; by group too."""
    n = 5
    group, bins, age, weight = cohorts(seed, n, 3)
    wanted_n, wanted_r = np.zeros((3, n)), np.zeros((3, n))
    for g, b, a, w in zip(group, bins, age, weight, strict=True):
        for j in range(n):
            if b < a and j < a:  # the bin is complete, and so is j
                wanted_n[g, j] += w * (b == j)
                wanted_r[g, j] += w * (b <= j)
    found = reverse_sums_by_group(group, bins, age, weight, 3, n)
    np.testing.assert_allclose(found[0], wanted_n, atol=1e-9)
    np.testing.assert_allclose(found[1], wanted_r, atol=1e-9)
    together = reverse_sums(bins, age, weight, n)
    np.testing.assert_allclose(together[0], wanted_n.sum(axis=0), atol=1e-9)
    np.testing.assert_allclose(together[1], wanted_r.sum(axis=0), atol=1e-9)


def test_hazards_undo_the_distribution():
    """``g[j] = f[j] / F[j]`` of any distribution gives its ``F`` back; a heavy prior is that distribution, and draws lie around it."""
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    whole = np.cumsum(shares)
    np.testing.assert_allclose(share_seen(shares / whole), whole)
    a, b = posterior(np.zeros(4), np.zeros(4), shares, 1000.0)
    np.testing.assert_allclose((a / (a + b))[1:], (shares / whole)[1:], rtol=1e-9)
    np.testing.assert_allclose(a, 1000 * shares)
    draws = draw_share_seen(a, b, np.random.default_rng(1), 4000)
    np.testing.assert_allclose(draws.mean(axis=0), whole, atol=2e-3)
    np.testing.assert_allclose(draws[:, 2].std(), np.sqrt(0.9 * 0.1 / 1001), rtol=0.05)
    more, less = posterior([10.0, 5.0, 0.0, 2.0], [10.0, 15.0, 15.0, 17.0], shares, 10.0)
    np.testing.assert_allclose(more, 10 * shares + [10, 5, 0, 2])
    np.testing.assert_allclose(less[1:], 10 * (whole - shares)[1:] + [10, 15, 15])


def test_groups_that_mature_alike_borrow_much():
    """Drawn from one curve the pooled one weighs thousands, from curves far apart little; the choice is that of scipy's likelihood."""
    rng = np.random.default_rng(2)
    shares = np.array([0.4, 0.3, 0.2, 0.1])

    def sums(of):
        counts = np.array([rng.multinomial(2000, p) for p in of])
        return counts.astype(float), np.cumsum(counts, axis=1).astype(float)

    assert shrinkage(*sums([shares] * 12), shares) >= 4096
    mixed = sums(rng.dirichlet(8 * shares, 12))
    found = shrinkage(*mixed, shares)
    assert found <= 64
    before = np.cumsum(shares) - shares

    def likelihood(k):
        return sum(
            stats.betabinom(int(mixed[1][g, j]), k * shares[j], k * before[j]).logpmf(int(mixed[0][g, j]))
            for g in range(12)
            for j in (1, 2, 3)
        )

    assert found == max(4.0 ** np.arange(1, 8), key=likelihood)


def test_a_cohort_is_as_mature_as_its_whole_days_and_a_part():
    """At age 2 and a quarter of a day: what two days show and a quarter of the third; before its day nothing, past the window all."""
    seen = np.array([0.4, 0.8, 1.0])
    ages, parts = [-1, 0, 0, 1, 2, 2, 3, 9], [0.5, 0.0, 1.0, 0.25, 0.25, 1.0, 0.5, 0.0]
    wanted = [0.0, 0.0, 0.4, 0.4 + 0.25 * 0.4, 0.8 + 0.25 * 0.2, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(maturity(seen, ages, parts), wanted)
    other = np.array([0.1, 0.2, 1.0])
    both = maturity(np.stack([seen, other]), ages, parts, group=[0, 1] * 4)
    np.testing.assert_allclose(both[::2], np.array(wanted)[::2])
    np.testing.assert_allclose(both[1::2], maturity(other, ages, parts)[1::2])


def test_a_feed_reaches_one_mean_gap_past_its_last_record():
    """Ten records from 0 to 9 are complete up to 10; never past the ceiling; a single one up to itself."""
    assert [reach(9.0, 0.0, 10, 100.0), reach(9.0, 0.0, 10, 9.5), reach(4.0, 4.0, 1, 100.0), reach(6.0, 2.0, 2, 100.0)] == [
        10.0,
        9.5,
        4.0,
        10.0,
    ]
