"""`TableIngestor`: any table in, events, quarantine and the state of the tags out; nothing is lost.

Law of this file: rows read = accepted + quarantined + duplicates, always. Columns are typed chunk by chunk, checked by pandera at
once, given one version per id, and told apart by their tags; row objects are made for bad rows only.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError, InputError, MissingColumnError
from closedloop.ingest import identity
from closedloop.ingest.columns import decoded, encode_texts, zone_of
from closedloop.ingest.doors import CHUNK_ROWS, Chunk, chunks
from closedloop.ingest.presets import Events, Preset, preset_named
from closedloop.ingest.quarantining import bad_rows, quarantined, untagged_row
from closedloop.ingest.schema import event_schema, failures
from closedloop.ingest.tagging import missing_tag, tag_report
from closedloop.ingest.typed import CODED, FIELDS, NEEDED, NUMBERS, TIMES, TypedEvents, checked_frame, read_events
from closedloop.ingest.wording import missing_column
from closedloop.records.arms import TAG_COLUMNS, Coded
from closedloop.records.batch import EVENT_KINDS, EventBatch
from closedloop.records.money import MICROS
from closedloop.records.quarantine import Ingested, Quarantine, QuarantinedRow, TagReport
from closedloop.records.tags import TagSchema

Int64 = npt.NDArray[np.int64]
NO_CURRENCY = "XXX"  # ISO 4217: "no currency"; amounts whose currency nobody said


def _preset(value: str | Preset | None) -> Preset | None:
    return preset_named(value) if isinstance(value, str) else value


@attrs.frozen(kw_only=True)
class TableIngestor:
    """Attach meaning to any table of raw rows.

    Args:
        tags: The tags of an arm; by default the preset's, or all five.
        mapping: ``{"their_column": "our_field"}`` for columns that are not named as in the event table.
        constants: ``{"our_field": "value"}`` for fields that are the same in every row.
        values: ``{"our_field": {"their value": "ours"}}``, for kinds of other names and for spellings to be merged.
        zone: The time zone of times without one; None refuses them.
        time_unit: What whole-number times count since 1970: ``s``, ``ms``, ``us`` or ``ns``.
        currency: The one currency of the batch; rows in another one are quarantined. None takes the one the rows have.
        preset: A known export, such as ``"open_bandit"``.
        schema: A pandera schema that extends `closedloop.ingest.event_schema`.
        encoding, separator: Of text files; the separator is found from the header when None.

    >>> rows = [
    ...     {"event_id": "1", "kind": "click", "time": "2026-01-31T12:00:00Z", "platform": "google", "cost": 0.4, "currency": "EUR"},
    ...     {"event_id": "2", "kind": "purchase", "time": "2026-01-31T12:05:00Z", "platform": "google"},
    ... ]
    >>> done = TableIngestor(tags=TagSchema(arm=("platform",)), mapping={"time": "occurred_at"}).ingest(rows)
    >>> done.n_accepted, done.quarantine.rows[0].field, done.quarantine.rows[0].value
    (1, 'kind', "'purchase'")
    """

    tags: TagSchema | None = attrs.field(default=None, kw_only=False)
    mapping: Mapping[str, str] = attrs.field(factory=dict)
    constants: Mapping[str, Any] = attrs.field(factory=dict)
    values: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)
    zone: str | tzinfo | None = None
    time_unit: str | None = None
    currency: str | None = None
    preset: Preset | None = attrs.field(default=None, converter=_preset)
    schema: Any = None
    encoding: str = "utf-8"
    separator: str | None = None

    def __attrs_post_init__(self) -> None:
        zone_of(self.zone)
        for name, fields in (("mapping", self.mapping.values()), ("constants", self.constants), ("values", self.values)):
            for field in fields:
                if field not in FIELDS:
                    raise ConfigurationError("not a field of the event table", name, field, None, FIELDS)
        targets = list(self.mapping.values())
        for field in targets:
            if targets.count(field) > 1:
                raise ConfigurationError("two columns are mapped to one field", "mapping", field, "map one of them")
        if self.preset is not None and self.mapping:
            raise ConfigurationError("a preset has its own mapping", "mapping", dict(self.mapping), "give the preset or the mapping")

    @property
    def tag_schema(self) -> TagSchema:
        """The tags in force."""
        if self.tags is not None:
            return self.tags
        return self.preset.tags if self.preset is not None else TagSchema()

    def ingest(self, rows: Any) -> Ingested:
        """Return the accepted events, the quarantined rows and the state of the tags.

        Args:
            rows: A pandas, polars or pyarrow table, an iterable of dictionaries, or the path (or paths) of CSV, Parquet or NDJSON files.

        Raises:
            InputError: The table cannot be read at all; `MissingColumnError` when a needed column is not there. Single bad rows
                are quarantined instead.
        """
        parts: list[_Part] = []
        n_rows = 0
        separator = self.separator or (self.preset.separator if self.preset else None)
        for chunk in chunks(rows, encoding=self.encoding, separator=separator, rows_at_once=CHUNK_ROWS):
            parts.append(self._read(chunk, n_rows))
            n_rows += chunk.n
        if not n_rows:
            return Ingested(batch=EventBatch.empty(), quarantine=Quarantine(), tags=TagReport(), n_rows=0, n_accepted=0, n_duplicates=0)
        return self._joined(parts, n_rows)

    def _events(self, chunk: Chunk) -> Events:
        if self.preset is not None:
            for name in self.preset.needs:
                if name not in chunk.columns:
                    raise missing_column(name, list(chunk.columns), f"preset {self.preset.name!r} needs it")
            events = self.preset.events(chunk)
        else:
            events = self._mapped(chunk)
        columns = dict(events.columns)
        n = chunk.n if events.rows is None else len(events.rows)
        import pandas as pd

        for field, value in self.constants.items():
            columns[field] = pd.Series(np.full(n, value, dtype=object), dtype=object)
        for field, renamed in self.values.items():
            if field in columns:
                codes, distinct = _renamed(columns[field], renamed)
                columns[field] = decoded(codes, distinct)
        return attrs.evolve(events, columns=columns)

    def _mapped(self, chunk: Chunk) -> Events:
        for name in self.mapping:
            if name not in chunk.columns:
                raise MissingColumnError(
                    f"column {name!r} of the mapping is not in the table",
                    "mapping",
                    None,
                    "name a column that is there",
                    tuple(chunk.columns),
                )
        taken = set(self.mapping.values())
        source = {field: name for name, field in self.mapping.items()}
        source.update({f: f for f in FIELDS if f in chunk.columns and f not in taken and f not in self.mapping})
        for field in NEEDED:
            if field not in source and field not in self.constants:
                raise missing_column(field, list(chunk.columns))
        return Events(columns={field: chunk.columns[name] for field, name in source.items()}, source=source)

    def _read(self, chunk: Chunk, start: int) -> _Part:
        events = self._events(chunk)
        n = chunk.n if events.rows is None else len(events.rows)
        row = np.arange(n, dtype=np.int64) if events.rows is None else events.rows
        zone = zone_of(self.zone or (self.preset.zone if self.preset else None))
        typed = read_events(events.columns, n, zone=zone, time_unit=self.time_unit or (self.preset.time_unit if self.preset else None))
        schema = event_schema(unique=False) if self.schema is None else self.schema
        found = failures(checked_frame(typed), schema) if n else []
        found += _foreign(typed, self.currency)
        bad = bad_rows(found, row, chunk)
        set_aside = quarantined(found, bad, typed, events, chunk, start)
        kept = np.flatnonzero(~bad[row])
        return _Part(typed=typed, kept=kept, row=row[kept] + start, start=start, chunk=chunk, events=events, set_aside=set_aside)

    def _joined(self, parts: list[_Part], n_rows: int) -> Ingested:
        joined = _Joined.of(parts)
        set_aside = [r for part in parts for r in part.set_aside]
        currency = self._currency(joined)
        keep = identity.newest(joined.event_id, joined.times["recorded_at"])
        lacking = missing_tag(joined.kind, joined.times["touch_at"], {k: c.codes for k, c in joined.texts.items()}, self.tag_schema)
        ok_row = np.zeros(n_rows, dtype=bool)  # rows with at least one version kept
        ok_row[joined.row[keep]] = True
        valid_row = np.zeros(n_rows, dtype=bool)
        valid_row[joined.row] = True
        # A row of an export that lacks a tag in one of its events is set aside as a whole.
        untagged_rows = np.unique(joined.row[keep & (lacking >= 0)])
        is_untagged = np.zeros(n_rows, dtype=bool)
        is_untagged[untagged_rows] = True
        aside_event = keep & is_untagged[joined.row]
        names = (*TAG_COLUMNS, "conversion_type")
        first_lack = np.full(n_rows, -1, dtype=np.int8)
        lack_at = np.flatnonzero(keep & (lacking >= 0))[::-1]
        first_lack[joined.row[lack_at]] = lacking[lack_at]
        set_aside += [r for part in parts for r in _untagged(part, untagged_rows, first_lack, names)]
        set_aside.sort(key=lambda r: r.position)
        report = tag_report(
            joined.kind[keep],
            joined.numbers["quantity"][keep],
            joined.numbers["cost"][keep],
            joined.times["touch_at"][keep],
            joined.texts["platform"].take(keep),
            joined.texts["campaign"].take(keep),
            ~aside_event[keep],
        )
        untagged = joined.batch(np.flatnonzero(aside_event), currency) if len(untagged_rows) else None
        batch = attrs.evolve(joined.batch(np.flatnonzero(keep & ~aside_event), currency), untagged=untagged)
        return Ingested(
            batch=batch,
            quarantine=Quarantine(rows=tuple(set_aside)),
            tags=report,
            n_rows=n_rows,
            n_accepted=int((ok_row & ~is_untagged).sum()),
            n_duplicates=int((valid_row & ~ok_row).sum()),
        )

    def _currency(self, joined: _Joined) -> str | None:
        money = (joined.numbers["cost"] != 0) | (joined.numbers["value"] != 0)
        codes = np.unique(joined.texts["currency"].codes[money])
        if not len(codes):
            return self.currency
        if self.currency is not None:
            return self.currency
        found = [str(joined.texts["currency"].vocab[c]) for c in codes if c >= 0]
        if len(found) > 1:
            raise InputError("the rows are in several currencies", "currency", found, "name the one to keep: currency=" + repr(found[0]))
        return found[0] if found else NO_CURRENCY


def _renamed(column: Any, renamed: Mapping[str, str]) -> tuple[Int64, npt.NDArray[np.object_]]:
    codes, distinct = encode_texts(column)
    out = np.empty(len(distinct), dtype=object)
    out[:] = [renamed.get(t, t) for t in distinct]
    return codes, out


def _foreign(typed: TypedEvents, currency: str | None) -> list[Any]:
    from closedloop.ingest.schema import Failure

    codes, distinct = typed.texts["currency"]
    if currency is None or not len(distinct):
        return []
    other = np.array([t != currency for t in distinct.tolist()] + [False])[codes]
    money = (typed.numbers["cost"] != 0) | (typed.numbers["value"] != 0)
    rows = np.flatnonzero(other & money)
    if not len(rows):
        return []
    return [Failure(field="currency", check="one_currency", reason=f"is not {currency}", mend="convert the amount first", rows=rows)]


@attrs.frozen(kw_only=True, eq=False)
class _Part:
    """One chunk after the checks: which of its events are good, from which rows, and the rows set aside."""

    typed: TypedEvents
    kept: Int64
    row: Int64
    start: int
    chunk: Chunk
    events: Events
    set_aside: list[QuarantinedRow]


def _untagged(part: _Part, untagged_rows: Int64, lack: npt.NDArray[np.int8], names: tuple[str, ...]) -> list[QuarantinedRow]:
    inside = untagged_rows[(untagged_rows >= part.start) & (untagged_rows < part.start + part.chunk.n)]
    originals = part.chunk.original(inside - part.start) if len(inside) else []
    return [untagged_row(int(p), names[lack[p]], part.events.source, row) for p, row in zip(inside, originals, strict=True)]


@attrs.frozen(kw_only=True, eq=False)
class _Joined:
    """The good events of all chunks, as columns."""

    event_id: npt.NDArray[np.object_]
    kind: npt.NDArray[np.int8]
    row: Int64
    times: Mapping[str, Int64]
    numbers: Mapping[str, Int64]
    texts: Mapping[str, Coded]

    @classmethod
    def of(cls, parts: list[_Part]) -> _Joined:
        texts = {}
        for field in CODED:
            texts[field] = _coded([(p.typed.texts[field][0][p.kept], p.typed.texts[field][1]) for p in parts])
        times = {f: np.concatenate([p.typed.times[f][p.kept] for p in parts]) for f in TIMES}
        numbers = {}
        for field in NUMBERS:
            values = np.concatenate([p.typed.numbers[field][p.kept] for p in parts])
            numbers[field] = np.rint(values if field == "quantity" else values * MICROS).astype(np.int64)
        table = np.array([EVENT_KINDS.index(k) for k in texts["kind"].vocab.tolist()] + [-1], dtype=np.int8)
        kind = table[texts["kind"].codes]
        return cls(
            event_id=_ids(parts, kind, times, numbers, texts),
            kind=kind,
            row=np.concatenate([p.row for p in parts]),
            times=times,
            numbers=numbers,
            texts=texts,
        )

    def batch(self, at: Int64, currency: str | None) -> EventBatch:
        """Return the events at positions ``at``."""
        touch = self.texts["touch_kind"]
        touch_kind = np.array([("click", "view").index(k) for k in touch.vocab.tolist()] + [-1], dtype=np.int8)[touch.codes[at]]
        return EventBatch(
            event_id=self.event_id[at],
            kind=self.kind[at],
            occurred_at=self.times["occurred_at"][at],
            recorded_at=self.times["recorded_at"][at],
            user_id=self.texts["user_id"].take(at),
            tags={name: self.texts[name].take(at) for name in TAG_COLUMNS},
            conversion_type=self.texts["conversion_type"].take(at),
            cost=self.numbers["cost"][at],
            value=self.numbers["value"][at],
            quantity=self.numbers["quantity"][at],
            touch_kind=touch_kind,
            touch_at=self.times["touch_at"][at],
            currency=currency,
        )


def _coded(parts: list[tuple[Int64, npt.NDArray[np.object_]]]) -> Coded:
    from closedloop.ingest.columns import sort_vocabulary

    sorted_parts = []
    for codes, distinct in parts:
        renumbered, vocab = sort_vocabulary(codes, distinct)
        sorted_parts.append(Coded(codes=renumbered, vocab=vocab))
    return sorted_parts[0] if len(sorted_parts) == 1 else Coded.concat(sorted_parts)


def _ids(
    parts: list[_Part], kind: npt.NDArray[np.int8], times: Mapping[str, Int64], numbers: Mapping[str, Int64], texts: Mapping[str, Coded]
) -> npt.NDArray[np.object_]:
    """The given ids, and ids from content where none is given."""
    given = []
    for p in parts:
        if p.typed.event_id is None:
            given.append(np.full(len(p.kept), None, dtype=object))
        else:
            given.append(np.asarray(p.typed.event_id.iloc[p.kept].to_numpy(dtype=object, na_value=None), dtype=object))
    ids = np.concatenate(given)
    import pandas as pd

    absent = pd.isna(ids)
    if any(p.typed.event_id is not None for p in parts):
        absent |= np.fromiter(
            (not absent_or or (isinstance(absent_or, str) and not absent_or.strip()) for absent_or in ids), bool, len(ids)
        )
    if absent.any():
        at = np.flatnonzero(absent)
        lanes = identity.content_hash(
            {"kind": kind[at], **{f: v[at] for f, v in times.items()}, **{f: v[at] for f, v in numbers.items()}},
            {f: (c.codes[at].astype(np.int64), c.vocab) for f, c in texts.items() if f != "kind"},
        )
        ids[at] = identity.derived_ids(*lanes)
    return ids
