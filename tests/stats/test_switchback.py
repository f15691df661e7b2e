"""The interval of a switched rule's gain holds at every look, assuming nothing but the coin."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.errors import ConfigurationError
from closedloop.stats.switchback import SLOPES, contrasts, gain_sequence, log_evidence


def wild_pairs(rng: np.random.Generator, n: int, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs with a strong trend, unequal sizes and counts far more dispersed than Poisson; the coin picks the block with the gain."""
    size = np.exp(rng.normal(4.0, 0.7, n))
    trend = np.exp(rng.normal(0.15, 0.2, (2, n)).cumsum(axis=0))
    base = rng.negative_binomial(5, 5 / (5 + size * trend)).astype(float)
    coin = rng.random(n) < 0.5
    mine = np.where(coin, base[0], base[1])
    return mine * (1.0 + gain), np.where(coin, base[1], base[0])


@pytest.mark.parametrize("gain", [0.0, 0.25, -0.3])
def test_holds_at_every_look(gain: float) -> None:
    """Over 300 histories of 40 pairs, looked at after each, the truth is ever outside in at most 10 % (plus Monte-Carlo error)."""
    rng = np.random.default_rng(7)
    missed = 0
    limit = math.log(10)
    for _ in range(300):
        a, b = wild_pairs(rng, 40, gain)
        one, other = a / math.sqrt(1 + gain), b * math.sqrt(1 + gain)
        total = one + other
        x = np.where(total > 0, (one - other) / np.sqrt(np.where(total > 0, total, 1)), 0.0)
        missed += any(log_evidence(x[:looked]) >= limit for looked in range(1, 41))
    assert missed / 300 <= 0.1 + 3 * math.sqrt(0.09 / 300)


@pytest.mark.parametrize("gain", [0.0, 0.5])
def test_the_interval_is_the_inverted_test(gain: float) -> None:
    """At the ends the evidence is at its limit; inside it is under it (checked on a grid finer than the function's own)."""
    a, b = wild_pairs(np.random.default_rng(3), 40, gain)
    low, estimate, high = gain_sequence(a, b, level=0.9)
    assert low <= estimate <= high

    def evidence(g: float) -> float:
        root = math.sqrt(1 + g)
        x = [(p / root - q * root) / math.sqrt(p / root + q * root) for p, q in zip(a, b, strict=True) if p + q > 0]
        ways = [math.prod(math.exp(slope * v) / math.cosh(slope * v) for v in x) for slope in SLOPES]
        return math.log(sum(ways) / len(ways))

    for end in (low, high):
        assert evidence(end) == pytest.approx(math.log(10), abs=1e-6)
    assert all(evidence(g) < math.log(10) for g in np.linspace(low + 1e-6, high - 1e-6, 497))


def test_over_all_coin_tosses_the_evidence_has_mean_one() -> None:
    """For any ten pairs, the martingale averaged over all 1,024 ways the coins can fall is exactly 1."""
    x = np.random.default_rng(5).normal(0.0, 2.0, 10)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=10)))
    assert np.exp(log_evidence(signs * x)).mean() == pytest.approx(1.0, rel=1e-12)


def test_a_real_gain_is_found_and_more_data_narrow_it() -> None:
    """A gain of 30 % on steady counts is proved, and the interval shrinks."""
    rng = np.random.default_rng(1)
    a, b = rng.poisson(260.0, 60).astype(float), rng.poisson(200.0, 60).astype(float)
    short, long = gain_sequence(a[:15], b[:15], level=0.9), gain_sequence(a, b, level=0.9)
    assert 0 < short[0] < 0.3 < short[2]
    assert 0.2 < long[0] < 0.3 < long[2] < 0.4
    assert long[2] - long[0] < short[2] - short[0]


counts = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=30)


@settings(max_examples=40)
@given(counts, st.sampled_from([0.5, 0.9, 0.99]))
def test_always_an_interval_and_symmetric_in_the_rules(pairs: list[tuple[int, int]], level: float) -> None:
    """Never NaN, ordered; and swapping the rules turns the factor 1 + g into its inverse."""
    a, b = [float(p) for p, _ in pairs], [float(q) for _, q in pairs]
    low, estimate, high = gain_sequence(a, b, level=level)
    assert -1 <= low <= estimate <= high
    back_low, _, back_high = gain_sequence(b, a, level=level)
    for one, other in ((low, back_high), (high, back_low)):
        if math.isfinite(one) and one > -1 and math.isfinite(other):
            assert (1 + one) * (1 + other) == pytest.approx(1.0, rel=1e-6)


def test_too_little_to_say_is_unbounded() -> None:
    """Two pairs, however different, say nothing at 90 %: the interval is unbounded on both sides."""
    low, _, high = gain_sequence([1000.0, 900.0], [1.0, 2.0], level=0.9)
    assert high == math.inf
    assert low == -1.0


@pytest.mark.parametrize("wrong", [([-1.0], [1.0]), ([math.nan], [1.0]), ([1.0], [math.inf]), ([1.0, 2.0], [1.0])])
def test_wrong_counts_are_named(wrong: tuple[list[float], list[float]]) -> None:
    """Negative, infinite or unpaired counts are errors."""
    with pytest.raises(ConfigurationError):
        gain_sequence(*wrong, level=0.9)
    with pytest.raises(ConfigurationError):
        gain_sequence([1.0], [1.0], level=1.0)


def test_contrasts_are_differences_over_the_root_of_their_sum() -> None:
    """By default for no gain; with a factor both counts are brought to the same level; nothing counted is nothing."""
    new, old = np.array([9.0, 4.0, 0.0, 0.0]), np.array([4.0, 4.0, 0.0, 25.0])
    np.testing.assert_allclose(contrasts(new, old), [5 / 13**0.5, 0.0, 0.0, -5.0])
    np.testing.assert_allclose(contrasts(new, old, 4.0), [16 / 20**0.5, 6 / 10**0.5, 0.0, -(12.5**0.5)])


def test_the_estimate_is_the_ratio_of_the_totals_inside_the_interval() -> None:
    """All new counts over all old ones, less one; pulled to the nearer end where one large pair outweighs what most pairs say."""
    for seed in range(3):
        a, b = np.random.default_rng(seed).poisson([[130.0], [100.0]], (2, 30)).astype(float)
        low, estimate, high = gain_sequence(a, b, level=0.9)
        assert low < estimate < high
        assert estimate == pytest.approx(sum(a) / sum(b) - 1)
    low, estimate, _ = gain_sequence([3.0] * 100 + [100.0], [1.0] * 100 + [1000.0], level=0.9)
    assert low == estimate > 0.0
    assert gain_sequence([0.0], [0.0], level=0.9) == (-1.0, 0.0, math.inf)
    assert gain_sequence([3.0], [0.0], level=0.9)[1] == 0.0
