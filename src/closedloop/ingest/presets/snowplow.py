"""Snowplow atomic events: page views that carry a marketing source are touches, events with a transaction total are conversions.

``mkt_source`` is the platform, ``mkt_medium`` the placement, ``mkt_campaign`` the campaign, ``mkt_term`` the audience, ``mkt_content``
the creative; the user is ``domain_userid`` (the first-party cookie). Snowplow fills ``mkt_*`` from the landing page's parameters, so only
the page view that opened a visit carries them. Times are UTC: ``derived_tstamp`` is when it happened, corrected for the device's clock;
``collector_tstamp`` when it was written down. A page view with both is a touch and a conversion.

References: Snowplow, canonical event model (atomic.events), https://docs.snowplow.io/docs/fundamentals/canonical-event/
"""

from __future__ import annotations

import numpy as np

from closedloop.ingest.doors import Chunk
from closedloop.ingest.numbers import read_numbers
from closedloop.ingest.presets.base import Draft, Events, Preset, assembled, first_given, picked
from closedloop.records.tags import TagSchema

_TAGS = {
    "platform": "mkt_source",
    "placement": "mkt_medium",
    "campaign": "mkt_campaign",
    "audience": "mkt_term",
    "creative": "mkt_content",
}
_VIEWS = ("page_view", "page_ping", "screen_view")


def _events(chunk: Chunk) -> Events:
    name = first_given(picked(chunk, "event_name"), picked(chunk, "event"))
    source = first_given(picked(chunk, "mkt_source"), picked(chunk, "mkt_network"))
    total, fault = read_numbers(picked(chunk, "tr_total"))
    viewed = name.isin(_VIEWS[:1] + _VIEWS[2:]).to_numpy(dtype=bool)
    touches = np.flatnonzero(viewed & source.notna().to_numpy(dtype=bool))
    # A total that cannot be read is a conversion that cannot be read; the schema says so.
    bought = np.flatnonzero((total != 0) | ((fault != 0) & ~np.isin(fault, (1, 6))))
    common = {
        "user_id": picked(chunk, "domain_userid"),
        "occurred_at": first_given(picked(chunk, "derived_tstamp"), picked(chunk, "collector_tstamp")),
        "recorded_at": picked(chunk, "collector_tstamp"),
    }
    tags = {field: source if field == "platform" else picked(chunk, column) for field, column in _TAGS.items()}
    ids = picked(chunk, "event_id")
    touch = Draft(rows=touches, fields={**common, **tags, "kind": "click", "event_id": ids})
    conversion = Draft(
        rows=bought,
        fields={
            **common,
            "kind": "conversion",
            "event_id": ids.astype(object).map(lambda i: f"{i}:conversion", na_action="ignore"),
            "value": picked(chunk, "tr_total"),
            "currency": picked(chunk, "tr_currency"),
            "conversion_type": "transaction",
        },
    )
    named = {"user_id": "domain_userid", "occurred_at": "derived_tstamp", "recorded_at": "collector_tstamp", "value": "tr_total"}
    return assembled([touch, conversion], {**named, **_TAGS, "currency": "tr_currency", "event_id": "event_id"})


PRESET = Preset(
    name="snowplow",
    tags=TagSchema(arm=("platform", "campaign", "placement")),
    needs=("event_id", "domain_userid", "collector_tstamp"),
    events=_events,
    zone="UTC",
    reference="https://docs.snowplow.io/docs/fundamentals/canonical-event/",
)
