"""Which touches each conversion may be credited to: separate click and view windows, ties and boundaries defined.

Law of this file. A conversion at ``t`` may be credited to a touch at ``s`` of the same user when ``0 <= t - s <= window`` of the touch's
kind; both ends are inside. Impressions take part only when they carry a user. At equal times a touch comes before a conversion; touches
at the same microsecond follow each other in the order of their keys, an arbitrary order that no order of arrival changes. Several
conversions of a user each look back on their own: a touch may serve more than one.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.attribute.heuristics import Rule, Touches, shares
from closedloop.attribute.rows import CLICK, CONVERSION, NO_USER, Rows
from closedloop.attribute.tables import ONE
from closedloop.errors import InputError
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


@attrs.frozen(kw_only=True, eq=False)
class Journeys:
    """Matched conversions with every touch inside their windows, in order of time.

    Args:
        conversions: Row of each conversion that has at least one such touch, shape (P,).
        journey: Position in ``conversions`` of each touch, sorted, shape (T,).
        touch: Row of each touch, shape (T,).
        without: Rows of matched conversions without any touch inside their windows.
    """

    conversions: IntArray
    journey: IntArray
    touch: IntArray
    without: IntArray


_MOST_PAIRS = 300_000_000


def journeys_of(rows: Rows, limits: IntArray) -> Journeys:
    """Return every conversion of a user with all touches that it may be credited to.

    Args:
        rows: Open rows.
        limits: Windows in microseconds by touch kind, -1 where switched off.

    Raises:
        InputError: Conversions and touches of single users make more than 300 million pairs.
    """
    order = timeline(rows)
    user, at, kind = rows.user[order], rows.at[order], rows.kind[order]
    converts = kind == CONVERSION
    conversions = np.flatnonzero(converts)
    touch_code = (kind != CLICK).astype(np.int64)
    eligible = ~converts & (limits[touch_code] >= 0)
    before = np.concatenate([[0], np.cumsum(eligible)])  # eligible touches before each place
    touches = np.flatnonzero(eligible)
    new_user = np.ones(len(order), dtype=np.bool_)
    new_user[1:] = user[1:] != user[:-1]
    user_start = np.maximum.accumulate(np.where(new_user, np.arange(len(order)), 0)) if len(order) else np.zeros(0, dtype=np.int64)
    end = before[conversions]
    start = _first_at_or_after(at[touches], before[user_start[conversions]], end, at[conversions] - int(limits.max(initial=0)))
    counts = end - start
    if counts.sum() > _MOST_PAIRS:
        worst = int(counts.max())
        mend = "filter robots, or use model='last'"
        raise InputError("some users have too many touches", "user_id", f"{worst} touches before one conversion", mend)
    journey = np.repeat(np.arange(len(conversions)), counts)
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    place = touches[np.repeat(start, counts) + within]
    inside = at[conversions][journey] - at[place] <= limits[touch_code[place]]
    journey, place = journey[inside], place[inside]
    has_touch = np.bincount(journey, minlength=len(conversions)) > 0
    return Journeys(
        conversions=order[conversions[has_touch]],
        journey=(np.cumsum(has_touch) - 1)[journey],
        touch=order[place],
        without=order[conversions[~has_touch]],
    )


def _first_at_or_after(times: IntArray, low: IntArray, high: IntArray, bound: IntArray) -> IntArray:
    """Return, for each range [low, high) of sorted times, the first place whose time is not before the bound (bisection, all at once)."""
    lo, hi = low.copy(), high.copy()
    while True:
        open_ranges = lo < hi
        if not open_ranges.any():
            return lo
        middle = (lo + hi) // 2
        below = open_ranges.copy()
        below[open_ranges] = times[middle[open_ranges]] < bound[open_ranges]
        lo = np.where(below, middle + 1, lo)
        hi = np.where(open_ranges & ~below, middle, hi)


def rule_credits(rows: Rows, limits: IntArray, rule: Rule) -> Credits:
    """Return each matched conversion shared among the touches inside its windows by a rule; shares sum exactly.

    Args:
        rows: Open rows.
        limits: Windows in microseconds by touch kind, -1 where switched off.
        rule: Weighs the touches; their channel is the arm, their age in days.
    """
    j = journeys_of(rows, limits)
    row = j.conversions[j.journey]
    touches = Touches.of(j.journey, rows.arm[j.touch].astype(np.int64), (rows.at[row] - rows.at[j.touch]) / US_PER_DAY)
    share = shares(touches, rule)
    weight = parts_of(share, touches, np.full(len(j.conversions), ONE, dtype=np.int64))
    value = parts_of(share, touches, rows.value[j.conversions])
    kept = (weight != 0) | (value != 0)
    kind = (rows.kind[j.touch] != CLICK).astype(np.int64)
    day = rows.at[j.touch] // US_PER_DAY
    return Credits(conversion=row[kept], touch=j.touch[kept], kind=kind[kept], day=day[kept], weight=weight[kept], value=value[kept])


def participations(rows: Rows, limits: IntArray) -> Credits:
    """Return every arm in a matched conversion's journey with the whole conversion: shares sum to more than 1 on purpose.

    What an arm causes are conversions that it took part in, whoever is credited with them. An arm with several touches takes part by its
    last click inside the window, or its last view where it has no click there. A user's conversions are paired with the arms that the user
    met, not with every touch, so that a robot's million touches cost no more than they are.

    Args:
        rows: Open rows.
        limits: Windows in microseconds by touch kind, -1 where switched off.

    Raises:
        InputError: Conversions and arms of single users make more than 300 million pairs.
    """
    code = (rows.kind != CLICK).astype(np.int64)
    known = rows.user != NO_USER
    touches = np.flatnonzero(known & rows.is_touch & (limits[code] >= 0))
    conversions = np.flatnonzero(known & (rows.kind == CONVERSION) & ~rows.own_credit)
    way = rows.arm.astype(np.int64) * 2 + code  # the clicks of an arm, then its views
    touches = touches[np.lexsort((rows.at[touches], way[touches], rows.user[touches]))]
    begins = np.ones(len(touches), dtype=np.bool_)
    begins[1:] = (rows.user[touches][1:] != rows.user[touches][:-1]) | (way[touches][1:] != way[touches][:-1])
    start = np.flatnonzero(begins)
    end = np.append(start[1:], len(touches))
    met = rows.user[touches[start]]  # sorted
    first, last = (np.searchsorted(met, rows.user[conversions], side=side) for side in ("left", "right"))
    counts = last - first
    if counts.sum() > _MOST_PAIRS:
        raise InputError("some users met too many arms", "user_id", f"{int(counts.max())} arms before one conversion", "filter robots")
    c = np.repeat(np.arange(len(conversions)), counts)
    group = np.repeat(first, counts) + np.arange(len(c)) - np.repeat(np.cumsum(counts) - counts, counts)
    row = conversions[c]
    place = _first_at_or_after(rows.at[touches], start[group], end[group], rows.at[row] + 1) - 1
    touch = touches[np.maximum(place, 0)]
    inside = (place >= start[group]) & (rows.at[row] - rows.at[touch] <= limits[code[touch]])
    by_click = inside[:-1] & (c[1:] == c[:-1]) & (way[touch][1:] == way[touch][:-1] + 1) & (code[touch][:-1] == 0)
    inside[1:] &= ~by_click
    row, touch = row[inside], touch[inside]
    return Credits(
        conversion=row,
        touch=touch,
        kind=code[touch],
        day=rows.at[touch] // US_PER_DAY,
        weight=np.full(len(row), ONE, dtype=np.int64),
        value=rows.value[row],
    )


def parts_of(share: npt.NDArray[np.float64], touches: Touches, whole: IntArray) -> IntArray:
    """Return whole numbers in proportion to the shares that sum exactly to each journey's ``whole``; the largest takes the rest."""
    if not len(share):
        return np.zeros(0, dtype=np.int64)
    parts = np.floor(share * whole[touches.journey]).astype(np.int64)
    starts = np.flatnonzero(touches.position == 0)
    rest = whole - np.add.reduceat(parts, starts)
    largest = np.flatnonzero(share == np.repeat(np.maximum.reduceat(share, starts), touches.length[starts]))
    _, first = np.unique(touches.journey[largest], return_index=True)
    parts[largest[first]] += rest
    return parts
