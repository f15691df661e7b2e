"""Currencies: converted by the user's table, by day where it says so, or set aside."""

from __future__ import annotations

from typing import Any

import pytest

from closedloop.errors import ConfigurationError
from closedloop.ingest import TableIngestor
from closedloop.records.tags import TagSchema

TAGS = TagSchema(arm=("platform",))


def spend(currency: str | None, cost: float, day: str = "2026-01-31") -> dict[str, Any]:
    return {"kind": "spend", "occurred_at": f"{day}T12:00:00Z", "platform": "x", "cost": cost, "currency": currency}


def test_conversion_by_the_users_table() -> None:
    """Each amount by the rate of its currency and day; no rate, no guess; no money, no need of a rate."""
    rates = {"USD": {"2026-01-01": 0.5, "2026-02-01": 0.25}, "JPY": 0.006}
    rows = [spend("EUR", 1), spend(None, 2), spend("USD", 10), spend("USD", 10, "2026-02-01"), spend("JPY", 1000)]
    rows += [spend("USD", 7, "2025-12-31"), spend("CHF", 7), spend("CHF", 0)]
    done = TableIngestor(TAGS, currency="EUR", rates=rates).ingest(rows)
    assert done.batch.cost.tolist() == [1_000_000, 2_000_000, 5_000_000, 2_500_000, 6_000_000, 0]
    assert done.batch.currency == "EUR"
    assert [r.value for r in done.quarantine.rows] == ["'USD'", "'CHF'"]
    assert "no rate that day" in done.quarantine.rows[0].reason


@pytest.mark.parametrize(
    "options",
    [
        {"rates": {"USD": 1.0}},
        {"currency": "EUR", "rates": {"USD": 0}},
        {"currency": "EUR", "rates": {"USD": float("inf")}},
        {"currency": "EUR", "rates": {"USD": "0.9"}},
        {"currency": "EUR", "rates": {"USD": {"soon": 0.9}}},
        {"currency": "EUR", "rates": {"USD": {}}},
    ],
)
def test_tables_that_are_none(options: dict[str, Any]) -> None:
    """A rate is a positive number, a day is a date, and there is something to convert to."""
    with pytest.raises(ConfigurationError):
        TableIngestor(**options)
