"""The one attribution window, handed to every layer."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError
from closedloop.records.moments import format_duration, parse_duration

TouchKind = Literal["click", "view"]
TOUCH_KINDS: tuple[TouchKind, ...] = ("click", "view")  # the position is the code used in arrays
_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)


def _click(value: str | timedelta | None) -> timedelta | None:
    return None if value is None else parse_duration(value, "click")


def _view(value: str | timedelta | None) -> timedelta | None:
    return None if value is None else parse_duration(value, "view")


@attrs.frozen
class AttributionWindow:
    """How long after a touch a conversion may still be credited to it, for clicks and for views.

    A conversion at ``t`` may be credited to a touch at ``s`` when ``0 <= t - s <= window``; both ends are inside.
    ``view="0s"`` (or ``click="0s"``) still credits outcomes at the very moment of the touch; ``None`` switches that kind off.

    Args:
        click: Duration for clicks, such as ``"7d"``, or None.
        view: Duration for impressions, such as ``"1d"``, or None.

    >>> window = AttributionWindow(click="7d", view="1d")
    >>> window, window.bins("click")
    (AttributionWindow(click=7d, view=1d), 7)
    """

    click: timedelta | None = attrs.field(default=timedelta(days=7), converter=_click)
    view: timedelta | None = attrs.field(default=timedelta(days=1), converter=_view)

    def __attrs_post_init__(self) -> None:
        if self.click is None and self.view is None:
            raise ConfigurationError("a window needs clicks or views", "click", None, "give click or view a duration")
        for name, value in (("click", self.click), ("view", self.view)):
            if value is not None and not timedelta(0) <= value <= timedelta(days=1000):
                raise ConfigurationError("a window lies between 0 and 1000 days", name, format_duration(value))

    def duration(self, kind: TouchKind) -> timedelta | None:
        """Return the window of one kind of touch, None when that kind is never credited."""
        return self.click if kind == "click" else self.view

    @property
    def longest(self) -> timedelta:
        """The longer of the two."""
        return max(d for d in (self.click, self.view) if d is not None)

    @property
    def longest_days(self) -> int:
        """Whole days that cover the longer window, at least 1."""
        return max(1, math.ceil(self.longest / _DAY))

    def bins(self, kind: TouchKind) -> int:
        """Return the number of one-day delay bins that cover the window of this kind (0 when switched off).

        A conversion exactly at the end of a window of whole days belongs to the last bin.
        """
        duration = self.duration(kind)
        return 0 if duration is None else max(1, math.ceil(duration / _DAY))

    def limits_us(self) -> npt.NDArray[np.int64]:
        """Return the windows in microseconds by touch-kind code, -1 where switched off (shape (2,))."""
        return np.array([-1 if (d := self.duration(k)) is None else d // _MICROSECOND for k in TOUCH_KINDS], dtype=np.int64)

    def __repr__(self) -> str:
        click, view = ("off" if d is None else format_duration(d) for d in (self.click, self.view))
        return f"AttributionWindow(click={click}, view={view})"
