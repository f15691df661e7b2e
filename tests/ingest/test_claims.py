"""What platforms credit to themselves is read, compared and never added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from closedloop.errors import ConfigurationError, MissingColumnError
from closedloop.health import Thresholds, compare_reports
from closedloop.ingest import TableIngestor, platform_claims


def google(day: str, conversions: Any, campaign: str = "Spring", value: Any = 0) -> dict[str, Any]:
    """A row of a Google Ads report, nested as the API's JSON."""
    return {
        "campaign": {"name": campaign, "id": "1"},
        "segments": {"date": day},
        "metrics": {"impressions": "100", "clicks": "5", "costMicros": "9000000", "conversions": conversions, "conversionsValue": value},
        "customer": {"currencyCode": "EUR"},
    }


def meta(actions: Any, values: Any = None) -> dict[str, Any]:
    """A row of Meta Ads Insights."""
    return {
        "date_start": "2026-01-31",
        "date_stop": "2026-01-31",
        "campaign_name": "Prospecting",
        "actions": actions,
        "action_values": values,
    }


def test_google_rows() -> None:
    """Fractional claims are summed by campaign and day; what is no number from 0 up is counted and left out."""
    rows = [google("2026-01-30", 2.5, value=80), google("2026-01-30", "0.5"), google("2026-01-31", 1.0, "Brand"), google("2026-01-31", -3)]
    rows += [google("2026-01-31", "many"), google("2026-01-31", None), google("2026-01-31", float("inf"))]
    claims = platform_claims(rows, "google_ads")
    assert (claims.n_rows, claims.n_unread) == (7, 3)
    assert claims.to_columns() == {
        "campaign": ["Brand", "Spring"],
        "day": ["2026-01-31", "2026-01-30"],
        "conversions": [1.0, 3.0],
        "value": [0.0, 80.0],
    }
    assert claims.by_campaign() == {"Brand": 1.0, "Spring": 3.0}
    flat = pd.DataFrame({"campaign.name": ["Spring"], "segments.date": ["2026-01-30"], "metrics.conversions": [2.5]})
    assert platform_claims(flat, "google_ads").by_platform() == {"google_ads": 2.5}


@pytest.mark.parametrize("as_text", [False, True])
def test_meta_rows(as_text: bool) -> None:
    """One action type of a row is its claim, as the types contain each other; lists may come as JSON text."""

    def listed(**actions: Any) -> Any:
        made = [{"action_type": t.replace("__", "."), "value": v} for t, v in actions.items()]
        return json.dumps(made) if as_text else made

    rows = [
        meta(listed(link_click="20", purchase="3", omni_purchase="4"), listed(omni_purchase="120.5")),
        meta(listed(offsite_conversion__fb_pixel_purchase="2")),
        meta(listed(link_click="9")),
        meta(None),
        meta(listed(purchase="x")),
        meta("no list" if as_text else {"action_type": "purchase"}),
    ]
    claims = platform_claims(rows, "meta_insights")
    assert (claims.total, claims.value, claims.n_unread) == (6.0, (120.5,), 2)
    assert platform_claims(rows, "meta_insights", action_types=("link_click",)).total == 29


def test_claims_are_compared_and_never_added() -> None:
    """The same rows as events hold no conversion; the claims go to the comparison, which says what they are."""
    rows = [google(f"2026-01-{d:02d}", 10.0) for d in range(1, 31)]
    batch = TableIngestor(preset="google_ads", zone="UTC").ingest(rows).batch
    assert batch.count("conversion") == 0
    assert batch.value.sum() == 0
    claims = platform_claims(rows, "google_ads")
    found = compare_reports({"google_ads": 150.0}, claims.by_platform(), 200.0, Thresholds())
    assert [f.name for f in found if f.scope == "google_ads"] == ["report_differs"]
    assert "compare, never add" in repr(claims)
    assert "300" in claims._repr_html_()
    assert len(claims) == len(claims.to_frame()) == 30


def test_what_cannot_be_claims(tmp_path: Path) -> None:
    """Another preset, or a report without the column, is an error with its mend; no rows are no claims."""
    with pytest.raises(ConfigurationError, match="credits itself"):
        platform_claims([], "ga4")  # type: ignore[arg-type]
    path = tmp_path / "report.csv"
    path.write_text("segments.date,campaign.name,metrics.clicks\n2026-01-31,Spring,5\n")
    with pytest.raises(MissingColumnError, match=r"metrics\.conversions"):
        platform_claims(path, "google_ads")
    assert len(platform_claims([], "meta_insights")) == 0
