"""Small inline SVG pictures from columns: interval strips, budget bars, a stacked bar, a timeline.

Law of this file: columns and numbers in, SVG text out; no record, no colour of its own (classes take their colours from the
page's style sheet, so one picture serves dark, light and print), no script, every text escaped. A value outside the scale is
never drawn inside it: its line runs to the edge and ends in an arrow.

References:
    Forest plots: Lewis & Clarke, BMJ 322 (2001). Tick steps: Heckbert, "Nice numbers for graph labels", Graphics Gems (1990).
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

import attrs

from closedloop.display.tables import number, plain

STRIP = 220  # pixels of one strip; the page gives the column the same width
_PAD = 9  # room at both ends for a dot or an arrow


_NUMBER = re.compile(r"[+-][0-9][0-9.,]*", re.ASCII)


def text(value: object, limit: int = 60) -> str:
    """Return any value as one line of printable, escaped text that no spreadsheet takes for a formula when it is pasted.

    >>> text("<b>\u202ename"), text("=1+1"), text("-3"), text(None)
    ('&lt;b&gt;�name', "'=1+1", '-3', '')
    """
    line = plain(value, limit)
    if line[:1] in ("=", "+", "-", "@") and not _NUMBER.fullmatch(line):
        line = "'" + line
    return html.escape(line, quote=False)


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(m for m in (1.0, 2.0, 5.0, 10.0) if m >= step / power - 1e-9) * power


@attrs.frozen
class Scale:
    """A linear or logarithmic axis from values to pixels.

    Args:
        low, high: Ends of the axis, ``low < high``.
        log: Whether equal ratios are equal lengths.
        width: Length in pixels, a padding at both ends included.
        pad: The padding.
    """

    low: float
    high: float
    log: bool = False
    width: float = STRIP
    pad: float = _PAD

    @classmethod
    def of(cls, estimates: Sequence[float], lows: Sequence[float] = (), highs: Sequence[float] = (), *, zero: bool = False) -> Scale:
        """Return a scale that shows every finite estimate and, as far as they do not squeeze the rest, the ends of intervals.

        Positive values that span more than a factor of six get a logarithmic axis, unless ``zero`` asks for zero inside the axis.
        """
        dots = [v for v in estimates if math.isfinite(v)]
        ends = [v for v in (*lows, *highs) if math.isfinite(v)]
        every = [*dots, *ends]
        if not every:
            return cls(0.0, 1.0)
        positive = [v for v in every if v > 0]
        if not zero and len(positive) == len(every) and max(every) > 6 * min(every):
            middle = dots or every
            low, high = max(min(every), min(middle) / 8), min(max(every), max(middle) * 8)
            return cls(low / 1.05, high * 1.05, True)
        reach = 4 * (max(abs(v) for v in dots) if dots else max(abs(v) for v in every)) or max(abs(v) for v in every) or 1.0
        low, high = max(min(every), -reach), min(max(every), reach)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        return cls(low, high)

    def x(self, value: float) -> float:
        """Return the pixel of a value, kept inside the picture."""
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low)) if value > 0 else -1.0
        else:
            share = (value - self.low) / (self.high - self.low) if math.isfinite(value) else math.copysign(2.0, value)
        return round(self.pad + min(max(share, 0.0), 1.0) * (self.width - 2 * self.pad), 1)

    def shows(self, value: float) -> bool:
        """Return whether a value lies on the axis."""
        slack = 1e-9 * (self.high - self.low)
        return self.low - slack <= value <= self.high + slack

    def ticks(self, most: int = 4) -> list[float]:
        """Return at most about ``most`` round values on the axis.

        >>> Scale(0.0, 10.0).ticks(), Scale(1.0, 100.0, True).ticks()
        ([0.0, 5.0, 10.0], [1.0, 10.0, 100.0])
        """
        if self.log:
            for steps in ((1, 2, 5), (1, 3), (1,)):
                first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
                found = [s * 10.0**p for p in range(first, last + 1) for s in steps if self.shows(s * 10.0**p)]
                if len(found) <= most:
                    break
            while len(found) > most:
                found = found[::2]
            if len(found) >= 2:
                return found
        step = _nice((self.high - self.low) / most)
        if math.floor(self.high / step + 1e-9) - math.ceil(self.low / step - 1e-9) < 1:
            step /= 2  # two ticks at least, or the axis cannot be read
        start = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 12) for i in range(start, math.floor(self.high / step + 1e-9) + 1)]


def _svg(body: str, width: float, height: float, kind: str, label: str = "") -> str:
    name = f' role="img" aria-label="{html.escape(plain(label))}"' if label else ' aria-hidden="true"'
    return f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"{name}>{body}</svg>'


def axis(scale: Scale) -> str:
    """Return the tick labels of a scale, one line high, to stand above a column of strips."""
    marks = []
    for value in scale.ticks():
        at = scale.x(value)
        anchor = ' text-anchor="start"' if at < 22 else ' text-anchor="end"' if at > scale.width - 22 else ""
        marks.append(f'<text x="{at:g}" y="11"{anchor}>{short(value)}</text>')
    return _svg("".join(marks), scale.width, 14, "axis")


def short(value: float) -> str:
    """Return a tick label: three digits, thousands and millions as k and M, with a true minus sign.

    >>> short(1500.0), short(-2e6), short(0.25)
    ('1.5k', '−2M', '0.25')
    """
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if limit <= abs(value) < 1e15:
            return number(value / limit).replace("-", "−") + sign
    return number(value).replace("-", "−")


def grid(scale: Scale, reference: float | None = None) -> str:
    """Return a CSS background that draws the ticks of a scale, and one reference value, down a whole column of a table."""
    lines = []
    if reference is not None and scale.shows(reference):
        lines.append((scale.x(reference), "var(--reference)"))
    lines += [(scale.x(value), "var(--grid)") for value in scale.ticks()]
    return ",".join(f"linear-gradient({c},{c}) {at - 0.5:g}px 0/1px 100% no-repeat" for at, c in lines)


def strip(scale: Scale, low: float, estimate: float, high: float, tone: str = "a", truth: float | None = None) -> str:
    """Return one interval: a line from low to high, a dot at the estimate, an arrow where an end lies outside the scale.

    Args:
        scale: The axis, shared by the column.
        low, estimate, high: The interval; ends may be infinite.
        tone: Class of colour: ``a`` (main), ``b`` (second), ``n`` (nothing known, muted).
        truth: A known true value, drawn as a diamond (simulations).
    """
    middle = 9
    if math.isinf(low) and math.isinf(high) and math.isinf(estimate):
        return _svg(f'<path class="l n" d="M{_PAD} {middle}H{STRIP - _PAD}" stroke-dasharray="2 4"/>', STRIP, 18, "strip")
    one, other = scale.x(low), scale.x(high)
    body = f'<path class="l {tone}" d="M{one:g} {middle}H{other:g}"/>'
    if low < scale.low and not scale.shows(low):
        body += f'<path class="f {tone}" d="M{one - 7:g} {middle}l7-4v8z"/>'
    if high > scale.high and not scale.shows(high):
        body += f'<path class="f {tone}" d="M{other + 7:g} {middle}l-7-4v8z"/>'
    if scale.shows(estimate):
        body += f'<circle class="f {tone}" cx="{scale.x(estimate):g}" cy="{middle}" r="4"/>'
    if truth is not None and scale.shows(truth):
        body += f'<path class="t" d="M{scale.x(truth):g} {middle - 6}l5 6l-5 6l-5-6z"/>'
    return _svg(body, STRIP, 18, "strip")


def strips(
    low: Sequence[float],
    estimate: Sequence[float],
    high: Sequence[float],
    *,
    zero: bool = False,
    truths: Sequence[float | None] = (),
) -> tuple[list[str], Scale]:
    """Return a strip per interval on one shared scale, and that scale.

    Args:
        low, estimate, high: The intervals.
        zero: Whether zero belongs inside the axis; intervals then take their colour from the side of zero they lie on.
        truths: Known true values, drawn as diamonds.
    """
    scale = Scale.of([*estimate, *(t for t in truths if t is not None)], low, high, zero=zero)
    pictures = []
    for k, (one, middle, other) in enumerate(zip(low, estimate, high, strict=True)):
        tone = "a" if not zero or one >= 0 else "b" if other <= 0 else "n"
        pictures.append(strip(scale, one, middle, other, tone, truths[k] if k < len(truths) else None))
    return pictures, scale


def bars(scale: Scale, before: float, after: float) -> str:
    """Return one budget as two bars from zero: what it was (wide, pale) and what it becomes (narrow, coloured by direction)."""
    zero, old, new = scale.x(0.0), scale.x(before), scale.x(after)
    tone = "a" if after >= before else "b"
    body = f'<rect class="was" x="{zero:g}" y="2" width="{max(old - zero, 0):.1f}" height="14"/>'
    body += f'<rect class="f {tone}" x="{zero:g}" y="6" width="{max(new - zero, 1):.1f}" height="6"/>'
    return _svg(body, STRIP, 18, "strip")


def stacked(labels: Sequence[str], amounts: Sequence[float], label: str = "") -> str:
    """Return one horizontal bar of consecutive parts; part ``i`` has class ``s{i}`` (the legend is the reader's table)."""
    total = sum(amounts)
    body, at = "", 0.0
    for i, amount in enumerate(amounts):
        width = 1000 * amount / total if total > 0 else 0.0
        if width > 0:
            body += f'<rect class="s{i % 6}" x="{at:.1f}" y="0" width="{max(width - 1, 0.5):.1f}" height="26"/>'
        at += width
    return _svg(body, 1000, 26, "wide", label or ", ".join(labels))


def _path(xs: Sequence[float], ys: Sequence[float]) -> str:
    """Return a polyline with gaps where a value is not finite."""
    parts, pen = [], "M"
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y):
            parts.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def timeline(
    days: Sequence[str],
    low: Sequence[float],
    estimate: Sequence[float],
    high: Sequence[float],
    *,
    truth: Sequence[float] = (),
    notes: Sequence[str] = (),
    label: str = "",
    height: int = 240,
) -> str:
    """Return a line with its band over time, one point per cycle.

    Args:
        days: Labels of the points, in order.
        low, estimate, high: The band and its middle; not finite where unknown.
        truth: Known true values (simulations), dashed.
        notes: A word per point, "" for none: a vertical mark with the word.
        label: What the picture shows, for readers who do not see it.
        height: Pixels.
    """
    width, left, right, top, bottom = 1000, 52, 14, 20, 24
    dots = [v for v in (*estimate, *truth) if math.isfinite(v)]
    ends = [v for v in (*low, *high) if math.isfinite(v)]
    if not dots:
        return ""
    typical = sorted(dots)[int(0.9 * (len(dots) - 1))]  # one wild first day must not flatten the rest
    ceiling = min(max((*dots, *ends)), 2.0 * typical if typical > 0 else max(dots)) * 1.04
    bottom_value = max(min((*dots, *ends)), min(0.0, min(dots)))
    floor = 0.0 if bottom_value >= 0 and bottom_value < 0.6 * ceiling else bottom_value
    if ceiling <= floor:
        ceiling = floor + 1.0
    vertical = Scale(floor, ceiling, width=height - top - bottom, pad=0)

    def y(value: float) -> float:
        return height - bottom - vertical.x(value) if math.isfinite(value) else math.nan

    n = len(days)
    xs = [left + (width - left - right) * (i / (n - 1) if n > 1 else 0.5) for i in range(n)]
    body = ""
    for value in vertical.ticks(5):
        at = y(value)
        body += f'<path class="g" d="M{left} {at:.1f}H{width - right}"/>'
        body += f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>'
    for i in range(0, n, max(1, math.ceil(n / 7))):
        anchor = "end" if i == n - 1 and n > 1 else "start" if i == 0 and n > 1 else "middle"
        body += f'<text x="{xs[i]:.1f}" y="{height - 6}" text-anchor="{anchor}">{text(days[i])}</text>'
    known = [i for i in range(n) if math.isfinite(low[i]) and not math.isnan(high[i])]
    if known:
        upper = "L".join(f"{xs[i]:.1f} {y(min(high[i], ceiling)):.1f}" for i in known)
        lower = "L".join(f"{xs[i]:.1f} {y(max(low[i], floor)):.1f}" for i in reversed(known))
        body += f'<path class="band" d="M{upper}L{lower}z"/>'
    body += f'<path class="l a" d="{_path(xs, [y(v) for v in estimate])}"/>'
    if len(truth):
        body += f'<path class="l t" stroke-dasharray="5 4" d="{_path(xs, [y(v) for v in truth])}"/>'
    for i, note in enumerate(notes):
        if note:
            anchor = "end" if xs[i] > width * 0.75 else "start"
            shift = -5 if anchor == "end" else 5
            body += f'<path class="m" d="M{xs[i]:.1f} {top - 6}V{height - bottom}"/>'
            body += f'<text x="{xs[i] + shift:.1f}" y="{top - 6}" text-anchor="{anchor}">{text(note)}</text>'
    return _svg(body, width, height, "wide", label)


def columns(amounts: Sequence[float], label: str = "", height: int = 64) -> str:
    """Return one thin column per point on the same horizontal axis as `timeline`, from zero (spend under a line of cost)."""
    width, left, right, top, bottom = 1000, 52, 14, 6, 6
    known = [a for a in amounts if math.isfinite(a)]
    most = max(known, default=0.0)
    if most <= 0:
        return ""
    n = len(amounts)
    pitch = (width - left - right) / max(n - 1, 1)
    thick = max(min(pitch * 0.7, 16), 0.8)
    body = f'<path class="g" d="M{left} {height - bottom}H{width - right}"/>'
    body += f'<text x="{left - 8}" y="{top + 9}" text-anchor="end">{short(most)}</text>'
    for i, amount in enumerate(amounts):
        if math.isfinite(amount) and amount > 0:
            tall = (height - top - bottom) * amount / most
            middle = left + pitch * i if n > 1 else (left + width - right) / 2
            one, other = max(middle - thick / 2, left), min(middle + thick / 2, width - right)
            body += f'<rect class="was" x="{one:.1f}" y="{height - bottom - tall:.1f}" width="{other - one:.1f}" height="{tall:.1f}"/>'
    return _svg(body, width, height, "wide", label)
