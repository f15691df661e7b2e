"""Text files line by line: records of separated values and JSON lines, each by itself, in bounded memory.

Law of this file: a line that is no record is one broken row and takes no other along. No line longer than `LONGEST_LINE` is held,
whatever the file (an archive can unpack to a thousand times its size); no setting of the process is changed (Python's ``csv`` has a
global field limit).

References: RFC 4180 (quotes, doubled quotes, line ends inside quotes).
"""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterator
from typing import IO, Any

LONGEST_LINE = 32_000_000  # characters
_LONGEST_QUOTED = 1_000  # lines that one quoted field may span
_SHOWN = 1_000  # characters kept of a broken line


class Broken(str):
    """A line that is no record; ``reason`` says why."""

    reason: str

    def __new__(cls, line: str, reason: str) -> Broken:
        """Keep the beginning of the line, for a person to look at."""
        made = super().__new__(cls, line[:_SHOWN].strip())
        made.reason = reason
        return made

    def __repr__(self) -> str:
        return str(self)


def lines(text: IO[str]) -> Iterator[str | Broken]:
    """Yield the lines of a text, without their ends; blank ones are left out."""
    while line := text.readline(LONGEST_LINE):
        if len(line) >= LONGEST_LINE and line[-1] not in "\r\n":
            while rest := text.readline(LONGEST_LINE):
                if rest[-1] in "\r\n":
                    break
            yield Broken(line, f"is longer than {LONGEST_LINE:,} characters")
        elif line.strip():
            yield line


def json_rows(text: IO[str]) -> Iterator[Any]:
    """Yield the JSON value of each line, or the broken line."""
    for line in lines(text):
        if isinstance(line, Broken):
            yield line
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Broken(line, "is no JSON object")
            continue
        yield value if isinstance(value, dict) else Broken(line, "is no JSON object")


def separated_rows(text: IO[str], separator: str, width: int) -> Iterator[list[str] | Broken]:
    """Yield the cells of each record, ``width`` of them, or the broken line."""
    waiting: deque[str | Broken] = deque()
    source = lines(text)

    def following() -> str | Broken | None:
        return waiting.popleft() if waiting else next(source, None)

    while (line := following()) is not None:
        if isinstance(line, Broken):
            yield line
        elif '"' not in line:
            yield _fitted(line.rstrip().split(separator), width, line)
        else:
            taken = _quoted(line, separator, following)
            row = _cells(taken, separator, width)
            if isinstance(row, Broken) and len(taken) > 1:
                # The quote did not enclose what followed: only its own line is broken, the others are read again.
                waiting.extendleft(reversed(taken[1:]))
                row = Broken(line, "has a quote that does not end")
            yield row


def _opens(line: str, separator: str) -> bool:
    return line.count('"') % 2 == 1 and (line.startswith('"') or separator + '"' in line)


def _quoted(line: str, separator: str, following: Any) -> list[str]:
    """The lines of a record whose quotes span lines; the first alone where they do not end."""
    taken = [line]
    if not _opens(line, separator):
        return taken
    while len(taken) < _LONGEST_QUOTED:
        more = following()
        if more is None or isinstance(more, Broken):
            break
        taken.append(more)
        if more.count('"') % 2 == 1:
            return taken
    return taken


def _cells(taken: list[str], separator: str, width: int) -> list[str] | Broken:
    record = "".join(taken).rstrip()
    if _opens(record, separator):
        return Broken(taken[0], "has a quote that does not end")
    try:
        rows = list(csv.reader([record], delimiter=separator))
    except csv.Error as error:
        return Broken(taken[0], f"is no record: {error}")
    if len(rows) != 1:
        return Broken(taken[0], "is no record")
    return _fitted(rows[0], width, taken[0])


def _fitted(cells: list[str], width: int, line: str) -> list[str] | Broken:
    if len(cells) == width:
        return cells
    if len(cells) > width and not any(cells[width:]):  # separators at the end of the line
        return cells[:width]
    return Broken(line, f"has {len(cells)} fields, the header {width}")
