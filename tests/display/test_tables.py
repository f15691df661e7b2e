"""Tables say what is in them, on one screen, whatever the cells hold."""

import html
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.display import html_table, number, text_table
from closedloop.display.tables import plain
from closedloop.display.words import amount, between, percent, seconds, signed


@given(st.text(max_size=400), st.integers(2, 100))
def test_plain_is_one_printable_line_of_bounded_length(text: str, limit: int) -> None:
    """Whatever a name holds, a terminal gets no command and no second line."""
    line = plain(text, limit)
    assert len(line) <= limit
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line)


def test_ten_million_characters_are_looked_at_briefly() -> None:
    """Only what can be shown is looked at."""
    assert len(plain("a" * 10_000_000)) == 60


def test_long_reasons_run_on_below_and_other_cells_are_cut() -> None:
    """No word of a reason is lost; a long name is shortened with a sign."""
    reason = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    lines = text_table({"arm": ["x" * 100], "why": [reason]}, wrap=("why",)).splitlines()
    assert " ".join(" ".join(line.split()[1:] if i == 0 else line.split()) for i, line in enumerate(lines[1:])) == reason
    assert lines[1].startswith("x" * 59 + "…  one two")
    assert len(lines) == 3


def test_html_keeps_long_reasons_whole_and_escapes_every_cell() -> None:
    """A reason is not cut in a notebook, and nothing in it becomes an element."""
    reason = "<b>&" + "w " * 100 + "end"
    source = html_table({"<i>": ["a"], "why": [reason]}, title="<u>", wrap=("why",))
    assert html.escape(reason) in source
    assert set(re.findall(r"<([a-z]+)", source)) == {"table", "caption", "thead", "tbody", "tr", "th", "td"}


def test_hidden_rows_are_counted() -> None:
    """What does not fit is said."""
    columns = {"a": list(range(1000))}
    assert text_table(columns, limit=10).splitlines()[-1] == "... and 990 more"
    assert "and 940 more" in html_table(columns)


@given(st.floats(1e-9, 1e12), st.integers(1, 6))
def test_numbers_keep_their_digits(value: float, digits: int) -> None:
    """A shown number is within half a unit of its last digit of the true one."""
    shown = float(number(value, digits).replace(",", ""))
    assert shown == pytest.approx(value, rel=0.5000001 * 10 ** (1 - digits)) or abs(shown - value) <= 0.5


@pytest.mark.parametrize(("low", "high", "words"), [(-math.inf, 2, "2 or less"), (-2, 3, "−2 to 3"), (0, math.inf, "0 or more")])
def test_ranges_say_their_open_ends(low: float, high: float, words: str) -> None:
    """An end that nothing bounds is said in words."""
    assert between(low, high) == words


@given(st.floats(1e-12, 1 - 1e-12))
def test_no_probability_is_shown_as_certain(share: float) -> None:
    """Only 0 and 1 are shown as 0 % and 100 %."""
    assert percent(share) not in ("0 %", "100 %")
    assert (percent(0.0), percent(1.0)) == ("0 %", "100 %")


@given(st.floats(-1e9, -1e-3))
def test_minus_signs_are_no_hyphens(value: float) -> None:
    """A pasted negative number is text or a number, never a formula."""
    assert amount(value).startswith("−")
    assert "-" not in signed(value)


@pytest.mark.parametrize(("value", "words"), [(0.0, "0 s"), (59.0, "59 s"), (90.0, "1.5 min"), (86400.0, "1 d"), (0.005, "5 ms")])
def test_durations_are_in_the_unit_a_person_would_use(value: float, words: str) -> None:
    """Ninety seconds are a minute and a half."""
    assert seconds(value) == words
