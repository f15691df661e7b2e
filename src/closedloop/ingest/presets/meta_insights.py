"""Meta Ads Insights rows: one row per campaign, ad set, ad and day, as impressions, clicks and spend.

Columns by the API's field names: ``date_start``, ``date_stop``, ``campaign_id``, ``campaign_name``, ``adset_id``, ``adset_name``,
``ad_id``, ``ad_name``, ``impressions``, ``inline_link_clicks`` or ``clicks``, ``spend``, ``account_currency``, and the breakdowns
``publisher_platform`` and ``platform_position`` (the placement). Numbers come as texts. A row must be one day (``time_increment=1``);
days are days of the ad account's time zone: give ``zone=``. ``actions`` and ``action_values`` are no events: they are credited by the
platform under its own windows; `closedloop.ingest.platform_claims` reads them, to be compared, never added.

References: Meta Marketing API, Ads Insights, https://developers.facebook.com/docs/marketing-api/reference/adaccount/insights/
"""

from __future__ import annotations

from closedloop.ingest.doors import Chunk
from closedloop.ingest.presets.base import Events, Preset, first_given, joined_ids, picked
from closedloop.ingest.presets.daily import Daily, daily_events
from closedloop.records.tags import TagSchema

# Breakdowns tell rows of one day and ad apart.
_BREAKDOWNS = (
    "publisher_platform",
    "platform_position",
    "impression_device",
    "device_platform",
    "country",
    "region",
    "dma",
    "age",
    "gender",
    "hourly_stats_aggregated_by_advertiser_time_zone",
)


def _events(chunk: Chunk) -> Events:
    def pick(path: str) -> object:
        return picked(chunk, path)

    clicks = "inline_link_clicks" if "inline_link_clicks" in chunk.columns else "clicks"
    both = joined_ids("", pick("publisher_platform"), pick("platform_position"))
    placement = both.str.strip(":").where(both.str.strip(":") != "", None)
    return daily_events(
        chunk,
        Daily(
            platform="meta",
            date="date_start",
            until="date_stop",
            impressions="impressions",
            clicks=clicks,
            cost="spend",
            currency="account_currency",
            campaign=first_given(pick("campaign_name"), pick("campaign_id")),
            audience=first_given(pick("adset_name"), pick("adset_id")),
            creative=first_given(pick("ad_name"), pick("ad_id")),
            placement=placement,
            keys=[pick("campaign_id"), pick("adset_id"), pick("ad_id"), pick("account_id"), *(pick(b) for b in _BREAKDOWNS)],
            names=[pick("campaign_name"), pick("adset_name"), pick("ad_name")],
        ),
    )


PRESET = Preset(
    name="meta_insights",
    tags=TagSchema(arm=("platform", "campaign")),
    needs=("date_start",),
    events=_events,
    reference="https://developers.facebook.com/docs/marketing-api/reference/adaccount/insights/",
)
