"""What ads platforms credit to themselves: read from their report rows, to be compared with our credit and never added to it.

Law of this file: a claim is no event. It stands under the platform's own window and counts conversions that other platforms claim too, so
it enters no batch; `closedloop.health.compare_reports` and `closedloop.attribute.PlatformReport` take its totals. Of Meta's action types,
which contain each other, one is read in each row.

References: Google Ads API, ``metrics.conversions`` and ``metrics.conversions_value``; Meta Marketing API, Ads Insights, ``actions`` and
``action_values`` (lists of ``action_type`` and ``value``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np

from closedloop.display import frame, html_table, text_table
from closedloop.errors import ConfigurationError
from closedloop.ingest.columns import FINE, MISSING, UNSURE, is_null, text_of
from closedloop.ingest.doors import CHUNK_ROWS, Chunk, chunks
from closedloop.ingest.numbers import read_numbers
from closedloop.ingest.presets.base import first_given, picked
from closedloop.ingest.wording import missing_column

PURCHASES = ("omni_purchase", "purchase", "offsite_conversion.fb_pixel_purchase")


@attrs.frozen(kw_only=True)
class PlatformClaims:
    """Conversions that a platform credits to itself, by campaign and day.

    Args:
        platform: The platform tag of the preset.
        campaign, day: The keys of each line; the day on the account's clock, as the report writes it.
        conversions: Claimed conversions of the line, fractional where the platform's model is.
        value: Claimed value, in the currency of the report.
        n_rows: Report rows read.
        n_unread: Rows whose claim is no number from 0 up: they are in no line.
    """

    platform: str
    campaign: tuple[str, ...]
    day: tuple[str, ...]
    conversions: tuple[float, ...]
    value: tuple[float, ...]
    n_rows: int
    n_unread: int

    def __len__(self) -> int:
        return len(self.campaign)

    @property
    def total(self) -> float:
        """All claimed conversions."""
        return math.fsum(self.conversions)

    def by_platform(self) -> dict[str, float]:
        """Return the total in the form that `closedloop.health.compare_reports` takes."""
        return {self.platform: self.total}

    def by_campaign(self) -> dict[str, float]:
        """Return claimed conversions by campaign."""
        out: dict[str, float] = {}
        for campaign, conversions in zip(self.campaign, self.conversions, strict=True):
            out[campaign] = out.get(campaign, 0.0) + conversions
        return out

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per campaign and day."""
        return {"campaign": list(self.campaign), "day": list(self.day), "conversions": list(self.conversions), "value": list(self.value)}

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the claims as a frame."""
        return frame(self.to_columns(), library)

    def _title(self) -> str:
        return f"Claims of {self.platform}: {self.total:,.1f} conversions under its own window; compare, never add"

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=self._title())


def platform_claims(
    rows: Any, preset: Literal["google_ads", "meta_insights"], *, action_types: Sequence[str] = PURCHASES
) -> PlatformClaims:
    """Return what a platform credits to itself in its report rows.

    Args:
        rows: Any table, as for `TableIngestor.ingest`; one report, each row once.
        preset: Whose rows.
        action_types: Of Meta: the first of these that a row has is its claim. They contain each other, and are not summed.

    Raises:
        ConfigurationError: The preset is of no such platform.
        InputError: The table cannot be read; `MissingColumnError` when no row has the column of claims.

    >>> rows = [{"date_start": "2026-01-31", "campaign_name": "spring", "actions": [{"action_type": "purchase", "value": "3"}]}]
    >>> platform_claims(rows, "meta_insights").by_platform()
    {'meta': 3.0}
    """
    if preset not in _READERS:
        raise ConfigurationError("no platform that credits itself", "preset", preset, None, tuple(_READERS))
    platform, date, names, column, read = _READERS[preset]
    lines: dict[tuple[str, str], list[float]] = {}
    n_rows = n_unread = 0
    there: dict[str, None] = {}
    seen = False
    for chunk in chunks(rows, rows_at_once=CHUNK_ROWS):
        there.update(dict.fromkeys(chunk.columns))
        n_rows += chunk.n
        seen |= bool(picked(chunk, column).notna().any())
        campaigns, days = first_given(*(picked(chunk, n) for n in names)).tolist(), picked(chunk, date).tolist()
        for campaign, day, claim in zip(campaigns, days, read(chunk, action_types), strict=True):
            if claim is None:
                n_unread += 1
            elif claim != (0.0, 0.0):
                line = lines.setdefault(("" if is_null(campaign) else text_of(campaign), "" if is_null(day) else str(day)[:10]), [0.0, 0.0])
                line[0] += claim[0]
                line[1] += claim[1]
    if n_rows and not seen:
        raise missing_column(column, list(there), f"ask the report for {column}")
    keys = sorted(lines)
    return PlatformClaims(
        platform=platform,
        campaign=tuple(k[0] for k in keys),
        day=tuple(k[1] for k in keys),
        conversions=tuple(lines[k][0] for k in keys),
        value=tuple(lines[k][1] for k in keys),
        n_rows=n_rows,
        n_unread=n_unread,
    )


Claim = tuple[float, float] | None


def _google(chunk: Chunk, _: Sequence[str]) -> Iterable[Claim]:
    (count, why), (value, unsaid) = (read_numbers(picked(chunk, f"metrics.{n}")) for n in ("conversions", "conversions_value"))
    good = np.isin(why, (FINE, MISSING, UNSURE)) & np.isin(unsaid, (FINE, MISSING, UNSURE)) & (count >= 0) & np.isfinite(count + value)
    return [(c, v) if g else None for c, v, g in zip(count.tolist(), value.tolist(), good.tolist(), strict=True)]


def _meta(chunk: Chunk, types: Sequence[str]) -> Iterable[Claim]:
    both = zip(picked(chunk, "actions").tolist(), picked(chunk, "action_values").tolist(), strict=True)
    return [_action(count, value, types) for count, value in both]


def _action(counts: Any, values: Any, types: Sequence[str]) -> Claim:
    by_type, worth = _by_type(counts), _by_type(values)
    if by_type is None or worth is None:
        return None
    for kind in types:
        if kind in by_type:
            numbers = [_number(by_type[kind]), _number(worth.get(kind, 0.0))]
            return (numbers[0], numbers[1]) if numbers[0] >= 0 and all(map(math.isfinite, numbers)) else None
    return 0.0, 0.0


def _by_type(listed: Any) -> dict[str, Any] | None:
    """The values of a list of actions by type; None for what is no such list."""
    if isinstance(listed, str):
        try:
            listed = json.loads(listed) if listed.strip() else None
        except (ValueError, RecursionError):
            return None
    if isinstance(listed, Mapping | bytes) or (not isinstance(listed, Iterable) and not is_null(listed)):
        return None
    out = {}
    for entry in [] if is_null(listed) else listed:
        if not isinstance(entry, Mapping):
            return None
        out[str(entry.get("action_type"))] = entry.get("value")
    return out


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


_READERS: dict[str, tuple[str, str, tuple[str, str], str, Any]] = {
    "google_ads": ("google_ads", "segments.date", ("campaign.name", "campaign.id"), "metrics.conversions", _google),
    "meta_insights": ("meta", "date_start", ("campaign_name", "campaign_id"), "actions", _meta),
}
