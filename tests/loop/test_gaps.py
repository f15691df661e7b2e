"""A day on which a source was out is missing, never zero, for everything after attribution; the report names it, the replay repeats it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import closedloop as cl

WINDOW = cl.AttributionWindow(click="3d", view="1d")
TAGS = cl.TagSchema(arm=("platform", "campaign"))
START = datetime(2026, 3, 2, tzinfo=UTC)
ARMS = {("google", "brand"): 0.24, ("meta", "social"): 0.12}
CLICKS = 120
NO_SEARCH = cl.Thresholds(gap_share=0.0)


def rows(days: range, *, no_conversions: tuple[int, ...] = (), no_meta: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Clicks, spend and conversions at known rates; the shop's feed or Meta's export lost on some days."""
    out: list[dict[str, Any]] = []
    for day in days:
        rng = np.random.default_rng(day)
        for (platform, campaign), rate in ARMS.items():
            where = {"platform": platform, "campaign": campaign}
            is_out = platform == "meta" and day in no_meta
            at = START + timedelta(days=day)
            if not is_out:
                spend = {"event_id": f"s{day}{platform}", "kind": "spend", "occurred_at": at, "cost": 100.0, "currency": "EUR"}
                out.append({**spend, **where})
            for i in range(CLICKS):
                user, moment = f"{day}{platform}{i}", at + timedelta(minutes=10 * i)
                if not is_out:
                    out.append({"event_id": f"k{user}", "kind": "click", "occurred_at": moment, "user_id": user, **where})
                if rng.random() < rate and not is_out:
                    later = moment + timedelta(hours=float(rng.exponential(3.0)))
                    if (later - START).days not in no_conversions:
                        out.append({"event_id": f"c{user}", "kind": "conversion", "occurred_at": later, "user_id": user})
    return out


def loop_of(**given: Any) -> cl.ClosedLoop:
    return cl.ClosedLoop(window=WINDOW, tags=TAGS, mode="shadow", constraints=cl.Constraints(minimum_volume=20), **given)


def run(loop: cl.ClosedLoop, **outages: tuple[int, ...]) -> cl.CycleReport:
    """Three weeks at once, then four days, then one."""
    for first, last in ((0, 21), (21, 25), (25, 26)):
        report = loop.run_cycle(rows(range(first, last), **outages), now=START + timedelta(days=last))
    return report


def per_click(report: cl.CycleReport) -> dict[str, float]:
    """Conversions by clicks whose conversions can have been seen, in what the loop ranked by."""
    outcomes = report.signals.outcomes
    c, n = outcomes.cohorts, len(outcomes.arms)
    ratio = np.bincount(c.arm, c.credit, n) / np.bincount(c.arm, c.exposures * c.maturity, n)
    return {str(arm[0]): value for arm, value in zip(outcomes.arms, ratio.tolist(), strict=True)}


def test_an_outage_of_the_event_feed_bends_no_rate() -> None:
    """Seven days of lost conversions: as zeros rates come out too low, as missing they are right; spend and clicks are what they were."""
    lost = tuple(range(17, 24))
    loop = loop_of()
    known, zeros = run(loop, no_conversions=lost), run(loop_of(thresholds=NO_SEARCH), no_conversions=lost)
    credited = cl.BayesClassifier(WINDOW).classify(known.signals.outcomes, now=known.now).rate
    for i, ((platform, _), rate) in enumerate(ARMS.items()):
        error = (rate / (CLICKS * 19)) ** 0.5  # of the days that were seen
        assert per_click(known)[platform] == pytest.approx(rate, abs=2.5 * error)
        assert per_click(zeros)[platform] < 0.8 * per_click(known)[platform]
        assert per_click(zeros)[platform] < rate - 2.5 * error
        assert credited.low[i] < rate < credited.high[i]
    assert known.signals.spend_per_day.tolist() == pytest.approx([100.0, 100.0])
    for (platform, _), rate in ARMS.items():
        at = [arm[0] for arm in known.signals.arms].index(platform)
        assert known.signals.weekly_conversions[at] == pytest.approx(7 * CLICKS * rate, rel=0.2)
    finding = next(f for f in known.health.findings if f.name == "lost_days")
    assert all((START + timedelta(days=d)).date().isoformat() in finding.evidence for d in lost)
    assert finding.severity == "warning"
    assert not [f for f in zeros.health.findings if f.name == "lost_days"]
    assert known.outcomes.daily.missing.tolist() == []  # what attribution gave stands in the report as it was
    assert {date(1970, 1, 1) + timedelta(days=d) for d in known.signals.outcomes.daily.missing.tolist()} == {
        (START + timedelta(days=d)).date() for d in lost
    }
    assert cl.replay(loop).identical
    assert cl.replay(loop, corrected=lambda cycle, outcomes: outcomes).identical


def test_a_platforms_lost_days_count_in_no_mean() -> None:
    """Two days without Meta's export: its spend a day and its volume are means of the days that came."""
    report = run(loop_of(), no_meta=(21, 22))
    zeros = run(loop_of(thresholds=NO_SEARCH), no_meta=(21, 22))
    at = [arm[0] for arm in report.signals.arms].index("meta")
    assert report.signals.spend_per_day[at] == pytest.approx(100.0)
    assert zeros.signals.spend_per_day[at] == pytest.approx(100.0 * 5 / 7)
    assert report.signals.exposures_per_day["click"][at] == pytest.approx(CLICKS)
    assert zeros.signals.exposures_per_day["click"][at] == pytest.approx(CLICKS * 5 / 7)
    assert report.signals.weekly_conversions[at] == pytest.approx(7 * CLICKS * 0.12, rel=0.2)
    assert report.signals.weekly_conversions[at] > 1.05 * zeros.signals.weekly_conversions[at]
    assert list(report.signals.outcomes.missing) == ["meta"]
    assert [f.scope for f in report.health.findings if f.name == "lost_days"] == ["meta"]


def test_health_still_sees_the_silence_of_the_newest_day() -> None:
    """The day that is taken out of the evidence is the one that holds the platform."""
    report = run(loop_of(), no_meta=(24, 25))
    assert next((f.name, f.scope) for f in report.health.findings if f.severity == "critical") == ("data_gap", "meta")
