"""Between attribution and classification: days on which a source was out are missing, never zero.

Law of this file: what classification and everything after it sees is what health says was delivered. Attribution's own memory forgets
nothing, so a day whose rows come later counts again; the verdict of a cycle lies in its evidence, so that a replay needs no other.
"""

from __future__ import annotations

from datetime import date, timedelta

from closedloop.health import Thresholds, uptimes, without_gaps
from closedloop.health.uptime import CONVERSIONS, Uptime
from closedloop.records.feedback import Finding
from closedloop.records.outcomes import Outcomes

_NAMED = 10
_RECENT = timedelta(days=28)


def as_delivered(outcomes: Outcomes, limits: Thresholds, today: date) -> tuple[Outcomes, list[Finding]]:
    """Return the outcomes without days on which a source was out, and a finding for each such source.

    Args:
        outcomes: As attribution gave them.
        limits: ``gap_share`` is the share of what should have come under which a day is lost; 0 takes none out.
        today: Older gaps than those of four weeks before are named, and are no warning any more.
    """
    found = uptimes(outcomes, level=limits.level, least_share=limits.gap_share)
    return without_gaps(outcomes, found), [_finding(source, today) for source in found.rows if source.gaps]


def _finding(source: Uptime, today: date) -> Finding:
    newest = [day.isoformat() for day in source.gaps[: -_NAMED - 1 : -1]]
    more = len(source.gaps) - len(newest)
    what = "conversions" if source.source == CONVERSIONS else f"touches of {source.source}"
    return Finding(
        name="lost_days",
        severity="warning" if today - source.gaps[-1] <= _RECENT else "ok",
        scope="account" if source.source in (CONVERSIONS, "account") else source.source,
        measured=source.share,
        threshold=1.0,
        evidence=f"{what} were lost on {', '.join(newest)}{f' and {more} earlier' if more else ''}: missing, not zero, for every rate",
        mend=f"look at the export of {source.source}, then ingest these days again: what attribution still takes counts",
    )
