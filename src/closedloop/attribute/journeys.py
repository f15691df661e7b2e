"""Which touches each conversion may be credited to: separate click and view windows, ties and boundaries defined.

Law of this file. A conversion at ``t`` may be credited to a touch at ``s`` of the same user when ``0 <= t - s <= window`` of the touch's
kind; both ends are inside. Impressions take part only when they carry a user. At equal times a touch comes before a conversion; touches
at the same microsecond follow each other in the order of their keys, an arbitrary order that no order of arrival changes. Several
conversions of a user each look back on their own: a touch may serve more than one.
"""

from __future__ import annotations

import attrs
import numpy as np

from closedloop.attribute.rows import CLICK, CONVERSION, NO_USER, Rows
from closedloop.attribute.tables import ONE
from closedloop.records.arms import IntArray
from closedloop.records.moments import US_PER_DAY


@attrs.frozen(kw_only=True, eq=False)
class Credits:
    """Shares of conversions given to touches, one entry each.

    Args:
        conversion: Row of the conversion, shape (E,).
        touch: Row of the touch, -1 where the conversion's own source credited it.
        kind: 0 click, 1 view.
        day: Day of the touch.
        weight: Share of one conversion in units of 2**-32 (`ONE` is all of it).
        value: Revenue given, millionths of the currency; of one conversion they sum to its value.
    """

    conversion: IntArray
    touch: IntArray
    kind: IntArray
    day: IntArray
    weight: IntArray
    value: IntArray


def own_credits(rows: Rows, limits: IntArray) -> Credits:
    """Return the conversions that their own source credited, where the touch lies inside our window.

    Args:
        rows: Open rows.
        limits: Windows in microseconds by touch kind, -1 where switched off.
    """
    at = np.flatnonzero(rows.own_credit)
    kind = rows.touch_kind[at].astype(np.int64)
    kind = np.where(kind < 0, 0, kind)  # a source that does not say which kind means clicks
    delay = rows.at[at] - rows.touch_at[at]
    inside = (delay >= 0) & (delay <= limits[kind])
    at, kind = at[inside], kind[inside]
    return Credits(
        conversion=at,
        touch=np.full(len(at), -1, dtype=np.int64),
        kind=kind,
        day=rows.touch_at[at] // US_PER_DAY,
        weight=np.full(len(at), ONE, dtype=np.int64),
        value=rows.value[at],
    )


def timeline(rows: Rows) -> IntArray:
    """Return the rows that have a user and are touches or unmatched conversions, in order of user, time, touch before conversion, key."""
    conversion = (rows.kind == CONVERSION) & ~rows.own_credit
    at = np.flatnonzero((rows.user != NO_USER) & (rows.is_touch | conversion))
    # Rows are sorted by key and both sorts are stable, so keys break the ties that are left.
    at = at[np.argsort(conversion[at], kind="stable")]
    return at[np.lexsort((rows.at[at], rows.user[at]))]


def last_touch(rows: Rows, limits: IntArray) -> Credits:
    """Return each matched conversion credited whole to its last touch; the last click inside its window beats any view.

    Args:
        rows: Open rows.
        limits: Windows in microseconds by touch kind, -1 where switched off.
    """
    order = timeline(rows)
    user, at, kind = rows.user[order], rows.at[order], rows.kind[order]
    place = np.arange(len(order))
    conversions = np.flatnonzero(kind == CONVERSION)
    chosen = np.full(len(conversions), -1, dtype=np.int64)
    chosen_kind = np.zeros(len(conversions), dtype=np.int64)
    for code in (1, 0):  # clicks come last, so that they overwrite views
        is_kind = (kind == CLICK) if code == 0 else (kind != CLICK) & (kind != CONVERSION)
        previous = np.maximum.accumulate(np.where(is_kind, place, -1))[conversions] if len(order) else chosen
        found = (previous >= 0) & (user[previous] == user[conversions]) & (at[conversions] - at[previous] <= limits[code])
        chosen = np.where(found, previous, chosen)
        chosen_kind = np.where(found, code, chosen_kind)
    hit = chosen >= 0
    touch = order[chosen[hit]]
    return Credits(
        conversion=order[conversions[hit]],
        touch=touch,
        kind=chosen_kind[hit],
        day=rows.at[touch] // US_PER_DAY,
        weight=np.full(int(hit.sum()), ONE, dtype=np.int64),
        value=rows.value[order[conversions[hit]]],
    )


def join(parts: list[Credits]) -> Credits:
    """Return the entries of all parts."""
    return Credits(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in attrs.fields(Credits)})
