"""Every result of a cycle shows itself: as text, as HTML, as a frame, and as a picture where there is one."""

import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _factory() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_examples", Path(__file__).with_name("test_report.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLES = _factory()
PLAIN = EXAMPLES.cycle(9)
HOSTILE = EXAMPLES.cycle(14, names=EXAMPLES.HOSTILE)
PARTS = ("ingested", "outcomes", "signals", "plan", "receipts", "health")
MORE = ("quarantine", "tags", "batch", "cycle")
PICTURES = ("signals", "plan", "receipts", "health")


def part(report: Any, name: str) -> Any:
    if name == "cycle":
        return report
    return getattr(report if name in PARTS else report.ingested, name)


class Tags(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.names: set[str] = set()
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.names |= {name for name, _ in attrs}


@pytest.mark.parametrize("name", PARTS + MORE)
def test_html_is_a_table_and_nothing_else(name: str) -> None:
    """A notebook gets one table, whose cells hold no element; its colours are the notebook's own."""
    for report in (PLAIN, HOSTILE):
        source = part(report, name)._repr_html_()
        tags = Tags(source)
        assert tags.seen <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
        assert tags.names <= {"style", "colspan"}
        assert not re.search(r"(?<!-)color:\s*(?!inherit)|background", source)
        assert "\u202e" not in source
        assert "x" * 400 not in source


@pytest.mark.parametrize("name", PARTS + MORE)
def test_text_has_no_control_character_and_no_endless_line(name: str) -> None:
    """A terminal shows what is there, and obeys nothing in it."""
    for report in (PLAIN, HOSTILE):
        text = repr(part(report, name))
        assert text.strip()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)
        assert max(map(len, text.splitlines())) < 700


@pytest.mark.parametrize("name", PARTS + MORE)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_have_the_columns_of_the_result(name: str, library: str) -> None:
    """The numbers go on into the reader's own tools."""
    module = pytest.importorskip(library)
    result = part(PLAIN, name)
    frame = result.to_frame(library)
    assert isinstance(frame, module.DataFrame)
    if hasattr(result, "to_columns"):
        assert set(result.to_columns()) <= set(frame.columns)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("report", [PLAIN, HOSTILE], ids=["plain", "hostile"])
def test_pictures_draw_on_the_given_axes(name: str, report: Any) -> None:
    """`plot(ax=None)` returns the Axes it drew on, and hostile names are drawn as they are written."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    try:
        figure, given = plt.subplots()
        assert part(report, name).plot(ax=given) is given
        figure.canvas.draw()
        own = part(report, name).plot()
        own.figure.canvas.draw()
        assert own.figure is not figure
    finally:
        plt.close("all")


def test_signals_are_drawn_best_first() -> None:
    """The first row of the picture is the first of the ranking."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels = [t.get_text() for t in PLAIN.signals.plot().get_yticklabels()]
    plt.close("all")
    assert labels[0].startswith(" / ".join(PLAIN.signals[0].arm)[:40])
    assert len(labels) == 9
