"""Text and HTML tables from columns: escaped, without script, readable in dark and light."""

from __future__ import annotations

import html
import itertools
import math
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence

_CELL = 60  # longest cell shown; names can be hostile
_SHORT = 26  # up to here a cell is not broken
_PROSE = 300  # longest explanation shown


def number(value: float, digits: int = 3) -> str:
    """Format a number for a person: ``digits`` significant digits, thousands separated, infinity as a sign.

    >>> number(1234567.0), number(0.012345), number(float("inf")), number(12)
    ('1,234,567', '0.0123', '∞', '12')
    """
    if math.isnan(value):
        return "?"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    decimals = max(0, digits - 1 - magnitude)
    if decimals > 12:
        return f"{value:.{digits - 1}e}"
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plain(value: object, limit: int = _CELL) -> str:
    """Return one line of printable text for any value, at most ``limit`` characters; control characters do not get through."""
    text = number(value) if isinstance(value, float) else "" if value is None else str(value)
    text = text[: limit + 1]  # look at no more of a ten-million-character tag than can be shown
    # Control and format characters (terminal escapes, right-to-left overrides) become a visible substitute.
    text = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _numeric(column: Sequence[object]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in column if v is not None)


def _rows(columns: Mapping[str, Sequence[object]], limit: int, wrap: Sequence[str]) -> tuple[list[str], list[list[str]], list[bool], int]:
    names = list(columns)
    total = len(next(iter(columns.values()))) if columns else 0
    shown = min(total, limit)
    cells = [[plain(columns[name][i], _PROSE if name in wrap else _CELL) for name in names] for i in range(shown)]
    numeric = [_numeric(columns[name][:shown]) for name in names]
    return names, cells, numeric, total - shown


def text_table(columns: Mapping[str, Sequence[object]], *, title: str = "", limit: int = 30, wrap: Sequence[str] = ()) -> str:
    """Return columns as an aligned plain-text table, at most ``limit`` rows; the columns in ``wrap`` run on over several lines.

    >>> print(text_table({"arm": ["a", "b"], "rate": [0.5, 12.0]}))
    arm  rate
    a     0.5
    b      12
    """
    names, cells, numeric, hidden = _rows(columns, limit, wrap)
    folded = [
        [textwrap.wrap(cell, _CELL) or [""] if name in wrap else [cell] for name, cell in zip(names, row, strict=True)] for row in cells
    ]
    widths = [max(len(name), *(len(part) for row in folded for part in row[j])) if cells else len(name) for j, name in enumerate(names)]

    def line(row: Sequence[str]) -> str:
        parts = [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, numeric, strict=True)]
        return "  ".join(parts).rstrip()

    lines = [title] if title else []
    lines.append(line(names))
    for row in folded:
        lines += [line(parts) for parts in itertools.zip_longest(*row, fillvalue="")]
    if hidden:
        lines.append(f"... and {hidden:,} more")
    return "\n".join(lines)


_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;font-family:system-ui,sans-serif;font-size:0.92em;color:inherit"
_TH = "border-bottom:1px solid currentColor;padding:0.25em 0.8em;font-weight:600;text-align:{align}"
_TD = "padding:0.2em 0.8em;text-align:{align}"


def html_table(columns: Mapping[str, Sequence[object]], *, title: str = "", limit: int = 60, wrap: Sequence[str] = ()) -> str:
    """Return columns as one escaped HTML table without script; colours are inherited, so it reads in dark and light.

    Cells of the columns in ``wrap`` may be long.

    >>> "<script>" in html_table({"<script>": ["<img src=x>"]})
    False
    """
    names, cells, numeric, hidden = _rows(columns, limit, wrap)
    align = ["right" if right else "left" for right in numeric]
    for j, name in enumerate(names):  # an amount and its currency stay on one line
        if name not in wrap and max((len(row[j]) for row in cells), default=0) <= _SHORT:
            align[j] += ";white-space:nowrap"
    head = "".join(f'<th style="{_TH.format(align=a)}">{html.escape(n)}</th>' for n, a in zip(names, align, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td style="{_TD.format(align=a)}">{html.escape(c)}</td>' for c, a in zip(row, align, strict=True)) + "</tr>"
        for row in cells
    )
    caption = f'<caption style="text-align:left;font-weight:600;padding:0.3em 0">{html.escape(title)}</caption>' if title else ""
    more = f'<tr><td colspan="{len(names)}">and {hidden:,} more</td></tr>' if hidden else ""
    return f'<table style="{_STYLE}">{caption}<thead><tr>{head}</tr></thead><tbody>{body}{more}</tbody></table>'
