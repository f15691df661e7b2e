"""What ingestion hands on beside the events: rows set aside with their reasons, and how well the tags are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import attrs

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
class Quarantine:
    """Rows set aside, in input order; nothing is lost, and a mended row may be ingested again."""

    rows: tuple[QuarantinedRow, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def reasons(self) -> dict[str, int]:
        """Return how many rows were set aside for each reason, most frequent first."""
        return dict(Counter(f"{r.field}: {r.reason}" for r in self.rows).most_common())

    def to_columns(self) -> dict[str, list[Any]]:
        """Return position, field, value, reason and mend as columns."""
        return {n: [getattr(r, n) for r in self.rows] for n in ("position", "field", "value", "reason", "mend")}

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the quarantined rows as a frame; the original row is in column ``row``."""
        return frame({**self.to_columns(), "row": [dict(r.row) for r in self.rows]}, library)

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=f"Quarantine: {len(self):,} rows")

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=f"Quarantine: {len(self):,} rows")


@attrs.frozen(kw_only=True)
class TagReport:
    """How complete the tags are, by platform and campaign.

    Args:
        platform, campaign: The keys of each line ("" where that tag itself is missing).
        rows: Touch and spend events of the line, quantities summed.
        tagged: Those that carry every required tag.
        blended_conversions: Share of credited-by-source conversions without tags, in [0, 1].
        blended_spend: Share of spend without tags, in [0, 1].
        suggestions: Spellings that look like one tag ("Spring_Sale" -> "spring-sale"): proposed, never merged.
    """

    platform: tuple[str, ...] = ()
    campaign: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    tagged: tuple[int, ...] = ()
    blended_conversions: float = 0.0
    blended_spend: float = 0.0
    suggestions: Mapping[str, str] = attrs.field(factory=dict)

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
        return text_table(self.to_columns(), title=f"TagReport: {self.completeness:.1%} of touch and spend events fully tagged")

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=f"TagReport: {self.completeness:.1%} fully tagged")


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
