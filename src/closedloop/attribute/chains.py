"""Events to steps of a Markov chain of order 1, day by day, so that they settle as credits do.

Law of this file. A matched conversion is a journey of the touches inside its windows; a conversion that its own source credited is a
journey of one touch. A touch that no conversion followed inside its window is *unanswered*; unanswered touches of a user form one null
journey while each follows the one before within the longer window. A null journey counts only once that window has passed by the data's
own clock. Every step is booked on the day of the conversion, or of the unanswered touch, and depends on nothing older than one window
before: so a settled day stays as it is. How many null journeys end in a channel follows from the steps: arrivals less departures.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.attribute import markov
from closedloop.attribute.absorb import watermarks
from closedloop.attribute.heuristics import Touches
from closedloop.attribute.journeys import Credits, Journeys, journeys_of, parts_of, timeline
from closedloop.attribute.paths import PathCounts
from closedloop.attribute.rows import CLICK, CONVERSION, NO_USER, Rows
from closedloop.attribute.tables import ONE, START, WON, Table
from closedloop.records.arms import Arms, IntArray
from closedloop.records.batch import EventBatch
from closedloop.records.interval import FloatArray
from closedloop.records.moments import US_PER_DAY
from closedloop.records.money import MICROS
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

CONVERTED, UNANSWERED = 0, 1
Bools = npt.NDArray[np.bool_]


@attrs.frozen(kw_only=True, eq=False)
class StepEntries:
    """Steps of journeys, one entry each; ``settles`` where the day is closed now, ``answered`` marks the rows of touches in a journey."""

    table: Table
    settled: Table
    answered: Bools


def channel_codes(arms: Arms, channel: str) -> tuple[tuple[str, ...], IntArray]:
    """Return the sorted names of channels and the code of each arm's channel ("?" where the tag is missing)."""
    names = np.array(["?" if tag is None else tag for tag in arms.column(channel).decode()], dtype=object)
    known = sorted(set(names))
    code = {name: i for i, name in enumerate(known)}
    return tuple(known), np.array([code[name] for name in names], dtype=np.int64)


def unanswered(rows: Rows, answered: Bools, limits: IntArray, until: int) -> tuple[IntArray, Bools]:
    """Return the unanswered touches whose window has passed, in order of user and time, and which of them begin a null journey.

    Args:
        rows: Open rows.
        answered: Touches that are part of a converted journey, shape (N,).
        limits: Windows in microseconds by touch kind, -1 where switched off.
        until: Microseconds up to which the data are complete.
    """
    order = timeline(rows)
    order = order[rows.kind[order] != CONVERSION]
    longest = int(limits.max())
    wanted = ~answered[order] & (limits[(rows.kind[order] != CLICK).astype(np.int64)] >= 0) & (rows.at[order] + longest < until)
    order = order[wanted]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = (rows.user[order[1:]] != rows.user[order[:-1]]) | (rows.at[order[1:]] - rows.at[order[:-1]] > longest)
    return order, begins


def steps_of_rows(rows: Rows, j: Journeys, own: Credits, code: IntArray, limits: IntArray, closed: int, until: int) -> StepEntries:
    """Return the steps of all journeys in the open rows that are not settled yet.

    Args:
        rows: Open rows.
        j: Matched conversions with their touches.
        own: Conversions credited by their own source.
        code: Channel of each arm.
        limits: Windows in microseconds by touch kind, -1 where switched off.
        closed: Days before it are closed.
        until: Microseconds up to which the data are complete.
    """
    answered = rows.answered.copy()
    answered[j.touch] = True
    channel = code[rows.arm[j.touch]]
    first = np.ones(len(channel), dtype=np.bool_)
    first[1:] = j.journey[1:] != j.journey[:-1]
    source = np.where(first, START, np.roll(channel, 1))
    last = np.roll(first, -1)
    row = j.conversions[j.journey]
    own_channel = code[rows.arm[own.conversion]]
    lost, begins = unanswered(rows, answered, limits, until)
    lost_channel = code[rows.arm[lost]]
    lost_source = np.where(begins, START, np.roll(lost_channel, 1))
    new = ~rows.settled[lost]
    lost, lost_channel, lost_source = lost[new], lost_channel[new], lost_source[new]
    won_row = np.concatenate([row, row[last], own.conversion, own.conversion])
    nothing = [np.zeros(len(x), dtype=np.int64) for x in (row, own.conversion, lost)]
    keys = {
        "day": np.concatenate([rows.day[won_row], rows.day[lost]]),
        "journey": np.concatenate([np.full(len(won_row), CONVERTED), np.full(len(lost), UNANSWERED)]),
        "source": np.concatenate([source, channel[last], np.full(len(own_channel), START), own_channel, lost_source]),
        "target": np.concatenate([channel, np.full(int(last.sum()), WON), own_channel, np.full(len(own_channel), WON), lost_channel]),
    }
    sums = {
        "n": np.concatenate([rows.quantity[won_row], np.ones(len(lost), dtype=np.int64)]),
        "value": np.concatenate([nothing[0], rows.value[row[last]], nothing[1], rows.value[own.conversion], nothing[2]]),
    }
    table = Table.of(keys, sums)
    settles = table.keys["day"] < closed
    return StepEntries(table=table.take(~settles), settled=table.take(settles), answered=answered)


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


