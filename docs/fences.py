"""Let the examples in docstrings show as code: a line of ``>>>`` outside an Examples section would show as a quotation."""

from __future__ import annotations

from typing import Any

import griffe


def fenced(text: str) -> str:
    """Return the docstring with a fence around every doctest block (prompt lines and the output up to an empty line)."""
    lines: list[str] = []
    fence_indent = ""
    inside = False
    for line in text.splitlines():
        starts = line.lstrip().startswith(">>>")
        indent = line[: len(line) - len(line.lstrip())]
        if starts and not inside:
            lines += ["", f"{indent}```python"]
            inside = True
        elif inside and not line.strip():
            lines.append(f"{fence_indent}```")
            inside = False
        if starts:
            fence_indent = indent
        lines.append(line)
    return "\n".join([*lines, f"{fence_indent}```"] if inside else lines)


class Fences(griffe.Extension):
    """Rewrite the docstring of every object as it is collected."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Put the fences in."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
