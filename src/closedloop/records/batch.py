"""The event table: a struct of numpy arrays with dictionary-encoded strings.

Law of this file: columns for machines, rows for people. Times are microseconds since 1970-01-01 UTC, money is whole
millionths of the batch's one currency, so that sums do not depend on the order of events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import frame, html_table, text_table
from closedloop.errors import InputError, InvariantError
from closedloop.records.arms import TAG_COLUMNS, Coded, Texts
from closedloop.records.money import MICROS

EventKind = Literal["impression", "click", "conversion", "spend"]
EVENT_KINDS: tuple[EventKind, ...] = ("impression", "click", "conversion", "spend")  # the position is the code in arrays
IMPRESSION, CLICK, CONVERSION, SPEND = range(4)
NO_TIME = np.iinfo(np.int64).min

Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]


@attrs.frozen(kw_only=True, eq=False)
class EventBatch:
    """Validated events as columns of one length N.

    Args:
        event_id: Object array of strings, distinct within the batch.
        kind: int8 codes, positions in `EVENT_KINDS`.
        occurred_at: int64, microseconds UTC, when it happened.
        recorded_at: int64, microseconds UTC, when the source wrote it down (equal to ``occurred_at`` where not given).
        user_id: Coded strings, -1 where there is no user.
        tags: A coded column for each of platform, campaign, audience, creative, placement (``TAG_COLUMNS``); every vocabulary sorted.
        conversion_type: Coded strings, -1 where not a conversion or not given.
        cost: int64 millionths of ``currency``: what this row cost.
        value: int64 millionths of ``currency``: revenue of a conversion.
        quantity: int64, how many events the row stands for (aggregated impression, click or conversion rows; 1 elsewhere).
        touch_kind: int8, for conversions that their own source credited to a touch: 0 click, 1 view; -1 elsewhere.
        touch_at: int64, the time of that touch, `NO_TIME` elsewhere. Such a conversion carries that touch's tags and
            needs no user.
        currency: ISO code of every amount, None when the batch has no money.
        untagged: Events whose needed tags are missing (code -1): never ranked, never dropped, they widen intervals.
    """

    event_id: Texts
    kind: Int8
    occurred_at: Int64
    recorded_at: Int64
    user_id: Coded
    tags: Mapping[str, Coded]
    conversion_type: Coded
    cost: Int64
    value: Int64
    quantity: Int64
    touch_kind: Int8
    touch_at: Int64
    currency: str | None = None
    untagged: EventBatch | None = None

    def __attrs_post_init__(self) -> None:
        n = len(self.event_id)
        if set(self.tags) != set(TAG_COLUMNS):
            raise InvariantError("a batch has exactly the five tag columns", "tags", sorted(self.tags))
        for name in _ARRAYS:
            if len(getattr(self, name)) != n:
                raise InvariantError(f"column {name} has another length than event_id", name, len(getattr(self, name)))
        for name, column in self._coded().items():
            if len(column) != n:
                raise InvariantError(f"column {name} has another length than event_id", name, len(column))

    def __len__(self) -> int:
        return len(self.event_id)

    def _coded(self) -> dict[str, Coded]:
        return {"user_id": self.user_id, "conversion_type": self.conversion_type, **self.tags}

    def take(self, index: npt.ArrayLike) -> EventBatch:
        """Return the events at ``index`` (positions or mask); the untagged ones stay as they are."""
        at = np.asarray(index)
        return attrs.evolve(
            self,
            **{name: getattr(self, name)[at] for name in _ARRAYS},
            user_id=self.user_id.take(at),
            conversion_type=self.conversion_type.take(at),
            tags={name: column.take(at) for name, column in self.tags.items()},
        )

    def count(self, kind: EventKind) -> int:
        """Return how many events of a kind the batch stands for (quantities summed)."""
        return int(self.quantity[self.kind == EVENT_KINDS.index(kind)].sum())

    @classmethod
    def empty(cls) -> EventBatch:
        """Return a batch without events."""
        i64, i8 = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int8)
        return cls(
            event_id=np.empty(0, dtype=object),
            kind=i8,
            occurred_at=i64,
            recorded_at=i64,
            user_id=Coded.missing(0),
            tags={name: Coded.missing(0) for name in TAG_COLUMNS},
            conversion_type=Coded.missing(0),
            cost=i64,
            value=i64,
            quantity=i64,
            touch_kind=i8,
            touch_at=i64,
        )

    @classmethod
    def concat(cls, batches: Sequence[EventBatch]) -> EventBatch:
        """Return the batches one after another (their untagged parts too).

        Raises:
            InputError: They have different currencies.
        """
        parts = [b for b in batches if len(b) or b.untagged is not None]
        if not parts:
            return cls.empty()
        currencies = sorted({b.currency for b in parts if b.currency is not None})
        if len(currencies) > 1:
            raise InputError("batches in different currencies cannot be joined", "currency", currencies, "convert with stated rates first")
        untagged = [b.untagged for b in parts if b.untagged is not None]
        return cls(
            **{name: np.concatenate([getattr(b, name) for b in parts]) for name in _ARRAYS},
            user_id=Coded.concat([b.user_id for b in parts]),
            conversion_type=Coded.concat([b.conversion_type for b in parts]),
            tags={name: Coded.concat([b.tags[name] for b in parts]) for name in TAG_COLUMNS},
            currency=currencies[0] if currencies else None,
            untagged=cls.concat(untagged) if untagged else None,
        )

    def to_columns(self) -> dict[str, Any]:
        """Return the event table as columns for people: names for codes, datetimes, units of currency."""
        return {
            "event_id": self.event_id,
            "kind": np.array(EVENT_KINDS, dtype=object)[self.kind],
            "occurred_at": self.occurred_at.view("datetime64[us]"),
            "recorded_at": self.recorded_at.view("datetime64[us]"),
            "user_id": self.user_id.decode(),
            **{name: self.tags[name].decode() for name in TAG_COLUMNS},
            "conversion_type": self.conversion_type.decode(),
            "cost": self.cost / MICROS,
            "value": self.value / MICROS,
            "currency": np.full(len(self), self.currency, dtype=object),
            "quantity": self.quantity,
            "touch_kind": np.array(["click", "view", None], dtype=object)[self.touch_kind],
            "touch_at": self.touch_at.view("datetime64[us]"),
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the event table as a frame."""
        return frame(self.to_columns(), library)

    def _summary(self) -> dict[str, list[Any]]:
        rows = [(name, int((self.kind == code).sum()), self.count(name)) for code, name in enumerate(EVENT_KINDS)]
        return {"kind": [r[0] for r in rows], "rows": [r[1] for r in rows], "events": [r[2] for r in rows]}

    def __repr__(self) -> str:
        untagged = 0 if self.untagged is None else len(self.untagged)
        return text_table(self._summary(), title=f"EventBatch: {len(self):,} rows, {untagged:,} untagged, currency {self.currency}")

    def _repr_html_(self) -> str:
        return html_table(self._summary(), title=f"EventBatch: {len(self):,} rows")


_ARRAYS = ("event_id", "kind", "occurred_at", "recorded_at", "cost", "value", "quantity", "touch_kind", "touch_at")
