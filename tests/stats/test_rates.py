"""The ratio of two Poisson rates has an exact interval."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2

from closedloop.errors import ConfigurationError
from closedloop.stats.rates import count_interval, ratio_interval


@given(st.integers(0, 400), st.integers(0, 400), st.floats(0.1, 1e4), st.floats(0.1, 1e4), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_agrees_with_the_exact_binomial_of_scipy(count: int, base: int, exposure: float, base_exposure: float, level: float) -> None:
    """Given the total, the interval is Clopper and Pearson's on the share, turned into odds."""
    if count + base == 0:
        assert ratio_interval(0, exposure, 0, base_exposure, level=level)[::2] == (0.0, math.inf)
        return
    expected = binomtest(count, count + base).proportion_ci(level, method="exact")
    low, estimate, high = ratio_interval(count, exposure, base, base_exposure, level=level)
    scale = base_exposure / exposure
    assert low == pytest.approx(expected.low / (1 - expected.low) * scale, rel=1e-6)
    assert high == (math.inf if base == 0 else pytest.approx(expected.high / (1 - expected.high) * scale, rel=1e-6))
    assert low <= estimate <= high


def test_covers_at_least_as_often_as_stated() -> None:
    """Over 4,000 simulated pairs the interval holds the true ratio at its level or more (it is conservative)."""
    rng = np.random.default_rng(3)
    hits = 0
    for count, base in zip(rng.poisson(30.0, 4000), rng.poisson(20.0, 4000), strict=True):
        low, _, high = ratio_interval(int(count), 1.0, int(base), 1.0, level=0.9)
        hits += low <= 1.5 <= high
    assert hits / 4000 >= 0.9 - 3 * math.sqrt(0.09 / 4000)


@pytest.mark.parametrize("wrong", [(-1, 1, 1, 1), (1, 0, 1, 1), (1, 1, 1, -2), (math.nan, 1, 1, 1), (1, math.inf, 1, 1)])
def test_wrong_numbers_are_named(wrong: tuple[float, float, float, float]) -> None:
    """Negative counts and empty exposures are errors that name themselves."""
    with pytest.raises(ConfigurationError):
        ratio_interval(*wrong)


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_one_count_has_garwoods_interval(count: int, level: float) -> None:
    """The ends are chi-square quantiles with 2c and 2c + 2 degrees of freedom, halved (Garwood 1936)."""
    tail = (1 - level) / 2
    low, high = count_interval(count, level=level)
    assert low == (0.0 if count == 0 else pytest.approx(chi2.ppf(tail, 2 * count) / 2, rel=1e-9))
    assert high == pytest.approx(chi2.ppf(1 - tail, 2 * count + 2) / 2, rel=1e-9)
    for wrong in (-1, math.nan):
        with pytest.raises(ConfigurationError):
            count_interval(wrong)


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0])
def test_a_level_is_a_share(level: float) -> None:
    """A level of 90 where 0.9 was meant, and the ends themselves, are refused by name."""
    for call in (lambda: count_interval(5, level=level), lambda: ratio_interval(5, 1.0, 5, 1.0, level=level)):
        with pytest.raises(ConfigurationError, match="level"):
            call()
