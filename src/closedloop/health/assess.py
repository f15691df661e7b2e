"""From conditions and failures to advice: run, hold, or hand over to a person.

Law of this file: the advice follows from the findings by one rule that can be read, and every finding that led to it is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from closedloop.health.conditions import one_window, tagging, volume
from closedloop.health.failures import detect
from closedloop.health.integrations import integrations
from closedloop.health.thresholds import Thresholds
from closedloop.records.action import Receipts
from closedloop.records.feedback import Advice, Finding, HealthReport
from closedloop.records.outcomes import Outcomes
from closedloop.records.quarantine import Ingested
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow


def assess(
    *,
    windows: Mapping[str, AttributionWindow],
    ingested: Ingested | None,
    signals: Signals,
    receipts: Receipts,
    now: datetime | None = None,
    thresholds: Thresholds | None = None,
    findings: tuple[Finding, ...] = (),
    outcomes: Outcomes | None = None,
) -> HealthReport:
    """Return the four conditions, what else was noticed, and the advice for the account and each campaign.

    The account *holds* when the layers disagree on the window, tags are blended or an integration is broken; it is *manual* when no
    campaign has the volume; otherwise it runs, and the campaigns that may not are named with their own advice.

    Args:
        windows: Windows by layer; names that begin with "platform " are the windows of platforms' own reports.
        ingested: What this cycle's ingestion said, None when there was none.
        signals: The ranked arms.
        receipts: Where actions stand.
        now: When; None takes the signals' time.
        thresholds: Limits.
        findings: Other findings that count, such as those of `compare_reports` and `credit_against_tests`.
        outcomes: As attribution gave them, where the signals rest on outcomes without the days that were lost.
    """
    limits = thresholds or Thresholds()
    window = one_window(windows, limits)
    tags, tags_by_campaign = tagging(ingested, signals, limits)
    enough, enough_by_campaign, campaigns = volume(signals, limits)
    settled, by_platform = integrations(receipts, signals, now, limits)
    findings = (*by_platform, *detect(outcomes or signals.outcomes, ingested, limits), *findings)
    for name, finding in tags_by_campaign.items():
        if finding.severity == "critical" and campaigns.get(name) == "run":
            campaigns[name] = "hold"
    extra = [f for f in (*enough_by_campaign.values(), *tags_by_campaign.values()) if f.severity != "ok"]
    broken = [f for f in (window, tags, settled, *findings) if f.severity == "critical" and f.scope == "account"]
    for finding in findings:
        if finding.severity != "critical":
            continue
        for name, present in campaigns.items():  # a finding about an arm or a platform holds the campaigns that it touches
            touched = name == finding.scope or name.startswith(f"{finding.scope} / ") or finding.scope.startswith(f"{name} / ")
            if present == "run" and touched:
                campaigns[name] = "hold"
    advice: Advice
    if broken:
        advice, because = "hold", "; ".join(f"{f.name}: {f.evidence}" for f in broken)
    elif enough.severity == "critical":
        advice, because = "manual", f"volume: {enough.evidence}"
    elif not any(a == "run" for a in campaigns.values()):
        advice, because = "hold", f"no campaign may be steered now; volume: {enough.evidence}"
    else:
        advice = "run"
        out = [name for name, a in campaigns.items() if a != "run"]
        because = (
            "all four conditions hold"
            if not out and not extra
            else (
                f"{len(campaigns) - len(out)} of {len(campaigns)} campaigns may be steered" + (f"; not {', '.join(out[:5])}" if out else "")
            )
        )
    return HealthReport(
        conditions=(window, tags, enough, settled),
        findings=(*extra, *findings),
        advice=advice,
        because=because,
        campaigns=campaigns,
    )
