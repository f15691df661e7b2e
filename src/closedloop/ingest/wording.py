"""Words for a missing column: what is there, and the mapping that would mend it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from closedloop.errors import MissingColumnError

# Names that other systems give to our fields, in the order in which they are believed.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "kind": ("event", "event_type", "type", "event_name", "action", "event_kind", "what"),
    "occurred_at": (
        "timestamp",
        "time",
        "event_time",
        "event_timestamp",
        "datetime",
        "date_time",
        "event_date",
        "date",
        "ts",
        "created_at",
        "day",
        "collector_tstamp",
    ),
    "recorded_at": ("received_at", "ingested_at", "loaded_at", "inserted_at"),
    "user_id": ("uid", "user", "customer_id", "visitor_id", "client_id", "client", "customer", "user_pseudo_id", "domain_userid", "who"),
    "campaign": ("campaign_name", "utm_campaign", "campaign_id", "mkt_campaign"),
    "platform": ("source", "utm_source", "channel", "network", "mkt_source"),
    "audience": ("ad_group", "adset", "adgroup", "adset_name", "ad_group_name", "segment"),
    "creative": ("ad", "ad_id", "ad_name", "item_id", "utm_content"),
    "placement": ("position", "slot", "publisher_platform", "utm_medium", "medium"),
    "cost": ("spend", "amount_spent", "spent", "cost_micros"),
    "value": ("revenue", "conversion_value", "purchase_value", "order_value", "price"),
    "currency": ("currency_code", "account_currency"),
    "conversion_type": ("conversion_name", "conversion_action", "goal"),
    "event_id": ("id", "uuid"),
}


def likely_column(field: str, there: Sequence[str]) -> str | None:
    """Return the column that probably holds a field, None when nothing looks like it.

    >>> likely_column("occurred_at", ["when", "Timestamp"])
    'Timestamp'
    """
    lowered = {name.lower().strip().replace(" ", "_").replace("-", "_"): name for name in reversed(there)}
    for other in (field, *OTHER_NAMES.get(field, ())):
        if other in lowered:
            return lowered[other]
    near = difflib.get_close_matches(field, list(lowered), n=1, cutoff=0.7)
    return lowered[near[0]] if near else None


def missing_column(field: str, there: Sequence[str], because: str = "") -> MissingColumnError:
    """Return the error that names the missing column, those that are there and the mapping that would mend it."""
    guess = likely_column(field, there)
    theirs = guess if guess is not None else "their_column"
    mend = f"map it: mapping={{{theirs!r}: {field!r}}} (--map {theirs}={field})"
    if because:
        mend = because
    return MissingColumnError(f"column {field!r} is missing", field, None, mend, tuple(there))
