"""Conditions without which a loop compounds errors instead of gains: one window, tags, volume (the fourth: `integrations`).

Law of this file: records in, findings out; it looks and never acts. A condition is *critical* only when its interval says so, and a
*warning* when the estimate does: a single bad day is no broken account.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np

from closedloop.display import number
from closedloop.health.measures import exact, rate, share
from closedloop.health.thresholds import Thresholds
from closedloop.records.feedback import Advice, Finding, Severity
from closedloop.records.interval import FloatArray
from closedloop.records.quarantine import Ingested
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow

_RECENT_DAYS = 28
_WORST: tuple[Severity, ...] = ("ok", "warning", "critical")


def worst(*severities: Severity) -> Severity:
    """Return the most severe.

    >>> worst("ok", "critical", "warning")
    'critical'
    """
    return max(severities, key=_WORST.index, default="ok")


def one_window(windows: Mapping[str, AttributionWindow], limits: Thresholds) -> Finding:
    """Hold every layer's window against the first one's; a platform that reports under another window is a warning, a layer critical."""
    names = sorted(windows)
    inside = {name: windows[name] for name in names if not name.startswith("platform ")}
    reports = {name: windows[name] for name in names if name.startswith("platform ")}
    distinct = set(inside.values())
    reference = windows.get("loop") or (next(iter(inside.values())) if inside else None)
    others = sorted(name for name, window in reports.items() if reference is not None and window != reference)
    n = len(distinct | set(reports.values()))
    if len(distinct) > 1:
        severity: Severity = "critical"
        evidence = "the layers have different windows: " + ", ".join(f"{name} {window}" for name, window in inside.items())
        mend = "give every layer the same AttributionWindow"
    elif others:
        severity = "warning"
        evidence = f"every layer has {reference}; " + ", ".join(f"{name} reports under {reports[name]}" for name in others)
        mend = "compare these reports and never add them, or set the same window there"
    else:
        severity, mend = "ok", ""
        evidence = "no window given" if reference is None else f"{len(windows)} layers have {reference}"
    measured = exact(float(max(n, 1)), limits.level)
    return Finding(name="one_window", severity=severity, scope="account", measured=measured, threshold=1.0, evidence=evidence, mend=mend)


def tagging(ingested: Ingested | None, signals: Signals, limits: Thresholds) -> tuple[Finding, dict[str, Finding]]:
    """Measure the share of touch and spend events that carry every needed tag, for the account and by campaign.

    The lines of the ingest report are counted; without one, the tagged share of the signals' exposures. A row that stands for thousands
    of views is one draw: the interval is that of as many single events as the rows are worth.
    """
    if ingested is not None and sum(ingested.tags.rows) > 0:
        report = ingested.tags
        worth = report.effective()
        lines = {
            f"{platform or '?'} / {campaign or '?'}": (float(tagged), float(rows), n)
            for platform, campaign, rows, tagged, n in zip(report.platform, report.campaign, report.rows, report.tagged, worth, strict=True)
        }
        tagged, rows = 1.0 * sum(report.tagged), 1.0 * sum(report.rows)
        effective = rows**2 / sum(r * r / n for r, n in zip(report.rows, worth, strict=True) if n > 0)
    else:
        weight = np.zeros(len(signals))
        for exposures in signals.exposures_per_day.values():
            weight = weight + exposures
        # Events behind a share are not counted here: a day's exposures stand for them.
        tagged, rows, lines = float((weight * signals.tagged_share).sum()), float(weight.sum()), {}
        effective = rows
    whole = _tag_finding("account", tagged, rows, effective, limits)
    return whole, {name: _tag_finding(name, *counts, limits) for name, counts in lines.items()}


def _tag_finding(scope: str, tagged: float, rows: float, effective: float, limits: Thresholds) -> Finding:
    measured = share(tagged / rows * effective if rows else 0.0, effective, limits.level)
    if rows:  # the middle of few draws lies under 1 where all carry their tags: what was counted is the estimate
        measured = attrs.evolve(measured, estimate=min(max(tagged / rows, measured.low), measured.high))
    severity: Severity = "ok"
    if rows > 0 and measured.high < limits.tagged_critical:
        severity = "critical"
    elif rows > 0 and tagged / rows < limits.tagged_warning:  # one event with all its tags is no reason to warn
        severity = "warning"
    evidence = f"{tagged:,.0f} of {rows:,.0f} touch and spend events carry every tag" if rows else "no touch or spend events this cycle"
    if effective < rows / 2 and severity != "ok":
        evidence += f" (many in one row: they say as much as {number(effective)} single ones)"
    mend = "" if severity == "ok" else "mend the links of the campaigns named in the tag report; the quarantine keeps their rows"
    threshold = limits.tagged_warning
    return Finding(name="tagging", severity=severity, scope=scope, measured=measured, threshold=threshold, evidence=evidence, mend=mend)


def volume(signals: Signals, limits: Thresholds) -> tuple[Finding, dict[str, Finding], dict[str, Advice]]:
    """Measure mature conversions a week by campaign.

    The estimate is the signals' own (mature conversions a week); its interval is that of the credited count behind it.
    A campaign at or above the minimum may run; one whose interval reaches it holds; one below it is better steered by hand.
    """
    by = ("platform", "campaign") if "campaign" in signals.arms.columns else signals.arms.columns
    if not len(signals):
        nothing = rate(0.0, 0.0, limits.level)
        evidence, mend = "no arm has all its tags yet", "send events with all the tags of an arm"
        whole = Finding(
            name="volume",
            severity="critical",
            scope="account",
            measured=nothing,
            threshold=limits.minimum_volume,
            evidence=evidence,
            mend=mend,
        )
        return whole, {}, {}
    code, names = signals.arms.groups(by)
    weekly = np.bincount(code, weights=signals.weekly_conversions, minlength=len(names)).astype(np.float64)
    counted, days = _recent_counts(signals, code, len(names))
    findings: dict[str, Finding] = {}
    advice: dict[str, Advice] = {}
    for g, name in enumerate(names):
        weeks = counted[g] / weekly[g] if weekly[g] > 0 and counted[g] > 0 else days / 7.0
        measured = rate(counted[g], weeks, limits.level)
        enough = max(weekly[g], 0.0) >= limits.minimum_volume
        advice[name] = "run" if enough else "hold" if measured.high >= limits.minimum_volume else "manual"
        severity: Severity = {"run": "ok", "hold": "warning", "manual": "critical"}[advice[name]]  # type: ignore[assignment]
        missing = limits.minimum_volume - weekly[g]
        findings[name] = Finding(
            name="volume",
            severity=severity,
            scope=name,
            measured=measured,
            threshold=limits.minimum_volume,
            evidence=f"{number(float(counted[g]))} conversions credited in {number(days)} days, mature: {number(float(weekly[g]))} a week",
            mend="" if enough else f"{number(float(missing))} more conversions a week, or merge it with campaigns of the same audience",
        )
    return _account_volume(findings, weekly, limits), findings, advice


def _account_volume(findings: Mapping[str, Finding], weekly: FloatArray, limits: Thresholds) -> Finding:
    enough = int((weekly >= limits.minimum_volume).sum())
    best = list(findings.values())[int(np.argmax(weekly))]
    severity: Severity = "ok" if enough == len(weekly) else "warning" if enough or best.severity == "warning" else "critical"
    return Finding(
        name="volume",
        severity=severity,
        scope="account",
        measured=best.measured,
        threshold=limits.minimum_volume,
        evidence=f"{enough} of {len(weekly)} campaigns reach {number(limits.minimum_volume)} conversions a week; largest: {best.scope}",
        mend="" if severity == "ok" else "steer the smaller campaigns by hand, or merge them until they reach it",
    )


def _recent_counts(signals: Signals, code: np.ndarray, n: int) -> tuple[FloatArray, float]:
    """Return credited conversions of the last 28 days by group, and how many of these days have data."""
    outcomes = signals.outcomes
    place = np.full(len(outcomes.arms), -1, dtype=np.int64)
    place[np.flatnonzero(outcomes.arms.complete)] = code  # signals rank the complete arms, in the order of the outcomes
    cohorts = outcomes.cohorts
    if not len(cohorts):
        return np.zeros(n), 0.0
    newest = int(cohorts.day.max())
    recent = (cohorts.day > newest - _RECENT_DAYS) & (place[cohorts.arm] >= 0)
    group = place[cohorts.arm[recent]]
    counted = np.bincount(group, weights=np.maximum(cohorts.credit[recent], 0.0), minlength=n).astype(np.float64)
    return counted, float(newest - max(int(cohorts.day.min()), newest - _RECENT_DAYS + 1) + 1)
