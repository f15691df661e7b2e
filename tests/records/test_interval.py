"""An interval is ordered, honest about its level, and never NaN."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.errors import ConfigurationError, InvariantError
from closedloop.records.interval import Interval, Intervals

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


def of(low: float, estimate: float, high: float) -> Interval:
    return Interval(low=low, estimate=estimate, high=high, level=0.9, kind="credible")


@given(st.lists(finite, min_size=3, max_size=3).map(sorted))
def test_ordered_ends_are_accepted(ends: list[float]) -> None:
    """Any three ordered numbers make an interval that contains its estimate."""
    assert ends[1] in of(*ends)


@pytest.mark.parametrize("ends", [(2, 1, 3), (1, 3, 2), (math.nan, 1, 2), (1, math.nan, 2), (1, 2, math.nan)])
def test_unordered_or_nan_ends_are_refused(ends: tuple[float, float, float]) -> None:
    """An interval out of order or with NaN cannot exist."""
    with pytest.raises(InvariantError):
        of(*ends)
    with pytest.raises(InvariantError):
        Intervals(low=[ends[0]], estimate=[ends[1]], high=[ends[2]], level=0.9, kind="credible")


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90.0, math.nan])
def test_level_lies_between_zero_and_one(level: float) -> None:
    """A level of 90 (per cent) or a degenerate one is named as a mistake."""
    with pytest.raises(ConfigurationError, match="level"):
        Interval(low=0, estimate=1, high=2, level=level, kind="credible")


def test_unknown_kind_lists_the_valid_ones() -> None:
    """A wrong kind is answered with the right ones."""
    with pytest.raises(ConfigurationError, match="anytime"):
        Interval(low=0, estimate=1, high=2, level=0.9, kind="hdi")  # type: ignore[arg-type]


def test_decreasing_map_swaps_the_ends() -> None:
    """Rate to cost per conversion turns the interval round; an impossible rate of zero gives an unbounded cost."""
    cost = of(0.0, 0.02, 0.05).map(lambda rate: math.inf if rate == 0 else 1 / rate)
    assert (cost.low, cost.estimate, cost.high) == (20.0, 50.0, math.inf)
    assert cost.width == math.inf


def test_draws_give_equal_tails() -> None:
    """The interval of draws holds the stated share of them."""
    draws = np.random.default_rng(0).normal(size=100_001)
    interval = Interval.of_draws(draws, level=0.8)
    inside = np.mean((draws >= interval.low) & (draws <= interval.high))
    assert inside == pytest.approx(0.8, abs=1e-4)
    assert np.mean(draws < interval.low) == pytest.approx(0.1, abs=1e-4)


def test_columns_and_rows_agree() -> None:
    """Element i of Intervals is the Interval of row i, and take keeps the order asked for."""
    many = Intervals(low=[0, 1], estimate=[1, 2], high=[2, math.inf], level=0.5, kind="bootstrap")
    assert many.take([1, 0])[0] == many[1]
    assert [i.high for i in many] == [2.0, math.inf]
    assert list(many.to_frame().columns) == ["low", "estimate", "high", "level", "kind"]


def test_survives_pickle_and_copy() -> None:
    """Values can be sent between processes."""
    interval = of(1, 2, 3)
    assert pickle.loads(pickle.dumps(interval)) == copy.deepcopy(interval) == interval
