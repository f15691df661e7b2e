"""The bootstrap of sums: its first two moments against closed forms, its ends against counted ranks."""

import numpy as np

from closedloop.stats.bootstrap import block_replicates, percentile_ends, poisson_weights


def test_ends_leave_out_the_same_share_on_either_side():
    """Of the numbers 0 to 100 in any order, nine tenths lie from 5 to 95 and half from 25 to 75; column by column."""
    rng = np.random.default_rng(1)
    draws = np.column_stack([rng.permutation(101), 1000 + 2 * rng.permutation(101)])
    for level, low, high in ((0.9, 5, 95), (0.5, 25, 75), (0.8, 10, 90)):
        ends = percentile_ends(draws, level)
        np.testing.assert_allclose(ends[0], [low, 1000 + 2 * low])
        np.testing.assert_allclose(ends[1], [high, 1000 + 2 * high])


def test_replicates_of_blocks_have_the_total_and_the_spread_of_all_units():
    """Their mean is the total; their covariance is the number of blocks times the sample covariance of the block sums."""
    rng = np.random.default_rng(2)
    sums = rng.gamma(2.0, size=(5, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    found = block_replicates(sums, 200_000, rng)
    wanted = 5 * np.cov(sums.T)
    np.testing.assert_allclose(found.mean(axis=0), sums.sum(axis=0), atol=0.02 * np.sqrt(wanted.max()))
    np.testing.assert_allclose(np.cov(found.T), wanted, atol=0.03 * wanted.max())


def test_weights_are_poisson_with_each_units_own_count():
    """Mean and variance are the count; a unit of none has none."""
    counts = np.array([0.0, 1.0, 7.5])
    found = poisson_weights(counts, 100_000, np.random.default_rng(3))
    np.testing.assert_allclose(found.mean(axis=0), counts, atol=0.05)
    np.testing.assert_allclose(found.var(axis=0), counts, rtol=0.03)
