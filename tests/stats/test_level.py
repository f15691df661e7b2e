"""Conversions a day of the account: means of a week, the present, and days on which nothing was counted."""

import attrs
import numpy as np
import pytest

from closedloop.records.arms import Arms
from closedloop.records.interval import Intervals
from closedloop.records.outcomes import Cohorts, ConversionDays, Outcomes, SpendDays
from closedloop.records.window import AttributionWindow
from closedloop.stats.level import Level, levels_of_late, smoothed


def days_of(counts, missing=(), first=0):
    """Conversions by day; the last one is the day that is not over."""
    counts = np.array(counts, dtype=float)
    days = ConversionDays.of(np.arange(first, first + len(counts)), counts, 0 * counts)
    return attrs.evolve(days, missing=np.array(missing, dtype=days.day.dtype))


@pytest.fixture
def outcomes():
    """One arm with a hundred clicks a day, for the account's days to be put beside."""
    day, one = np.arange(30, dtype=np.int32), np.ones(30)
    c = Cohorts(
        arm=0 * day, day=day, kind=np.zeros(30, dtype=np.int8), exposures=100 * one, credit=one, credit_squared=one, value=0 * one,
        value_squared=0 * one, maturity=one, age=day[::-1].copy(),
    )  # fmt: skip
    total = np.full(1, 30.0)
    return Outcomes(
        window=AttributionWindow(), arms=Arms.of(("platform",), [("google",)]), cohorts=c, delay={}, conversion_type=None, model="last",
        currency=None, watermark={}, spend=SpendDays(arm=day[:0], day=day[:0], spend=one[:0]), revision=1, n_conversions=0, n_uncredited=0,
        credits=Intervals(low=total, estimate=total, high=total, level=0.9, kind="credible"),
    )  # fmt: skip


def test_the_level_is_a_mean_of_the_week_around(outcomes):
    """Over the days that are there and known; what an outage lost is no fall."""
    counts = np.random.default_rng(0).poisson(50, 30).astype(float)
    counts[[9, 10]] = 0.0
    level = Level.of(attrs.evolve(outcomes, daily=days_of(counts, missing=[9, 10])))
    assert len(level.by_day) == 29
    for day in range(29):
        near = [d for d in range(max(0, day - 3), min(29, day + 4)) if d not in (9, 10)]
        assert level.by_day[day] == pytest.approx(counts[near].mean())
    assert level.at(np.array([-5, 0, 12, 99])).tolist() == [0, 0, 12, 28]


@pytest.mark.parametrize(("a_day", "days"), [(40.0, 7), (20.0, 14), (8.0, 28), (1.0, 28)])
def test_the_present_is_the_shortest_stretch_with_enough(outcomes, a_day, days):
    """Two hundred conversions, or four weeks."""
    level = Level.of(attrs.evolve(outcomes, daily=days_of(np.full(41, a_day))))
    assert (level.days, level.now) == (days, a_day)


def test_no_level_without_whole_days(outcomes):
    """None where conversions by day are not known, or there is no day that is over; then rates are not compared either."""
    for counts in ([], [5.0]):
        none = attrs.evolve(outcomes, daily=days_of(counts))
        assert Level.of(none) is None
        assert levels_of_late(none).tolist() == [0.0]


def test_rows_are_smoothed_alike():
    """Each row by itself."""
    rows = np.random.default_rng(1).poisson(5, (3, 12)).astype(float)
    found = smoothed(rows, np.ones(12))
    np.testing.assert_allclose(found, [smoothed(row, np.ones(12)) for row in rows])
    np.testing.assert_allclose(found[:, 5], rows[:, 2:9].mean(axis=1))
