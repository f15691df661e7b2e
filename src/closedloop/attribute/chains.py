"""Events to whole journeys, converted and null, day by day, so that they settle as credits do.

Law of this file. A matched conversion is a journey of the touches inside its windows; a conversion that its own source credited is a
journey of one touch. A touch that no conversion followed inside its window is *unanswered*. Unanswered touches of a user form a run while
each follows the one before within the longer window; a run is cut, every window length from its beginning, into null journeys, which so
span no more than the touches of a conversion do. A null journey counts only touches whose window has passed by the data's own clock. A
converted journey is booked on the day of its conversion, a null journey on the day of its cut; both depend on nothing older than one
window before, so a settled day stays as it is.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.attribute.absorb import watermarks
from closedloop.attribute.heuristics import Touches
from closedloop.attribute.journeys import Credits, Journeys, journeys_of, parts_of, timeline
from closedloop.attribute.pathbook import DatedPaths
from closedloop.attribute.paths import PathCounts
from closedloop.attribute.rows import CLICK, CONVERSION, NO_USER, Rows
from closedloop.attribute.tables import ONE
from closedloop.records.arms import Arms, IntArray
from closedloop.records.batch import NO_TIME, EventBatch
from closedloop.records.moments import US_PER_DAY
from closedloop.records.money import MICROS
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

Bools = npt.NDArray[np.bool_]


def channel_codes(arms: Arms, channel: str) -> tuple[tuple[str, ...], IntArray]:
    """Return the sorted names of channels and the code of each arm's channel ("?" where the tag is missing)."""
    names = np.array(["?" if tag is None else tag for tag in arms.column(channel).decode()], dtype=object)
    known = sorted(set(names))
    code = {name: i for i, name in enumerate(known)}
    return tuple(known), np.array([code[name] for name in names], dtype=np.int64)


@attrs.frozen(kw_only=True, eq=False)
class Nulls:
    """Null journeys.

    Args:
        touch: Row of each touch, in order of user and time, shape (T,).
        journey: Null journey of each touch, sorted, shape (T,).
        began: When its run began, microseconds, shape (T,).
        day: Day on which each journey is cut, shape (J,).
    """

    touch: IntArray
    journey: IntArray
    began: IntArray
    day: IntArray


