"""The day's parts put together as rows: the table that a user's own export would be, and what platforms report.

Law of this file: presentation only; nothing here is drawn but the moment at which a row was written down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from closedloop.records.arms import TAG_COLUMNS
from closedloop.records.interval import FloatArray
from closedloop.records.moments import US_PER_DAY

if TYPE_CHECKING:
    from closedloop.simulation.market import Market

Int64 = npt.NDArray[np.int64]
_KINDS = ("impression", "click", "conversion", "spend")
_CODE = {"view": 0, "impression": 0, "click": 1, "conversion": 2, "spend": 3}


class Parts:
    """Events of one day as they are drawn, in pieces.

    Args:
        first_us: The day's first microsecond.
    """

    def __init__(self, first_us: int) -> None:
        self.first_us = first_us
        self.pieces: list[tuple[int, Int64, Int64, Int64, FloatArray]] = []

    def add(self, kind: str, arm: Int64, user: Int64, at: Int64, value: FloatArray | None = None) -> None:
        """Add events of one kind (all shape (N,)); arm -1 is none."""
        self.pieces.append((_CODE[kind], arm, user, at, np.zeros(len(arm)) if value is None else value))


def iso(us: Int64) -> npt.NDArray[np.object_]:
    """Return microseconds UTC as ISO 8601 text.

    >>> iso(np.array([1]))
    array(['1970-01-01T00:00:00.000001Z'], dtype=object)
    """
    return np.datetime_as_string(us.astype(np.int64).view("datetime64[us]"), timezone="UTC").astype(object)


def rows_of(market: Market, parts: Parts, impressions: Int64, spent: FloatArray, rng: np.random.Generator, day: int) -> dict[str, Any]:
    """Return the day as columns, in order of time.

    Args:
        market: For its tags and currency.
        parts: The user-level events.
        impressions: All impressions of the day by arm, shape (A,); those not logged one by one make one aggregated row for each arm.
        spent: Spend by arm in units of the currency; an arm without spend has no spend row.
        rng: Draws the moments at which rows are written down.
        day: The day.
    """
    arms = len(market.arms)
    code = np.concatenate([np.full(len(p[1]), p[0]) for p in parts.pieces])
    arm, user, at = (np.concatenate([p[k] for p in parts.pieces]).astype(np.int64) for k in (1, 2, 3))
    value = np.concatenate([p[4] for p in parts.pieces])
    logged = np.bincount(arm[code == 0], minlength=arms)
    rest = np.maximum(impressions - logged, 0)
    paid, shown = np.flatnonzero(spent > 0), np.flatnonzero(rest > 0)
    extra = len(shown) + len(paid)

    code = np.concatenate([code, np.full(len(shown), 0), np.full(len(paid), 3)])
    arm = np.concatenate([arm, shown, paid])
    user = np.concatenate([user, np.full(extra, -1)])
    at = np.concatenate([at, np.full(extra, parts.first_us + US_PER_DAY // 2)])
    value = np.concatenate([value, np.zeros(extra)])
    quantity = np.concatenate([np.ones(len(code) - extra, dtype=np.int64), rest[shown], np.ones(len(paid), dtype=np.int64)])
    cost = np.concatenate([np.zeros(len(code) - len(paid)), spent[paid]])
    order = np.argsort(at, kind="stable")
    code, arm, user, at, value, quantity, cost = (c[order] for c in (code, arm, user, at, value, quantity, cost))

    n = len(code)
    late = np.minimum(rng.exponential(120e6, n), 3600e6).astype(np.int64)  # written down two minutes later on average, an hour at most
    tags = {}
    for k, name in enumerate(TAG_COLUMNS):
        table = np.array([a[k] for a in market.arms] + [None], dtype=object)  # the last entry serves arm -1
        tags[name] = table[arm]
    letters = np.array(["i", "c", "v", "s"], dtype=object)[code]
    users = user.tolist()
    return {
        "event_id": np.array([f"{letter}{day}-{i}" for i, letter in enumerate(letters.tolist())], dtype=object),
        "kind": np.array(_KINDS, dtype=object)[code],
        "occurred_at": iso(at),
        "recorded_at": iso(at + late),
        "user_id": np.array([None if u < 0 else f"u{u}" for u in users], dtype=object),
        **tags,
        "conversion_type": np.array([None, None, "purchase", None], dtype=object)[code],
        "cost": cost,
        "value": value,
        "currency": np.full(n, market.scenario.currency, dtype=object),
        "quantity": quantity,
    }
