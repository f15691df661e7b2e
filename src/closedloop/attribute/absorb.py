"""Take a batch into the state: which events are on time, which are copies, which come too late.

Law of this file: whether an event counts never depends on what else arrived with it. An event is *late by its own stamps* when it was
written down more than ``lateness`` days after it happened; it is *delivered late* when its day lies more than ``lateness`` days before
the newest day of the data that the state had already seen. Both are refused and counted; copies of accepted events are neither.
"""

from __future__ import annotations

import attrs
import numpy as np

from closedloop.attribute.rows import NO_USER, Rows
from closedloop.attribute.state import AttributionState, newest, one_currency, union_arms
from closedloop.attribute.tables import Table
from closedloop.errors import InputError
from closedloop.records.arms import IntArray
from closedloop.records.batch import EventBatch
from closedloop.records.moments import US_PER_DAY

_MOST = 2**30  # conversions in one row: the fixed-point sums stay far from their ends


def watermarks(batch: EventBatch, now_us: int | None) -> dict[str, int]:
    """Return the newest ``recorded_at`` of each platform ("" without), over all events that are not from the future."""
    out: dict[str, int] = {}
    for part in (batch, batch.untagged):
        if part is None or not len(part):
            continue
        platform = part.tags["platform"]
        newest_of = np.full(len(platform.vocab) + 1, np.iinfo(np.int64).min, dtype=np.int64)
        past = slice(None) if now_us is None else part.recorded_at <= now_us
        np.maximum.at(newest_of, platform.codes[past], part.recorded_at[past])  # code -1 falls on the last entry
        for name, until in zip([*platform.vocab, ""], newest_of.tolist(), strict=True):
            if until != np.iinfo(np.int64).min:
                out[name] = max(until, out.get(name, until))
    return out


def absorb(state: AttributionState, batch: EventBatch, now_us: int | None) -> AttributionState:
    """Return the state with the batch's events among its open rows.

    Raises:
        InputError: The batch has another currency, or a row stands for too many conversions.
    """
    terms = state.terms
    fresh, fresh_arms = Rows.of(batch, terms.columns, terms.conversion_type)
    if len(fresh) and (fresh.quantity.max() > _MOST or fresh.quantity.min() < 0):
        worst = int(fresh.quantity.max() if fresh.quantity.max() > _MOST else fresh.quantity.min())
        raise InputError("a row stands for an impossible number of events", "quantity", worst, f"use 0 to {_MOST}")
    arms, mine, theirs = union_arms(state.arms, fresh_arms)
    state = state.with_arms(arms, mine)
    fresh = Rows.union([attrs.evolve(fresh, arm=theirs[fresh.arm].astype(np.int32))])

    day, recorded_day = fresh.day, fresh.recorded // US_PER_DAY
    oldest = np.iinfo(np.int64).min if state.data_day is None else state.data_day - terms.lateness
    late = recorded_day - day > terms.lateness
    closed = ~late & (day < oldest)
    accepted = _counting(fresh.take(~late & ~closed), state.since)
    rows = Rows.union([state.rows, accepted]) if len(accepted) else state.rows
    changed = len(rows) != len(state.rows) or (len(accepted) > 0 and not _same(rows, state.rows))

    late_now = late & (recorded_day >= oldest)  # older ones were counted when they were first refused
    late_table = Table.add([state.late, Table.of({"key": fresh.key[late_now].view(np.int64), "day": recorded_day[late_now]},
                                                {"n": np.ones(int(late_now.sum()), dtype=np.int64)})])  # fmt: skip
    return attrs.evolve(
        state,
        rows=rows,
        late=attrs.evolve(late_table, sums={"n": np.ones(len(late_table), dtype=np.int64)}),
        days=_with_excess(state, day[closed]),
        watermark=newest(state.watermark, watermarks(batch, now_us)),
        revision=state.revision + int(changed),
        currency=one_currency(state.currency, batch.currency if batch.currency or batch.untagged is None else batch.untagged.currency),
    )


def _counting(rows: Rows, since: int) -> Rows:
    """Return the rows that count, and touches of days before ``since`` as context that takes credit away from younger ones."""
    before = rows.day < since
    if not before.any():
        return rows
    flagged = attrs.evolve(rows, settled=rows.settled | ((rows.is_touch | rows.own_credit) & (rows.cohort_day < since)))
    return flagged.take(~before | (rows.is_touch & (rows.user != NO_USER)))


def _same(one: Rows, other: Rows) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in attrs.fields(Rows))


def _with_excess(state: AttributionState, refused_days: IntArray) -> Table:
    """Return the day table, raised where a closed day was delivered with more events than were once accepted for it.

    Copies cannot be told from new events once their keys are gone; the count of a day can: a day delivered again whole shows no excess.
    """
    if state.data_day is not None:
        refused_days = refused_days[refused_days >= state.data_day - state.terms.history]  # counts of older days are forgotten
    if not len(refused_days):
        return state.days
    days, delivered = np.unique(refused_days, return_counts=True)
    known = _lookup(state.days, days)
    open_days, open_counts = np.unique(state.rows.day, return_counts=True)
    accepted = known["dropped"].copy()
    place = np.searchsorted(open_days, days)
    inside = place < len(open_days)
    inside[inside] &= open_days[place[inside]] == days[inside]
    accepted[inside] += open_counts[place[inside]]
    more = np.maximum(delivered - accepted - known["excess"], 0)
    zeros = np.zeros(len(days), dtype=np.int64)
    raised = Table.of({"day": days}, {"conversions": zeros, "uncredited": zeros, "dropped": zeros, "excess": more})
    return Table.add([state.days, raised.take(more > 0)])


def _lookup(table: Table, days: IntArray) -> dict[str, IntArray]:
    place = np.searchsorted(table.keys["day"], days)
    found = place < len(table)
    found[found] &= table.keys["day"][place[found]] == days[found]
    out = {}
    for name, column in table.sums.items():
        values = np.zeros(len(days), dtype=np.int64)
        values[found] = column[place[found]]
        out[name] = values
    return out
