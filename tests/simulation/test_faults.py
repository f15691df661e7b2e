"""Each fault does what it says, no more, and leaves the truth and the other faults' draws alone."""

from datetime import timedelta

import numpy as np
import pytest

from closedloop.errors import ConfigurationError
from closedloop.records.action import Change
from closedloop.records.money import Money
from closedloop.simulation import (
    COLUMNS,
    AlteredBudgets,
    Duplicates,
    IgnoredChanges,
    LateEvents,
    LostReplies,
    MissingTags,
    Outage,
    SilentPlatform,
    Simulator,
    SlowChanges,
    WindowMismatch,
    WrongAttribution,
    retargeting,
    small,
)


def _run(faults, days=3, scenario=None):
    simulator = Simulator(scenario or small(), seed=4, faults=faults)
    return simulator, [simulator.rows(d, simulator.market.equal_split()) for d in range(days)]


def test_missing_tags_hit_the_share_and_only_touches():
    """About the share of clicks and views loses its tags; spend and conversions keep theirs; the first days are whole."""
    _, days = _run([MissingTags(0.2, from_day=1)])
    clicks = days[0]["kind"] == "click"
    assert all(c is not None for c in days[0]["campaign"][clicks])
    rows = days[2]
    clicks = rows["kind"] == "click"
    lost = np.array([c is None for c in rows["creative"]])
    n = clicks.sum()
    assert abs(lost[clicks].sum() - 0.2 * n) < 4 * np.sqrt(0.16 * n)
    assert not lost[rows["kind"] == "spend"].any()


def test_missing_tags_of_one_campaign():
    """Named, only that campaign's tags are lost."""
    _, clean = _run([])
    _, days = _run([MissingTags(1.0, campaign="search")])
    assert "search" not in set(days[0]["campaign"][days[0]["kind"] == "click"])
    for name in ("display", "social"):
        assert (days[0]["campaign"] == name).sum() == (clean[0]["campaign"] == name).sum()


def test_late_events_arrive_once_and_later():
    """Nothing is lost and nothing comes twice: late rows come on their day, recorded later than they happened."""
    _, clean = _run([], days=6)
    _, days = _run([LateEvents(0.3, "2d", from_day=1)], days=6)
    ids = [i for d in days for i in d["event_id"]]
    assert len(ids) == len(set(ids))
    assert set(ids) >= {i for d in clean[:4] for i in d["event_id"]}
    assert 0 < len(days[1]["event_id"]) < len(clean[1]["event_id"])
    late = [i for i in days[3]["event_id"] if i in set(clean[1]["event_id"])]
    at = np.flatnonzero(np.isin(days[3]["event_id"], late))
    waited = [np.datetime64(days[3]["recorded_at"][i][:-1]) - np.datetime64(days[3]["occurred_at"][i][:-1]) for i in at]
    assert min(waited) >= np.timedelta64(2, "D")


def test_duplicates_repeat_event_ids():
    """About the share of rows comes twice, word for word."""
    _, clean = _run([])
    _, days = _run([Duplicates(0.1)])
    assert set(days[0]["event_id"]) == set(clean[0]["event_id"])
    assert 1.07 < len(days[0]["event_id"]) / len(clean[0]["event_id"]) < 1.13


def test_window_mismatch_adds_the_platforms_claims():
    """The claims come as more conversions, with the arm that the platform credits, and the platform says its window."""
    simulator, days = _run([WindowMismatch("28d", platform="meta", from_day=1)], days=8)
    _, clean = _run([], days=8)
    assert simulator.platforms["meta"].reporting_window.click == timedelta(days=28)
    assert not hasattr(simulator.platforms["google"], "reporting_window")
    added = [set(d["event_id"]) - set(c["event_id"]) for d, c in zip(days, clean, strict=True)]
    assert not added[0]
    assert sum(map(len, added[1:])) > 0
    rows = days[7]
    at = np.isin(rows["event_id"], sorted(added[7]))
    assert set(rows["platform"][at]) == {"meta"}
    assert set(rows["kind"][at]) == {"conversion"}


