"""The part of the report that looks back: cost per conversion and spend, cycle by cycle.

Law of this file: as for the report, it draws what it is given and computes no estimate of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from closedloop.display import svg
from closedloop.records.interval import Interval


def _column(history: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [math.nan if (v := row.get(name)) is None else float(v) for row in history]


def over_time(history: Sequence[Mapping[str, Any]] | None) -> str:
    """Return the section as HTML, "" without a history; the fields of a row are those of `closedloop.loop.render`."""
    if not history:
        return ""
    days = [d.strftime("%d %b") if hasattr(d := row.get("day", i + 1), "strftime") else str(d) for i, row in enumerate(history)]
    middle = [
        v.estimate if isinstance(v := row.get("cost_per_conversion"), Interval) else math.nan if v is None else float(v) for row in history
    ]
    ends = {
        end: [
            getattr(v, end)
            if isinstance(v := row.get("cost_per_conversion"), Interval)
            else _column([row], f"cost_per_conversion_{end}")[0]
            for row in history
        ]
        for end in ("low", "high")
    }
    truth = _column(history, "truth") if any("truth" in row for row in history) else []
    picture = svg.timeline(
        days,
        ends["low"],
        middle,
        ends["high"],
        truth=truth,
        notes=[str(row.get("note", "")) for row in history],
        label="Cost per conversion over time",
    )
    if not picture:
        return ""
    spend = svg.columns(_column(history, "spend"), "Spend over time")
    words = "Line: estimate, with its interval. " + (
        "Dashed: the true cost per conversion <i>caused</i>, known because this market is simulated; the line counts all of them. "
        if truth
        else ""
    )
    words += "Columns: spend a day." if spend else ""
    return f'<h2>Cost per conversion over time</h2><p class="soft">{words}</p><div class="scroll chart">{picture}{spend}</div>'
