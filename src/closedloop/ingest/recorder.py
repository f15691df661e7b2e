"""`EventRecorder`: context attached where and when the event happens, in the service that sees it.

Law of this file: an event is complete or known to be incomplete before `EventRecorder.record` returns; it is never in two batches and
never in none, whatever number of threads record while others drain. It waits for nothing but a lock held for one append, so it may be
called from asyncio. Explicit tags come before the registry's, the registry's before the landing URL's.
"""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from threading import Lock
from typing import Any

from closedloop.errors import ConfigurationError, InputError
from closedloop.ingest.ingestor import TableIngestor
from closedloop.ingest.landing import landing_tags
from closedloop.records.arms import TAG_COLUMNS
from closedloop.records.batch import EVENT_KINDS, EventKind
from closedloop.records.quarantine import Ingested
from closedloop.records.tags import TagSchema

Row = dict[str, Any]
_KINDS = frozenset(EVENT_KINDS)


class TagRegistry:
    """What each ad or creative id stands for, looked up when an event is recorded.

    Args:
        tags: ``{ad id: {tag column: tag}}``.

    Raises:
        ConfigurationError: A tag column is none.

    >>> registry = TagRegistry({"ad-1": {"platform": "meta", "campaign": "spring"}})
    >>> registry.tags("ad-1")["campaign"], registry.tags("ad-2")
    ('spring', {})
    """

    def __init__(self, tags: Mapping[str, Mapping[str, str]]) -> None:
        for named in tags.values():
            for column in named:
                if column not in TAG_COLUMNS:
                    raise ConfigurationError("not a tag column", "tags", column, None, TAG_COLUMNS)
        self._tags = {str(ad): dict(named) for ad, named in tags.items()}

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], key: str = "ad_id") -> TagRegistry:
        """Return a registry from rows such as ``{"ad_id": "1", "campaign": "spring"}``; other columns are left out.

        Raises:
            InputError: A row has no key, or two rows say different things of one.
        """
        found: dict[str, dict[str, str]] = {}
        for row in rows:
            if row.get(key) in (None, ""):
                raise InputError("a row of the registry has no key", key, None, "give the id of the ad or creative")
            named = {c: str(row[c]) for c in TAG_COLUMNS if row.get(c) not in (None, "")}
            if found.setdefault(str(row[key]), named) != named:
                raise InputError("two rows say different things of one id", key, row[key], "keep one of them")
        return cls(found)

    def __len__(self) -> int:
        return len(self._tags)

    def tags(self, ad: str) -> Mapping[str, str]:
        """Return the tags of an id, none for an unknown one."""
        return self._tags.get(ad, {})


