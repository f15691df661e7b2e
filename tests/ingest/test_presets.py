"""Presets: rows shaped as each export's published schema says become the events they tell of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from closedloop.errors import MissingColumnError
from closedloop.ingest import PRESETS, TableIngestor
from closedloop.records.batch import EventBatch

US = 1_000_000


def lines(batch: EventBatch, *names: str) -> list[tuple[Any, ...]]:
    columns = batch.to_columns()
    return list(zip(*(list(columns[n]) for n in names), strict=True))


def test_every_preset_says_where_its_schema_is() -> None:
    """A preset names its tags and its source."""
    assert set(PRESETS) == {"open_bandit", "ga4", "snowplow", "google_ads", "meta_insights", "criteo"}
    assert all(p.reference.startswith("https://") and p.tags.arm and p.name == name for name, p in PRESETS.items())


def test_snowplow_fixture_gives_its_own_projects_conversions_and_sessions(shared_data: Path) -> None:
    """From the 98 raw events to the conversions and the sessions that the fixture's project expects, one by one."""
    folder = shared_data / "snowplow_fractribution"
    done = TableIngestor(preset="snowplow", currency="USD").ingest(folder / "snowplow_fractribution_events.csv")
    assert (done.n_rows, done.n_accepted, len(done.quarantine), done.n_duplicates) == (98, 98, 0, 0)
    batch = done.batch
    expected = pd.read_csv(folder / "snowplow_fractribution_conversions_by_customer_id_expected.csv")
    when = pd.to_datetime(expected["conversion_tstamp"]).to_numpy().astype("datetime64[us]")
    want = sorted(zip(expected["customer_id"].str[1:], when, expected["revenue"], strict=True))
    bought = batch.take(batch.kind == 2)
    assert sorted(lines(bought, "user_id", "occurred_at", "value")) == want
    sessions = pd.read_csv(folder / "snowplow_fractribution_sessions_by_customer_id_expected.csv").fillna("(none given)")
    when = pd.to_datetime(sessions["visit_start_tstamp"]).to_numpy().astype("datetime64[us]")
    want = sorted(zip(sessions["customer_id"].str[1:], when, sessions["source"], sessions["medium"], sessions["campaign"], strict=True))
    touched = batch.take(batch.kind == 1)
    got = [
        tuple("(none given)" if v is None else v for v in line)
        for line in lines(touched, "user_id", "occurred_at", "platform", "placement", "campaign")
    ]
    assert sorted(got) == want


def ga4_rows() -> list[dict[str, Any]]:
    def params(**values: Any) -> list[dict[str, Any]]:
        empty = {"string_value": None, "int_value": None, "float_value": None, "double_value": None}
        return [{"key": k, "value": {**empty, "int_value" if isinstance(v, int) else "string_value": v}} for k, v in values.items()]

    base = {"event_date": "20260131", "user_pseudo_id": "111.222", "user_id": None, "platform": "WEB", "batch_event_index": 1}
    first = {"source": "newsletter", "medium": "email", "name": "welcome"}
    last = {"manual_campaign": {"source": "google", "medium": "cpc", "campaign_name": "Spring", "content": "banner", "term": None}}
    return [
        {
            **base,
            "event_name": "session_start",
            "event_timestamp": 1_769_860_800 * US,
            "event_params": params(ga_session_id=5),
            "traffic_source": first,
            "session_traffic_source_last_click": last,
            "ecommerce": None,
            "event_value_in_usd": None,
        },
        {
            **base,
            "event_name": "page_view",
            "event_timestamp": 1_769_860_801 * US,
            "event_params": params(page_location="https://shop.example/"),
        },
        {
            **base,
            "event_name": "session_start",
            "event_timestamp": 1_769_860_900 * US,
            "user_pseudo_id": "333.444",
            "event_params": params(),
            "traffic_source": first,
            "collected_traffic_source": {"gclid": "Cj0", "manual_source": None},
        },
        {
            **base,
            "event_name": "purchase",
            "event_timestamp": 1_769_861_000 * US,
            "event_params": params(currency="EUR"),
            "ecommerce": {"purchase_revenue": 20.5, "transaction_id": "T1"},
            "event_value_in_usd": 24.1,
        },
        {
            **base,
            "event_name": "purchase",
            "event_timestamp": 1_769_861_009 * US,
            "event_params": params(currency="EUR"),
            "ecommerce": {"purchase_revenue": 20.5, "transaction_id": "T1"},
            "event_value_in_usd": 24.1,
        },
    ]


