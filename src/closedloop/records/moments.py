"""Time at the rim: aware datetimes outside, whole microseconds and days since 1970-01-01 UTC inside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from closedloop.errors import ConfigurationError, InputError

US_PER_DAY = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|d|w)\s*", re.ASCII)
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def to_us(moment: datetime) -> int:
    """Return microseconds since 1970-01-01 UTC of an aware datetime.

    Raises:
        InputError: ``moment`` has no time zone.

    >>> to_us(datetime(1970, 1, 2, tzinfo=UTC))
    86400000000
    """
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InputError("a time needs its zone", "now", moment.isoformat(), "pass an aware datetime, for example with tzinfo=UTC")
    return (moment - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """Return the aware UTC datetime of microseconds since 1970-01-01 UTC.

    >>> from_us(86400000000).isoformat()
    '1970-01-02T00:00:00+00:00'
    """
    return _EPOCH + timedelta(microseconds=int(us))


def parse_duration(value: str | timedelta, field: str = "duration") -> timedelta:
    """Return a timedelta from ``"7d"``, ``"24h"``, ``"30m"``, ``"90s"``, ``"2w"`` or a timedelta.

    Raises:
        ConfigurationError: The text is no duration.

    >>> parse_duration("7d")
    datetime.timedelta(days=7)
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigurationError("not a duration", field, value, "write a number and a unit, such as 7d, 24h or 30m")
    try:
        return timedelta(seconds=float(match[1]) * _UNIT[match[2]])
    except OverflowError as error:
        raise ConfigurationError("the duration is too long", field, value, "use at most 1000d") from error


def format_duration(value: timedelta) -> str:
    """Return the shortest exact text of a duration.

    >>> format_duration(timedelta(hours=36)), format_duration(timedelta(days=7))
    ('36h', '7d')
    """
    seconds = value.total_seconds()
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNIT[unit] == 0:
            return f"{int(seconds // _UNIT[unit])}{unit}"
    return f"{seconds:g}s"
