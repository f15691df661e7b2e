"""The prior of delays against the log-normal distribution that it is made of."""

import numpy as np
import pytest
from scipy import integrate, stats

from closedloop.stats.delay import prior_shares


def test_the_prior_is_a_log_normal_seen_from_a_uniform_start():
    """The share seen by the end of a day is the distribution's, cut at the window's end, over starts spread evenly in day 0."""
    median, sigma, n = 2.0, 1.2, 8
    shares = prior_shares(n, median=median, sigma=sigma)
    delay = stats.lognorm(sigma, scale=median)
    seen = [integrate.quad(lambda start, j=j: delay.cdf(min(j + 1 - start, n - 1)), 0, 1)[0] / delay.cdf(n - 1) for j in range(n - 1)]
    np.testing.assert_allclose(np.cumsum(shares)[:-1], seen, atol=2e-3)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)


def test_late_days_share_what_is_late_evenly():
    """With three late days, their share is as stated and even; the days inside keep their proportions."""
    plain, late = prior_shares(8), prior_shares(8, 3, late_share=0.06)
    np.testing.assert_allclose(late[8:], 0.02)
    np.testing.assert_allclose(late[:8], 0.94 * plain)
