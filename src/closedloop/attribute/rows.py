"""Open rows: the events that may still change an outcome, as columns keyed by 64-bit ids.

Law of this file: no raw user or event id is kept, only its keyed 64-bit digest; equal sets of events give equal columns in any order of
arrival. An event delivered twice counts once; a restatement (same id, later ``recorded_at``) replaces what it restates, and the moment it
was first seen is kept, since delays are counted to that.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.arms import Arms, IntArray
from closedloop.records.batch import CLICK, CONVERSION, IMPRESSION, NO_TIME, SPEND, EventBatch
from closedloop.records.moments import US_PER_DAY

UInt64 = npt.NDArray[np.uint64]
Int32 = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
NO_USER = np.uint64(0)
_HASH_KEY = "closedloop-ids-1"  # 16 characters; changing it orphans every stored state


def keys_of(values: npt.NDArray[np.object_]) -> UInt64:
    """Return a 64-bit key for each string (SipHash with a fixed key, the same on every machine); never 0.

    >>> int(keys_of(np.array(["user-1"], dtype=object))[0]) == int(keys_of(np.array(["user-2", "user-1"], dtype=object))[1])
    True
    """
    if not len(values):
        return np.empty(0, dtype=np.uint64)
    from pandas.util import hash_array

    keys = np.asarray(hash_array(np.asarray(values, dtype=object), encoding="utf8", hash_key=_HASH_KEY, categorize=False), dtype=np.uint64)
    return np.where(keys == 0, np.uint64(1), keys)


@attrs.frozen(kw_only=True, eq=False)
class Rows:
    """Events as columns of one length, sorted by key, each key once.

    Args:
        key: Key of the event id, uint64.
        user: Key of the user, `NO_USER` without.
        kind: int8, positions in ``EVENT_KINDS``.
        at: Microseconds UTC, when it happened.
        recorded: When the newest version was written down; ``seen``: when the first one was.
        cost, value: Millionths of the currency.
        quantity: Events the row stands for.
        touch_kind, touch_at: For conversions credited by their own source, else -1 and `NO_TIME`.
        arm: Position in the arms table of the state, -1 for conversions that are matched by user.
        settled: True when the row's own cohort is settled (touches kept only as context of younger conversions).
        began: For settled touches that no conversion followed inside its window: microseconds when their run of such touches began, else
            `NO_TIME` (kept by models that look at whole journeys).
        booked: True when the null journey of such a touch is in the settled path counts.
    """

    key: UInt64
    user: UInt64
    kind: npt.NDArray[np.int8]
    at: IntArray
    recorded: IntArray
    seen: IntArray
    cost: IntArray
    value: IntArray
    quantity: IntArray
    touch_kind: npt.NDArray[np.int8]
    touch_at: IntArray
    arm: Int32
    settled: Bools
    began: IntArray
    booked: Bools

    def __len__(self) -> int:
        return len(self.key)

    @property
    def day(self) -> IntArray:
        """Day of the event, days since 1970-01-01 UTC."""
        return self.at // US_PER_DAY

    @property
    def is_touch(self) -> Bools:
        """True for clicks and impressions."""
        return np.asarray((self.kind == CLICK) | (self.kind == IMPRESSION))

    @property
    def own_credit(self) -> Bools:
        """True for conversions that their own source credited to a touch."""
        return np.asarray((self.kind == CONVERSION) & (self.touch_at != NO_TIME))

    @property
    def cohort_day(self) -> IntArray:
        """Day whose cohort the row belongs to: the touch's day for conversions credited by their source, else its own."""
        return np.where(self.own_credit, np.where(self.touch_at == NO_TIME, 0, self.touch_at), self.at) // US_PER_DAY

    def take(self, index: npt.ArrayLike) -> Rows:
        """Return the rows at ``index`` (positions or mask)."""
        at = np.asarray(index)
        return Rows(**{name: getattr(self, name)[at] for name in COLUMNS})

    @classmethod
    def empty(cls) -> Rows:
        """Return no rows."""
        return cls(**{name: np.empty(0, dtype=dtype) for name, dtype in COLUMNS.items()})

    @classmethod
    def of(cls, batch: EventBatch, columns: tuple[str, ...], conversion_type: str | None) -> tuple[Rows, Arms]:
        """Return the batch (its untagged events too) as rows in no order, and its arms, sorted.

        Conversions of another type than ``conversion_type`` are left out.
        """
        if batch.untagged is not None:
            batch = EventBatch.concat([attrs.evolve(batch, untagged=None), batch.untagged])
        if conversion_type is not None:
            wanted = np.flatnonzero(batch.conversion_type.vocab == conversion_type)
            code = wanted[0] if len(wanted) else -2
            other = (batch.kind == CONVERSION) & (batch.conversion_type.codes != code)
            if other.any():
                batch = batch.take(~other)
        matched = (batch.kind == CONVERSION) & (batch.touch_at == NO_TIME)  # such a conversion takes the arm of its touches, not its own
        coded = [attrs.evolve(batch.tags[c], codes=np.where(matched, np.int32(-1), batch.tags[c].codes)) for c in columns]
        arms, arm = Arms.distinct(columns, coded)
        arm = np.where(matched, np.int32(-1), arm)
        user_keys = np.concatenate([keys_of(batch.user_id.vocab), [NO_USER]])  # the last entry serves code -1
        rows = cls(
            key=keys_of(batch.event_id),
            user=user_keys[batch.user_id.codes],
            kind=batch.kind,
            at=batch.occurred_at,
            recorded=batch.recorded_at,
            seen=batch.recorded_at,
            cost=batch.cost,
            value=batch.value,
            quantity=batch.quantity,
            touch_kind=batch.touch_kind,
            touch_at=batch.touch_at,
            arm=arm,
            settled=np.zeros(len(batch), dtype=np.bool_),
            began=np.full(len(batch), NO_TIME, dtype=np.int64),
            booked=np.zeros(len(batch), dtype=np.bool_),
        )
        return rows, arms

    @classmethod
    def union(cls, parts: list[Rows]) -> Rows:
        """Return each event once, sorted by key: the newest version, with the moment of the first.

        Among versions recorded at the same moment that differ, the one with the greatest content wins: a rule that no order of arrival
        can change.
        """
        columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in COLUMNS}
        order = np.argsort(columns["key"], kind="stable")
        key = columns["key"][order]
        first = np.ones(len(key), dtype=np.bool_)
        first[1:] = key[1:] != key[:-1]
        if first.all():
            return cls(**{name: values[order] for name, values in columns.items()})
        group = np.cumsum(first) - 1
        many = np.flatnonzero(np.bincount(group) > 1)
        again = np.isin(group, many)
        winners = order.copy()
        repeated = order[again]
        content = [columns[n][repeated] for n in _CONTENT]
        winners[again] = repeated[np.lexsort((*content, columns["recorded"][repeated], columns["key"][repeated]))]
        last = np.flatnonzero(np.append(first[1:], True))
        out = {name: values[winners[last]] for name, values in columns.items()}
        starts = np.flatnonzero(first)
        out["seen"] = np.minimum.reduceat(columns["seen"][order], starts)
        out["settled"] = np.logical_or.reduceat(columns["settled"][order], starts)
        out["began"] = np.maximum.reduceat(columns["began"][order], starts)  # NO_TIME is the least of all
        out["booked"] = np.logical_or.reduceat(columns["booked"][order], starts)
        return cls(**out)


_CONTENT = ("settled", "quantity", "arm", "touch_at", "touch_kind", "cost", "value", "at", "kind", "user")
COLUMNS: dict[str, type] = {
    "key": np.uint64,
    "user": np.uint64,
    "kind": np.int8,
    "at": np.int64,
    "recorded": np.int64,
    "seen": np.int64,
    "cost": np.int64,
    "value": np.int64,
    "quantity": np.int64,
    "touch_kind": np.int8,
    "touch_at": np.int64,
    "arm": np.int32,
    "settled": np.bool_,
    "began": np.int64,
    "booked": np.bool_,
}
__all__ = ["CLICK", "COLUMNS", "CONVERSION", "IMPRESSION", "NO_USER", "SPEND", "Rows", "keys_of"]
