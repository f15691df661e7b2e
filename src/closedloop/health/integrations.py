"""Integrations: are actions done, are they done in time, and how old are the data of each platform.

Law of this file: an action that comes into force late is slow, one that never does is lost. Slowness is a warning: every cycle starts from
the budgets that stand, so a late change costs time and no order. Only what is credibly *not done* holds, and it holds the platform
where that happens, not the others. It holds for as long as the actions of the last days say so: a loop that holds sends nothing and would
learn nothing of the mend, so that old failures are forgotten and the platform is tried again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from closedloop.display import number
from closedloop.health.measures import exact, share
from closedloop.health.thresholds import Thresholds
from closedloop.records.action import Receipt, Receipts
from closedloop.records.feedback import Finding, Severity
from closedloop.records.moments import US_PER_DAY, to_us
from closedloop.records.signal import Signals

_LOST = ("diverged", "rejected", "expired")  # ended without what was asked for
_NEUTRAL = ("superseded", "stale")  # overtaken by a newer plan, or by a person: no fault of the integration


def integrations(receipts: Receipts, signals: Signals, now: datetime | None, limits: Thresholds) -> tuple[Finding, list[Finding]]:
    """Measure the share of actions confirmed in time, and the age of each platform's data.

    Returns:
        The condition of the account, critical only when every platform with actions or data is; and a finding for each platform
        whose actions are lost or whose data are old.
    """
    due = [r for r in receipts if r.state not in _NEUTRAL and _is_due(r, now, limits)]
    in_time = sum(1 for r in due if r.state == "confirmed" and _waited(r, None) <= limits.settle_within_hours)
    measured = share(in_time, len(due), limits.level)
    lost, stale = _lost(due, now, limits), _stale(signals, now, limits)
    concerned = {r.change.target.platform for r in due} | {platform or "?" for platform in signals.outcomes.watermark}
    broken = {f.scope for f in (*lost, *stale) if f.severity == "critical"}
    severity: Severity = "ok"
    if broken and broken >= concerned:
        severity = "critical"
    elif broken or stale or (due and measured.estimate < limits.settled_warning and in_time < len(due)):
        severity = "warning"
    ended = Counter(r.state for r in due if r.state in (*_LOST, "unknown"))
    evidence = f"{in_time} of {len(due)} actions confirmed in time" if due else "no action is due"
    evidence += "".join(f", {n} {state}" for state, n in sorted(ended.items()))
    evidence += "".join(f"; {f.evidence}" for f in (*lost, *stale))
    mends = [f.mend for f in (*lost, *stale)] or ["look at the receipts: actions wait too long"]
    whole = Finding(
        name="integrations",
        severity=severity,
        scope="account",
        measured=measured,
        threshold=limits.settled_warning,
        evidence=evidence,
        mend="" if severity == "ok" else "; ".join(dict.fromkeys(mends)),
    )
    return whole, [*lost, *stale]


def _waited(receipt: Receipt, until: datetime | None) -> float:
    """Return hours from recording to settling, or until now."""
    start, end = receipt.recorded_at or receipt.decided_at, receipt.settled_at or until
    return 0.0 if end is None else (end - start).total_seconds() / 3600.0


def _is_due(receipt: Receipt, now: datetime | None, limits: Thresholds) -> bool:
    return receipt.settled_at is not None or _waited(receipt, now) > limits.settle_within_hours


def _lost(due: Sequence[Receipt], now: datetime | None, limits: Thresholds) -> list[Finding]:
    """Return the platforms on which credibly too few of the newest actions did what they were to do."""
    found = []
    since = None if now is None else now - timedelta(days=limits.settled_days)
    for platform in sorted({r.change.target.platform for r in due}):
        mine = [
            r
            for r in due
            if r.change.target.platform == platform
            and (r.state == "confirmed" or r.state in _LOST or _waited(r, now) > limits.lost_after_hours)
            and (since is None or (r.settled_at or now or r.decided_at) >= since)
        ]
        done = sum(1 for r in mine if r.state == "confirmed")
        measured = share(done, len(mine), limits.level)
        if mine and measured.high < limits.settled_critical:
            ended = Counter(r.state for r in mine if r.state != "confirmed")
            words = ", ".join(f"{n} {state}" for state, n in sorted(ended.items()))
            found.append(
                Finding(
                    name="integrations",
                    severity="critical",
                    scope=platform,
                    measured=measured,
                    threshold=limits.settled_critical,
                    evidence=f"{platform} did {done} of the last {len(mine)} changes ({words})",
                    mend=f"look at the answers of {platform} in the receipts; it is tried again after {number(limits.settled_days)} days",
                )
            )
    return found


def _stale(signals: Signals, now: datetime | None, limits: Thresholds) -> list[Finding]:
    at = signals.now_us if now is None else to_us(now)
    found = []
    for platform, watermark in sorted(signals.outcomes.watermark.items()):
        age = max(0.0, (at - watermark) / US_PER_DAY)
        if age <= limits.stale_warning_days:
            continue
        found.append(
            Finding(
                name="stale_data",
                severity="critical" if age > limits.stale_critical_days else "warning",
                scope=platform or "?",
                measured=exact(age, limits.level),
                threshold=limits.stale_warning_days,
                evidence=f"the newest data of {platform or 'rows without a platform'} are {number(age)} days old",
                mend=f"look at the export of {platform or 'these rows'}; nothing new is decided on old data",
            )
        )
    return found
