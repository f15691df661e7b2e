"""Every picture draws on the Axes it is given, at the values it is given, whatever the names are."""

import math

import numpy as np
import pytest

from closedloop.display import plots

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

HOSTILE = ["$\\frac{", "$$", "<b>\u202e", "x" * 5000, "\x1b[31m"]
STATES = ["ok", "warning", "critical", "ok", "ok"]
FIVE = np.arange(1.0, 6.0)


@pytest.fixture(autouse=True)
def _closed() -> object:
    yield
    plt.close("all")


CALLS = {
    "forest": lambda ax: plots.forest(HOSTILE, FIVE - 1, FIVE, FIVE + 1, title=HOSTILE[0], unit="$x", truth=FIVE, ax=ax),
    "forest_unknown": lambda ax: plots.forest(HOSTILE, FIVE * 0, FIVE + math.inf, FIVE + math.inf, ax=ax),
    "forest_empty": lambda ax: plots.forest([], [], [], [], ax=ax),
    "budgets": lambda ax: plots.budgets_before_after(HOSTILE, FIVE, FIVE[::-1], FIVE - 9, FIVE, FIVE + 9, ax=ax),
    "budgets_empty": lambda ax: plots.budgets_before_after([], [], [], [], [], [], ax=ax),
    "curve": lambda ax: plots.curve_with_band(FIVE, FIVE, FIVE, FIVE, {"$today": 2.0, "far": 99.0}, truth=FIVE, ax=ax),
    "delay": lambda ax: plots.delay_curve({"click": [0.5, 1.0], "$\\v": [1.0]}, {"click": [0.4, 1.0]}, {"click": [0.6, 1.0]}, ax=ax),
    "delay_empty": lambda ax: plots.delay_curve({}, ax=ax),
    "timeline": lambda ax: plots.timeline(FIVE, FIVE, FIVE, FIVE + math.inf, truth=FIVE, notes={1: "$\\frac{"}, ax=ax),
    "timeline_unknown": lambda ax: plots.timeline(FIVE, FIVE * math.nan, FIVE * math.nan, FIVE * math.nan, ax=ax),
    "stacked": lambda ax: plots.stacked_delay(HOSTILE, {"$q": FIVE, "p": FIVE}, ax=ax),
    "stacked_empty": lambda ax: plots.stacked_delay([], {}, ax=ax),
    "densities": lambda ax: plots.densities(HOSTILE, FIVE, np.ones((5, 5)), truth=FIVE, ax=ax),
    "health": lambda ax: plots.health(
        HOSTILE, ["ok", "warning", "critical", "ok", "ok"], FIVE, FIVE, FIVE + math.inf, [0, 1, 2, math.inf, 3], ax=ax
    ),
    "health_timeline": lambda ax: plots.health_timeline(FIVE, {"$a": ["ok", "", "warning", "critical", "ok"]}, ax=ax),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_draws_on_the_given_axes_or_on_its_own(name: str, style: str) -> None:
    """The Axes come back; the figure renders without a warning or an error, dark and light, hostile names included."""
    with plt.style.context(style):
        figure, given = plt.subplots()
        assert CALLS[name](given) is given
        figure.canvas.draw()
        assert len(figure.axes) == 1  # nothing beside what was asked for
        own = CALLS[name](None)
        assert isinstance(own, Axes)
        assert own.figure is not figure
        own.figure.canvas.draw()


def test_forest_puts_dots_and_lines_at_the_values() -> None:
    """What is read off the picture is what was given."""
    ax = plots.forest(["a", "b"], [1.0, 2.0], [2.0, 3.0], [3.0, 5.0])
    lines, dots = ax.collections[0], ax.collections[1]
    assert [segment[:, 0].tolist() for segment in lines.get_segments()] == [[1.0, 3.0], [2.0, 5.0]]
    assert dots.get_offsets()[:, 0].tolist() == [2.0, 3.0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top


def test_forest_counts_what_it_leaves_out() -> None:
    """More rows than fit are counted."""
    ax = plots.forest([str(i) for i in range(100)], np.ones(100), np.ones(100), np.ones(100), limit=30)
    assert "and 70 more" in [t.get_text() for t in ax.texts]


def test_forest_marks_an_unbounded_end_with_an_arrow() -> None:
    """An infinite end is no line that stops."""
    bounded = plots.forest(["a"], [1.0], [2.0], [3.0])
    unbounded = plots.forest(["a"], [1.0], [2.0], [math.inf])
    arrows = [sum(len(c.get_offsets()) for c in ax.collections[2:]) for ax in (bounded, unbounded)]
    assert arrows == [0, 1]


def test_budget_bars_have_the_given_lengths_and_say_the_change() -> None:
    """100 to 120 is +20 %."""
    ax = plots.budgets_before_after(["a", "b"], [100.0, 50.0], [120.0, 50.0])
    assert [bar.get_width() for bar in ax.patches] == [100.0, 50.0, 120.0, 50.0]
    assert [t.get_text() for t in ax.texts] == ["▲ +20 %"]


def test_stacked_parts_start_where_the_last_ended() -> None:
    """Parts add up to the whole."""
    ax = plots.stacked_delay(["a"], {"one": [2.0], "two": [3.0], "three": [1.0]})
    assert [(p.get_x(), p.get_width()) for p in ax.patches] == [(0.0, 2.0), (2.0, 3.0), (5.0, 1.0)]


def test_curve_marks_lie_on_the_curve() -> None:
    """Today's budget is marked at its response, interpolated."""
    ax = plots.curve_with_band([0.0, 10.0], [0.0, 5.0], [0.0, 20.0], [0.0, 40.0], {"today": 2.5})
    assert ax.collections[-1].get_offsets().tolist() == [[2.5, 5.0]]


def _contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2, 1.4.11)."""

    def luminance(colour: str) -> float:
        part = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in part]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    a, b = sorted((luminance(one), luminance(other)), reverse=True)
    return (a + 0.05) / (b + 0.05)


@pytest.mark.parametrize("colour", [plots.MAIN, plots.SECOND, plots.THIRD, plots.QUIET])
def test_colours_stand_out_on_white_and_on_black(colour: str) -> None:
    """Graphics need a contrast of 3 to 1 (WCAG 2.2, criterion 1.4.11)."""
    assert _contrast(colour, "#ffffff") >= 3
    assert _contrast(colour, "#000000") >= 3
