"""The rows of every adapter's report are what the ingestor reads: none in quarantine, counts and money kept."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from closedloop.ingest import TableIngestor
from closedloop.platforms.rows import ReportRows, WholeCounts
from closedloop.records.batch import CLICK, CONVERSION, IMPRESSION, SPEND
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow


def rows_of_two_days() -> list[dict]:
    """Two days of one campaign in the shape that all adapters share."""
    from datetime import date
    from decimal import Decimal

    made = ReportRows(
        platform="p", account="1", currency="EUR", tz=ZoneInfo("Europe/Berlin"), window=AttributionWindow(click="7d", view="1d")
    )
    tags = {"campaign": "Autumn", "audience": "S", "creative": "A", "placement": None}
    rows: list[dict] = []
    for day in (date(2026, 10, 24), date(2026, 10, 25)):
        rows += made.delivery(day, tags, "1/2", cost=Decimal("12.34"), impressions=900, clicks=30)
        for touch, lag in (("click", 0), ("click", 4), ("view", 0)):
            rows += made.conversions(
                day,
                tags,
                "1/2",
                conversion_type="purchase",
                touch=touch,
                lag_days=lag,
                span=str(lag),
                amount=Decimal(3),
                value=Decimal("0.30"),
                counts=WholeCounts(),
            )
    return rows


def test_nothing_is_quarantined_and_nothing_lost():
    """Spend, counts and values arrive exactly; conversions carry the touch they are credited to."""
    ingested = TableIngestor(tags=TagSchema(arm=("platform", "campaign", "audience"))).ingest(rows_of_two_days())
    batch = ingested.batch
    assert len(ingested.quarantine) == 0, ingested
    assert batch.currency == "EUR"
    assert batch.cost[batch.kind == SPEND].sum() == 24_680_000
    assert [int(batch.quantity[batch.kind == kind].sum()) for kind in (IMPRESSION, CLICK, CONVERSION)] == [1800, 60, 18]
    assert batch.value[batch.kind == CONVERSION].sum() == 1_800_000
    found = batch.kind == CONVERSION
    lags = (batch.occurred_at[found] - batch.touch_at[found]) / 3_600e6
    # a day of Berlin's autumn has 25 hours: four account days are 96 or 97 hours
    assert sorted(lags) == [0.0, 0.0, 0.0, 0.0, 97.0, 97.0]
    assert sorted(batch.touch_kind[found]) == [0, 0, 0, 0, 1, 1]


def test_the_same_report_again_adds_nothing():
    """Event ids are stable, so a report read twice is counted once."""
    rows = rows_of_two_days()
    ingested = TableIngestor(tags=TagSchema(arm=("platform", "campaign"))).ingest(rows + rows)
    assert ingested.n_duplicates == len(rows)


@pytest.mark.parametrize("moment", [datetime(2026, 10, 23, 22, tzinfo=UTC)])
def test_days_begin_at_the_accounts_midnight(moment):
    """The first row stands at midnight in Berlin."""
    assert rows_of_two_days()[0]["occurred_at"] == moment
