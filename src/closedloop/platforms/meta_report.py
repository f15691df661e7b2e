"""Rows of a Meta report: what was spent by ad and day, and the conversions as Meta counts them.

Law of this file: it turns pages of insights into rows and sends nothing itself. Conversions stand on the day of the touch; Meta's
windows are cumulative and become spans of lags here.

References:
    Meta, Marketing API, insights: ``action_attribution_windows``, ``action_report_time``, cursor paging (read in November 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from closedloop.platforms.rows import ReportRows, WholeCounts
from closedloop.records.window import AttributionWindow, TouchKind

CLICK_DAYS = (1, 7, 28)
_NAMES = ("campaign_id", "campaign_name", "adset_id", "adset_name", "ad_id", "ad_name")
_BREAKDOWN = "publisher_platform"
FIELDS = (*_NAMES, _BREAKDOWN)
_PAGE = 500


def report_rows(
    get: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    *,
    rows: ReportRows,
    days: tuple[date, date],
    tags: Mapping[str, str],
    conversion_types: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the rows of a report.

    Args:
        get: Reads one page of insights with the given parameters.
        rows: Builds rows.
        days: First and last day of the account.
        tags: Which of `FIELDS` gives each tag.
        conversion_types: Action types that count as conversions.
    """
    counts: dict[tuple[str, str, str], WholeCounts] = {}
    found: list[dict[str, Any]] = []
    for line in _lines(get, rows.window, days, _BREAKDOWN in tags.values()):
        found.extend(_rows(rows, line, days[1], tags, conversion_types, counts))
    return found


def _click_days(window: AttributionWindow) -> list[int]:
    return [] if window.click is None else [d for d in CLICK_DAYS if timedelta(days=d) <= window.click]


def _lines(
    get: Callable[[Mapping[str, Any]], Mapping[str, Any]], window: AttributionWindow, days: tuple[date, date], by_publisher: bool
) -> Iterator[Mapping[str, Any]]:
    params: dict[str, Any] = {
        "level": "ad",
        "time_increment": 1,
        "time_range": {"since": days[0].isoformat(), "until": days[1].isoformat()},
        "fields": ",".join([*_NAMES, "spend", "impressions", "clicks", "actions", "action_values"]),
        "action_attribution_windows": [f"{d}d_click" for d in _click_days(window)] + (["1d_view"] if window.view else []),
        "action_report_time": "impression",
        "limit": _PAGE,
    }
    if by_publisher:
        params["breakdowns"] = [_BREAKDOWN]
    while True:
        page = get(params)
        yield from page.get("data", ())
        # "next" is an address that contains the token; the cursor says the same without it
        paging = page.get("paging") or {}
        if "next" not in paging:
            return
        params["after"] = paging["cursors"]["after"]


def _rows(
    rows: ReportRows,
    line: Mapping[str, Any],
    last: date,
    tags: Mapping[str, str],
    conversion_types: Sequence[str],
    counts: dict[tuple[str, str, str], WholeCounts],
) -> Iterator[dict[str, Any]]:
    day = date.fromisoformat(line["date_start"])
    named = {tag: line.get(field) for tag, field in tags.items()}
    ids = "/".join([line["campaign_id"], line["adset_id"], line["ad_id"], line.get(_BREAKDOWN, "")]).rstrip("/")
    spent, seen, clicked = (line.get(k, "0") for k in ("spend", "impressions", "clicks"))
    yield from rows.delivery(day, named, ids, cost=Decimal(spent), impressions=int(seen), clicks=int(clicked))
    values = {entry["action_type"]: entry for entry in line.get("action_values", ())}
    for entry in line.get("actions", ()):
        kind = entry["action_type"]
        if kind not in conversion_types:
            continue
        for touch, lag, span, amount, value in _spans(rows.window, entry, values.get(kind, {}), (last - day).days):
            yield from rows.conversions(
                day,
                named,
                ids,
                conversion_type=kind,
                touch=touch,
                lag_days=lag,
                span=span,
                amount=amount,
                value=value,
                counts=counts.setdefault((ids, kind, touch), WholeCounts()),
            )


def _spans(
    window: AttributionWindow, entry: Mapping[str, Any], values: Mapping[str, Any], days_left: int
) -> Iterator[tuple[TouchKind, int, str, Decimal, Decimal | None]]:
    """Split Meta's cumulative windows: what came within a day, then up to 7 days, then up to 28."""
    before, value_before, start = Decimal(0), Decimal(0), 0
    for days in _click_days(window):
        key = f"{days}d_click"
        amount, value = Decimal(entry.get(key, before)), Decimal(values.get(key, value_before))
        if amount > before:
            lag = min((start + days) // 2, max(days_left, 0))
            yield "click", lag, key, amount - before, value - value_before if values else None
        before, value_before, start = amount, value, days
    if window.view and "1d_view" in entry:
        yield "view", 0, "1d_view", Decimal(entry["1d_view"]), Decimal(values.get("1d_view", 0)) if values else None
