"""One window: parsed from words, compared as a value, binned by days."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.errors import ConfigurationError, InputError
from closedloop.records.moments import format_duration, from_us, parse_duration, to_us
from closedloop.records.window import AttributionWindow


def test_equal_windows_are_equal_however_written() -> None:
    """7 days, 168 hours and a timedelta are one window."""
    assert AttributionWindow(click="7d") == AttributionWindow(click="168h") == AttributionWindow(click=timedelta(days=7))
    assert hash(AttributionWindow(click="7d")) == hash(AttributionWindow(click="1w"))


@pytest.mark.parametrize(("click", "bins"), [("7d", 7), ("36h", 2), ("1h", 1), ("0s", 1), (None, 0)])
def test_delay_bins_cover_the_window(click: str | None, bins: int) -> None:
    """Bins are whole days that cover the window; a window switched off has none."""
    assert AttributionWindow(click=click, view="1d").bins("click") == bins


@pytest.mark.parametrize("text", ["7", "d", "7 days", "-1d", "1e3d", "", "∞d", None, 7])
def test_wrong_durations_name_field_and_mend(text: object) -> None:
    """A duration that cannot be read names the field, the value and how to write it."""
    with pytest.raises(ConfigurationError, match="click"):
        AttributionWindow(click="x" if text is None else text)  # type: ignore[arg-type]


def test_absurd_windows_are_refused() -> None:
    """No window at all, a negative one or one of centuries cannot be meant."""
    for wrong in ({"click": None, "view": None}, {"click": timedelta(days=-1)}, {"view": "99999d"}, {"click": "9" * 400 + "d"}):
        with pytest.raises(ConfigurationError):
            AttributionWindow(**wrong)  # type: ignore[arg-type]


@given(st.integers(min_value=1, max_value=10**7))
def test_durations_survive_being_written(minutes: int) -> None:
    """What is written out reads back as the same duration."""
    value = timedelta(minutes=minutes)
    assert parse_duration(format_duration(value)) == value


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)), st.integers(-14, 14))  # noqa: DTZ001
def test_moments_are_exact_in_any_zone(naive: datetime, hours: int) -> None:
    """Microseconds in and out of any zone lose nothing."""
    moment = naive.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert from_us(to_us(moment)) == moment
    assert from_us(to_us(moment)).tzinfo is UTC


def test_a_time_without_zone_is_refused() -> None:
    """A naive time is never guessed."""
    with pytest.raises(InputError, match="zone"):
        to_us(datetime(2026, 1, 1))  # noqa: DTZ001
