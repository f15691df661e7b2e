"""Google Analytics 4, BigQuery export: sessions are touches, purchases are conversions.

One row is one event; nested records as BigQuery gives them (dictionaries, Arrow structs), or flat columns with dots. A ``session_start``
is a touch; its tags come from ``session_traffic_source_last_click.manual_campaign``, else ``collected_traffic_source``, else
``traffic_source`` (how the user was first acquired); a ``gclid`` without a source is google / cpc. ``purchase`` and ``in_app_purchase``
are conversions, with ``ecommerce.purchase_revenue`` in the ``currency`` of the event's parameters, else ``event_value_in_usd``. The user
is ``user_pseudo_id``, the device's cookie: ``user_id`` is there only after a login and would cut journeys in two. Purchases with one
``transaction_id`` are one purchase. Everything else is accepted and says nothing.

References: "[GA4] BigQuery Export schema", https://support.google.com/analytics/answer/7029846
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from closedloop.ingest.doors import Chunk
from closedloop.ingest.presets.base import Draft, Events, Preset, assembled, first_given, joined_ids, picked
from closedloop.records.tags import TagSchema

_LAST = "session_traffic_source_last_click.manual_campaign."
_COLLECTED = "collected_traffic_source.manual_"


def parameter(events: Any, key: str) -> Any:
    """Return one event parameter of each row, whichever of its typed values is set.

    >>> import pandas as pd
    >>> rows = pd.Series([[{"key": "currency", "value": {"string_value": "EUR", "int_value": None}}], None])
    >>> parameter(rows, "currency").tolist()
    ['EUR', None]
    """
    import pandas as pd

    out = np.empty(len(events), dtype=object)
    out[:] = [_value(row, key) for row in events.tolist()]
    return pd.Series(out, dtype=object)


def _value(row: Any, key: str) -> Any:
    if not isinstance(row, Iterable) or isinstance(row, str | bytes):
        return None
    for entry in row:
        if isinstance(entry, Mapping) and entry.get("key") == key:
            value = entry.get("value")
            if isinstance(value, Mapping):
                return next((v for v in value.values() if v is not None), None)
            return value
    return None


def _events(chunk: Chunk) -> Events:
    def pick(path: str) -> Any:
        return picked(chunk, path)

    name, parameters = pick("event_name"), pick("event_params")
    clicked = first_given(pick("collected_traffic_source.gclid"), parameter(parameters, "gclid"))
    google = clicked.map(lambda _: "google", na_action="ignore")
    paid = clicked.map(lambda _: "cpc", na_action="ignore")
    touches = np.flatnonzero((name == "session_start").to_numpy(dtype=bool, na_value=False))
    bought = np.flatnonzero(name.isin(["purchase", "in_app_purchase"]).to_numpy(dtype=bool))
    common = {"user_id": pick("user_pseudo_id"), "occurred_at": pick("event_timestamp")}
    row_id = joined_ids("ga4", pick("user_pseudo_id"), pick("event_timestamp"), name, pick("batch_event_index"))
    touch = Draft(
        rows=touches,
        fields={
            **common,
            "kind": "click",
            "event_id": row_id,
            "platform": first_given(pick(_LAST + "source"), pick(_COLLECTED + "source"), google, pick("traffic_source.source")),
            "placement": first_given(pick(_LAST + "medium"), pick(_COLLECTED + "medium"), paid, pick("traffic_source.medium")),
            "campaign": first_given(pick(_LAST + "campaign_name"), pick(_COLLECTED + "campaign_name"), pick("traffic_source.name")),
            "creative": first_given(pick(_LAST + "content"), pick(_COLLECTED + "content")),
            "audience": first_given(pick(_LAST + "term"), pick(_COLLECTED + "term")),
        },
    )
    local, dollars = pick("ecommerce.purchase_revenue"), pick("event_value_in_usd")
    money = parameter(parameters, "currency")
    in_local = (local.notna() & money.notna()).to_numpy(dtype=bool)
    has_dollars = dollars.notna().to_numpy(dtype=bool)
    transaction = pick("ecommerce.transaction_id")
    real = (transaction.notna() & ~transaction.isin(["", "(not set)"])).to_numpy(dtype=bool)
    conversion = Draft(
        rows=bought,
        fields={
            **common,
            "kind": "conversion",
            "event_id": joined_ids("ga4:transaction", transaction).where(real, row_id),
            "value": local.astype(object).where(in_local, dollars.astype(object).where(has_dollars, None)),
            "currency": money.where(in_local, first_given(dollars).map(lambda _: "USD", na_action="ignore")),
            "conversion_type": name,
        },
    )
    source = {"user_id": "user_pseudo_id", "occurred_at": "event_timestamp", "value": "ecommerce", "platform": "traffic_source"}
    return assembled([touch, conversion], {**source, "campaign": "traffic_source", "currency": "event_params", "kind": "event_name"})


PRESET = Preset(
    name="ga4",
    tags=TagSchema(arm=("platform", "campaign", "placement")),
    needs=("event_name", "event_timestamp", "user_pseudo_id"),
    events=_events,
    time_unit="us",
    reference="https://support.google.com/analytics/answer/7029846",
)
