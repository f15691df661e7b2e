"""Confidence sequences hold at all looks at once, which fixed intervals do not."""

import numpy as np
import pytest
from scipy import integrate, special, stats

from closedloop.stats.sequences import e_bh, poisson_rate_sequence, share_sequence


def test_poisson_sequence_is_rarely_ever_left():
    """Over 1,000 histories of 150 looks, at most a tenth ever leave the 90 % sequence; the fixed interval is left by far more."""
    rng = np.random.default_rng(0)
    rate, paths, looks = 0.03, 1000, 150
    counts = np.cumsum(rng.poisson(rate * 20, (paths, looks)), axis=1).astype(float)
    exposure = np.broadcast_to(20.0 * np.arange(1, looks + 1), counts.shape)
    low, high = poisson_rate_sequence(counts.ravel(), exposure.ravel(), level=0.9, expected_rate=0.02)
    left = ((low > rate) | (high < rate)).reshape(counts.shape).any(axis=1).mean()
    fixed = stats.gamma.ppf([[[0.05]], [[0.95]]], counts + 0.5, scale=1 / exposure)
    naive = ((fixed[0] > rate) | (fixed[1] < rate)).any(axis=1).mean()
    assert left <= 0.1 + 3 * np.sqrt(0.09 / paths)
    assert naive > 0.4


def test_poisson_sequence_edge_is_where_the_mixture_ratio_is_the_limit():
    """At both ends the mixture likelihood ratio, integrated numerically, equals 1 / (1 - level)."""
    c, x, expected = 12.0, 500.0, 0.02
    low, high = poisson_rate_sequence(np.array([c]), np.array([x]), level=0.95, expected_rate=expected)
    for edge in (low[0], high[0]):

        def integrand(rate, edge=edge):
            likelihood_ratio = np.exp(stats.poisson.logpmf(c, rate * x) - stats.poisson.logpmf(c, edge * x))
            return stats.expon.pdf(rate, scale=expected) * likelihood_ratio

        ratio, _ = integrate.quad(integrand, 0, 0.3)
        assert ratio == pytest.approx(20.0, rel=1e-5)


@pytest.mark.parametrize("count", [0.0, 1.0, 1e6])
def test_poisson_sequence_is_ordered(count):
    """Zero, one, a million: the raw ratio lies inside."""
    low, high = poisson_rate_sequence(np.array([count]), np.array([1e8]), level=0.9, expected_rate=0.01)
    assert low[0] <= count / 1e8 <= high[0]
    assert (low[0] == 0) == (count == 0)


def test_share_sequence_is_rarely_ever_left():
    """The same for a share, with a poor guess of it."""
    rng = np.random.default_rng(1)
    paths, looks, p = 1000, 120, 0.3
    k = np.cumsum(rng.binomial(3, p, (paths, looks)), axis=1).astype(float)
    n = np.broadcast_to(3.0 * np.arange(1, looks + 1), k.shape)
    low, high = share_sequence(k.ravel(), n.ravel(), level=0.9)
    left = ((low > p) | (high < p)).reshape(k.shape).any(axis=1).mean()
    assert left <= 0.1 + 3 * np.sqrt(0.09 / paths)


def test_share_sequence_knows_nothing_without_counts():
    """No conversions: the whole range; all in one group: one end open."""
    low, high = share_sequence(np.array([0.0, 5.0]), np.array([0.0, 5.0]), level=0.9)
    assert (low[0], high[0], high[1]) == (0.0, 1.0, 1.0)
    assert low[1] > 0


def test_e_bh_keeps_its_rate_under_dependence():
    """With all nulls true and fully dependent e-values, any rejection is rare."""
    rng = np.random.default_rng(2)
    e = np.exp(rng.normal(-0.5, 1.0, 4000))  # mean 1
    wrong = np.mean([e_bh(np.full(20, value), rate=0.1).any() for value in e])
    assert wrong <= 0.1


