"""What ingestion hands on beside the events: rows set aside with their reasons, and how well the tags are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import frame, html_table, text_table
from closedloop.errors import InvariantError, shorten
from closedloop.records.batch import EventBatch


@attrs.frozen(kw_only=True)
class QuarantinedRow:
    """One row that was not accepted.

    Args:
        position: Its position in the input, counted from 0.
        field: The field at fault.
        value: The value found there, as text, shortened.
        reason: What is wrong.
        mend: What to do about it.
        row: The original row, untouched.
    """

    position: int
    field: str
    value: str
    reason: str
    mend: str
    row: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Fault:
    """One way of being bad, shared by many rows.

    Args:
        field: The field at fault.
        reason: What is wrong.
        mend: What to do about it.
        column: The column of the input that holds the value, "" when none does.
    """

    field: str
    reason: str
    mend: str
    column: str = ""


@attrs.frozen(kw_only=True, eq=False)
class Segment:
    """Rows set aside together, as columns; row objects are made when they are looked at.

    Args:
        position: int64, shape (M,), ascending: positions in the input.
        fault: int32, shape (M,): which of ``faults`` each row has.
        faults: The ways of being bad.
        originals: Returns the original rows at given places of the segment (0 to M - 1).
    """

    position: npt.NDArray[np.int64]
    fault: npt.NDArray[np.int32]
    faults: tuple[Fault, ...]
    originals: Callable[[npt.NDArray[np.int64]], Sequence[Mapping[str, Any]]]

    def rows(self, at: npt.NDArray[np.int64]) -> list[QuarantinedRow]:
        """Return the rows at places ``at`` as objects."""
        out = []
        for place, original in zip(at.tolist(), self.originals(at) if len(at) else (), strict=True):
            fault = self.faults[self.fault[place]]
            value = shorten(original.get(fault.column)) if fault.column else shorten(original.get("line"))
            at_fault = {"field": fault.field, "reason": fault.reason, "mend": fault.mend}
            out.append(QuarantinedRow(position=int(self.position[place]), value=value, row=original, **at_fault))
        return out

    def take(self, keep: npt.NDArray[np.bool_]) -> Segment:
        """Return the segment with the rows where ``keep``."""
        kept = np.flatnonzero(keep)
        inner = self.originals
        return attrs.evolve(self, position=self.position[kept], fault=self.fault[kept], originals=lambda at: inner(kept[at]))


@attrs.frozen(kw_only=True, eq=False, slots=False)
class Quarantine:
    """Rows set aside, in input order; nothing is lost, and a mended row may be ingested again.

    Args:
        rows: The rows as objects, or
        segments: the rows as columns.
    """

    _rows: tuple[QuarantinedRow, ...] = attrs.field(default=(), alias="rows")
    segments: tuple[Segment, ...] = ()

    @cached_property
    def rows(self) -> tuple[QuarantinedRow, ...]:
        """The rows as objects, made on first use."""
        made = [row for segment in self.segments for row in segment.rows(np.arange(len(segment.position)))]
        return (*self._rows, *made)

    def head(self, n: int) -> tuple[QuarantinedRow, ...]:
        """Return the first ``n`` rows, without making the others."""
        out = list(self._rows[:n])
        for segment in self.segments:
            if len(out) >= n:
                break
            out += segment.rows(np.arange(min(n - len(out), len(segment.position))))
        return tuple(out)

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_rows, (self.rows,)  # columns reach back into the input: what is stored or sent is the rows

    def __len__(self) -> int:
        return len(self._rows) + sum(len(s.position) for s in self.segments)

    def __eq__(self, other: object) -> bool:
        return self.rows == other.rows if isinstance(other, Quarantine) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def concat(cls, parts: Sequence[Quarantine]) -> Quarantine:
        """Return the rows of several quarantines, one after another."""
        return cls(
            segments=tuple(s for p in parts for s in p.segments) if not any(p._rows for p in parts) else (),
            rows=tuple(r for p in parts for r in p.rows) if any(p._rows for p in parts) else (),
        )

    def reasons(self) -> dict[str, int]:
        """Return how many rows were set aside for each reason, most frequent first."""
        counts = Counter(f"{r.field}: {r.reason}" for r in self._rows)
        for segment in self.segments:
            for fault, n in zip(segment.faults, np.bincount(segment.fault, minlength=len(segment.faults)).tolist(), strict=True):
                if n:
                    counts[f"{fault.field}: {fault.reason}"] += n
        return dict(counts.most_common())

    def to_columns(self) -> dict[str, list[Any]]:
        """Return position, field, value, reason and mend as columns."""
        return _columns(self.rows)

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the quarantined rows as a frame; the original row is in column ``row``."""
        return frame({**self.to_columns(), "row": [dict(r.row) for r in self.rows]}, library)

    def _title(self, shown: int) -> str:
        return f"Quarantine: {len(self):,} rows" + (f", the first {shown} of them" if shown < len(self) else "")

    def __repr__(self) -> str:
        shown = self.head(10)
        return text_table(_columns(shown), title=self._title(len(shown)))

    def _repr_html_(self) -> str:
        shown = self.head(60)
        return html_table(_columns(shown), title=self._title(len(shown)), limit=60)


