"""Inline pictures put every value where its axis says, and say what lies outside."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.display import svg
from closedloop.display.svg import Scale

finite = st.floats(-1e9, 1e9, allow_nan=False)
columns = st.lists(st.tuples(finite, finite, finite).map(sorted), min_size=1, max_size=30)


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+\.?\d*", text)]


@given(columns, st.booleans())
def test_every_estimate_lies_on_the_axis_and_order_is_kept(rows: list[list[float]], zero: bool) -> None:
    """A dot is never left out, and a larger value is never drawn to the left of a smaller one."""
    low, middle, high = (list(c) for c in zip(*rows, strict=True))
    scale = Scale.of(middle, low, high, zero=zero)
    assert scale.low < scale.high
    assert all(scale.shows(m) for m in middle)
    if zero:
        assert scale.shows(0.0)
    pixels = [scale.x(v) for v in sorted([*low, *middle, *high])]
    assert pixels == sorted(pixels)
    assert all(scale.pad <= x <= scale.width - scale.pad for x in pixels)


@given(st.floats(1e-6, 1e6), st.floats(1.5, 1e5))
def test_ticks_lie_on_the_axis_and_tell_two_places_apart(low: float, ratio: float) -> None:
    """An axis can be read: at least two ticks, all inside, in order, few."""
    for scale in (Scale(low, low * ratio), Scale(low, low * ratio, True)):
        ticks = scale.ticks()
        assert 2 <= len(ticks) <= 6
        assert ticks == sorted(set(ticks))
        assert all(scale.shows(t) for t in ticks)


def test_equal_ratios_are_equal_lengths_on_a_logarithmic_axis() -> None:
    """1 to 10 is as long as 10 to 100."""
    scale = Scale(1.0, 100.0, True, width=200, pad=0)
    assert [scale.x(v) for v in (1, 10, 100)] == [0, 100, 200]


def test_wide_positive_values_get_a_logarithmic_axis_and_others_do_not() -> None:
    """Costs from 1 to 100 are read in ratios; gains around zero never are."""
    assert Scale.of([1.0, 100.0]).log
    assert not Scale.of([-1.0, 100.0]).log
    assert not Scale.of([1.0, 100.0], zero=True).log
    assert not Scale.of([10.0, 12.0]).log


def test_strip_draws_the_interval_at_its_values() -> None:
    """On an axis of 0 to 10 over 202 pixels, 2 to 7.5 with 5 between is at 49.4, 160.5 and 110."""
    scale = Scale(0.0, 10.0)
    picture = ET.fromstring(svg.strip(scale, 2.0, 5.0, 7.5))
    (line,) = [e for e in picture if e.tag == "path"]
    assert numbers(line.attrib["d"])[::2] == [49.4, 160.5]
    (dot,) = [e for e in picture if e.tag == "circle"]
    assert float(dot.attrib["cx"]) == 110.0


@pytest.mark.parametrize(
    ("low", "middle", "high", "arrows", "dots"),
    [(-math.inf, 5, 6, 1, 1), (1, 5, math.inf, 1, 1), (-math.inf, 5, math.inf, 2, 1), (1, 2, 3, 0, 1), (4, math.inf, math.inf, 1, 0)],
)
def test_an_end_outside_the_axis_is_an_arrow(low: float, middle: float, high: float, arrows: int, dots: int) -> None:
    """A line that runs on beyond the picture says so, and an unknown estimate has no dot."""
    picture = svg.strip(Scale(0.0, 10.0), low, middle, high)
    assert picture.count('<path class="f ') == arrows
    assert picture.count("<circle") == dots


def test_ignorance_is_a_dotted_line_without_a_dot() -> None:
    """Nothing known looks like nothing known."""
    picture = svg.strip(Scale(0.0, 10.0), -math.inf, math.inf, math.inf)
    assert "stroke-dasharray" not in svg.strip(Scale(0.0, 10.0), 1, 2, 3)
    assert "<circle" not in picture
    unknown = svg.strip(Scale(0.0, 1.0), -math.inf, 0.0, math.inf)
    assert unknown.count('<path class="f ') == 2


def test_bars_are_as_long_as_the_budgets() -> None:
    """200 of 400 is half as long as 400, from the same zero."""
    scale = Scale.of([0.0, 400.0], zero=True)
    old, new = ET.fromstring(svg.bars(scale, 200.0, 400.0))
    assert float(new.attrib["width"]) == pytest.approx(2 * float(old.attrib["width"]), abs=0.2)
    assert old.attrib["x"] == new.attrib["x"]
    assert new.attrib["class"] == "f a"
    assert ET.fromstring(svg.bars(scale, 400.0, 200.0))[1].attrib["class"] == "f b"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8).filter(lambda a: sum(a) > 1e-3))
def test_stacked_parts_are_in_proportion(amounts: list[float]) -> None:
    """The starts of the parts are the cumulative shares."""
    picture = ET.fromstring(svg.stacked([str(i) for i in range(len(amounts))], amounts))
    starts = [float(e.attrib["x"]) for e in picture]
    wanted, at = [], 0.0
    for a in amounts:
        if 1000 * a / sum(amounts) > 0:
            wanted.append(1000 * at / sum(amounts))
        at += a
    assert starts == pytest.approx(wanted, abs=0.06)


def test_timeline_leaves_gaps_and_keeps_the_band_inside() -> None:
    """A day without an estimate breaks the line; an unbounded day does not stretch the axis."""
    estimate = [10.0, 11.0, math.nan, 12.0, 11.0]
    picture = svg.timeline(list("abcde"), [9.0, 9.0, math.nan, 9.0, 9.0], estimate, [11.0, math.inf, math.nan, 15.0, 13.0], label="cost")
    root = ET.fromstring(picture)
    assert root.attrib["aria-label"] == "cost"
    line = next(e.attrib["d"] for e in root if e.attrib.get("class") == "l a")
    assert (line.count("M"), line.count("L")) == (2, 2)
    band = next(e.attrib["d"] for e in root if e.attrib.get("class") == "band")
    assert all(0 <= y <= 240 for y in numbers(band)[1::2])
    assert svg.timeline([], [], [], []) == ""


def test_names_in_pictures_are_escaped() -> None:
    """A label cannot close the picture and open something else."""
    hostile = '</svg><script>x</script>"\u202e'
    for picture in (
        svg.timeline([hostile, "b"], [1, 1], [2, 2], [3, 3], notes=[hostile, ""], label=hostile),
        svg.stacked([hostile], [1.0]),
        svg.columns([1.0], hostile),
    ):
        assert {e.tag for e in ET.fromstring(picture).iter()} <= {"svg", "path", "rect", "text", "circle"}
        assert "\u202e" not in picture
