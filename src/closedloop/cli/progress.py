"""One line on a terminal that says what is being done, and for how long; nothing where nobody looks.

Law of this file: it writes to standard error, and only to a terminal; a log or a pipe gets none of it. It leaves no line behind.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WIDTH = 78


def say(text: str) -> None:
    """Put a text in place of the one before; an empty one clears the line."""
    if sys.stderr.isatty():
        print(f"\r{text[:_WIDTH]:<{_WIDTH}}" + ("" if text else "\r"), end="", file=sys.stderr, flush=True)


class Steps:
    """Say the room that is being worked in, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @contextmanager
    def around(self, room: str) -> Iterator[None]:
        """Say the room while it works."""
        say(f"{room} ... ({time.monotonic() - self._began:.0f} s)")
        try:
            yield
        finally:
            say("")

    def rows(self, n: int) -> None:
        """Say how many rows have been read."""
        say(f"read {n:,} rows ({time.monotonic() - self._began:.0f} s)")
