"""Warnings of versions that end come in time and from the platforms' own dates."""

from datetime import UTC, datetime

import pytest

from closedloop.platforms.sunset import SUNSETS, sunset_notice


@pytest.mark.parametrize(
    ("api", "version", "when", "words"),
    [
        ("meta", "v25.0", datetime(2026, 11, 24, tzinfo=UTC), None),  # 91 days ahead
        ("meta", "v25.0", datetime(2026, 11, 25, tzinfo=UTC), "ends on 2027-02-23, in 90 days"),
        ("meta", "v25.0", datetime(2027, 2, 23, tzinfo=UTC), "has ended on 2027-02-23"),
        ("meta", "v9.0", datetime(2026, 1, 1, tzinfo=UTC), "older than v21.0"),
        ("meta", "v27.0", datetime(2036, 1, 1, tzinfo=UTC), None),
        ("google", "v23", datetime(2026, 12, 1, tzinfo=UTC), "ends on about 2027-02-01, in 62 days"),
        ("google", "v9", datetime(2026, 12, 1, tzinfo=UTC), "older than v19"),
        ("tiktok", "v1.3", datetime(2030, 1, 1, tzinfo=UTC), None),
    ],
)
def test_notice(api, version, when, words):
    """Silence, a notice 90 days ahead, and a plain word after the end; versions are compared as numbers (v9 before v21)."""
    notice = sunset_notice(api, version, when)
    assert notice is None if words is None else words in notice


def test_versions_end_in_the_order_they_came():
    """A slip in the table of dates would break the order."""
    for table in SUNSETS.values():
        days = [s.day for _, s in sorted(table.items(), key=lambda pair: [int(p) for p in pair[0][1:].split(".")])]
        assert days == sorted(days)
