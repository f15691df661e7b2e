"""Rows of a Google Ads report: what was spent, and the conversions as Google counts them.

Law of this file: it turns answers to three queries into rows and sends nothing itself. Conversions stand on the day of the click, in
the window of their own conversion action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

import attrs

from closedloop.platforms.google_errors import enum_name
from closedloop.platforms.rows import ReportRows, WholeCounts
from closedloop.records.money import MICROS
from closedloop.records.window import AttributionWindow

# Days between click and conversion that a bucket begins and ends with.
_NUMBERS = ("ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE", "TEN", "ELEVEN", "TWELVE", "THIRTEEN", "FOURTEEN")
_LAGS: Mapping[str, tuple[int, int]] = {
    "LESS_THAN_ONE_DAY": (0, 1),
    **{f"{_NUMBERS[n]}_TO_{_NUMBERS[n + 1]}_DAYS": (n + 1, n + 2) for n in range(13)},
    "FOURTEEN_TO_TWENTY_ONE_DAYS": (14, 21),
    "TWENTY_ONE_TO_THIRTY_DAYS": (21, 30),
    "THIRTY_TO_FORTY_FIVE_DAYS": (30, 45),
    "FORTY_FIVE_TO_SIXTY_DAYS": (45, 60),
    "SIXTY_TO_NINETY_DAYS": (60, 90),
}
_WINDOWS = "SELECT conversion_action.name, conversion_action.click_through_lookback_window_days FROM conversion_action"
_DELIVERY = (
    "SELECT segments.date, campaign.id, campaign.name{group}, metrics.cost_micros, metrics.impressions, metrics.clicks "
    "FROM {level} WHERE segments.date BETWEEN '{first}' AND '{last}'"
)
_CONVERSIONS = (
    "SELECT segments.date, campaign.id, campaign.name{group}, segments.conversion_action_name, segments.conversion_lag_bucket, "
    "metrics.conversions, metrics.conversions_value FROM {level} WHERE segments.date BETWEEN '{first}' AND '{last}'"
)


def lag_days(bucket: str, days_left: int) -> int:
    """Return the whole days between click and conversion that a bucket stands for, at most ``days_left``.

    >>> lag_days("TWO_TO_THREE_DAYS", 30), lag_days("FOURTEEN_TO_TWENTY_ONE_DAYS", 30), lag_days("SIXTY_TO_NINETY_DAYS", 62)
    (2, 17, 62)
    """
    start, end = _LAGS.get(bucket, (0, 1))
    return min((start + end) // 2, max(days_left, 0))


def report_rows(
    search: Callable[[str], Iterable[Any]],
    *,
    name: str,
    customer: str,
    currency: str,
    tz: ZoneInfo,
    days: tuple[date, date],
    level: Literal["campaign", "ad_group"],
) -> list[dict[str, Any]]:
    """Return the rows of a report.

    Args:
        search: Answers a query with plain protobuf rows.
        name: Name of the platform, tag of every row.
        customer: The account.
        currency: Its currency.
        tz: Its time zone.
        days: First and last day.
        level: What a row is about.
    """
    group = ", ad_group.id, ad_group.name" if level == "ad_group" else ""
    span = {"group": group, "level": level, "first": days[0].isoformat(), "last": days[1].isoformat()}
    # no window is Google's for all actions; this one is replaced by each action's own, below
    rows = ReportRows(platform=name, account=customer, currency=currency, tz=tz, window=AttributionWindow(click="30d", view=None))
    found: list[dict[str, Any]] = []
    for line in search(_DELIVERY.format(**span)):
        spent = rows.delivery(
            date.fromisoformat(line.segments.date),
            _tags(line, level),
            _ids(line, level),
            cost=Decimal(line.metrics.cost_micros) / MICROS,
            impressions=line.metrics.impressions,
            clicks=line.metrics.clicks,
        )
        found.extend({**row, "reporting_window": None} for row in spent)
    windows: dict[str, AttributionWindow] = {}
    for line in search(_WINDOWS):
        action = line.conversion_action
        windows[action.name] = AttributionWindow(click=f"{action.click_through_lookback_window_days}d", view=None)
    counts: dict[tuple[str, str], WholeCounts] = {}
    for line in search(_CONVERSIONS.format(**span)):
        day, action_name = date.fromisoformat(line.segments.date), line.segments.conversion_action_name
        bucket = enum_name(line.segments, "conversion_lag_bucket")
        own = attrs.evolve(rows, window=windows[action_name]) if action_name in windows else rows
        made = own.conversions(
            day,
            _tags(line, level),
            _ids(line, level),
            conversion_type=action_name,
            touch="click",
            lag_days=lag_days(bucket, (days[1] - day).days),
            span=bucket.lower(),
            amount=Decimal(repr(line.metrics.conversions)),
            value=Decimal(repr(line.metrics.conversions_value)),
            counts=counts.setdefault((_ids(line, level), action_name), WholeCounts()),
        )
        found.extend({**row, "reporting_window": row["reporting_window"] if action_name in windows else None} for row in made)
    return found


def _tags(line: Any, level: str) -> dict[str, Any]:
    audience = line.ad_group.name if level == "ad_group" else None
    return {"campaign": line.campaign.name, "audience": audience, "creative": None, "placement": None}


def _ids(line: Any, level: str) -> str:
    return f"{line.campaign.id}/{line.ad_group.id}" if level == "ad_group" else str(line.campaign.id)
