"""Tags: which events carry what their kind needs, and how well the account as a whole is tagged.

Law of this file: an untagged event is never treated as equal to the others and never dropped; here it is only told apart and counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from closedloop.records.arms import TAG_COLUMNS, Arms, Coded
from closedloop.records.batch import CONVERSION, EVENT_KINDS, NO_TIME
from closedloop.records.quarantine import TagReport
from closedloop.records.tags import TagSchema

Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]


def missing_tag(kind: Int8, touch_at: Int64, codes: Mapping[str, npt.NDArray[np.integer]], schema: TagSchema) -> Int8:
    """Return, for each event, the position in `TAG_COLUMNS` + (conversion_type,) of the first needed tag it lacks, -1 where complete.

    A conversion that its own source credited (``touch_at``) needs the columns of the arm as well: it carries its touch's tags.
    """
    names = (*TAG_COLUMNS, "conversion_type")
    lacking = np.full(len(kind), -1, dtype=np.int8)
    groups = [(kind == code, schema.needed(name)) for code, name in enumerate(EVENT_KINDS)]
    groups.append(((kind == CONVERSION) & (touch_at != NO_TIME), schema.arm))
    for chosen, needed in groups:
        for name in needed:
            absent = chosen & (codes[name] < 0)
            if absent.any():
                lacking[absent & (lacking < 0)] = names.index(name)
    return lacking


def tag_report(
    kind: Int8, quantity: Int64, cost: Int64, touch_at: Int64, platform: Coded, campaign: Coded, tagged: npt.NDArray[np.bool_]
) -> TagReport:
    """Return the completeness of the tags by platform and campaign, and the blended shares of conversions and spend."""
    touch = kind != CONVERSION
    keys, line = Arms.distinct(("platform", "campaign"), [platform, campaign])
    weight = np.where(touch, quantity, 0)
    rows = np.zeros(len(keys), dtype=np.int64)
    whole = np.zeros(len(keys), dtype=np.int64)
    np.add.at(rows, line, weight)
    np.add.at(whole, line, np.where(tagged, weight, 0))
    shown = np.flatnonzero(rows)
    names = [keys[int(i)] for i in shown]
    credited = (kind == CONVERSION) & (touch_at != NO_TIME)
    conversions, spend = float(quantity[credited].sum()), float(cost.sum())
    return TagReport(
        platform=tuple(n[0] or "" for n in names),
        campaign=tuple(n[1] or "" for n in names),
        rows=tuple(rows[shown].tolist()),
        tagged=tuple(whole[shown].tolist()),
        blended_conversions=float(quantity[credited & ~tagged].sum()) / conversions if conversions else 0.0,
        blended_spend=float(cost[~tagged].sum()) / spend if spend else 0.0,
    )
