"""The good events of all chunks as one set of columns: ids, one version each, and the batch.

Law of this file: arrays are gathered once, at the end; one chunk is not copied to be joined with nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.ingest import identity
from closedloop.ingest.columns import sort_vocabulary
from closedloop.ingest.spelling import proposed_spellings
from closedloop.ingest.tagging import tag_report
from closedloop.ingest.typed import CODED, NUMBERS, TIMES, TypedEvents
from closedloop.records.arms import TAG_COLUMNS, Coded
from closedloop.records.batch import EVENT_KINDS, EventBatch
from closedloop.records.money import MICROS
from closedloop.records.quarantine import Segment, TagReport
from closedloop.records.window import TOUCH_KINDS

Int64 = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Objects = npt.NDArray[np.object_]


@attrs.frozen(kw_only=True, eq=False)
class Part:
    """One chunk after the checks.

    Args:
        typed: Its events.
        good: int64: which events passed the checks (untagged ones too).
        row: int64: the row of the whole input each of the ``good`` events came from.
        lacking: int8, by event of the chunk: the needed tag it lacks, -1 where none.
        aside: The rows set aside, untagged ones too.
        state: int32, by row of the chunk: 0 good, 1 untagged, 2 bad.
    """

    typed: TypedEvents
    good: Int64
    row: Int64
    lacking: npt.NDArray[np.int8]
    aside: Segment
    state: Codes


@attrs.frozen(kw_only=True, eq=False)
class Joined:
    """Events of all chunks.

    Args:
        at: int64, shape (G,): positions of the good events in the columns below.
        row: int64, shape (G,): their rows in the input.
        event_id: Object array or pandas Series of all events' ids, none missing at ``at``.
        kind: int8 codes of all events.
        times, numbers, texts: Columns of all events by field; numbers in units.
        lacking: int8, all events.
    """

    at: Int64
    row: Int64
    event_id: Any
    kind: npt.NDArray[np.int8]
    times: Mapping[str, Int64]
    numbers: Mapping[str, npt.NDArray[np.float64]]
    texts: Mapping[str, tuple[Codes, Objects]]
    lacking: npt.NDArray[np.int8]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Joined:
        """Return the parts joined: bad events are left out here, or at the latest in `batch`."""
        if len(parts) == 1:
            part = parts[0]
            at, typed = part.good, part.typed
            ids, lacking = typed.event_id, part.lacking
            times, numbers, texts = dict(typed.times), dict(typed.numbers), dict(typed.texts)
        else:
            times = {f: np.concatenate([p.typed.times[f][p.good] for p in parts]) for f in TIMES}
            numbers = {f: np.concatenate([p.typed.numbers[f][p.good] for p in parts]) for f in NUMBERS}
            texts = {f: _joined_texts([(p.typed.texts[f][0][p.good], p.typed.texts[f][1]) for p in parts]) for f in CODED}
            lacking = np.concatenate([p.lacking[p.good] for p in parts])
            at = np.arange(len(lacking), dtype=np.int64)
            ids = np.concatenate([_texts(p.typed.event_id, p.good) for p in parts])
        kind_codes, kinds = texts["kind"]
        table = np.array([EVENT_KINDS.index(k) if k in EVENT_KINDS else -1 for k in kinds.tolist()] + [-1], dtype=np.int8)
        joined = cls(
            at=at,
            row=np.concatenate([p.row for p in parts]),
            event_id=ids,
            kind=table[kind_codes],
            times=times,
            numbers=numbers,
            texts=texts,
            lacking=lacking,
        )
        return attrs.evolve(joined, event_id=joined._complete_ids())

    def _complete_ids(self) -> Any:
        """The given ids, and ids from content where none is given."""
        import pandas as pd

        ids, at = self.event_id, self.at
        if ids is None:
            ids, absent = np.full(len(self.kind), None, dtype=object), at
        else:
            series: Any = pd.Series(ids)
            null = series.isna().to_numpy()
            if not null.any():
                return ids
            absent = at[null[at]]
            ids = np.asarray(series.to_numpy(dtype=object, na_value=None), dtype=object).copy()
        lanes = identity.content_hash(
            {
                "kind": self.kind[absent],
                **{f: v[absent] for f, v in self.times.items()},
                **{f: micros(f, v[absent]) for f, v in self.numbers.items()},
            },
            {f: (codes[absent], distinct) for f, (codes, distinct) in self.texts.items() if f != "kind"},
        )
        ids[absent] = identity.derived_ids(*lanes)
        return ids

    def newest(self) -> npt.NDArray[np.bool_]:
        """Return True for the good events that are the kept version of their id (shape (G,))."""
        return identity.newest(self.event_id, self.times["recorded_at"], self.at)

    def report(self, at: Int64, tagged: npt.NDArray[np.bool_]) -> TagReport:
        """Return how well the events at positions ``at`` are tagged."""
        keys = [(self.texts[name][0][at], self.texts[name][1]) for name in ("platform", "campaign")]
        quantity, cost = self.numbers["quantity"][at], self.numbers["cost"][at]
        report = tag_report(self.kind[at], quantity, cost, self.times["touch_at"][at], keys, tagged)
        proposals = {}
        for name in TAG_COLUMNS:
            codes, vocab = self.texts[name]
            counts = np.bincount(codes[at] + 1, minlength=len(vocab) + 1)[1:].tolist()
            proposals[name] = proposed_spellings({t: c for t, c in zip(vocab.tolist(), counts, strict=True) if c})
        flat = {theirs: ours for found in proposals.values() for theirs, ours in found.items()}
        return attrs.evolve(report, suggestions=flat, proposals={name: found for name, found in proposals.items() if found})

    def batch(self, at: Int64, currency: str | None) -> EventBatch:
        """Return the events at positions ``at`` of the columns."""
        kind_codes, kinds = self.texts["touch_kind"]
        touch = np.array([TOUCH_KINDS.index(k) if k in TOUCH_KINDS else -1 for k in kinds.tolist()] + [-1], dtype=np.int8)
        coded = {}
        for field in ("user_id", *TAG_COLUMNS, "conversion_type"):
            codes, vocab = sort_vocabulary(self.texts[field][0][at], self.texts[field][1])
            coded[field] = Coded(codes=codes, vocab=vocab)
        return EventBatch(
            event_id=_texts(self.event_id, at),
            kind=self.kind[at],
            occurred_at=self.times["occurred_at"][at],
            recorded_at=self.times["recorded_at"][at],
            user_id=coded["user_id"],
            tags={name: coded[name] for name in TAG_COLUMNS},
            conversion_type=coded["conversion_type"],
            cost=micros("cost", self.numbers["cost"][at]),
            value=micros("value", self.numbers["value"][at]),
            quantity=micros("quantity", self.numbers["quantity"][at]),
            touch_kind=touch[kind_codes[at]],
            touch_at=self.times["touch_at"][at],
            currency=currency,
        )


def micros(field: str, values: npt.NDArray[np.float64]) -> Int64:
    """Return whole millionths of amounts, whole numbers of quantities."""
    scaled = values * (1.0 if field == "quantity" else MICROS)
    return np.rint(scaled, out=scaled).astype(np.int64)


def _texts(ids: Any, at: Int64) -> Objects:
    if ids is None:
        return np.full(len(at), None, dtype=object)
    if isinstance(ids, np.ndarray):
        return np.asarray(ids[at], dtype=object)
    taken = ids.array.take(at)
    if getattr(ids.dtype, "storage", "") == "pyarrow":
        import pyarrow as pa

        return np.asarray(pa.array(taken).to_numpy(zero_copy_only=False), dtype=object)
    return np.asarray(taken.to_numpy(dtype=object, na_value=None), dtype=object)


def _joined_texts(parts: Sequence[tuple[Codes, Objects]]) -> tuple[Codes, Objects]:
    position: dict[str, int] = {}
    codes = []
    for part_codes, distinct in parts:
        table = np.array([position.setdefault(t, len(position)) for t in distinct.tolist()] + [-1], dtype=np.int32)
        codes.append(table[part_codes])
    vocab = np.empty(len(position), dtype=object)
    vocab[:] = list(position)
    return np.concatenate(codes), vocab