def test_wrong_attribution_moves_clicks_to_the_taker():
    """The other campaigns lose about the share of their clicks to one campaign; the number of clicks stays."""
    _, clean = _run([], scenario=retargeting())
    _, days = _run([WrongAttribution(0.25, campaign="search")], scenario=retargeting())
    for c, d in zip(clean, days, strict=True):
        clicks, wrong = c["kind"] == "click", d["kind"] == "click"
        assert clicks.sum() == wrong.sum()
        others = (c["campaign"][clicks] != "search").sum()
        moved = (d["campaign"][wrong] == "search").sum() - (c["campaign"][clicks] == "search").sum()
        assert abs(moved - 0.25 * others) < 4 * np.sqrt(0.19 * others)


def test_a_silent_platform_is_silent_for_its_days():
    """Its rows are lost on those days and come again after them."""
    _, days = _run([SilentPlatform("meta", from_day=1, days=1)])
    assert ["meta" in set(d["platform"]) for d in days] == [True, False, True]


def test_faults_lie_over_one_another():
    """A second fault leaves the draws of the first as they were, and the truth is the same."""
    one, alone = _run([MissingTags(0.2)])
    two, both = _run([MissingTags(0.2), Duplicates(0.5)])
    for a, b in zip(alone, both, strict=True):
        first = dict(zip(b["event_id"], b["creative"], strict=True))
        assert dict(zip(a["event_id"], a["creative"], strict=True)) == first
        assert set(b) == set(COLUMNS)
    budgets = one.market.equal_split()
    assert one.market.truth(1, budgets).total == two.market.truth(1, budgets).total


def _change(simulator):
    arm = simulator.market.arms[0]
    target = simulator.targets[arm]
    return simulator.platforms[target.platform], Change(action_id="x", target=target, budget=Money.of(1, "EUR"))


def test_platform_faults_reach_the_platforms():
    """Slow, lost, ignored and refused changes are what a platform then does."""
    at = Simulator(small(), seed=4).market.day_start(2)
    slow, _ = _run([SlowChanges("6h", "0h")])
    platform, change = _change(slow)
    platform.send(change, now=at)
    assert platform.budget_at(change.target.resource, at + timedelta(hours=5)).units == 175.0
    assert platform.budget_at(change.target.resource, at + timedelta(hours=6)).units == 1.0
    lost, _ = _run([LostReplies(1.0)])
    platform, change = _change(lost)
    assert platform.send(change, now=at).status == "unknown"
    ignored, _ = _run([IgnoredChanges(1)])
    platform, change = _change(ignored)
    assert platform.send(change, now=at).status == "accepted"
    assert platform.budget_at(change.target.resource, at + timedelta(days=1)).units == 175.0
    down, _ = _run([Outage(from_day=2, days=1)])
    platform, change = _change(down)
    assert platform.send(change, now=at + timedelta(hours=1)).status in ("not_sent", "throttled", "unknown")
    assert platform.budget_at(change.target.resource, at + timedelta(hours=20)).units == 175.0


def test_wrong_names_are_refused():
    """A share above one, or a platform that is not there, is a mistake of the set-up."""
    with pytest.raises(ConfigurationError, match="share"):
        MissingTags(1.2)
    with pytest.raises(ConfigurationError, match="no such platform"):
        Simulator(small(), faults=[WindowMismatch(platform="bing")])


def test_altered_budgets_are_in_force():
    """From that afternoon the platform's budgets are the altered ones."""
    simulator, _ = _run([AlteredBudgets(day=2, factor=0.5, platform="meta")])
    at = simulator.market.day_start(2)
    for arm, budget in simulator.budgets_at(at + timedelta(hours=16)).items():
        assert budget == (87.5 if arm[0] == "meta" else 175.0)
    assert set(simulator.budgets_at(at + timedelta(hours=14)).values()) == {175.0}
