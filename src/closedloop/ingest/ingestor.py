"""`TableIngestor`: any table in, events, quarantine and the state of the tags out; nothing is lost.

Law of this file: rows read = accepted + quarantined + duplicates, always. Columns are typed chunk by chunk, checked by pandera at
once, given one version per id, and told apart by their tags; row objects are made for bad rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import tzinfo
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError, InputError, MissingColumnError
from closedloop.ingest.columns import decoded, encode_texts
from closedloop.ingest.doors import CHUNK_ROWS, Chunk, chunks, completed
from closedloop.ingest.exchange import Rate, check_rates, converted
from closedloop.ingest.joined import Joined, Part
from closedloop.ingest.presets import Events, Preset, preset_named
from closedloop.ingest.privacy import Privacy, guarded
from closedloop.ingest.quarantining import set_aside
from closedloop.ingest.schema import Failure, failures
from closedloop.ingest.shielding import shielded
from closedloop.ingest.tagging import missing_tag
from closedloop.ingest.times import zone_of
from closedloop.ingest.typed import FIELDS, NEEDED, NUMBERS, TIMES, checked_frame, read_events
from closedloop.ingest.wording import missing_column
from closedloop.ingest.written import as_read, check_written
from closedloop.records.batch import EventBatch
from closedloop.records.quarantine import Ingested, Quarantine, TagReport
from closedloop.records.tags import TagSchema

Int64 = npt.NDArray[np.int64]
NO_CURRENCY = "XXX"  # ISO 4217: "no currency"; amounts whose currency nobody said


def _preset(value: str | Preset | None) -> Preset | None:
    return preset_named(value) if isinstance(value, str) else value


@attrs.frozen
class TableIngestor:
    """Attach meaning to any table of raw rows.

    Args:
        tags: The tags of an arm; by default the preset's, or all five.
        mapping: ``{"their_column": "our_field"}`` for columns that are not named as in the event table.
        constants: ``{"our_field": "value"}`` for fields that are the same in every row.
        values: ``{"our_field": {"their value": "ours"}}``, for kinds of other names and for spellings to be merged.
        zone: The time zone of times without one; None refuses them.
        time_unit: What whole-number times count since 1970: ``s``, ``ms``, ``us`` or ``ns``.
        time_format: How times are written where not in ISO 8601, as for `datetime.strftime`: ``"%d.%m.%Y %H:%M"``.
        decimal: ``","`` or ``"."`` where amounts are written as people do, with groups of three digits: ``"1.234,50"``. The sign or code of
            ``currency`` may stand before or behind; an amount with another one is set aside.
        currency: The one currency of the batch; rows in another one are quarantined. None takes the one the rows have.
        rates: Units of ``currency`` for one unit of another, ``{"USD": 0.9}``, or by day, ``{"USD": {"2026-01-01": 0.9}}``.
        preset: A known export, such as ``"open_bandit"``.
        privacy: What happens to user ids and contact details; None keeps both as they are.
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

    tags: TagSchema | None = None
    mapping: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)
    constants: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    values: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict, kw_only=True)
    zone: str | tzinfo | None = attrs.field(default=None, kw_only=True)
    time_unit: str | None = attrs.field(default=None, kw_only=True)
    time_format: str | None = attrs.field(default=None, kw_only=True)
    decimal: str | None = attrs.field(default=None, kw_only=True)
    currency: str | None = attrs.field(default=None, kw_only=True)
    rates: Mapping[str, Rate] = attrs.field(factory=dict, kw_only=True)
    preset: Preset | None = attrs.field(default=None, converter=_preset, kw_only=True)
    privacy: Privacy | None = attrs.field(default=None, kw_only=True)
    schema: Any = attrs.field(default=None, kw_only=True)
    encoding: str = attrs.field(default="utf-8", kw_only=True)
    separator: str | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        zone_of(self.zone)
        check_written(self.time_format, self.decimal)
        check_rates(self.rates, self.currency)
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

    def ingest(self, rows: Any, *, progress: Callable[[int], None] | None = None) -> Ingested:
        """Return the accepted events, the quarantined rows and the state of the tags.

        Args:
            rows: A pandas or polars frame (lazy too), a pyarrow table, dataset or record-batch reader, a DuckDB relation, an iterable of
                dictionaries, or the path (or paths, or pattern) of CSV, Parquet or NDJSON files, gzip or zstd too.
            progress: Called with the number of rows read so far, after each part of a long table.

        Raises:
            InputError: The table cannot be read at all; `MissingColumnError` when a needed column is not there. Single bad rows
                are quarantined instead.
        """
        parts: list[Part] = []
        n_rows = 0
        seen: dict[str, None] = {}
        separator = self.separator or (self.preset.separator if self.preset else None)
        for chunk in chunks(rows, encoding=self.encoding, separator=separator, rows_at_once=CHUNK_ROWS):
            parts.append(self._read(completed(chunk, seen), n_rows))
            n_rows += chunk.n
            if progress is not None:
                progress(n_rows)
        if not n_rows:
            return Ingested(batch=EventBatch.empty(), quarantine=Quarantine(), tags=TagReport(), n_rows=0, n_accepted=0, n_duplicates=0)
        return self._joined(parts, n_rows)

    def stream(self, rows: Any, *, rows_at_once: int = CHUNK_ROWS) -> Iterator[Ingested]:
        """Yield results batch by batch, in memory that does not grow with the table; each goes to attribution, and is then done with.

        Duplicates are resolved inside each batch; across batches the attribution's state knows the ids (or `closedloop.ingest.settle`).
        Ids are not made from content here: to tell equal rows of different batches apart would need all of them.

        Args:
            rows: As for `ingest`.
            rows_at_once: Rows of a batch, about.

        Raises:
            InputError: As for `ingest`, and when the rows bring no event ids.
        """
        start = 0
        seen: dict[str, None] = {}
        separator = self.separator or (self.preset.separator if self.preset else None)
        for chunk in chunks(rows, encoding=self.encoding, separator=separator, rows_at_once=rows_at_once, split=True):
            part = self._read(completed(chunk, seen), start)
            if part.typed.event_id is None and chunk.n:
                raise InputError("a stream needs event ids", "event_id", None, "map a column that tells events apart, or use ingest()")
            if chunk.n:
                yield self._joined([part], chunk.n, start)
            start += chunk.n

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

    def _read(self, chunk: Chunk, start: int) -> Part:
        events = self._events(chunk)
        n = chunk.n if events.rows is None else len(events.rows)
        row = np.arange(n, dtype=np.int64) if events.rows is None else events.rows
        zone = zone_of(self.zone or (self.preset.zone if self.preset else None))
        columns = as_read(events.columns, TIMES, NUMBERS, self.time_format, self.decimal, self.currency)
        typed = read_events(columns, n, zone=zone, time_unit=self.time_unit or (self.preset.time_unit if self.preset else None))
        refused: list[Failure] = []
        if self.privacy is not None:
            typed, refused = shielded(typed, self.privacy)
        found = failures(checked_frame(typed), self.schema) if n else []
        typed, foreign = converted(typed, self.currency, self.rates)
        found += [*refused, *events.failures, *foreign]
        lacking = missing_tag(typed.kind, typed.times["touch_at"], {k: codes for k, (codes, _) in typed.texts.items()}, self.tag_schema)
        aside, state = set_aside(found, lacking, typed, events, chunk, start)
        if self.privacy is not None:
            user_column = events.source.get("user_id", "")
            aside = attrs.evolve(aside, originals=guarded(aside.originals, len(aside.position), self.privacy, user_column))
        good = np.flatnonzero(state[row] < 2)
        return Part(typed=typed, good=good, row=row[good] + start, lacking=lacking, aside=aside, state=state)

    def _joined(self, parts: list[Part], n_rows: int, first: int = 0) -> Ingested:
        joined = Joined.of(parts)
        row = joined.row - first
        currency = self._currency(joined)
        keep = joined.newest()
        state = np.concatenate([p.state for p in parts])
        # A row whose every event has a newer version is a duplicate; an untagged one is then not set aside either.
        kept_row = np.zeros(n_rows, dtype=bool)
        kept_row[row[keep]] = True
        kept_row[state == 0] |= ~_speaking(row, n_rows)[state == 0]
        segments = [p.aside.take(kept_row[p.aside.position - first] | (state[p.aside.position - first] == 2)) for p in parts]
        at, tagged = joined.at[keep], state[row[keep]] == 0
        aside = at[~tagged]
        batch = joined.batch(at[tagged], currency)
        return Ingested(
            batch=attrs.evolve(batch, untagged=joined.batch(aside, currency)) if len(aside) else batch,
            quarantine=Quarantine(segments=tuple(s for s in segments if len(s.position))),
            tags=joined.report(at, tagged),
            n_rows=n_rows,
            n_accepted=int((kept_row & (state == 0)).sum()),
            n_duplicates=int((~kept_row & (state < 2)).sum()),
        )

    def _currency(self, joined: Joined) -> str | None:
        at = joined.at
        money = (joined.numbers["cost"][at] != 0) | (joined.numbers["value"][at] != 0)
        codes, vocab = joined.texts["currency"]
        if self.currency is not None or not money.any():
            return self.currency
        seen = np.flatnonzero(np.bincount(codes[at][money] + 1, minlength=1))
        found = sorted(str(vocab[c - 1]) for c in seen if c)
        if len(found) > 1:
            raise InputError("the rows are in several currencies", "currency", found, "name the one to keep: currency=" + repr(found[0]))
        return found[0] if found else NO_CURRENCY


def _speaking(row: Int64, n_rows: int) -> npt.NDArray[np.bool_]:
    """True for rows that became at least one event; the others (page views of an export) are accepted and say nothing."""
    out = np.zeros(n_rows, dtype=bool)
    out[row] = True
    return out


def _renamed(column: Any, renamed: Mapping[str, str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]:
    codes, distinct = encode_texts(column)
    out = np.empty(len(distinct), dtype=object)
    out[:] = [renamed.get(t, t) for t in distinct]
    return codes, out