def removal(steps: Table, units: FloatArray, value_units: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the credited conversions and revenue (units of the currency) of each channel by exact removal effects, shape (C,) each.

    A channel that lies in no converting journey can have a removal effect (through the moves of null journeys), yet has no touch that could
    be credited: its share goes to the others in proportion, so that sums stay exact.

    Args:
        steps: Steps of all journeys.
        units, value_units: Converting journeys that contain each channel, and their revenue, shape (C,).
    """
    n_channels = len(units)
    moves = steps.take(steps.keys["target"] >= 0)
    between = Table.of({n: moves.keys[n] for n in ("source", "target")}, {"n": moves.sums["n"]})
    won = steps.keys["target"] == WON
    at, n, value = steps.keys["source"][won], steps.sums["n"][won], steps.sums["value"][won]
    lost = moves.take(moves.keys["journey"] == UNANSWERED)
    leaves = lost.keys["source"] >= 0
    ends = np.bincount(lost.keys["target"], weights=lost.sums["n"], minlength=n_channels).astype(np.float64)
    ends -= np.bincount(lost.keys["source"][leaves], weights=lost.sums["n"][leaves], minlength=n_channels)
    conversions = np.bincount(at, weights=n, minlength=n_channels).astype(np.float64)
    worth = np.bincount(at, weights=value, minlength=n_channels) / MICROS
    sums = markov.Steps(moves=between.sums["n"].astype(np.float64), conversions=conversions, value=worth, nulls=np.maximum(ends, 0.0))
    source, target = between.keys["source"], between.keys["target"]
    none = np.zeros(0, dtype=np.int64)
    links = markov.Chain(n_states=n_channels, ends=np.arange(n_channels), source=source, target=target, state=none, step=none)
    by_count, by_value, _ = markov.removal_effects(links, sums, n_channels)
    effects = np.where(units > 0, by_count, 0.0), np.where(value_units > 0, by_value, 0.0)
    shares = [np.divide(e, e.sum(), out=np.zeros_like(e), where=e.sum() > 0) for e in effects]
    return shares[0] * conversions.sum(), shares[1] * worth.sum()


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
    lost, begins = unanswered(rows, answered, limits, max(watermarks(batch, None).values(), default=0))
    nobody = np.flatnonzero((rows.kind == CONVERSION) & ~rows.own_credit & (rows.user == NO_USER))
    bare = np.concatenate([j.without, nobody])  # conversions without any touch inside their windows
    n_won, n_lost, n_bare = len(j.conversions), int(begins.sum()), len(bare)
    journey = np.concatenate([j.journey, n_won + np.cumsum(begins) - 1])
    channels = code[rows.arm[np.concatenate([j.touch, lost])]]
    quantity, value = rows.quantity.astype(np.float64), rows.value / MICROS
    return PathCounts.of_touches(
        journey,
        channels,
        names,
        n_journeys=n_won + n_lost + n_bare,
        conversions=np.concatenate([quantity[j.conversions], np.zeros(n_lost), quantity[bare]]),
        value=np.concatenate([value[j.conversions], np.zeros(n_lost), value[bare]]),
        nulls=np.concatenate([np.zeros(n_won), np.ones(n_lost), np.zeros(n_bare)]),
    )
