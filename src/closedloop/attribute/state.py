"""What attribution remembers between cycles: open rows, and settled sums.

Law of this file: a day of touches is *open* while a conversion inside the window may still be written down for it, that is until the data
reach ``day + window + lateness`` (whole days); then it is *settled* into sums and lost as rows. Touches are kept for one more window as
context, because they compete with younger ones. State adds: the open rows of two states are united by key, their settled sums added.

Merging is exact when the two states were fed different users (a partition by user), or when neither has settled anything yet.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.attribute.pathbook import PathBook
from closedloop.attribute.rows import COLUMNS, NO_USER, Rows, keys_of
from closedloop.attribute.tables import (
    COHORT_KEYS,
    COHORT_SUMS,
    DAY_KEYS,
    DAY_SUMS,
    DELAY_KEYS,
    DELAY_SUMS,
    PATH_KEYS,
    PATH_SUMS,
    SPEND_KEYS,
    SPEND_SUMS,
    Table,
    empty,
)  # fmt: skip
from closedloop.errors import ConfigurationError, InputError, WindowMismatchError
from closedloop.records.arms import Arms, Coded, IntArray
from closedloop.records.batch import NO_TIME
from closedloop.records.moments import US_PER_DAY
from closedloop.records.window import AttributionWindow

_FORMAT, _SECOND_FORMAT, _FIRST_FORMAT = (f"closedloop-attribution-{n}" for n in (3, 2, 1))
_ALWAYS = -(2**62)


@attrs.frozen(kw_only=True)
class Terms:
    """Under which terms a state was made; states of other terms are never mixed.

    Args:
        window: The attribution window.
        columns: The tag columns of an arm.
        conversion_type: The conversion type that counts, None for all.
        lateness: Whole days that an event may be written down after it happened.
        history: Whole days that settled sums are kept.
        model: Name of the attribution model.
        keep: Whole days that open rows are kept at least.
    """

    window: AttributionWindow
    columns: tuple[str, ...]
    conversion_type: str | None
    lateness: int
    history: int
    model: str
    keep: int = 0

    @property
    def open_days(self) -> int:
        """Days before the newest that stay open: no conversion can be written down any more for touches of older days."""
        return self.lateness + max(self.window.longest_days, self.keep)

    def check(self, other: Terms) -> None:
        """Refuse a state made under other terms.

        Raises:
            WindowMismatchError: Its window differs.
            ConfigurationError: Something else differs.
        """
        if self.window != other.window:
            raise WindowMismatchError(
                f"the state was made under {other.window}, this attribution uses {self.window}",
                "window",
                str(other.window),
                "call rewindow(state) to go on from the rows it keeps, or start without state",
            )
        for name in ("columns", "conversion_type", "lateness", "history", "model"):
            if getattr(self, name) != getattr(other, name):
                raise ConfigurationError(
                    f"the state was made with another {name} than {getattr(self, name)!r}",
                    name,
                    getattr(other, name),
                    "start without state, or use the same terms",
                )


def union_arms(one: Arms, other: Arms) -> tuple[Arms, IntArray, IntArray]:
    """Return the arms of both, sorted, and the new position of each arm of either (one entry more, -1, serves code -1)."""
    columns = [Coded.concat([one.column(name), other.column(name)]) for name in one.columns]
    arms, position = Arms.distinct(one.columns, columns)
    n = len(one)
    return arms, np.append(position[:n], -1).astype(np.int64), np.append(position[n:], -1).astype(np.int64)


@attrs.frozen(kw_only=True, eq=False)
class AttributionState:
    """Open rows and settled sums of one attribution; small, mergeable, saved without pickle and without raw ids.

    Args:
        terms: Under which terms it was made.
        arms: Every arm in use.
        rows: The open rows.
        cohorts: Settled sums by arm, day and touch kind.
        delays: Settled credit by day, touch kind, group of arms and delay bin.
        joined, joined_delays: The same two of participation; empty where it is not kept.
        spend: Settled spend by arm and day.
        days: Settled by day of the event: conversions, uncredited ones, rows dropped, rows refused beyond those once accepted.
        book: Settled journeys by day; empty for models that look at one journey at a time.
        late: Keys of refused late events still remembered (so that a second delivery is not counted twice), and the day each was recorded.
        n_late: Late events no longer remembered by key.
        watermark: Microseconds UTC up to which each platform's data are complete, "" for events without platform.
        revision: Raised by one whenever a batch brought something new.
        currency: ISO code, None without money.
        since: First day that counts: touches of older days, and no other rows, are held as context (set by `rewindow`).
    """

    terms: Terms
    arms: Arms
    rows: Rows
    cohorts: Table
    delays: Table
    joined: Table
    joined_delays: Table
    spend: Table
    days: Table
    book: PathBook
    late: Table
    n_late: int
    watermark: Mapping[str, int]
    revision: int
    currency: str | None
    since: int = _ALWAYS

    @classmethod
    def start(cls, terms: Terms) -> AttributionState:
        """Return the state before any event."""
        return cls(
            terms=terms,
            arms=Arms.of(terms.columns, []),
            rows=Rows.empty(),
            cohorts=empty(COHORT_KEYS, COHORT_SUMS),
            delays=empty(DELAY_KEYS, DELAY_SUMS),
            joined=empty(COHORT_KEYS, COHORT_SUMS),
            joined_delays=empty(DELAY_KEYS, DELAY_SUMS),
            spend=empty(SPEND_KEYS, SPEND_SUMS),
            days=empty(DAY_KEYS, DAY_SUMS),
            book=PathBook.empty(),
            late=empty(("key", "day"), ("n",)),
            n_late=0,
            watermark={},
            revision=0,
            currency=None,
        )

    @property
    def data_day(self) -> int | None:
        """Newest day that the data reach, None without data."""
        return max(self.watermark.values()) // US_PER_DAY if self.watermark else None

    @property
    def n_too_late(self) -> int:
        """Events refused because they were written down, or delivered, after their days were closed."""
        return int(self.n_late + len(self.late) + self.days.sums["excess"].sum())

    def with_arms(self, arms: Arms, position: IntArray) -> AttributionState:
        """Return the state over another arms table; ``position`` maps old codes to new ones, order kept, its last entry -1."""
        return attrs.evolve(
            self,
            arms=arms,
            rows=attrs.evolve(self.rows, arm=position[self.rows.arm].astype(np.int32)),
            cohorts=self.cohorts.renamed("arm", position),
            joined=self.joined.renamed("arm", position),
            spend=self.spend.renamed("arm", position),
        )

    def compact(self) -> AttributionState:
        """Return the state without arms and tags that nothing uses any more."""
        used = np.unique(np.concatenate([self.rows.arm.astype(np.int64), self.cohorts.keys["arm"], self.spend.keys["arm"]]))
        used = used[used >= 0]
        arms, position = self.arms, np.full(len(self.arms) + 1, -1, dtype=np.int64)
        position[used] = np.arange(len(used))
        codes, vocabs = [], []
        for k, vocab in enumerate(arms.vocabs):
            column = arms.codes[used, k]
            kept = np.unique(column[column >= 0])
            new = np.full(len(vocab) + 1, -1, dtype=np.int32)
            new[kept] = np.arange(len(kept), dtype=np.int32)
            codes.append(new[column])
            vocabs.append(vocab[kept])
        table = Arms(columns=arms.columns, codes=np.stack(codes, axis=1).astype(np.int32), vocabs=tuple(vocabs))
        return self.with_arms(table, position)

    def of_participation(self) -> AttributionState:
        """Return the state with the sums of participation as its sums; what settled before they were asked for stands as credited."""
        return attrs.evolve(self, cohorts=self.joined, delays=self.joined_delays) if len(self.joined) else self

    def without_participation(self) -> AttributionState:
        """Return the state without the sums of participation."""
        blank = AttributionState.start(self.terms)
        return attrs.evolve(self, joined=blank.joined, joined_delays=blank.joined_delays)

    def merge(self, other: AttributionState) -> AttributionState:
        """Return what one attribution fed with both would remember; see the law of this file for when that is exact.

        Days that the merged data close are settled by the next ``attribute`` call.

        Raises:
            ConfigurationError: They were made under other terms.
            InputError: Their currencies differ.
        """
        self.terms.check(other.terms)
        arms, mine, theirs = union_arms(self.arms, other.arms)
        a, b = self.with_arms(arms, mine), other.with_arms(arms, theirs)
        late = Table.add([a.late, b.late])
        return attrs.evolve(
            a,
            rows=Rows.union([a.rows, b.rows]),
            cohorts=Table.add([a.cohorts, b.cohorts]),
            delays=Table.add([a.delays, b.delays]),
            joined=Table.add([a.joined, b.joined]),
            joined_delays=Table.add([a.joined_delays, b.joined_delays]),
            spend=Table.add([a.spend, b.spend]),
            days=Table.add([a.days, b.days]),
            book=PathBook.add([a.book, b.book]),
            late=attrs.evolve(late, sums={"n": np.ones(len(late), dtype=np.int64)}),
            n_late=a.n_late + b.n_late,
            watermark=newest(a.watermark, b.watermark),
            revision=max(a.revision, b.revision),
            currency=one_currency(a.currency, b.currency),
            since=max(a.since, b.since),
        ).compact()

    def forget(self, user_id: str) -> AttributionState:
        """Return the state without the open rows of a user; settled sums hold no person.

        Events of the user that are delivered again come back: the source has to forget, too.
        """
        key = keys_of(np.array([user_id], dtype=object))[0]
        mine = (self.rows.user == key) & (self.rows.user != NO_USER)
        return attrs.evolve(self, rows=self.rows.take(~mine), revision=self.revision + 1).compact() if mine.any() else self

    def to_bytes(self) -> bytes:
        """Return the state as an npz archive without pickle; equal states give equal bytes."""
        header = {
            "format": _FORMAT,
            "terms": _terms_to_json(self.terms),
            "channels": list(self.book.channels),
            "vocabs": [list(v) for v in self.arms.vocabs],
            "watermark": dict(sorted(self.watermark.items())),
            "n_late": self.n_late,
            "revision": self.revision,
            "currency": self.currency,
            "since": self.since,
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            "header": np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8),
            "arms": self.arms.codes,
            **{f"rows.{name}": getattr(self.rows, name) for name in COLUMNS},
            **{f"book.{name}": getattr(self.book, name) for name in _BOOK},
        }
        for name in (*_TABLES, "paths"):
            table: Table = self.book.counts if name == "paths" else getattr(self, name)
            arrays |= {f"{name}.k.{n}": v for n, v in table.keys.items()} | {f"{name}.s.{n}": v for n, v in table.sums.items()}
        out = io.BytesIO()
        np.savez(out, **arrays)  # type: ignore[arg-type]
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> AttributionState:
        """Return a saved state.

        Raises:
            InputError: The bytes are no saved state, or one of another version.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            header = json.loads(arrays["header"].tobytes())
            if header["format"] == _FIRST_FORMAT:
                _upgrade(header, arrays)
            elif header["format"] not in (_FORMAT, _SECOND_FORMAT):
                raise InputError("the state has another format", "format", header["format"], "start without state", (_FORMAT,))
            terms = _terms_from_json(header["terms"])
            vocabs = tuple(np.array(v, dtype=object) for v in header["vocabs"])
            older, blank = header["format"] != _FORMAT, cls.start(terms)  # older ones know no participation
            tables = {n: getattr(blank, n) if older and n.startswith("joined") else _table(arrays, n) for n in _TABLES}
            return cls(
                terms=terms,
                arms=Arms(columns=terms.columns, codes=arrays["arms"], vocabs=vocabs),
                rows=Rows(**{name: arrays[f"rows.{name}"] for name in COLUMNS}),
                **tables,
                book=PathBook(
                    channels=tuple(header["channels"]), counts=_table(arrays, "paths"), **{name: arrays[f"book.{name}"] for name in _BOOK}
                ),
                n_late=header["n_late"],
                watermark=header["watermark"],
                revision=header["revision"],
                currency=header["currency"],
                since=header.get("since", _ALWAYS),
            )
        except (ValueError, KeyError, OSError, EOFError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("these bytes are no saved attribution state", "state", data[:16], "give what to_bytes returned") from error

    def __repr__(self) -> str:
        return (
            f"AttributionState: {len(self.rows):,} open rows, {len(self.cohorts):,} settled cohorts, {len(self.arms):,} arms, "
            f"revision {self.revision}"
        )


_TABLES = ("cohorts", "delays", "joined", "joined_delays", "spend", "days", "late")
_BOOK = ("key", "lengths", "codes")


def _upgrade(header: Mapping[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Bring a state of the first format, which knew no groups of delays and no whole journeys, to the present one.

    Raises:
        InputError: Its model needs whole journeys of days that are settled already.
    """
    if len(arrays["steps.k.day"]):
        model = header["terms"]["model"]
        raise InputError("the state remembers steps, not whole journeys", "model", model, "start without state")
    arrays["delays.k.group"] = np.zeros(len(arrays["delays.k.day"]), dtype=np.int64)
    arrays["rows.began"] = np.full(len(arrays["rows.key"]), NO_TIME, dtype=np.int64)
    arrays["rows.booked"] = np.zeros(len(arrays["rows.key"]), dtype=np.bool_)
    blank = PathBook.empty()
    arrays.update({f"book.{name}": getattr(blank, name) for name in _BOOK})
    arrays.update({f"paths.k.{name}": blank.counts.keys[name] for name in PATH_KEYS})
    arrays.update({f"paths.s.{name}": blank.counts.sums[name] for name in PATH_SUMS})


def _table(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> Table:
    def part(letter: str) -> dict[str, npt.NDArray[Any]]:
        start = f"{name}.{letter}."
        return {n[len(start) :]: v for n, v in arrays.items() if n.startswith(start)}

    return Table(keys=part("k"), sums=part("s"))


def newest(*watermarks: Mapping[str, int]) -> dict[str, int]:
    """Return the newest watermark of each platform."""
    out: dict[str, int] = {}
    for w in watermarks:
        for name, until in w.items():
            out[name] = max(until, out.get(name, until))
    return dict(sorted(out.items()))


def one_currency(one: str | None, other: str | None) -> str | None:
    """Return the currency of both.

    Raises:
        InputError: They differ.
    """
    if one is not None and other is not None and one != other:
        raise InputError(f"amounts in {one} and {other} cannot be added", "currency", other, "convert with stated rates first")
    return one if other is None else other


def _terms_to_json(terms: Terms) -> dict[str, Any]:
    micros = [None if d is None else d // timedelta(microseconds=1) for d in (terms.window.click, terms.window.view)]
    return {
        "click": micros[0],
        "view": micros[1],
        "columns": list(terms.columns),
        "conversion_type": terms.conversion_type,
        "lateness": terms.lateness,
        "history": terms.history,
        "model": terms.model,
        "keep": terms.keep,
    }


def _terms_from_json(saved: Mapping[str, Any]) -> Terms:
    click, view = (None if saved[k] is None else timedelta(microseconds=saved[k]) for k in ("click", "view"))
    rest = {name: saved[name] for name in ("conversion_type", "lateness", "history", "model")}
    window = AttributionWindow(click=click, view=view)
    return Terms(window=window, columns=tuple(saved["columns"]), keep=saved.get("keep", 0), **rest)


__all__ = ["AttributionState", "Terms", "newest", "one_currency", "union_arms"]
