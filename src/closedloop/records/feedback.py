"""Health findings: what was noticed, with evidence and mend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from closedloop.display import frame, html_table, text_table
from closedloop.records.interval import Interval

Severity = Literal["ok", "warning", "critical"]
Advice = Literal["run", "hold", "manual"]


@attrs.frozen(kw_only=True)
class Finding:
    """One thing noticed.

    Args:
        name: A fixed name, such as ``tagging`` or ``low_volume``.
        severity: ``ok``, ``warning`` or ``critical``.
        scope: What it concerns: ``account``, or a campaign or arm by name.
        measured: The measured value, with its interval.
        threshold: The value it was held against.
        evidence: In plain words with numbers.
        mend: What to do.
    """

    name: str
    severity: Severity
    scope: str
    measured: Interval
    threshold: float
    evidence: str
    mend: str = ""


@attrs.frozen(kw_only=True)
class HealthReport:
    """The four conditions for a loop to compound gains, and what follows.

    Args:
        conditions: ``one_window``, ``tagging``, ``volume``, ``integrations``, one finding each for the account.
        findings: Everything else noticed.
        advice: ``run``, ``hold`` (decide nothing new) or ``manual`` (a manual strategy is better).
        because: Why, in plain words.
        campaigns: Advice by campaign.
    """

    conditions: tuple[Finding, ...]
    findings: tuple[Finding, ...] = ()
    advice: Advice
    because: str
    campaigns: Mapping[str, Advice] = attrs.field(factory=dict)

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per condition and finding."""
        rows = [*self.conditions, *self.findings]
        return {
            "check": [f.name for f in rows],
            "state": [f.severity for f in rows],
            "scope": [f.scope for f in rows],
            "measured": [str(f.measured) for f in rows],
            "threshold": [f.threshold for f in rows],
            "evidence": [f.evidence for f in rows],
            "mend": [f.mend for f in rows],
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return conditions and findings as a frame."""
        return frame(self.to_columns(), library)

    def plot(self, ax: Any = None) -> Any:
        """Draw conditions and findings against their thresholds; return the Axes."""
        from closedloop.display import plots

        rows = [*self.conditions, *self.findings]
        return plots.health(
            [f.name if f.scope == "account" else f"{f.name}: {f.scope}" for f in rows],
            [f.severity for f in rows],
            [f.measured.low for f in rows],
            [f.measured.estimate for f in rows],
            [f.measured.high for f in rows],
            [f.threshold for f in rows],
            title=f"Health: {self.advice}",
            ax=ax,
        )

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=f"Health: {self.advice} - {self.because}", wrap=("evidence", "mend"))

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=f"Health: {self.advice} - {self.because}", wrap=("evidence", "mend"))
