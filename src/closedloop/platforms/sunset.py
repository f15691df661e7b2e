"""When a platform switches off a version of its API, from the platforms' own pages.

Law of this file: dates are data with their sources; the adapters warn from them and never refuse because of them: only the
platform's own answer ends a version. A version newer than the table is taken as living.

References:
    Meta, Marketing API version history (read in November 2026). Google Ads API, sunset dates, and the reminders of the Ads
    developer blog; the dates from v23 on are months, announced as tentative. TikTok's Business API v1.3 has no announced end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime

import attrs


class SunsetWarning(UserWarning):
    """The version of an API in use ends soon, or has ended."""


@attrs.frozen
class Sunset:
    """The day on which a version ends; a tentative one is the first of the announced month."""

    day: date
    tentative: bool = False


SUNSETS: Mapping[str, Mapping[str, Sunset]] = {
    "google": {
        "v19": Sunset(date(2026, 2, 11)),
        "v20": Sunset(date(2026, 6, 10)),
        "v21": Sunset(date(2026, 8, 5)),
        "v22": Sunset(date(2026, 10, 7)),
        "v23": Sunset(date(2027, 2, 1), True),
        "v24": Sunset(date(2027, 5, 1), True),
        "v25": Sunset(date(2027, 8, 1), True),
        "v26": Sunset(date(2027, 11, 1), True),
    },
    "meta": {
        "v21.0": Sunset(date(2025, 9, 9)),
        "v22.0": Sunset(date(2026, 2, 19)),
        "v23.0": Sunset(date(2026, 6, 9)),
        "v24.0": Sunset(date(2026, 11, 10)),
        "v25.0": Sunset(date(2027, 2, 23)),
    },
    "tiktok": {},
}


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def sunset_notice(api: str, version: str, now: datetime, *, notice_days: int = 90) -> str | None:
    """Return a warning when a version ends within ``notice_days`` or has ended, None otherwise.

    Args:
        api: ``google``, ``meta`` or ``tiktok``.
        version: The version in use, as the API spells it.
        now: The present moment (aware).
        notice_days: How many days ahead to warn.

    >>> from datetime import UTC
    >>> sunset_notice("meta", "v25.0", datetime(2027, 2, 1, tzinfo=UTC))
    'meta API v25.0 ends on 2027-02-23, in 22 days: move to a newer version'
    >>> sunset_notice("meta", "v26.0", datetime(2027, 2, 1, tzinfo=UTC)) is None
    True
    """
    known = SUNSETS[api]
    if not known:
        return None
    oldest = min(known, key=_number)
    if version not in known:
        ended = _number(version) < _number(oldest)
        return f"{api} API {version} has ended (it is older than {oldest}): move to a newer version" if ended else None
    sunset = known[version]
    left = (sunset.day - now.date()).days
    about = "about " if sunset.tentative else ""
    if left <= 0:
        return f"{api} API {version} has ended on {about}{sunset.day}: move to a newer version"
    return f"{api} API {version} ends on {about}{sunset.day}, in {left} days: move to a newer version" if left <= notice_days else None
