"""Delay curves by group: cohorts mature by their own group's curve, small groups by nearly the pooled one."""

import numpy as np
import pytest
from scipy import stats

from closedloop.attribute import WindowedAttribution
from closedloop.attribute.cohorts import window_bins
from closedloop.attribute.curves import _curve, groups_of
from closedloop.attribute.intervals import credit_intervals
from closedloop.errors import ConfigurationError
from closedloop.records.arms import TAG_COLUMNS, Arms, Coded
from closedloop.records.batch import CLICK, CONVERSION, NO_TIME, EventBatch
from closedloop.records.moments import US_PER_DAY
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow
from closedloop.stats.delay import reverse_sums, reverse_sums_by_group, shrinkage

WINDOW = AttributionWindow(click="7d", view=None)
ARM = ("platform",)
RATE = 0.25


def stream(clicks, delays, rng, days=18, until=20_014.5):
    """Clicks of each platform spread over the days, converting after exponential delays of its own mean; seen up to ``until``."""
    n = clicks * days
    platform = np.repeat(np.arange(len(n)), n)
    at = 20_000 + rng.random(n.sum()) * days
    converts = rng.random(n.sum()) < RATE
    sold = at + rng.exponential(np.asarray(delays)[platform])
    user = np.arange(n.sum())
    occurred = np.concatenate([at, sold[converts]])
    seen = np.flatnonzero(occurred <= until)
    m = len(seen)
    kind = np.concatenate([np.full(n.sum(), CLICK), np.full(converts.sum(), CONVERSION)]).astype(np.int8)
    names = np.array([f"p{i}" for i in range(len(n))], dtype=object)
    tag = np.concatenate([platform, np.full(converts.sum(), -1)]).astype(np.int32)[seen]
    moment = (occurred[seen] * US_PER_DAY).astype(np.int64)
    zero = np.zeros(m, dtype=np.int64)
    return EventBatch(
        event_id=seen.astype(str).astype(object),
        kind=kind[seen],
        occurred_at=moment,
        recorded_at=moment,
        user_id=Coded(codes=np.concatenate([user, user[converts]]).astype(np.int32)[seen], vocab=user.astype(str).astype(object)),
        tags={name: Coded(codes=tag, vocab=names) if name == "platform" else Coded.missing(m) for name in TAG_COLUMNS},
        conversion_type=Coded.missing(m),
        cost=zero,
        value=zero,
        quantity=np.ones(m, dtype=np.int64),
        touch_kind=np.full(m, -1, dtype=np.int8),
        touch_at=np.full(m, NO_TIME, dtype=np.int64),
    )


def misses(outcomes, delays):
    """Standard scores of credit against rate x exposure x maturity, by platform and age from 1 to 7."""
    c = outcomes.cohorts
    out = np.zeros((len(delays), 7))
    for i, mean in enumerate(delays):
        for age in range(1, 8):
            rows = (c.arm == i) & (c.age == age)
            expected = RATE * (1 - np.exp(-7 / mean)) * (c.exposures * c.maturity)[rows].sum()
            out[i, age - 1] = (c.credit[rows].sum() - expected) / np.sqrt(expected)
    return out


def test_each_group_is_unbiased_at_every_age():
    """A fast and a slow platform: credit over mature exposure is the true rate at every age, where one pooled curve misses both by far."""
    delays = (0.5, 3.0)
    batch = stream(np.array([3000, 3000]), delays, np.random.default_rng(5))
    grouped = WindowedAttribution(WINDOW, tags=TagSchema(arm=ARM)).attribute(batch)
    pooled = WindowedAttribution(WINDOW, tags=TagSchema(arm=ARM), delay_groups=()).attribute(batch)
    assert np.abs(misses(grouped, delays)).max() < 4.5
    assert np.abs(misses(pooled, delays)).max() > 8
    assert list(grouped.delay_by_group["click"]) == ["p0", "p1"]
    assert pooled.delay_by_group == {}
    assert grouped.delay["click"].share_seen == pytest.approx(pooled.delay["click"].share_seen)


def test_a_small_group_leans_on_the_others():
    """Of platforms that mature alike, one with a handful of conversions gets nearly the pooled curve, and is no surer of it."""
    batch = stream(np.array([2000, 2000, 3]), (2.0, 2.0, 2.0), np.random.default_rng(6))
    out = WindowedAttribution(WINDOW, tags=TagSchema(arm=ARM)).attribute(batch)
    pooled, small = out.delay["click"].share_seen, out.delay_by_group["click"]["p2"]
    assert small.at_risk[1] < 30
    assert small.share_seen == pytest.approx(pooled, abs=0.03)
    low, high = small.band()
    wide = out.delay["click"].band()
    assert ((high - low)[:5] > 0.9 * (wide[1] - wide[0])[:5]).all()


def test_sums_by_group_are_those_of_each_group_alone():
    """Counting all groups at once is counting one after the other."""
    rng = np.random.default_rng(2)
    group, bins, age, weight = rng.integers(0, 3, 200), rng.integers(0, 6, 200), rng.integers(0, 9, 200), rng.random(200)
    observed, at_risk = reverse_sums_by_group(group, bins, age, weight, 4, 6)
    for g in range(4):
        one = group == g
        expected = reverse_sums(bins[one], age[one], weight[one], 6)
        assert observed[g] == pytest.approx(expected[0])
        assert at_risk[g] == pytest.approx(expected[1])


