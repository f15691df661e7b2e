"""The band of a delay curve against moments that have a closed form."""

import numpy as np
import pytest
from scipy import stats

from closedloop.records.outcomes import DelayCurve


def curve(a: list[float], b: list[float]) -> DelayCurve:
    mean = np.array(a) / (np.array(a) + np.array(b))
    seen = np.array([np.prod(1 - mean[j + 1 :]) for j in range(len(a))])
    none = np.zeros(len(a))
    return DelayCurve(observed=none, at_risk=none, shape_a=np.array(a), shape_b=np.array(b), share_seen=seen)


def test_with_one_later_bin_the_band_is_a_beta_interval() -> None:
    """With two bins the share seen after the first is one minus one Beta variable, whose quantiles scipy knows."""
    low, high = curve([1.0, 30.0], [1.0, 70.0]).band(0.9)
    wanted = 1 - stats.beta(30, 70).ppf([0.95, 0.05])
    assert [low[0], high[0]] == pytest.approx(wanted, abs=0.006)
    assert (low[1], high[1]) == (1.0, 1.0)


def test_the_band_holds_the_curve_and_widens_with_less_data() -> None:
    """Ten times fewer conversions make a wider band, and the estimate lies inside."""
    rich, poor = curve([1, 200, 100, 50], [1, 300, 500, 700]), curve([1, 20, 10, 5], [1, 30, 50, 70])
    for one in (rich, poor):
        low, high = one.band()
        assert (low <= one.share_seen).all()
        assert (one.share_seen <= high).all()
    width = [(h - low)[:3] for low, h in (rich.band(), poor.band())]
    assert (width[1] > 2.5 * width[0]).all()
    assert np.array_equal(rich.band()[0], rich.band()[0])
