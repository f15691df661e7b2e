"""Google Ads API report rows: one row per campaign, ad group, ad and day, as impressions, clicks and spend.

Columns by the API's resource names (``campaign.name``, ``ad_group.name``, ``ad_group_ad.ad.id``, ``segments.date``,
``segments.ad_network_type``, ``metrics.impressions``, ``metrics.clicks``, ``metrics.cost_micros``, ``customer.currency_code``), flat
with dots or nested as the API's JSON (``costMicros``). Days are days of the account's time zone: give ``zone=``; a row stands at noon,
so that it falls on the same UTC day for nearly every zone. ``metrics.conversions`` is no event: it is credited by the platform under
its own window; `closedloop.ingest.platform_claims` reads it, to be compared, never added. The id of a row is made of its ids and
segments, so a report fetched again
(with ``constants={"recorded_at": ...}``) replaces the earlier one.

References: Google Ads API, fields of reports, https://developers.google.com/google-ads/api/fields/latest/overview
"""

from __future__ import annotations

from closedloop.ingest.doors import Chunk
from closedloop.ingest.presets.base import Events, Preset, first_given, picked
from closedloop.ingest.presets.daily import Daily, daily_events
from closedloop.records.tags import TagSchema

_KEYS = ("campaign.id", "ad_group.id", "ad_group_ad.ad.id", "segments.date", "segments.ad_network_type", "segments.device", "segments.hour")


def _events(chunk: Chunk) -> Events:
    def pick(path: str) -> object:
        return picked(chunk, path)

    flat = [name for name in chunk.columns if name.startswith("segments.") and name not in _KEYS]
    return daily_events(
        chunk,
        Daily(
            platform="google_ads",
            date="segments.date",
            impressions="metrics.impressions",
            clicks="metrics.clicks",
            cost="metrics.cost_micros",
            cost_unit=1e-6,
            currency="customer.currency_code",
            campaign=first_given(pick("campaign.name"), pick("campaign.id")),
            audience=first_given(pick("ad_group.name"), pick("ad_group.id")),
            creative=first_given(pick("ad_group_ad.ad.id"), pick("ad_group_ad.ad.name")),
            placement=pick("segments.ad_network_type"),
            keys=[*(pick(k) for k in _KEYS), pick("campaign.resource_name"), pick("ad_group.resource_name"), *(pick(n) for n in flat)],
            names=[pick("campaign.name"), pick("ad_group.name")],
        ),
    )


PRESET = Preset(
    name="google_ads",
    tags=TagSchema(arm=("platform", "campaign")),
    needs=(),
    events=_events,
    reference="https://developers.google.com/google-ads/api/fields/latest/overview",
)