def test_shrinkage_is_the_likeliest_number_of_outcomes():
    """Against scipy's beta-binomial; groups that are alike borrow the most, groups that are opposites the least."""
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    at_risk = np.array([[90.0, 100, 60, 50], [80, 90, 70, 40], [70, 80, 60, 30]])
    observed = np.array([[90.0, 30, 20, 4], [80, 45, 16, 3], [70, 29, 18, 4]])
    before = np.cumsum(shares) - shares
    grid = 4.0 ** np.arange(1, 8)
    likelihood = [stats.betabinom.logpmf(observed, at_risk, k * shares, k * np.maximum(before, 1e-9))[:, 1:].sum() for k in grid]
    assert shrinkage(observed, at_risk, shares) == grid[int(np.argmax(likelihood))]
    alike = np.array([[400.0, 300, 200, 100]] * 3)
    assert shrinkage(alike, np.cumsum(alike, axis=1), shares) == grid[-1]
    apart = np.array([[990.0, 4, 4, 2], [2.0, 4, 4, 990]])
    assert shrinkage(apart, np.cumsum(apart, axis=1), np.array([0.5, 0.002, 0.002, 0.496])) == grid[0]


def test_groups_are_made_of_tags_of_the_arm():
    """Another tag is refused, with the ones there are."""
    with pytest.raises(ConfigurationError, match="creative"):
        WindowedAttribution(WINDOW, tags=TagSchema(arm=ARM), delay_groups=("creative",))


@pytest.mark.parametrize(("window", "bins"), [("0d", 1), ("1d", 2), ("7d", 8), ("12h", 2), ("36h", 3), ("1h", 2)])
def test_bins_are_the_days_that_a_delay_can_reach(window, bins):
    """From the last moment of a day, and from its first: the calendar days later on which the window can end; none when switched off."""
    limit = int(AttributionWindow(click=window, view=None).limits_us()[0])
    assert (US_PER_DAY - 1 + limit) // US_PER_DAY + 1 == bins
    found = AttributionWindow(click=window, view=None)
    assert (window_bins(found, 0), window_bins(found, 1)) == (bins, 0)


def test_a_curve_has_the_posterior_means_of_its_hazards():
    """``F`` is the product of one minus each later reverse hazard, at the means of their Beta posteriors."""
    observed, at_risk, shares = np.array([8.0, 3.0, 1.0]), np.array([8.0, 10.0, 9.0]), np.array([0.5, 0.3, 0.2])
    found = _curve(observed, at_risk, shares, 4.0)
    before = np.cumsum(shares) - shares
    g = stats.beta(4 * shares[1:] + observed[1:], 4 * before[1:] + at_risk[1:] - observed[1:]).mean()
    np.testing.assert_allclose(found.share_seen, [(1 - g[0]) * (1 - g[1]), 1 - g[1], 1.0])


def test_groups_are_tags_joined():
    """One label a combination; the same key whatever other groups there are; without columns all are one."""
    arms = Arms.of(("platform", "campaign"), [("b", "1"), (None, "2"), ("a", "3"), ("b", "1x")])
    labels, group, key = groups_of(arms, ("platform", "campaign"))
    assert [labels[g] for g in group] == ["b / 1", "? / 2", "a / 3", "b / 1x"]
    alone = groups_of(Arms.of(("platform", "campaign"), [("a", "3")]), ("platform", "campaign"))
    assert alone[2][0] == key[2]
    assert groups_of(arms, ())[:2][0] == [""]
    assert groups_of(arms, ("platform",))[1].tolist() == [2, 0, 1, 2]


def test_credit_has_jeffreys_interval_tempered():
    """Of 6 credits with squares summing to 3 the effective count is 12, in halves; without credit the low end is zero."""
    arm, credit, squared = np.array([0, 0, 1, 2]), np.array([2.0, 4.0, 3.0, 0.0]), np.array([1.0, 2.0, 3.0, 0.0])
    found = credit_intervals(arm, credit, squared, 3, 0.8)
    np.testing.assert_allclose(found.estimate, [6, 3, 0])
    np.testing.assert_allclose(found.low, [0.5 * stats.gamma.ppf(0.1, 12.5), stats.gamma.ppf(0.1, 3.5), 0.0])
    np.testing.assert_allclose(found.high, [0.5 * stats.gamma.ppf(0.9, 12.5), stats.gamma.ppf(0.9, 3.5), stats.gamma.ppf(0.9, 0.5)])
    exact = credit_intervals(arm, credit, squared, 3, 0.8, total=9.0 + 1e-9)
    assert exact.estimate[0] == pytest.approx(6 + 1e-9, abs=1e-15)
    one = credit_intervals(np.array([0]), np.array([0.2]), np.array([0.2]), 1, 0.9)
    assert one.low[0] <= 0.2 <= one.high[0]
