"""Open Bandit Dataset (ZOZO): impressions of a fashion shop, the outcome on the exposure row.

One row is one impression; ``item_id`` is the creative, ``position`` the placement, the file's name the campaign (its logging policy and
behaviour segment). ``click`` is the outcome of this data set: where it is 1 the row also becomes a conversion, credited by its own
source to the view that the row is. There are no users and no costs.

References: Saito, Aihara, Matsutani and Narita, "Open Bandit Dataset and Pipeline" (NeurIPS 2021 Datasets and Benchmarks).
"""

from __future__ import annotations

import numpy as np

from closedloop.ingest.doors import Chunk
from closedloop.ingest.numbers import read_numbers
from closedloop.ingest.presets.base import Events, Preset
from closedloop.records.tags import TagSchema


def _events(chunk: Chunk) -> Events:
    import pandas as pd

    columns, n = chunk.columns, chunk.n
    clicked, fault = read_numbers(columns["click"])
    # An outcome that is neither 0 nor 1 becomes a second event of unknown kind, so that the whole row is set aside, named.
    odd = (fault != 0) | ((clicked != 0) & (clicked != 1))
    second = np.flatnonzero((clicked == 1) | odd)
    rows = np.concatenate([np.arange(n), second])
    is_second = np.arange(len(rows)) >= n

    def both(series: object) -> pd.Series:
        return pd.Series(series).take(rows).reset_index(drop=True)

    kind = np.where(is_second, "conversion", "impression").astype(object)
    kind[n:][odd[second]] = "click is neither 0 nor 1"
    fields = {
        "kind": pd.Series(kind),
        "occurred_at": both(columns["timestamp"]),
        "creative": both(columns["item_id"]),
        "placement": both(columns["position"]),
        "platform": pd.Series(np.full(len(rows), "open_bandit", dtype=object)),
        "campaign": pd.Series(np.full(len(rows), chunk.stem or "open_bandit", dtype=object)),
        "conversion_type": pd.Series(np.where(is_second, "click", "")),
        "touch_kind": pd.Series(np.where(is_second, "view", "")),
        "touch_at": both(columns["timestamp"]).where(is_second),
    }
    if chunk.stem:
        number = (rows + chunk.start).astype(str).astype(object)
        ids = chunk.stem + ":" + number + np.where(is_second, ":click", "").astype(object)
        fields["event_id"] = pd.Series(ids)
    source = {"occurred_at": "timestamp", "touch_at": "timestamp", "creative": "item_id", "placement": "position", "kind": "click"}
    return Events(columns=fields, source=source, rows=rows)


PRESET = Preset(
    name="open_bandit",
    tags=TagSchema(arm=("campaign", "creative", "placement")),
    needs=("timestamp", "item_id", "position", "click"),
    events=_events,
    separator=",",
    reference="https://research.zozo.com/data.html",
)