def nulls_of(rows: Rows, answered: Bools, limits: IntArray, until: int) -> Nulls:
    """Return the null journeys of unanswered touches whose window has passed.

    Args:
        rows: Open rows.
        answered: Touches that are part of a converted journey, shape (N,).
        limits: Windows in microseconds by touch kind, -1 where switched off.
        until: Microseconds up to which the data are complete.
    """
    order = timeline(rows)
    order = order[rows.kind[order] != CONVERSION]
    longest = int(limits.max())
    answered = answered | (rows.settled & (rows.began == NO_TIME))
    wanted = ~answered[order] & (limits[(rows.kind[order] != CLICK).astype(np.int64)] >= 0) & (rows.at[order] + longest < until)
    order = order[wanted]
    user, at = rows.user[order], rows.at[order]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = (user[1:] != user[:-1]) | (at[1:] - at[:-1] > longest)
    first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0)) if len(order) else order
    known = rows.began[order]
    began = np.where(known[first] != NO_TIME, known[first], at[first])  # a run may have begun before the rows that are kept
    stretch = (at - began) // (longest + 1)  # both ends of a window are inside
    begins[1:] |= stretch[1:] != stretch[:-1]
    cut = began[begins] + (stretch[begins] + 1) * (longest + 1) - 1
    return Nulls(touch=order, journey=np.cumsum(begins) - 1, began=began, day=cut // US_PER_DAY)


def whole_journeys(
    rows: Rows, j: Journeys, own: Credits, names: tuple[str, ...], code: IntArray, limits: IntArray, closed: int, until: int
) -> tuple[DatedPaths, Rows]:
    """Return all journeys of the open rows that are not settled yet, and the rows with what settled touches must remember.

    Args:
        rows: Open rows.
        j: Matched conversions with their touches.
        own: Conversions credited by their own source.
        names: Names of the channels.
        code: Channel of each arm.
        limits: Windows in microseconds by touch kind, -1 where switched off.
        closed: Days before it are closed.
        until: Microseconds up to which the data are complete.
    """
    answered = np.zeros(len(rows), dtype=np.bool_)
    answered[j.touch] = True
    nulls = nulls_of(rows, answered, limits, until)
    booked = np.zeros(len(nulls.day), dtype=np.bool_)
    booked[nulls.journey[rows.booked[nulls.touch]]] = True
    new = np.flatnonzero(~booked)
    number = np.cumsum(~booked) - 1
    kept = ~booked[nulls.journey]
    n_won, n_own = len(j.conversions), len(own.conversion)
    won_rows = np.concatenate([j.conversions, own.conversion])
    zeros, ones = np.zeros(len(new)), np.ones(len(new))
    paths = PathCounts.of_touches(
        np.concatenate([j.journey, n_won + np.arange(n_own), n_won + n_own + number[nulls.journey[kept]]]),
        code[rows.arm[np.concatenate([j.touch, own.conversion, nulls.touch[kept]])]],
        names,
        n_journeys=n_won + n_own + len(new),
        conversions=np.concatenate([rows.quantity[won_rows].astype(np.float64), zeros]),
        value=np.concatenate([rows.value[won_rows].astype(np.float64), zeros]),  # millionths: whole numbers add exactly
        nulls=np.concatenate([np.zeros(len(won_rows)), ones]),
    )
    closes = nulls.day[nulls.journey] < closed
    began, is_booked = rows.began.copy(), rows.booked.copy()
    began[nulls.touch] = np.where(rows.day[nulls.touch] < closed, nulls.began, began[nulls.touch])
    is_booked[nulls.touch] |= closes
    return (
        DatedPaths(paths=paths, day=np.concatenate([rows.day[won_rows], nulls.day[new]])),
        attrs.evolve(rows, began=began, booked=is_booked),
    )


def unit_credits(rows: Rows, j: Journeys, code: IntArray) -> Credits:
    """Return one whole conversion for *each channel* of each journey, split evenly over the channel's touches (scaled later)."""
    channel = code[rows.arm[j.touch]]
    pair = j.journey * (int(code.max(initial=0)) + 1) + channel
    order = np.argsort(pair, kind="stable")
    touches = Touches.of(pair[order], channel[order])
    _, group = np.unique(touches.journey, return_inverse=True)
    by_group = attrs.evolve(touches, journey=group.astype(np.int64))
    share = 1.0 / touches.length
    first = touches.position == 0
    row, touch = j.conversions[j.journey][order], j.touch[order]
    return Credits(
        conversion=row,
        touch=touch,
        kind=(rows.kind[touch] != CLICK).astype(np.int64),
        day=rows.at[touch] // US_PER_DAY,
        weight=parts_of(share, by_group, np.full(int(first.sum()), ONE, dtype=np.int64)),
        value=parts_of(share, by_group, rows.value[row[first]]),
    )


def event_paths(
    batch: EventBatch,
    window: AttributionWindow,
    *,
    channel: str = "platform",
    tags: TagSchema | None = None,
    conversion_type: str | None = None,
) -> PathCounts:
    """Return the journeys of a batch as path counts, for `attribute_paths` with any model.

    Args:
        batch: Events.
        window: The attribution window; touches outside take no part.
        channel: The tag that is a channel.
        tags: The tags of arms.
        conversion_type: The conversion type that counts, None for all.
    """
    columns = (tags or TagSchema()).arm
    raw, arms = Rows.of(batch, columns, conversion_type)
    rows = Rows.union([raw])
    limits = window.limits_us()
    used = np.unique(rows.arm[rows.is_touch])
    names, code_of_used = channel_codes(arms.take(used), channel)
    code = np.zeros(len(arms), dtype=np.int64)
    code[used] = code_of_used
    j = journeys_of(rows, limits)
    answered = np.zeros(len(rows), dtype=np.bool_)
    answered[j.touch] = True
    lost = nulls_of(rows, answered, limits, max(watermarks(batch, None).values(), default=0))
    nobody = np.flatnonzero((rows.kind == CONVERSION) & ~rows.own_credit & (rows.user == NO_USER))
    bare = np.concatenate([j.without, nobody])  # conversions without any touch inside their windows
    n_won, n_lost, n_bare = len(j.conversions), len(lost.day), len(bare)
    quantity, value = rows.quantity.astype(np.float64), rows.value / MICROS
    return PathCounts.of_touches(
        np.concatenate([j.journey, n_won + lost.journey]),
        code[rows.arm[np.concatenate([j.touch, lost.touch])]],
        names,
        n_journeys=n_won + n_lost + n_bare,
        conversions=np.concatenate([quantity[j.conversions], np.zeros(n_lost), quantity[bare]]),
        value=np.concatenate([value[j.conversions], np.zeros(n_lost), value[bare]]),
        nulls=np.concatenate([np.zeros(n_won), np.ones(n_lost), np.zeros(n_bare)]),
    )
