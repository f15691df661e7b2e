"""Daily report rows of an ads platform: each becomes impressions, clicks and spend, with ids that a restated report replaces.

Law of this file: what a platform *credits* to itself is not read here, only what it shows, counts and charges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from closedloop.ingest.columns import FINE, MISSING, UNSURE
from closedloop.ingest.doors import Chunk
from closedloop.ingest.numbers import read_numbers
from closedloop.ingest.presets.base import Draft, Events, assembled, first_given, joined_ids, picked
from closedloop.ingest.schema import Failure
from closedloop.ingest.wording import missing_column


@attrs.frozen(kw_only=True, eq=False)
class Daily:
    """Where a daily report keeps what.

    Args:
        platform: Tag of every row.
        date, impressions, clicks, cost, currency: Paths of columns.
        cost_unit: What one of ``cost`` is in units of the currency.
        campaign, audience, creative, placement: The tags, as Series.
        keys: Series that together tell the rows of a report apart.
        names: Series that join the keys where a report holds no ids.
        until: Path of the last day of a row that may span several, "" where rows are days.
    """

    platform: str
    date: str
    impressions: str
    clicks: str
    cost: str
    currency: str
    campaign: Any
    audience: Any
    creative: Any
    placement: Any
    keys: Sequence[Any]
    names: Sequence[Any]
    cost_unit: float = 1.0
    until: str = ""


def daily_events(chunk: Chunk, report: Daily) -> Events:
    """Return impressions, clicks and spend of daily rows; a count of nothing becomes no event.

    Raises:
        MissingColumnError: There is no date, or none of impressions, clicks and cost.
    """
    import pandas as pd

    day = picked(chunk, report.date)
    there = list(chunk.columns)
    if chunk.n and not day.notna().any():
        raise missing_column(report.date, there, f"the daily rows of {report.platform} need it")
    measures = {name: picked(chunk, name) for name in (report.impressions, report.clicks, report.cost)}
    if chunk.n and not any(m.notna().any() for m in measures.values()):
        raise missing_column(report.impressions, there, "or clicks, or cost: one of them is needed")
    has_ids = any(k.notna().any() for k in report.keys[:3])
    key = joined_ids(report.platform, day.astype(object).map(_day_text), *report.keys, *([] if has_ids else report.names))
    noon = day.astype(object).map(lambda d: f"{d}T12:00:00" if isinstance(d, str) and len(d) == 10 else _noon(d))
    common = {
        "occurred_at": noon,
        "platform": report.platform,
        "campaign": report.campaign,
        "audience": report.audience,
        "creative": report.creative,
        "placement": report.placement,
        "currency": first_given(picked(chunk, report.currency)),
    }
    drafts = []
    for kind, name in (("impression", report.impressions), ("click", report.clicks), ("spend", report.cost)):
        numbers, why = read_numbers(measures[name])
        absent = (why == MISSING) | (why == UNSURE)
        some = np.flatnonzero(~absent & ((numbers != 0) | (why != FINE)))
        amount = pd.Series(numbers * report.cost_unit) if kind == "spend" else pd.Series(numbers)
        amount = amount.astype(object).where(why == FINE, measures[name].astype(object))
        counted = {"cost": amount, "quantity": 1} if kind == "spend" else {"cost": 0, "quantity": amount}
        drafts.append(Draft(rows=some, fields={**common, "kind": kind, "event_id": key + ":" + kind, **counted}))
    source = {"occurred_at": report.date, "cost": report.cost, "quantity": report.impressions, "currency": report.currency}
    return assembled(drafts, source, _spans(chunk, report, drafts))


def _day_text(value: Any) -> Any:
    return value.isoformat()[:10] if hasattr(value, "isoformat") else value


def _noon(value: Any) -> Any:
    """A date as it is in Parquet and pandas: noon of that day on the account's clock; a time of day stays."""
    import datetime as dt

    if isinstance(value, dt.datetime):
        return value.replace(hour=12) if (value.hour, value.minute, value.second) == (0, 0, 0) and value.tzinfo is None else value
    return f"{value.isoformat()}T12:00:00" if isinstance(value, dt.date) else value


def _spans(chunk: Chunk, report: Daily, drafts: Sequence[Draft]) -> list[Failure]:
    if not report.until:
        return []
    first, last = picked(chunk, report.date), picked(chunk, report.until)
    several = (last.notna() & (last.astype(str) != first.astype(str))).to_numpy(dtype=bool)
    at = np.flatnonzero(several[np.concatenate([d.rows for d in drafts])])
    if not len(at):
        return []
    mend = "ask for days: time_increment=1"
    return [Failure(field="occurred_at", check="one_day", reason=f"spans several days (until {report.until})", mend=mend, rows=at)]