@pytest.mark.parametrize("door", ["rows", "arrow"])
def test_ga4(door: str) -> None:
    """Sessions with their last-click source, purchases by transaction in their own currency; page views say nothing."""
    rows: Any = ga4_rows()
    if door == "arrow":
        pa = pytest.importorskip("pyarrow")
        names = dict.fromkeys(n for r in rows for n in r)
        rows = pa.Table.from_pylist([{**dict.fromkeys(names), **r} for r in rows])
    done = TableIngestor(preset="ga4").ingest(rows)
    assert (done.n_rows, done.n_accepted, done.n_duplicates) == (5, 4, 1)
    assert done.batch.currency == "EUR"
    assert lines(done.batch, "kind", "user_id", "platform", "placement", "campaign", "creative", "value") == [
        ("click", "111.222", "google", "cpc", "Spring", "banner", 0.0),
        ("click", "333.444", "google", "cpc", "welcome", None, 0.0),
        ("conversion", "111.222", None, None, None, None, 20.5),
    ]
    assert done.batch.occurred_at[0] == 1_769_860_800 * US


def google_rows(nested: bool) -> list[dict[str, Any]]:
    flat = {
        "customer.currency_code": "EUR",
        "campaign.id": 11,
        "campaign.name": "Spring",
        "ad_group.id": 22,
        "ad_group.name": "Shoes",
        "ad_group_ad.ad.id": 33,
        "segments.date": "2026-01-31",
        "segments.ad_network_type": "SEARCH",
        "metrics.impressions": 1000,
        "metrics.clicks": 30,
        "metrics.cost_micros": 12_340_000,
        "metrics.conversions": 2.5,
    }
    quiet = {**flat, "segments.ad_network_type": "CONTENT", "metrics.impressions": 7, "metrics.clicks": 0, "metrics.cost_micros": 0}
    if not nested:
        return [flat, quiet]
    return [
        {
            "customer": {"currencyCode": "EUR"},
            "campaign": {"id": "11", "name": "Spring"},
            "adGroup": {"id": "22", "name": "Shoes"},
            "adGroupAd": {"ad": {"id": "33"}},
            "segments": {"date": "2026-01-31", "adNetworkType": r["segments.ad_network_type"]},
            "metrics": {
                "impressions": str(r["metrics.impressions"]),
                "clicks": str(r["metrics.clicks"]),
                "costMicros": str(r["metrics.cost_micros"]),
                "conversions": 2.5,
            },
        }
        for r in (flat, quiet)
    ]


@pytest.mark.parametrize("nested", [False, True])
def test_google_ads(nested: bool) -> None:
    """One row becomes impressions, clicks and spend; its credited conversions are left to be compared."""
    done = TableIngestor(preset="google_ads", zone="Europe/Berlin").ingest(google_rows(nested))
    assert (done.n_accepted, len(done.quarantine)) == (2, 0)
    assert sorted(lines(done.batch, "kind", "campaign", "audience", "creative", "placement", "quantity", "cost")) == [
        ("click", "Spring", "Shoes", "33", "SEARCH", 30, 0.0),
        ("impression", "Spring", "Shoes", "33", "CONTENT", 7, 0.0),
        ("impression", "Spring", "Shoes", "33", "SEARCH", 1000, 0.0),
        ("spend", "Spring", "Shoes", "33", "SEARCH", 1, 12.34),
    ]
    assert {str(t) for t in done.batch.occurred_at.view("datetime64[us]")} == {"2026-01-31T11:00:00.000000"}


def test_a_report_fetched_again_replaces_the_earlier_one() -> None:
    """The id is made of ids and segments: a restated row is a correction, not an addition."""
    old = TableIngestor(preset="google_ads", zone="UTC", constants={"recorded_at": "2026-02-01T00:00:00Z"})
    new = TableIngestor(preset="google_ads", zone="UTC", constants={"recorded_at": "2026-02-02T00:00:00Z"})
    restated = [{**r, "metrics.cost_micros": r["metrics.cost_micros"] * 2, "campaign.name": "Renamed"} for r in google_rows(False)]
    first, second = old.ingest(google_rows(False)).batch, new.ingest(restated).batch
    from closedloop.ingest import settle

    whole = settle([second, first])
    assert whole.cost.sum() == 24_680_000
    assert whole.count("impression") == 1007


