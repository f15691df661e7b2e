"""The shell of a self-contained HTML page: one style sheet for dark, light and print; no script, no request.

Law of this file: it knows no record. A content security policy in the page forbids scripts, frames, forms and every request,
so a name that slipped through an escape would still do nothing.

The colours are Okabe & Ito's (2008), which people with any common colour vision tell apart; direction and severity are always
also said in words or shape.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib import resources

from closedloop.display.tables import plain

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def style() -> str:
    """Return the style sheet, from the file beside this one."""
    return (resources.files("closedloop.display") / "page.css").read_text(encoding="utf-8")


def page(title: str, body: str) -> str:
    """Return a whole HTML document around ``body`` (which must be escaped already); the title is escaped here."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>{html.escape(plain(title))}</title><style>{style()}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


_CELLS = {"a": ' class="arm"', "s": ' class="s"', "r": ' class="r"', "w": ' class="w"', "l": ""}


def table(
    heads: Sequence[str],
    kinds: str,
    rows: Sequence[Sequence[str]],
    *,
    backgrounds: Mapping[int, str] | None = None,
    more: int = 0,
) -> str:
    """Return an HTML table from cells that are HTML already.

    Args:
        heads: Heads of the columns, HTML.
        kinds: One letter a column: ``a`` name of an arm, ``s`` strip, ``r`` right, ``w`` wide text, ``l`` left.
        rows: Cells, HTML.
        backgrounds: CSS background by column, drawn down the whole column.
        more: How many rows are not shown.
    """
    behind = backgrounds or {}
    cols = "".join(f'<col style="background:{behind[i]}">' if i in behind else "<col>" for i in range(len(kinds)))
    head = "".join(f"<th scope=col{_CELLS[k] if k in 'sr' else ''}>{h}</th>" for h, k in zip(heads, kinds, strict=True))
    body = "".join("<tr>" + "".join(f"<td{_CELLS[k]}>{c}</td>" for c, k in zip(row, kinds, strict=True)) + "</tr>\n" for row in rows)
    if more > 0:
        body += f'<tr><td colspan="{len(kinds)}" class="soft">and {more:,} more, all in the ledger</td></tr>'
    return f'<div class="scroll"><table><colgroup>{cols}</colgroup><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def long_table(
    heads: Sequence[str],
    kinds: str,
    rows: Sequence[Sequence[str]],
    backgrounds: Mapping[int, str],
    more: int,
    what: str,
) -> str:
    """Return a table whose rows after the first ones are folded away (and unfold on paper), so that what follows is not pages below.

    Args:
        heads, kinds, rows, backgrounds, more: As in `table`.
        what: What a row is, in the plural.
    """
    if len(rows) <= _FIRST + 10:
        return table(heads, kinds, rows, backgrounds=backgrounds, more=more)
    rest = table(heads, kinds, rows[_FIRST:], backgrounds=backgrounds, more=more)
    summary = f"The next {len(rows) - _FIRST:,} {what}"
    return table(heads, kinds, rows[:_FIRST], backgrounds=backgrounds) + f"<details><summary>{summary}</summary>{rest}</details>"


_FIRST = 40  # rows shown of a long table