class EventRecorder:
    """Records events with their context, and hands them over in batches.

    Args:
        ingestor: Where the batches go; its tags say what each kind of event needs.
        registry: Tags by ad or creative id.
        sink: Called with a full batch of rows by the thread that filled it; None keeps the rows until `drain` or `flush`. When it
            raises, the rows are kept and the exception goes to the caller.
        batch_rows: Rows in a full batch.
        limit: Rows kept at most without a sink.
        source: Prefix of the ids given to events without one; distinct for each process.
        strict: Refuse an event that lacks a needed tag, instead of recording and counting it.

    >>> from datetime import UTC
    >>> recorder = EventRecorder(TableIngestor(TagSchema(arm=("platform", "campaign"))), source="web-1")
    >>> at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    >>> recorder.record("click", at=at, user_id="u1", url="https://shop.example/?utm_source=google&utm_campaign=spring")
    'web-1-0'
    >>> recorder.flush().batch.tags["campaign"].decode().tolist()
    ['spring']
    """

    def __init__(
        self,
        ingestor: TableIngestor | None = None,
        registry: TagRegistry | None = None,
        *,
        sink: Callable[[list[Row]], object] | None = None,
        batch_rows: int = 10_000,
        limit: int = 1_000_000,
        source: str | None = None,
        strict: bool = False,
    ) -> None:
        if batch_rows < 1 or limit < batch_rows:
            raise ConfigurationError("a batch has at least one row, and fits the limit", "batch_rows", batch_rows)
        self.ingestor = ingestor or TableIngestor()
        self._needed = {kind: self.ingestor.tag_schema.needed(kind) for kind in EVENT_KINDS}
        self._registry = registry or TagRegistry({})
        self._sink, self._batch_rows, self._limit, self._strict = sink, batch_rows, limit, strict
        self._source = source or uuid.uuid4().hex
        self._numbers = itertools.count()
        self._lock = Lock()
        self._rows: list[Row] = []
        self._n_recorded = 0
        self._n_untagged = 0

    def record(
        self,
        kind: EventKind,
        *,
        at: datetime,
        event_id: str | None = None,
        user_id: str | None = None,
        ad_id: str | None = None,
        url: str | None = None,
        conversion_type: str | None = None,
        cost: float = 0.0,
        value: float = 0.0,
        currency: str | None = None,
        quantity: int = 1,
        **tags: str,
    ) -> str:
        """Record one event and return its id.

        Args:
            kind: ``impression``, ``click``, ``conversion`` or ``spend``.
            at: When it happened, aware.
            event_id: Its id, so that a repeated call is a duplicate; given here when None.
            user_id: Who.
            ad_id: Looked up in the registry.
            url: Landing URL, read for UTM parameters and click ids.
            conversion_type: Of a conversion.
            cost, value: Amounts in units of ``currency``.
            currency: ISO 4217 code.
            quantity: How many events it stands for.
            **tags: ``platform``, ``campaign``, ``audience``, ``creative``, ``placement``.

        Raises:
            InputError: A field is wrong; nothing is recorded. With ``strict`` also when a needed tag is missing.
            ConfigurationError: The recorder is full and has no sink.
        """
        if kind not in _KINDS:
            raise InputError("no kind of event", "kind", kind, None, EVENT_KINDS)
        if not isinstance(at, datetime) or at.tzinfo is None:
            raise InputError("a time needs its zone", "at", str(at), "pass an aware datetime, for example with tzinfo=UTC")
        if not (0 <= cost < math.inf) or not (-math.inf < value < math.inf):
            raise InputError("an amount must be a finite number, a cost not negative", "cost", cost if not 0 <= cost < math.inf else value)
        for name in tags:
            if name not in TAG_COLUMNS:
                raise InputError("not a tag column", name, tags[name], None, TAG_COLUMNS)
        found = landing_tags(url) if url is not None else {}
        if ad_id is not None:
            found.update(self._registry.tags(ad_id))
        found.update(tags)
        missing = [name for name in self._needed[kind] if not (found.get(name) or (name == "conversion_type" and conversion_type))]
        if missing and self._strict:
            raise InputError(
                f"a {kind} needs its {missing[0]}", missing[0], None, "give the tag, an ad id that is registered, or a tagged URL"
            )
        made = event_id if event_id is not None else f"{self._source}-{next(self._numbers)}"
        row: Row = {
            "event_id": made,
            "kind": kind,
            "occurred_at": at,
            "user_id": user_id,
            "conversion_type": conversion_type,
            "cost": cost,
            "value": value,
            "currency": currency,
            "quantity": quantity,
        }
        for name in TAG_COLUMNS:
            row[name] = found.get(name)
        full: list[Row] | None = None
        with self._lock:
            if self._sink is None and len(self._rows) >= self._limit:
                raise ConfigurationError("the recorder is full", "limit", self._limit, "drain it more often, or give it a sink")
            self._rows.append(row)
            self._n_recorded += 1
            self._n_untagged += bool(missing)
            if self._sink is not None and len(self._rows) >= self._batch_rows:
                full, self._rows = self._rows, []
        if full is not None:
            self._hand_over(full)
        return made

    def _hand_over(self, rows: list[Row]) -> None:
        assert self._sink is not None
        try:
            self._sink(rows)
        except BaseException:
            with self._lock:
                self._rows[:0] = rows
            raise

    def drain(self) -> list[Row]:
        """Return the rows that wait, and keep none of them."""
        with self._lock:
            rows, self._rows = self._rows, []
        return rows

    def flush(self) -> Ingested:
        """Ingest the rows that wait and return the result; when ingestion raises, the rows are kept."""
        rows = self.drain()
        try:
            return self.ingestor.ingest(rows)
        except BaseException:
            with self._lock:
                self._rows[:0] = rows
            raise

    @property
    def counts(self) -> dict[str, int]:
        """Events recorded, of these untagged, and waiting."""
        with self._lock:
            return {"recorded": self._n_recorded, "untagged": self._n_untagged, "waiting": len(self._rows)}

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        counts = self.counts
        return f"EventRecorder({counts['recorded']:,} recorded, {counts['untagged']:,} untagged, {counts['waiting']:,} waiting)"


__all__ = ["EventRecorder", "TagRegistry", "TagSchema"]