def meta_rows() -> list[dict[str, Any]]:
    return [
        {
            "account_id": "1",
            "account_currency": "USD",
            "campaign_id": "10",
            "campaign_name": "Prospecting",
            "adset_id": "20",
            "adset_name": "Lookalike",
            "ad_id": "30",
            "ad_name": "Video A",
            "date_start": "2026-01-31",
            "date_stop": "2026-01-31",
            "impressions": "361",
            "clicks": "20",
            "inline_link_clicks": "12",
            "spend": "53.39",
            "publisher_platform": "instagram",
            "platform_position": "feed",
            "actions": [{"action_type": "purchase", "value": "3"}],
        },
    ]


def test_meta_insights() -> None:
    """Numbers as texts, link clicks, the placement from the breakdowns; a row over several days is set aside."""
    rows = meta_rows()
    rows.append({**rows[0], "date_stop": "2026-02-27"})
    rows.append({**rows[0], "date_start": "2026-02-01", "date_stop": "2026-02-01", "spend": "much"})
    done = TableIngestor(preset="meta_insights", zone="America/New_York").ingest(rows)
    assert (done.n_accepted, len(done.quarantine)) == (1, 2)
    assert sorted(lines(done.batch, "kind", "campaign", "audience", "creative", "placement", "quantity", "cost")) == [
        ("click", "Prospecting", "Lookalike", "Video A", "instagram:feed", 12, 0.0),
        ("impression", "Prospecting", "Lookalike", "Video A", "instagram:feed", 361, 0.0),
        ("spend", "Prospecting", "Lookalike", "Video A", "instagram:feed", 1, 53.39),
    ]
    several, words = done.quarantine.rows
    assert "several days" in several.reason
    assert "time_increment=1" in several.mend
    assert (words.field, words.value) == ("cost", "'much'")


def test_daily_rows_from_typed_frames() -> None:
    """Dates as dates, numbers as numbers, through pandas and Parquet's types."""
    frame = pd.DataFrame(meta_rows()).assign(date_start=pd.Timestamp("2026-01-31"), impressions=361, spend=53.39, date_stop=None)
    done = TableIngestor(preset="meta_insights", zone="UTC").ingest(frame)
    assert done.n_accepted == 1
    assert done.batch.occurred_at.view("datetime64[us]").astype(str).tolist()[0].startswith("2026-01-31T12")


def test_criteo(tmp_path: Path) -> None:
    """Impressions, clicked ones, and one conversion told of by two lines."""
    names = [
        "timestamp",
        "uid",
        "campaign",
        "conversion",
        "conversion_timestamp",
        "conversion_id",
        "attribution",
        "click",
        "click_pos",
        "click_nb",
    ]
    names += ["cost", "cpo", "time_since_last_click", *(f"cat{i}" for i in range(1, 10))]
    tail = [0.2, -1] + [7] * 9
    rows = [
        [0, 20073966, 22589171, 0, -1, -1, 0, 0, -1, -1, 1e-5, *tail],
        [2, 24607497, 884761, 1, 100, 555, 0, 0, -1, -1, 2e-5, *tail],
        [9, 24607497, 884761, 1, 100, 555, 1, 1, 0, 1, 4e-5, *tail],
    ]
    path = tmp_path / "criteo_attribution_dataset.tsv.gz"
    pd.DataFrame(rows, columns=names).to_csv(path, sep="\t", index=False)
    done = TableIngestor(preset="criteo").ingest(path)
    assert (done.n_accepted, done.n_duplicates, len(done.quarantine)) == (3, 0, 0)
    assert [done.batch.count(k) for k in ("impression", "click", "conversion")] == [3, 1, 1]
    bought = done.batch.take(done.batch.kind == 2)
    assert bought.user_id.decode().tolist() == ["24607497"]
    assert bought.occurred_at[0] - done.batch.occurred_at[0] == 100 * US
    assert np.array_equal(np.sort(done.batch.cost[done.batch.kind == 0]), [10, 20, 40])


def test_another_table_is_named() -> None:
    """A preset on a table of another kind says which column is missing."""
    for name in PRESETS:
        with pytest.raises(MissingColumnError):
            TableIngestor(preset=name, zone="UTC").ingest([{"colour": "red"}])
