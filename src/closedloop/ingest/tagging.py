"""Tags: which events carry what their kind needs, and how well the account as a whole is tagged.

Law of this file: an untagged event is never treated as equal to the others and never dropped; here it is only told apart and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from closedloop.records.arms import TAG_COLUMNS
from closedloop.records.batch import CONVERSION, EVENT_KINDS, NO_TIME
from closedloop.records.quarantine import TagReport
from closedloop.records.tags import TagSchema

Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]
Float64 = npt.NDArray[np.float64]


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
    kind: Int8,
    quantity: Float64,
    cost: Float64,
    touch_at: Int64,
    keys: Sequence[tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]],
    tagged: npt.NDArray[np.bool_],
) -> TagReport:
    """Return the completeness of the tags by platform and campaign, and the blended shares of conversions and spend.

    Args:
        kind, quantity, cost, touch_at: Columns of N events.
        keys: Codes (shape (N,), -1 where missing) and texts of platform and of campaign.
        tagged: Which events carry every needed tag, shape (N,).
    """
    (platform, platforms), (campaign, campaigns) = keys
    width = len(campaigns) + 1
    packed = (platform.astype(np.int64) + 1) * width + (campaign + 1)
    weight = np.where(kind == CONVERSION, 0.0, quantity)
    if (len(platforms) + 1) * width <= 4 * len(kind) + 1024:  # count in place; otherwise number the pairs that occur
        line, found = packed, np.arange((len(platforms) + 1) * width)
    else:
        found, line = np.unique(packed, return_inverse=True)
    rows = np.bincount(line, weights=weight, minlength=len(found))
    whole = np.bincount(line, weights=weight * tagged, minlength=len(found))
    squares = np.bincount(line, weights=weight * weight, minlength=len(found))
    lines = sorted(
        (
            "" if pair < width else str(platforms[pair // width - 1]),
            "" if pair % width == 0 else str(campaigns[pair % width - 1]),
            int(rows[i]),
            int(whole[i]),
            float(squares[i]),
        )
        for i, pair in ((i, int(found[i])) for i in np.flatnonzero(rows).tolist())
    )
    credited = (kind == CONVERSION) & (touch_at != NO_TIME)
    conversions, spend = float(quantity[credited].sum()), float(cost.sum())
    return TagReport(
        platform=tuple(line[0] for line in lines),
        campaign=tuple(line[1] for line in lines),
        rows=tuple(line[2] for line in lines),
        tagged=tuple(line[3] for line in lines),
        squares=tuple(line[4] for line in lines),
        blended_conversions=float(quantity[credited & ~tagged].sum()) / conversions if conversions else 0.0,
        blended_spend=float(cost[~tagged].sum()) / spend if spend else 0.0,
    )
