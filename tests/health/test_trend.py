"""Trends are least-squares slopes whose intervals stand for correlated values."""

import numpy as np
import pytest
from scipy import stats

from closedloop.errors import ConfigurationError
from closedloop.health import trends
from closedloop.records.feedback import Finding, HealthReport
from closedloop.records.interval import Interval


def _reports(values, name="volume"):
    out = []
    for v in values:
        measured = Interval(low=v, estimate=v, high=v, level=0.9, kind="credible")
        finding = Finding(name=name, severity="ok", scope="account", measured=measured, threshold=50, evidence="")
        out.append(HealthReport(conditions=(finding,), advice="run", because=""))
    return out


def test_slope_is_that_of_linregress():
    """The slope is scipy's; the interval is never shorter than the usual one."""
    rng = np.random.default_rng(3)
    y = 50 + 0.7 * np.arange(30) + rng.normal(0, 4, 30)
    (trend,) = trends(_reports(y)).rows
    reference = stats.linregress(np.arange(30), y)
    reach = stats.t(28).ppf(0.95) * reference.stderr
    assert trend.slope.estimate == pytest.approx(reference.slope)
    assert trend.slope.high - trend.slope.estimate >= reach * (1 - 1e-9)
    assert trend.direction == "rising"
    assert trend.n_cycles == 30


def test_coverage_with_shared_data():
    """Values that are 7-day means of independent days, without any trend: the interval holds 0 in at least 75 % of 400 histories.

    The plain least-squares interval at the same level holds it in about half of them.
    """
    rng = np.random.default_rng(1)
    ours = plain = 0
    for _ in range(400):
        y = np.convolve(rng.normal(0, 1, 46), np.ones(7) / 7, mode="valid")
        ours += 0.0 in trends(_reports(y))[0].slope
        reference = stats.linregress(np.arange(len(y)), y)
        plain += abs(reference.slope) <= stats.t(len(y) - 2).ppf(0.95) * reference.stderr
    assert ours >= 300
    assert plain < ours


def test_few_cycles_say_nothing():
    """With four cycles the slope is unbounded."""
    (trend,) = trends(_reports([1, 2, 3, 4])).rows
    assert (trend.slope.low, trend.slope.high, trend.direction) == (-np.inf, np.inf, "unclear")


def test_what_is_not_measured_every_time_has_no_trend():
    """A finding that comes and goes is left out; an empty history gives no trends; a level out of range is refused."""
    assert len(trends([*_reports([1, 2]), *_reports([3], name="tagging")])) == 0
    assert len(trends([])) == 0
    with pytest.raises(ConfigurationError, match="level"):
        trends([], level=1.0)
