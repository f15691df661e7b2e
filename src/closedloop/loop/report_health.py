"""The part of the report that says what is well and what is broken.

Law of this file: as of `report`: it words what the records say; every name from the data passes `svg.text` on its way in.
"""

from __future__ import annotations

import re

from closedloop.display import number
from closedloop.display.page import table
from closedloop.display.svg import text
from closedloop.loop.counters import ReportComparison
from closedloop.loop.cycle import CycleReport
from closedloop.records.feedback import Finding

PROSE = 360  # longest explanation shown
_ARMS = 60  # of a comparison
ADVICE = {"run": ("ok", "✓ Loop may run"), "hold": ("warning", "! Loop holds"), "manual": ("critical", "✕ Steer by hand")}
_SEVERITY = {"ok": "✓ ok", "warning": "! warning", "critical": "✕ critical"}


def sentence(words: str) -> str:
    """Return an explanation as HTML, its first letter large; without the code of no currency, and names of checks as words."""
    plain = re.sub(r"(?<=\d) XXX\b", "", re.sub(r"\b([a-z]+)_([a-z]+)(?=:)", r"\1 \2", words[: 2 * PROSE]))
    return text(plain[:1].upper() + plain[1:], PROSE)


def _check(finding: Finding) -> str:
    name = text(finding.name.replace("_", " ").capitalize())
    scope = "" if finding.scope == "account" else f" <small>{text(finding.scope)}</small>"
    mend = f'<p class="mend">→ {sentence(finding.mend)}</p>' if finding.mend and finding.severity != "ok" else ""
    badge = f'<span class="badge">{_SEVERITY[finding.severity]}</span>'
    body = f"<b>{name}</b>{scope}<p>{sentence(finding.evidence)}</p>{mend}"
    return f'<div class="check {finding.severity}"><span class="{finding.severity}">{badge}</span>{body}</div>'


def broken(report: CycleReport) -> str:
    """Return conditions, findings, campaigns to be left alone, platforms' reports and rows set aside, as HTML."""
    health = report.health
    rank = {"critical": 0, "warning": 1, "ok": 2}
    findings = sorted((f for f in health.findings if f.severity != "ok"), key=lambda f: rank[f.severity])
    parts = [
        f"<h2>What is well, and what is broken</h2><p>{sentence(health.because)}</p>",
        '<div class="checks">',
        *map(_check, health.conditions),
        "</div>",
    ]
    if findings:
        parts += ["<h3>Also noticed</h3>", '<div class="checks">', *map(_check, findings[:60]), "</div>"]
        parts.append(f'<p class="soft">and {len(findings) - 60:,} more</p>' if len(findings) > 60 else "")
    advised = [(name, advice) for name, advice in health.campaigns.items() if advice != "run"]
    if advised:
        rows = [[f"<bdi>{text(name)}</bdi>", f'<span class="{ADVICE[a][0]}">{ADVICE[a][1]}</span>'] for name, a in advised[:60]]
        parts.append(
            "<h3>Campaigns that should not be steered by the loop now</h3>"
            + table(["Campaign", "Advice"], "al", rows, more=len(advised) - len(rows))
        )
    if report.reports is not None:
        parts.append(_compared(report.reports))
    quarantine = report.ingested.quarantine
    if len(quarantine):
        mends = {f"{r.field}: {r.reason}": r.mend for r in reversed(quarantine.rows)}
        reasons = list(quarantine.reasons().items())
        rows = [[text(reason, PROSE), f"{n:,}", text(mends.get(reason, ""), PROSE)] for reason, n in reasons[:30]]
        parts.append("<h3>Rows set aside</h3>" + table(["Reason", "Rows", "Mend"], "wrw", rows, more=len(reasons) - len(rows)))
    return "".join(parts)


def _compared(reports: ReportComparison) -> str:
    apart = sorted(range(len(reports)), key=lambda i: -abs(reports.claimed[i] - reports.credited[i]))
    rows = []
    for i in apart[:_ARMS]:
        name = " / ".join(str(tags[i] or "?") for tags in reports.arms.values())
        ends = [number(float(end[i])) for end in (reports.ratio.estimate, reports.ratio.low, reports.ratio.high)]
        counts = [number(float(n[i])) for n in (reports.claimed, reports.credited)]
        rows.append([f"<bdi>{text(name)}</bdi>", *counts, f"{ends[0]} [{ends[1]}, {ends[2]}]"])
    head = ["Arm", "The platform claims", "We credit", "Times ours"]
    return f"<h3>Platforms' own reports since {reports.since}</h3><p>Compared, never added: no decision rests on them.</p>" + table(
        head, "arrr", rows, more=len(reports) - len(rows)
    )
