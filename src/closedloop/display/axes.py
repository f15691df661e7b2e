"""What the pictures share: colours, axes, rows of names, intervals; matplotlib is imported inside the functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from closedloop.display.svg import Scale
from closedloop.display.tables import number, plain
from closedloop.errors import MissingExtraError

MAIN, SECOND, THIRD, FOURTH, QUIET = "#1a86c8", "#d55e00", "#009e73", "#cc79a7", "#8a94a3"
CYCLE = (MAIN, "#e69f00", THIRD, FOURTH, "#56b4e9", QUIET)
Numbers = Sequence[float] | npt.NDArray[np.float64] | npt.NDArray[np.int64]


def axes(ax: Any, width: float, height: float) -> Any:
    """Return the given Axes, or that of a new figure of so many inches."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtraError("matplotlib is not installed", "plot", None, "pip install 'closedloop[plot]'") from error
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def tidy(ax: Any, title: str, x: str = "", y: str = "", grid: str = "x") -> Any:
    """Set title, axis names and a quiet grid, and return the Axes."""
    ax.set_title(plain(title, 120), loc="left", fontsize="medium", parse_math=False)
    ax.set_xlabel(plain(x, 90), parse_math=False)
    ax.set_ylabel(plain(y, 90), parse_math=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color=QUIET, alpha=0.25, linewidth=0.8)
    ax.set_axisbelow(True)
    return ax


def name_rows(ax: Any, labels: Sequence[object], hidden: int = 0) -> npt.NDArray[np.int64]:
    """Label the rows from the top down and return their heights."""
    rows = np.arange(len(labels))
    ax.set_yticks(rows, [plain(label, 54) for label in labels], parse_math=False)
    ax.set_ylim(max(len(labels), 1) - 0.4, -0.6)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if hidden > 0:
        ax.text(0.0, -0.02, f"and {hidden:,} more", transform=ax.transAxes, ha="right", va="top", fontsize="small", color=QUIET)
    return rows


def number_axis(axis: Any) -> None:
    """Write numbers as a person would, on linear and logarithmic axes alike."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value).replace("-", "\N{MINUS SIGN}")))
    axis.set_minor_formatter(NullFormatter())


def set_scale(ax: Any, scale: Scale) -> None:
    """Give the horizontal axis the ends, the ticks and the kind of a scale."""
    if scale.log:
        from matplotlib.ticker import FixedLocator, NullLocator

        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(scale.ticks(6)))
        ax.xaxis.set_minor_locator(NullLocator())
    room = 0.0 if scale.log else 0.04 * (scale.high - scale.low)
    ax.set_xlim(scale.low - room, scale.high + room)
    number_axis(ax.xaxis)


def draw_intervals(ax: Any, scale: Scale, rows: Numbers, low: Numbers, middle: Numbers, high: Numbers, colours: Sequence[str]) -> None:
    """Draw intervals as lines with a dot, arrows where an end lies outside the axis, dots only where nothing is known."""
    low, middle, high = (np.asarray(v, dtype=float) for v in (low, middle, high))
    left, right = np.clip(low, scale.low, scale.high), np.clip(high, scale.low, scale.high)
    ax.hlines(rows, left, right, colors=colours, linewidth=2.2)
    seen = (middle >= scale.low) & (middle <= scale.high)
    ax.scatter(middle[seen], np.asarray(rows)[seen], s=34, c=np.asarray(colours)[seen], zorder=3)
    for outside, at, mark in ((low < scale.low, left, "<"), (high > scale.high, right, ">")):
        ax.scatter(at[outside], np.asarray(rows)[outside], s=30, c=np.asarray(colours)[outside], marker=mark, zorder=3, clip_on=False)


def side(low: Numbers, high: Numbers, reference: float) -> list[str]:
    """Return a colour per interval by the side of the reference it lies on, quiet when it lies on both."""
    return [MAIN if a >= reference else SECOND if b <= reference else QUIET for a, b in zip(low, high, strict=True)]
