"""Null journeys, bins and curves against loops over touches; findings of the audit against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from closedloop.attribute import PathCounts, PlatformReport, WindowedAttribution, audit, event_paths
from closedloop.attribute.audit import _severity
from closedloop.attribute.chains import channel_codes, nulls_of
from closedloop.attribute.cohorts import window_bins
from closedloop.attribute.curves import _curve, groups_of
from closedloop.attribute.intervals import credit_intervals
from closedloop.attribute.rows import Rows
from closedloop.errors import InputError
from closedloop.records.arms import Arms
from closedloop.records.interval import Interval
from closedloop.records.moments import US_PER_DAY
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

TAGS = TagSchema(arm=("platform", "campaign"))
DAY0 = 19_000


def by_hand(touches, longest):
    """Runs of touches at most a window apart, cut every window and a microsecond after they began: (touches, day of the cut)."""
    out, run, began = [], [], None
    for user, at in sorted(touches):
        new_run = not run or run[-1][0] != user or at - run[-1][1] > longest
        stretch = None if new_run else (at - began) // (longest + 1)
        if run and (new_run or stretch != (run[-1][1] - began) // (longest + 1)):
            out.append((len(run), (began + ((run[-1][1] - began) // (longest + 1) + 1) * (longest + 1) - 1) // US_PER_DAY))
            run = []
        began = at if new_run else began
        run.append((user, at))
    if run:
        out.append((len(run), (began + ((run[-1][1] - began) // (longest + 1) + 1) * (longest + 1) - 1) // US_PER_DAY))
    return sorted(out)


@pytest.mark.parametrize("seed", range(8))
def test_runs_of_unanswered_touches_are_cut_as_by_hand(batch_of, seed):
    """Random touches of four users, some in whole windows from each other, those whose window is still open left out."""
    rng = np.random.default_rng(seed)
    at = DAY0 + np.where(rng.random(40) < 0.5, rng.integers(0, 40, 40), rng.uniform(0, 40, 40))
    user = rng.integers(0, 4, 40)
    touches = [{"id": str(i), "kind": "click", "user": f"u{user[i]}", "at": at[i], "platform": "a"} for i in range(40)]
    rows, _ = Rows.of(batch_of(touches), ("platform",), None)
    limits = AttributionWindow(click="3d", view=None).limits_us()
    until = round((DAY0 + 38) * US_PER_DAY)
    answered = rng.random(40) < 0.2
    found = nulls_of(rows, answered, limits, until)
    free = [(int(rows.user[i]), int(rows.at[i])) for i in range(40) if not answered[i] and rows.at[i] + limits.max() < until]
    sizes = np.bincount(found.journey, minlength=len(found.day))
    assert sorted(zip(sizes.tolist(), found.day.tolist(), strict=True)) == by_hand(free, int(limits.max()))
    assert sorted(found.touch.tolist()) == [i for i in sorted(range(40)) if not answered[i] and rows.at[i] + limits.max() < until]


def test_views_switched_off_are_in_no_null_journey(batch_of):
    """Without a view window a view is no touch of anybody's journey; a touch whose window ends just now is still open."""
    rows = [
        {"id": "1", "kind": "impression", "user": "u", "at": DAY0, "platform": "a", "campaign": "x"},
        {"id": "2", "kind": "click", "user": "u", "at": DAY0 + 0.25, "platform": "b", "campaign": "x"},
        {"id": "3", "kind": "click", "user": "v", "at": DAY0 + 5.0, "platform": "c", "campaign": "x"},
        {"id": "4", "kind": "click", "user": "w", "at": DAY0 + 8.0, "platform": "d", "campaign": "x"},
    ]
    paths = event_paths(batch_of(rows), AttributionWindow(click="3d", view=None), tags=TAGS).to_columns()
    assert [(p, n) for p, n in zip(paths["path"], paths["nulls"], strict=True) if n] == [("b", 1)]


