"""Shares and rates have the intervals of their Jeffreys posteriors, and these hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from closedloop.health.measures import rate, share


@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_share_is_the_jeffreys_interval(n, part, level):
    """Ends and median are those of scipy's Beta(k + 1/2, n - k + 1/2), but an end of the range that cannot be excluded is kept."""
    k = round(n * part)
    found, posterior = share(k, n, level), stats.beta(k + 0.5, n - k + 0.5)
    assert found.estimate == pytest.approx(posterior.median(), rel=1e-6)
    assert found.low == (0.0 if k == 0 else pytest.approx(posterior.ppf((1 - level) / 2), rel=1e-6))
    assert found.high == (1.0 if k == n else pytest.approx(posterior.ppf((1 + level) / 2), rel=1e-6))


@pytest.mark.parametrize("truth", [0.03, 0.3, 0.8, 0.97])
@pytest.mark.parametrize("n", [10, 100, 1000])
def test_share_covers(n, truth):
    """The exact coverage of the 90 % interval, summed over the binomial distribution, is near 90 % for every size and share."""
    k = np.arange(n + 1)
    inside = [truth in share(int(i), n, 0.9) for i in k]
    coverage = stats.binom(n, truth).pmf(k)[inside].sum()
    assert 0.82 < coverage <= 1.0


@pytest.mark.parametrize("mean", [0.5, 3.0, 40.0, 700.0])
def test_rate_covers(mean):
    """The exact coverage of the 90 % interval over the Poisson distribution is near 90 %."""
    c = np.arange(int(mean + 12 * mean**0.5 + 20))
    inside = [mean / 4.0 in rate(int(i), 4.0, 0.9) for i in c]
    assert 0.82 < stats.poisson(mean).pmf(c)[inside].sum() <= 1.0


def test_without_data_everything_is_possible():
    """No trials leave the share in [0, 1], no time leaves the rate unbounded."""
    assert (share(0, 0, 0.9).low, share(0, 0, 0.9).high) == (0.0, 1.0)
    assert rate(0, 0, 0.9).high == float("inf")
