"""Clock skew is found where the data show it, not claimed where they do not, and corrected on request."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from closedloop.errors import ConfigurationError
from closedloop.ingest import TableIngestor, clock_skew, corrected_clocks
from closedloop.records.batch import EventBatch
from closedloop.records.tags import TagSchema


def market(skew: dict[str, float], seed: int, users: int = 1500) -> EventBatch:
    """Clicks with conversions after exponential delays, and unrelated conversions spread over days; clicks stamped ``skew`` late."""
    rng = np.random.default_rng(seed)
    rows = []
    origin = np.datetime64("2026-01-01T00:00:00")
    for platform, ahead in skew.items():
        click = rng.uniform(86_400, 20 * 86_400, users)
        bought = click + rng.exponential(2400, users)
        stray = rng.uniform(0, 21 * 86_400, users)
        for i in range(users):
            user = {"user_id": f"{platform}{i}", "platform": platform}
            times = [("click", click[i] + ahead), ("conversion", bought[i] if i % 3 else stray[i])]
            for kind, at in times:
                stamp = str(origin + np.timedelta64(round(at * 1e6), "us")) + "Z"
                rows.append({**user, "kind": kind, "occurred_at": stamp, "event_id": f"{platform}-{i}-{kind}"})
    return TableIngestor(TagSchema(arm=("platform",))).ingest(rows).batch


def test_the_skew_is_found_and_its_interval_holds_it() -> None:
    """Clocks ahead, behind and right, over seeds: the interval holds the truth as often as it says, less two standard errors."""
    truth = {"a": 600.0, "b": -900.0, "c": 0.0}
    held, close, n = 0, 0, 0
    for seed in range(6):
        for found in clock_skew(market(truth, seed), level=0.9):
            close += abs(found.seconds.estimate - truth[found.source]) <= 60
            assert 0.5 < found.n_pairs / 1000 < 2
            held += truth[found.source] in found.seconds
            n += 1
    assert held / n >= 0.9 - 2 * np.sqrt(0.9 * 0.1 / n)
    assert close / n >= 0.9


def test_nothing_is_said_where_nothing_is_known() -> None:
    """Too few pairs, or pairs without order: an infinite interval."""
    few = clock_skew(market({"a": 600.0}, 1, users=12))[0]
    assert np.isinf(few.seconds.width)
    rng = np.random.default_rng(5)
    rows = [
        {"user_id": f"u{i}", "platform": "a", "kind": kind, "occurred_at": f"2026-01-01T{t // 3600:02d}:{t // 60 % 60:02d}:{t % 60:02d}Z"}
        for i in range(500)
        for kind, t in zip(("click", "conversion"), rng.integers(0, 86_400, 2).tolist(), strict=True)
    ]
    assert np.isinf(clock_skew(TableIngestor(TagSchema(arm=("platform",))).ingest(rows).batch)[0].seconds.width)
    assert clock_skew(EventBatch.empty()) == ()


def test_a_time_zone_is_found_and_what_lies_beyond_the_reach_is_not_guessed() -> None:
    """Eight hours, as of local time written as UTC, are found; with a reach of six hours they lie beyond it, and nothing is said."""
    batch = market({"a": 8 * 3600.0}, 4)
    assert clock_skew(batch)[0].seconds.estimate == pytest.approx(8 * 3600, abs=60)
    beyond = clock_skew(batch, reach="6h")[0]
    assert beyond.n_pairs > 30
    assert np.isinf(beyond.seconds.width)


def test_an_id_that_many_share_is_left_out() -> None:
    """Ten thousand clicks and as many purchases of "anonymous" would be a hundred million pairs: none is made, and the others are read."""
    rng = np.random.default_rng(6)
    n, people = 10_000, 400
    click = rng.uniform(0, 20 * 86_400, people)
    seconds = np.concatenate([rng.uniform(0, 20 * 86_400, 2 * n), click, click + rng.exponential(2400, people)])
    users = ["anonymous"] * (2 * n) + 2 * [f"u{i}" for i in range(people)]
    kinds = ["click"] * n + ["conversion"] * n + ["click"] * people + ["conversion"] * people
    times = pd.to_datetime((1_767_225_600 + seconds) * 1e6, unit="us", utc=True)
    frame = pd.DataFrame({"user_id": users, "kind": kinds, "platform": "a", "occurred_at": times})
    found = clock_skew(TableIngestor(TagSchema(arm=("platform",))).ingest(frame).batch)[0]
    assert found.n_pairs <= people
    assert 0.0 in found.seconds
    assert found.seconds.width <= 300


def test_corrected_clocks() -> None:
    """The touches of the named platform move, conversions and other platforms do not; the skew is then gone."""
    batch = market({"a": 600.0, "b": 0.0}, 3)
    right = corrected_clocks(batch, {"a": 600.0})
    moved = batch.occurred_at - right.occurred_at
    is_a = batch.tags["platform"].decode() == "a"
    assert set(moved[is_a & (batch.kind == 1)]) == {600_000_000}
    assert not moved[~is_a | (batch.kind == 2)].any()
    assert abs(clock_skew(right)[0].seconds.estimate) <= 90


def test_steps() -> None:
    """A step that is no step of the reach is refused."""
    for options in ({"step": "8h"}, {"reach": "400d", "step": "1s"}):
        with pytest.raises(ConfigurationError):
            clock_skew(EventBatch.empty(), **options)