def _of_rows(rows: tuple[QuarantinedRow, ...]) -> Quarantine:
    return Quarantine(rows=rows)


def _columns(rows: Sequence[QuarantinedRow]) -> dict[str, list[Any]]:
    return {n: [getattr(r, n) for r in rows] for n in ("position", "field", "value", "reason", "mend")}


@attrs.frozen(kw_only=True)
class TagReport:
    """How complete the tags are, by platform and campaign.

    Args:
        platform, campaign: The keys of each line ("" where that tag itself is missing).
        rows: Touch and spend events of the line, quantities summed.
        tagged: Those that carry every required tag.
        squares: Squared quantities of the line, summed: a row that stands for thousands of views loses its tags at one stroke, so that the
            line says as much as ``rows ** 2 / squares`` single events. Empty where every event stands for itself.
        blended_conversions: Share of credited-by-source conversions without tags, in [0, 1].
        blended_spend: Share of spend without tags, in [0, 1].
        suggestions: Spellings that look like one tag ("Spring_Sale" -> "spring-sale"): proposed, never merged.
        proposals: The same by tag column, in the form that ``TableIngestor(values=...)`` takes once a person agrees.
    """

    platform: tuple[str, ...] = ()
    campaign: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    tagged: tuple[int, ...] = ()
    squares: tuple[float, ...] = ()
    blended_conversions: float = 0.0
    blended_spend: float = 0.0
    suggestions: Mapping[str, str] = attrs.field(factory=dict)
    proposals: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)

    @property
    def touched(self) -> tuple[tuple[str, str], ...]:
        """Platform and campaign of the lines with untagged events: decisions about their arms rest on wider intervals."""
        lines = zip(self.platform, self.campaign, self.rows, self.tagged, strict=True)
        return tuple((platform, campaign) for platform, campaign, rows, tagged in lines if tagged < rows)

    def effective(self) -> tuple[float, ...]:
        """Return how many single events each line is worth as evidence.

        >>> TagReport(platform=("google",), campaign=("a",), rows=(1000,), tagged=(1000,), squares=(500_000.0,)).effective()
        (2.0,)
        """
        if not self.squares:
            return tuple(float(n) for n in self.rows)
        return tuple(n * n / square if square > 0 else float(n) for n, square in zip(self.rows, self.squares, strict=True))

    @property
    def completeness(self) -> float:
        """Share of touch and spend events that carry every required tag; 1 without any."""
        total = sum(self.rows)
        return sum(self.tagged) / total if total else 1.0

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per platform and campaign."""
        share = [t / r if r else 1.0 for t, r in zip(self.tagged, self.rows, strict=True)]
        return {
            "platform": list(self.platform),
            "campaign": list(self.campaign),
            "rows": list(self.rows),
            "tagged": list(self.tagged),
            "complete": share,
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the report as a frame."""
        return frame(self.to_columns(), library)

    def __repr__(self) -> str:
        return text_table(
            self.to_columns(), title=f"TagReport: {self.completeness:.1%} of touch and spend events fully tagged{self._proposed()}"
        )

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=f"TagReport: {self.completeness:.1%} fully tagged{self._proposed()}")

    def _proposed(self) -> str:
        return f", {len(self.suggestions)} spellings to look at" if self.suggestions else ""


@attrs.frozen(kw_only=True)
class Ingested:
    """The result of ingestion: accepted events, rows set aside, and the state of the tags.

    ``n_rows == n_accepted + len(quarantine) + n_duplicates`` always holds.

    Args:
        batch: The accepted events, ready for attribution.
        quarantine: The rows set aside.
        tags: The state of the tags.
        n_rows: Rows read.
        n_accepted: Rows accepted (a row of some exports becomes several events).
        n_duplicates: Rows dropped because an earlier row had the same event id.
    """

    batch: EventBatch
    quarantine: Quarantine
    tags: TagReport
    n_rows: int
    n_accepted: int
    n_duplicates: int

    def __attrs_post_init__(self) -> None:
        if self.n_rows != self.n_accepted + len(self.quarantine) + self.n_duplicates:
            counts = (self.n_rows, self.n_accepted, len(self.quarantine), self.n_duplicates)
            raise InvariantError("rows in must equal accepted + quarantined + duplicates", "counts", counts)

    def to_columns(self) -> dict[str, list[Any]]:
        """Return the counts and the reasons of quarantine as two columns."""
        reasons = self.quarantine.reasons()
        what = ["rows read", "accepted", "quarantined", "duplicates", *(f"  {shorten(r, 200)[1:-1]}" for r in reasons)]
        counts = [self.n_rows, self.n_accepted, len(self.quarantine), self.n_duplicates, *reasons.values()]
        return {"what": what, "rows": counts}

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the counts as a frame."""
        return frame(self.to_columns(), library)

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=f"Ingested: tags {self.tags.completeness:.1%} complete")

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=f"Ingested: tags {self.tags.completeness:.1%} complete")