@pytest.mark.parametrize(("expected", "strength"), [(0.5, 20.0), (0.2, 5.0), (0.7, 50.0)])
@pytest.mark.parametrize("count", [1, 30, 79])
def test_the_ends_of_a_share_are_where_the_mixture_meets_its_limit(count, expected, strength):
    """The likelihood averaged over the stated Beta, by quadrature, over that of either end is ``1 / (1 - level)``."""
    (low,), (high,) = share_sequence(np.array([float(count)]), np.array([80.0]), level=0.9, expected_share=expected, strength=strength)
    mixing = stats.beta(strength * expected, strength * (1 - expected))
    mean = integrate.quad(lambda p: mixing.pdf(p) * stats.binom.pmf(count, 80, p), 0, 1, epsabs=1e-13)[0]
    for end in (low, high):
        assert mean / stats.binom.pmf(count, 80, end) == pytest.approx(10.0, rel=1e-4)


def test_one_count_has_both_ends():
    """The mean of the likelihood over the stated prior of a rate, by quadrature, over that of either end is ``1 / (1 - level)``."""
    (least,), (most,) = poisson_rate_sequence(np.array([1.0]), np.array([0.5]), level=0.9, expected_rate=2.0)
    assert 0 < least < 2.0 < most < np.inf
    for edge in (least, most):
        ratio, _ = integrate.quad(lambda r, e=edge: stats.expon.pdf(r, scale=2.0) * (r / e) * np.exp(-0.5 * (r - e)), 0, 60)
        assert ratio == pytest.approx(10.0, rel=1e-6)


def test_e_bh_is_its_definition():
    """The largest k for which the k-th largest e-value is at least n / (k rate); an equality counts."""
    rng = np.random.default_rng(4)
    for _ in range(50):
        e = rng.lognormal(2, 2, 7)
        order = np.sort(e)[::-1]
        k = max((k for k in range(1, 8) if order[k - 1] >= 7 / (k * 0.2)), default=0)
        assert e_bh(e, rate=0.2).sum() == k
        assert (np.sort(e[e_bh(e, rate=0.2)])[::-1] == order[:k]).all()
    assert e_bh(np.array([20.0, 0.0]), rate=0.1).tolist() == [True, False]
    assert e_bh(np.array([10.0, 10.0]), rate=0.1).tolist() == [True, True]
    assert not e_bh(np.array([19.9, 9.9]), rate=0.1).any()


@pytest.mark.parametrize("count", [0.0, 1.0, 7.0, 400.0])
@pytest.mark.parametrize("level", [0.5, 0.999999])
@pytest.mark.parametrize("expected", [1e-6, 0.02, 1e3])
def test_the_ends_of_a_rate_are_where_its_mixture_meets_the_limit(count, level, expected):
    """However far the expected rate is off: with an exponential prior the mean likelihood is a gamma integral in closed form."""
    exposure = np.array([0.01, 3.0, 5e4, 0.0])
    low, high = poisson_rate_sequence(np.full(4, count), exposure, level=level, expected_rate=expected)
    assert (low[3], high[3]) == (0.0, np.inf)
    for end, x in [*zip(low[:3], exposure[:3], strict=True), *zip(high[:3], exposure[:3], strict=True)]:
        if end > 0:  # the lower end of no counts is 0
            mean = special.gammaln(count + 1) - (count + 1) * np.log(x + 1 / expected) - np.log(expected)
            assert mean - (special.xlogy(count, end) - x * end) == pytest.approx(-np.log1p(-level), abs=1e-6)
    assert (low[:3] <= count / exposure[:3]).all()
    assert (high[:3] > count / exposure[:3]).all()
    assert ((low[:3] > 0) == (count > 0)).all()


@pytest.mark.parametrize("expected", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("level", [0.1, 0.9])
def test_the_end_of_a_single_conversion_is_its_closed_form(expected, level):
    """The mixture's chance of one conversion in the group is the expected share: the likelihood ``p`` may be ``1 - level`` of it."""
    low, high = share_sequence(np.array([1.0, 0.0]), np.ones(2), level=level, expected_share=expected)
    np.testing.assert_allclose(low, [(1 - level) * expected, 0.0], rtol=1e-9)
    np.testing.assert_allclose(high, [1.0, 1 - (1 - level) * (1 - expected)], rtol=1e-9)
