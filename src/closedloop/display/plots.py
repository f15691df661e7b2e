"""Pictures with matplotlib: each function takes columns and an optional Axes, draws, and returns the Axes.

Law of this file: it knows no record; matplotlib is imported inside the functions. Text and background follow the caller's
matplotlib style, so the pictures serve light and dark; the colours are Okabe & Ito's (2008; the blue a little lighter), told
apart with any common colour vision and readable on white and on black. Labels are shown as they are written, never parsed as
mathematics, and an end of an interval that lies outside the axis is drawn as an arrow, never as a line that stops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from closedloop.display.axes import (
    CYCLE,
    FOURTH,
    MAIN,
    QUIET,
    SECOND,
    THIRD,
    Numbers,
    axes,
    draw_intervals,
    name_rows,
    number_axis,
    set_scale,
    side,
    tidy,
)
from closedloop.display.svg import Scale
from closedloop.display.tables import plain


def forest(
    labels: Sequence[object],
    low: Numbers,
    estimate: Numbers,
    high: Numbers,
    *,
    truth: Numbers | None = None,
    reference: float | None = None,
    title: str = "",
    unit: str = "",
    limit: int = 40,
    ax: Any = None,
) -> Any:
    """Draw intervals one below the other on one axis (logarithmic when positive and wide) and return the Axes.

    Args:
        labels: Names of the rows, the first on top.
        low, estimate, high: The intervals; ends may be infinite.
        truth: Known true values, drawn as diamonds (simulations); NaN where unknown.
        reference: A value to compare with, drawn as a line; zero belongs inside the axis then when it is zero.
        title, unit: Words above and below.
        limit: Most rows shown; the rest is counted.
        ax: The Axes to draw on; a new figure without.
    """
    shown = min(len(labels), limit)
    low, estimate, high = (np.asarray(v, dtype=float)[:shown] for v in (low, estimate, high))
    known = np.asarray([] if truth is None else truth, dtype=float)[:shown]
    ax = axes(ax, 7.5, 1.1 + 0.3 * max(shown, 2))
    scale = Scale.of([*estimate, *known[np.isfinite(known)]], low.tolist(), high.tolist(), zero=reference == 0)
    rows = name_rows(ax, labels[:shown], len(labels) - shown)
    if reference is not None:
        ax.axvline(reference, color=QUIET, linewidth=1.2)
    colours = [MAIN] * shown if reference is None else side(low, high, reference)
    draw_intervals(ax, scale, rows, low, estimate, high, colours)
    if len(known):
        ax.scatter(known, rows, s=46, facecolors="none", edgecolors=FOURTH, marker="D", linewidths=1.6, zorder=4, label="truth")
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False)
    set_scale(ax, scale)
    return tidy(ax, title, unit)


def budgets_before_after(
    labels: Sequence[object],
    before: Numbers,
    after: Numbers,
    gain_low: Numbers | None = None,
    gain_estimate: Numbers | None = None,
    gain_high: Numbers | None = None,
    *,
    title: str = "",
    unit: str = "",
    gain_unit: str = "",
    limit: int = 40,
    ax: Any = None,
) -> Any:
    """Draw each budget before (pale, wide) and after (narrow, coloured by direction) and return the Axes.

    With gains given and no Axes, a second panel beside shows their intervals; with an Axes they are written at the bars.
    """
    shown = min(len(labels), limit)
    before, after = np.asarray(before, dtype=float)[:shown], np.asarray(after, dtype=float)[:shown]
    has_gain = gain_low is not None and gain_estimate is not None and gain_high is not None
    beside = None
    if ax is None and has_gain and shown:
        first = axes(None, 10.5, 1.1 + 0.34 * max(shown, 2))
        figure = first.figure
        first.remove()
        ax, beside = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    ax = axes(ax, 7.5, 1.1 + 0.34 * max(shown, 2))
    rows = name_rows(ax, labels[:shown], len(labels) - shown)
    colours = [MAIN if b >= a else SECOND for a, b in zip(before, after, strict=True)]
    ax.barh(rows, before, height=0.62, color=QUIET, alpha=0.45, label="before")
    ax.barh(rows, after, height=0.26, color=colours)
    for row, a, b in zip(rows, before, after, strict=True):
        if a != b and max(a, b) > 0:
            text = f"{'▲' if b > a else '▼'} {100 * (b - a) / a:+.0f} %" if a > 0 else "▲ new"
            ax.annotate(
                text.replace("-", "\N{MINUS SIGN}"), (max(a, b), row), (6, 0), textcoords="offset points", va="center", fontsize="small"
            )
    ax.margins(x=0.16)
    ax.set_xlim(left=0)
    number_axis(ax.xaxis)
    if beside is not None and gain_low is not None and gain_estimate is not None and gain_high is not None:
        low, middle, high = (np.asarray(v, dtype=float)[:shown] for v in (gain_low, gain_estimate, gain_high))
        scale = Scale.of(list(middle), list(low), list(high), zero=True)
        beside.axvline(0, color=QUIET, linewidth=1.2)
        draw_intervals(
            beside,
            scale,
            rows,
            low,
            middle,
            high,
            [MAIN if a >= 0 else SECOND if b <= 0 else QUIET for a, b in zip(low, high, strict=True)],
        )
        set_scale(beside, scale)
        tidy(beside, f"gain a day {gain_unit}".rstrip())
        beside.spines["left"].set_visible(False)
        beside.tick_params(axis="y", length=0)
    return tidy(ax, title, unit)


def curve_with_band(
    x: Numbers,
    low: Numbers,
    middle: Numbers,
    high: Numbers,
    marks: Mapping[str, float] | None = None,
    *,
    truth: Numbers | None = None,
    title: str = "",
    x_unit: str = "",
    y_unit: str = "",
    ax: Any = None,
) -> Any:
    """Draw a curve with its band and marks on the horizontal axis (today's budget, for a response curve); return the Axes.

    Args:
        x: Horizontal values, increasing, shape (X,).
        low, middle, high: The band and the curve, shape (X,).
        marks: By name, values of ``x`` to mark; each gets a dot on the curve.
        truth: A known true curve, dashed (simulations).
        title, x_unit, y_unit: Words.
        ax: The Axes to draw on.
    """
    ax = axes(ax, 7.0, 4.0)
    x, low, middle, high = (np.asarray(v, dtype=float) for v in (x, low, middle, high))
    ax.fill_between(x, low, high, color=MAIN, alpha=0.22, linewidth=0)
    ax.plot(x, middle, color=MAIN, linewidth=2.2)
    if truth is not None:
        ax.plot(x, np.asarray(truth, dtype=float), color=FOURTH, linestyle=(0, (4, 3)), linewidth=1.8, label="truth")
        ax.legend(loc="best", frameon=False)
    for i, (name, at) in enumerate((marks or {}).items()):
        ax.axvline(at, color=QUIET, linestyle=(0, (2, 2)), linewidth=1.2)
        if len(x) and x[0] <= at <= x[-1]:
            ax.scatter([at], [np.interp(at, x, middle)], color=SECOND, s=44, zorder=4)
        ax.annotate(
            plain(name, 40), (at, 1.0), (4, -10 - 13 * i), xycoords=("data", "axes fraction"), textcoords="offset points", parse_math=False
        )
    number_axis(ax.xaxis)
    number_axis(ax.yaxis)
    return tidy(ax, title, x_unit, y_unit, grid="both")


def delay_curve(
    share_seen: Mapping[str, Numbers],
    low: Mapping[str, Numbers] | None = None,
    high: Mapping[str, Numbers] | None = None,
    *,
    title: str = "",
    ax: Any = None,
) -> Any:
    """Draw which share of a cohort's conversions is seen by the end of each day after the touch; return the Axes.

    Args:
        share_seen: By kind of touch, shares in [0, 1], one per day.
        low, high: Bands of the same shapes.
        title: Words above.
        ax: The Axes to draw on.
    """
    ax = axes(ax, 7.0, 3.8)
    longest = 1
    for i, (kind, share) in enumerate(share_seen.items()):
        edges = np.arange(len(share) + 1)
        longest = max(longest, len(share))
        steps = np.concatenate([[0.0], np.asarray(share, dtype=float)])
        if low is not None and high is not None and kind in low and kind in high:
            ends = [np.concatenate([[0.0], np.asarray(v[kind], dtype=float)]) for v in (low, high)]
            ax.fill_between(edges, *ends, color=CYCLE[i % 6], alpha=0.2, linewidth=0)
        ax.plot(edges, steps, color=CYCLE[i % 6], marker="os^Dv"[i % 5], markersize=4.5, linewidth=2.0, label=plain(kind, 30))
    ax.set_ylim(0, 1.04)
    ax.set_xlim(0, longest)
    if len(share_seen) > 1:
        ax.legend(loc="lower right", frameon=False)
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return tidy(ax, title, "days since the touch", "conversions seen", grid="both")


def timeline(
    times: Sequence[Any],
    low: Numbers,
    estimate: Numbers,
    high: Numbers,
    *,
    truth: Numbers | None = None,
    notes: Mapping[int, str] | None = None,
    title: str = "",
    unit: str = "",
    ax: Any = None,
) -> Any:
    """Draw an estimate with its band over time, the truth dashed where it is known; return the Axes.

    ``notes`` puts words at positions of ``times``. Values that are not finite leave a gap.
    """
    ax = axes(ax, 8.0, 3.6)
    low, estimate, high = (np.asarray(v, dtype=float) for v in (low, estimate, high))
    finite = [v[np.isfinite(v)] for v in (low, estimate, high)]
    if len(finite[1]):
        top = min(max(v.max() for v in finite if len(v)), 2.0 * float(np.quantile(np.abs(finite[1]), 0.9)) or 1.0)
        ax.fill_between(times, low, np.where(np.isposinf(high), 4 * abs(top), high), color=MAIN, alpha=0.22, linewidth=0)
        ax.set_ylim(min(0.0, *(float(v.min()) for v in finite if len(v))), 1.05 * top)
    ax.plot(times, np.where(np.isfinite(estimate), estimate, np.nan), color=MAIN, linewidth=2.0)
    if truth is not None:
        ax.plot(times, np.asarray(truth, dtype=float), color=FOURTH, linestyle=(0, (4, 3)), linewidth=1.8, label="truth")
        ax.legend(loc="best", frameon=False)
    for at, words in (notes or {}).items():
        ax.axvline(times[at], color=QUIET, linestyle=(0, (2, 2)), linewidth=1.2)
        ax.annotate(
            plain(words, 40), (times[at], 1.0), (4, -10), xycoords=("data", "axes fraction"), textcoords="offset points", parse_math=False
        )
    ax.tick_params(axis="x", labelsize="small")
    number_axis(ax.yaxis)
    return tidy(ax, title, "", unit, grid="y")


def stacked_delay(labels: Sequence[object], parts: Mapping[str, Numbers], *, title: str = "", unit: str = "seconds", ax: Any = None) -> Any:
    """Draw where the time went: one bar per label, its parts one after another; return the Axes.

    Args:
        labels: Names of the bars (platforms, cycles), the first on top.
        parts: By step, seconds per bar, in the order in which they happen.
        title, unit: Words.
        ax: The Axes to draw on.
    """
    ax = axes(ax, 8.0, 1.6 + 0.42 * max(len(labels), 1))
    rows = name_rows(ax, labels)
    start = np.zeros(len(labels))
    for i, (name, amount) in enumerate(parts.items()):
        width = np.asarray(amount, dtype=float)
        hatch = ("", "//", "", "\\\\", "", "..")[i % 6]  # told apart without colour too
        ax.barh(
            rows, width, left=start, height=0.6, color=CYCLE[i % 6], label=plain(name, 40), hatch=hatch, edgecolor="white", linewidth=0.6
        )
        start = start + width
    if parts:
        ax.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.28 if len(labels) < 3 else -0.16),
            ncols=min(len(parts), 3),
            frameon=False,
            fontsize="small",
        )
    ax.set_xlim(left=0)
    number_axis(ax.xaxis)
    return tidy(ax, title, unit)


def densities(
    labels: Sequence[object],
    x: Numbers,
    density: npt.NDArray[np.float64],
    *,
    truth: Numbers | None = None,
    title: str = "",
    unit: str = "",
    limit: int = 20,
    ax: Any = None,
) -> Any:
    """Draw one density per row on a shared axis (a ridge), each scaled to its own height; return the Axes.

    Args:
        labels: Names of the rows, the first on top.
        x: Where the densities are known, shape (X,).
        density: Shape (A, X), zero or more.
        truth: Known true values, one per row.
        title, unit: Words.
        limit: Most rows shown.
        ax: The Axes to draw on.
    """
    shown = min(len(labels), limit)
    ax = axes(ax, 7.5, 1.2 + 0.42 * max(shown, 2))
    rows = name_rows(ax, labels[:shown], len(labels) - shown)
    x = np.asarray(x, dtype=float)
    for row in rows:
        peak = float(np.max(density[row])) if len(x) else 0.0
        height = density[row] / peak if peak > 0 else np.zeros_like(x)
        ax.fill_between(x, row + 0.3, row + 0.3 - 1.05 * height, color=CYCLE[0], alpha=0.55, linewidth=0, zorder=2 + row)
        ax.plot(x, row + 0.3 - 1.05 * height, color=MAIN, linewidth=1.2, zorder=2 + row)
        if truth is not None and math.isfinite(float(truth[row])):
            ax.scatter([truth[row]], [row + 0.3], marker="D", s=30, facecolors="none", edgecolors=FOURTH, linewidths=1.6, zorder=100)
    ax.set_ylim(max(shown, 1) - 0.4, -1.0)
    number_axis(ax.xaxis)
    return tidy(ax, title, unit)


_STATES = {"ok": (THIRD, "o"), "warning": ("#e69f00", "^"), "critical": (SECOND, "X")}


def health(
    labels: Sequence[object],
    severity: Sequence[str],
    low: Numbers,
    measured: Numbers,
    high: Numbers,
    threshold: Numbers,
    *,
    title: str = "",
    ax: Any = None,
) -> Any:
    """Draw what was measured as a multiple of what it was held against, the state by colour and shape; return the Axes.

    Rows whose threshold is zero or unbounded show their state at the left edge only.
    """
    ax = axes(ax, 7.5, 1.3 + 0.36 * max(len(labels), 2))
    rows = name_rows(ax, [f"{label} ({state})" for label, state in zip(labels, severity, strict=True)])
    limit = np.asarray(threshold, dtype=float)
    fit = np.isfinite(limit) & (limit > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = [np.where(fit, np.asarray(v, dtype=float) / limit, np.nan) for v in (low, measured, high)]
    ax.axvline(1.0, color=QUIET, linewidth=1.2)
    right = max(2.0, min(4.0, 1.15 * float(np.nanmax(np.where(np.isfinite(ends[1]), ends[1], np.nan), initial=1.0))))
    for row, state in zip(rows, severity, strict=True):
        colour, mark = _STATES.get(state, (QUIET, "s"))
        if fit[row]:
            ax.hlines(row, max(ends[0][row], 0.0), min(ends[2][row], right), colors=colour, linewidth=2.0)
        at = min(max(ends[1][row], 0.0), right) if fit[row] else 0.0
        ax.scatter([at], [row], color=colour, marker=mark, s=52, zorder=3, clip_on=False)
    ax.set_xlim(0, right)
    ax.tick_params(axis="y", pad=9)
    number_axis(ax.xaxis)
    return tidy(ax, title, "measured, as a multiple of its threshold")


def health_timeline(times: Sequence[Any], states: Mapping[str, Sequence[str]], *, title: str = "", ax: Any = None) -> Any:
    """Draw the state of each condition over time, by colour and shape; return the Axes.

    Args:
        times: One per cycle.
        states: By condition, ``ok``, ``warning`` or ``critical`` per cycle ("" where unknown).
        title: Words above.
        ax: The Axes to draw on.
    """
    ax = axes(ax, 8.0, 1.4 + 0.36 * max(len(states), 2))
    rows = name_rows(ax, list(states))
    for row, line in zip(rows, states.values(), strict=True):
        for state, (colour, mark) in _STATES.items():
            at = [t for t, s in zip(times, line, strict=True) if s == state]
            ax.scatter(at, [row] * len(at), color=colour, marker=mark, s=40, label=state if row == 0 else None)
    if len(states):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, frameon=False, fontsize="small")
    ax.tick_params(axis="x", labelsize="small")
    return tidy(ax, title)