def test_channels_are_the_sorted_tags():
    """A missing tag is a question mark."""
    arms = Arms.of(("platform", "campaign"), [("b", "1"), (None, "2"), ("a", "3"), ("b", "4")])
    names, code = channel_codes(arms, "platform")
    assert names == ("?", "a", "b")
    assert [names[c] for c in code] == ["b", "?", "a", "b"]


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


def test_wrong_counts_are_named_by_their_place():
    """The first that is no count, from 0: negative, not a number, infinite."""
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="conversions of path 1 is no count"):
            PathCounts.of(["a", "b", "a > b"], conversions=[1, wrong, wrong])
    with pytest.raises(InputError, match="nulls needs one number"):
        PathCounts.of(["a", "b"], conversions=[1, 1], nulls=[1])


def test_journeys_without_touches_add_up():
    """Parts without a channel have no touches; their counts stay, and beside others the codes are of the joint list."""
    none = PathCounts.of(["", ""], conversions=[1, 2])
    both = PathCounts.add([none, none])
    assert (len(both.codes), both.conversions.tolist(), both.starts.tolist()) == (0, [1, 2, 1, 2], [0, 0, 0, 0, 0])
    more = PathCounts.add([PathCounts.of(["b > a"], conversions=[1]), none, PathCounts.of(["c > b"], nulls=[4])])
    assert more.to_columns()["path"] == ["b > a", "", "", "c > b"]
    assert more.to_columns()["nulls"].tolist() == [0, 0, 0, 4]


# ---- the audit -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(batch_of):
    """Ten buyers with a click on a, one of them on b too, later; b costs next to nothing."""
    rows = []
    for i in range(10):
        rows.append({"id": f"a{i}", "kind": "click", "user": f"u{i}", "at": DAY0 + i, "platform": "a", "campaign": "x", "cost": 2.0})
        rows.append({"id": f"c{i}", "kind": "conversion", "user": f"u{i}", "at": DAY0 + i + 0.5})
    rows.append({"id": "b", "kind": "click", "user": "u3", "at": DAY0 + 3.25, "platform": "b", "campaign": "y", "cost": 1.0})
    return batch_of(rows)


def test_each_finding_states_its_threshold_and_its_part(few):
    """A twentieth, three tenths, a fifth and a tenth; one repetition in which the best arm changes, or does not, is all or none of them."""
    outcomes = WindowedAttribution(AttributionWindow(click="7d", view="1d"), tags=TAGS).attribute(few)
    report = PlatformReport(platform="a", conversions=10, window=AttributionWindow(click="6h", view=None))
    found = {f.name: f for f in audit(outcomes, [report], batch=few, tags=TAGS, repeats=1, lost_share=0.0)}
    assert {n: f.threshold for n, f in found.items()} == {
        "claimed_twice": 0.05, "view_through": 0.3, "window_mismatch": 0.05, "rank_stability": 0.2, "dropped_touchpoints": 0.1,
        "fragmented_identities": 0.1,
    }  # fmt: skip
    calm = found["dropped_touchpoints"]
    assert calm.severity == "ok"
    assert "0.0% of credit changes hands, 0.0% is lost; so no arm gains or loses" in calm.evidence
    assert calm.mend == "the best arm changes in 0% of the repetitions"
    lost = next(f for f in audit(outcomes, batch=few, tags=TAGS, repeats=1, lost_share=1.0) if f.name == "dropped_touchpoints")
    assert "100.0% is lost" in lost.evidence
    assert lost.mend == "the best arm changes in 100% of the repetitions"
    window = found["window_mismatch"]
    assert window.measured.estimate == pytest.approx(0.9)  # only b is within six hours
    assert "10 credited conversions" in window.evidence


def test_a_finding_is_grave_past_its_threshold_and_not_at_it():
    """A warning where the estimate is above the threshold, critical where even the low end is above twice of it."""
    for low, estimate, wanted in ((0.0, 0.1, "ok"), (0.0, 0.11, "warning"), (0.2, 0.3, "warning"), (0.21, 0.3, "critical")):
        assert _severity(Interval(low=low, estimate=estimate, high=0.5, level=0.9, kind="credible"), 0.1) == wanted
