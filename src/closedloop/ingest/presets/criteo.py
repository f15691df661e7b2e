"""Criteo attribution modelling for bidding: impressions with their clicks, and the conversions that followed.

One line is one impression shown to a user (30 days of live traffic). ``timestamp`` counts seconds from the first impression, so dates
mean nothing: they are counted from 1 January 2017, the year of the paper. ``click`` marks a clicked impression; no time of the click is
given, it stands at the impression's. ``conversion`` marks impressions followed by a conversion within 30 days, at
``conversion_timestamp``; all lines of one ``conversion_id`` tell of one conversion, which becomes one event (the other copies are dropped
by its id). ``cost`` is scaled by the publisher of the data, in no currency.

References: Diemert, Meynet, Galland and Lefortier, "Attribution Modeling Increases Efficiency of Bidding in Display Advertising" (AdKDD
2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from closedloop.ingest.doors import Chunk
from closedloop.ingest.numbers import read_numbers
from closedloop.ingest.presets.base import Draft, Events, Preset, assembled, joined_ids
from closedloop.records.tags import TagSchema

_ORIGIN_US = 1_483_228_800_000_000  # 2017-01-01 UTC


def _moments(column: Any) -> Any:
    """Seconds since the first impression as microseconds since 1970; what is no number stays as it came."""
    import pandas as pd

    seconds, fault = read_numbers(column)
    sensible = (fault == 0) & (np.abs(seconds) < 1e9)
    us = np.rint(np.where(sensible, seconds, 0) * 1e6).astype(np.int64) + _ORIGIN_US
    if sensible.all():
        return pd.Series(us)
    return pd.Series(us).astype(object).where(sensible, column.astype(object))


def _events(chunk: Chunk) -> Events:
    import pandas as pd

    columns = chunk.columns
    seen = {"occurred_at": _moments(columns["timestamp"]), "user_id": columns["uid"], "platform": "criteo", "campaign": columns["campaign"]}
    click, click_fault = read_numbers(columns["click"])
    bought, bought_fault = read_numbers(columns["conversion"])
    impression = Draft(rows=np.arange(chunk.n), fields={**seen, "kind": "impression", "cost": columns["cost"]})
    clicked = Draft(
        rows=np.flatnonzero((click != 0) | (click_fault > 1)),
        fields={**seen, "kind": _flag(columns["click"], "click"), "cost": 0},
    )
    converted = Draft(
        rows=np.flatnonzero((bought != 0) | (bought_fault > 1)),
        fields={
            **seen,
            "platform": None,
            "campaign": None,
            "kind": _flag(columns["conversion"], "conversion"),
            "cost": 0,
            "occurred_at": _moments(columns["conversion_timestamp"]),
            "event_id": joined_ids("criteo:conversion", columns["conversion_id"]),
        },
    )
    if chunk.stem:  # equal lines of the file are told apart by their number
        number = pd.Series(np.arange(chunk.n) + chunk.start).astype(str)
        impression.fields["event_id"] = chunk.stem + ":" + number
        clicked.fields["event_id"] = chunk.stem + ":" + number + ":click"
    source = {name: name for name in ("campaign", "cost")} | {"occurred_at": "timestamp", "user_id": "uid", "kind": "click"}
    return assembled([impression, clicked, converted], source)


def _flag(column: Any, kind: str) -> Any:
    """The kind where a flag is 1; another mark is no kind of event, and the schema says so."""
    numbers, _ = read_numbers(column)
    return column.astype(object).where(numbers != 1, kind)


PRESET = Preset(
    name="criteo",
    tags=TagSchema(arm=("platform", "campaign")),
    needs=("timestamp", "uid", "campaign", "conversion", "conversion_timestamp", "conversion_id", "click", "cost"),
    events=_events,
    time_unit="us",
    separator="\t",
    reference="https://ailab.criteo.com/criteo-attribution-modeling-bidding-dataset/",
)
