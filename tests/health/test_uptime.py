"""Uptime against outages that are known, and a lost day that bends no rate: missing, never zero."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from closedloop.attribute import WindowedAttribution
from closedloop.classify import BayesClassifier
from closedloop.health import Thresholds, uptimes, without_gaps
from closedloop.health.daily import daily
from closedloop.health.failures import data_gaps
from closedloop.health.gaps import expected_last_day
from closedloop.health.uptime import judged
from closedloop.ingest import TableIngestor
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

START = date(2026, 1, 5)  # a Monday
FIRST = (START - date(1970, 1, 1)).days
WEEK = np.array([1.3, 1.2, 1.2, 1.1, 1.0, 0.25, 0.2])  # a shop that rests at the weekend
N = 120


def series(seed: int, level: float = 400.0, scatter: float = 2.0, outages: tuple[int, ...] = (), left: float = 0.05) -> np.ndarray:
    """Counts by day: weekly pattern, more than Poisson scatter, known outages."""
    rng = np.random.default_rng(seed)
    mean = level * WEEK[np.arange(N) % 7]
    counts = rng.negative_binomial(mean / (scatter - 1.0), 1.0 / scatter).astype(float)
    for day in outages:
        counts[day] = rng.binomial(int(counts[day]), left)
    return counts


def test_known_outages_are_found_and_quiet_weekends_are_not():
    """Over six series of 120 days: every lost day is found, single and in a run; one day in a thousand is accused."""
    outages = (20, 33, 34, 47, 60, 61, 62, 63, 64, 65, 66, 67, 90)
    missed = accused = 0
    for seed in range(6):
        gap, expected = judged(series(seed, outages=outages), FIRST)
        assert not np.isfinite(expected[:7]).any()
        truth = np.zeros(N, dtype=bool)
        truth[list(outages)] = True
        missed += int((truth & ~gap).sum())
        accused += int((~truth & gap).sum())
    assert missed <= 0.02 * 6 * len(outages)
    assert accused <= 0.001 * 6 * N


def test_without_outages_hardly_a_day_is_accused():
    """Real quiet: weekends, a slow decline, a level of a dozen a day."""
    wrong = 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        slow = rng.poisson(300 * np.exp(-np.arange(N) / 80.0) * WEEK[np.arange(N) % 7]).astype(float)
        small = rng.poisson(12 * WEEK[np.arange(N) % 7]).astype(float)
        wrong += int(judged(series(seed), FIRST)[0].sum() + judged(slow, FIRST)[0].sum() + judged(small, FIRST)[0].sum())
    assert wrong <= 0.001 * 2 * 3 * N


def test_a_platform_that_charges_less_is_quiet():
    """A pause of the budget is no outage; a loss of rows at full spend is."""
    counts, spend = series(1), 1000.0 * WEEK[np.arange(N) % 7]
    counts[50] *= 0.1
    paused = spend.copy()
    paused[50] *= 0.1
    assert not judged(counts, FIRST, paused)[0].any()
    assert np.flatnonzero(judged(counts, FIRST, spend)[0]).tolist() == [50]


def test_a_source_that_stays_low_is_judged_anew():
    """After four weeks a gap is what the source is like: the uptime does not fall for ever."""
    counts = series(3)
    counts[40:] = np.round(counts[40:] * 0.1)
    gap, _ = judged(counts, FIRST)
    assert gap[40:68].mean() > 0.9
    assert not gap[75:].any()


def test_weekend_is_expected_from_weekends():
    """The eighth day is compared with the one day of its kind."""
    counts = np.array([[100.0, 100, 100, 100, 100, 20, 20, 100, 100, 100, 100, 100, 21.0]])
    found = expected_last_day(counts, np.arange(13) % 7)
    assert found is not None
    assert not found.is_gap()[0]


def _rows(days: int = 60, rate: float = 0.05, seed: int = 5, lost_clicks: tuple[int, ...] = (), lost_conversions: tuple[int, ...] = ()):
    """Clicks of two platforms and conversions within the day; days on which an export was lost."""
    rng = np.random.default_rng(seed)
    rows, number = [], 0
    for day in range(days):
        for platform in ("google", "meta"):
            midnight = datetime.combine(START, datetime.min.time(), tzinfo=UTC) + timedelta(days=day)
            rows.append({"event_id": f"s{day}{platform}", "kind": "spend", "occurred_at": midnight, "platform": platform, "cost": 100.0})
            for _ in range(200):
                number += 1
                at = midnight + timedelta(seconds=int(rng.integers(0, 80_000)))
                if not (platform == "meta" and day in lost_clicks):
                    click = {"event_id": f"c{number}", "kind": "click", "occurred_at": at, "user_id": f"u{number}", "platform": platform}
                    rows.append(click)
                if rng.random() < rate and day not in lost_conversions:
                    later = at + timedelta(seconds=int(rng.integers(1, 6000)))
                    rows.append({"event_id": f"v{number}", "kind": "conversion", "occurred_at": later, "user_id": f"u{number}"})
    for row in rows:
        row.setdefault("currency", "EUR")
    return rows


def test_a_lost_day_is_missing_not_zero():
    """Conversions lost for nine days pull rates down as zeros; taken out as missing, rates are those of the days that were seen."""
    lost = tuple(range(30, 39))
    window = AttributionWindow(click="3d", view="1d")
    batch = TableIngestor(TagSchema(arm=("platform",))).ingest(_rows(lost_conversions=lost)).batch
    whole = WindowedAttribution(window, tags=TagSchema(arm=("platform",))).attribute(batch)
    found = uptimes(batch)
    assert found["conversions"].gaps == tuple(START + timedelta(days=d) for d in lost)
    assert found["conversions"].share.low < 1 - 9 / 53 < found["conversions"].share.high
    assert found["google"].gaps == found["meta"].gaps == ()
    assert found["conversions"].missing == pytest.approx(9 * 20, rel=0.25)
    mended = without_gaps(whole, found)
    assert mended.spend_per_arm().tolist() == [6000.0, 6000.0]  # what was shown and paid on these days is known
    assert mended.per_arm("exposures").tolist() == [12_000.0, 12_000.0]
    per_click = [float(o.cohorts.credit.sum() / (o.cohorts.exposures * o.cohorts.maturity).sum()) for o in (whole, mended)]
    assert set(lost) <= {d - FIRST for d in mended.blind.tolist()} <= set(range(26, 39))
    assert mended.daily.missing.tolist() == [FIRST + d for d in lost]
    assert mended.daily.per_day(FIRST, FIRST + 59) == pytest.approx(20.0, rel=0.05)
    assert uptimes(whole)["conversions"].gaps == found["conversions"].gaps  # outcomes see it as well
    assert per_click[0] == pytest.approx(0.05 * 51 / 60, rel=0.08)
    assert per_click[1] == pytest.approx(0.05, rel=0.05)
    signals = BayesClassifier(window, seed=1).classify(mended)
    assert all(low < 0.05 < high for low, high in zip(signals.rate.low, signals.rate.high, strict=True))
    assert signals.spend_per_day.tolist() == pytest.approx([100.0, 100.0])
    assert {"uptime", "gaps"} <= set(found.to_columns())
    assert "conversions" in repr(found)
    assert "<table" in found._repr_html_()
    assert len(found.to_frame()) == len(found) == 3


def test_a_platforms_lost_clicks_do_not_make_it_dear():
    """Clicks that were lost while the platform charged on: the day goes out with its spend, and a click costs what it did."""
    lost = (31, 44, 45)
    window = AttributionWindow(click="3d", view="1d")
    schema = TagSchema(arm=("platform",))
    whole = WindowedAttribution(window, tags=schema).attribute(TableIngestor(schema).ingest(_rows(lost_clicks=lost)).batch)
    found = uptimes(whole)
    assert found["meta"].gaps == tuple(START + timedelta(days=d) for d in lost)
    assert found["google"].gaps == ()
    mended = without_gaps(whole, found)
    cost = [o.spend_per_arm() / o.per_arm("exposures", 0) for o in (whole, mended)]
    assert cost[0][1] == pytest.approx(0.5 * 60 / 57)
    assert cost[1].tolist() == pytest.approx([0.5, 0.5])
    by_hand = without_gaps(whole, {"meta": [START + timedelta(days=d) for d in lost]})
    assert by_hand.spend_per_arm().tolist() == mended.spend_per_arm().tolist()


def test_conversions_that_come_days_after_the_last_clicks_are_no_outage_of_the_platforms():
    """An export cut at a day of clicks, with the conversions that were still to come: old data, not lost days; one silent platform is."""
    window = AttributionWindow(click="3d", view="1d")
    schema = TagSchema(arm=("platform",))
    whole = _rows(days=30)
    late = [
        {"event_id": f"late{i}", "kind": "conversion", "user_id": f"u{i}", "currency": "EUR",
         "occurred_at": datetime.combine(START, datetime.min.time(), tzinfo=UTC) + timedelta(days=30 + i // 20, hours=i % 20)}
        for i in range(80)
    ]  # fmt: skip
    for rows, silent in (
        (whole + late, set()),
        ([r for r in whole if r.get("platform") != "meta" or r["occurred_at"].date() < START + timedelta(days=20)], {"meta"}),
    ):
        batch = TableIngestor(schema).ingest(rows).batch
        outcomes = WindowedAttribution(window, tags=schema).attribute(batch)
        assert {f.scope for f in data_gaps(daily(outcomes, 60), Thresholds())} == silent
        assert {u.source for seen in (batch, outcomes) for u in uptimes(seen).rows if u.gaps} - {"conversions"} == silent
