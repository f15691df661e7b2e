"""The report of one cycle as one HTML file, for the person who signs off the money.

Law of this file: it words and orders what the records say and computes no estimate of its own. In this order: what changed
and why, how sure, what is held and what would lift it, what is broken, where the delay went, how it was made. Every name
from the data passes `svg.text` on its way in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from closedloop.display import number, svg
from closedloop.display.page import long_table, page, table
from closedloop.display.svg import Scale, text
from closedloop.display.words import amount, between, count, estimated, minus, percent, seconds, signed
from closedloop.loop.cycle import CycleReport
from closedloop.loop.over_time import over_time
from closedloop.loop.report_health import ADVICE, PROSE, broken, sentence
from closedloop.records.arms import Arm
from closedloop.records.decision import Decision, Hold, Plan
from closedloop.records.interval import Interval
from closedloop.records.moments import from_us
from closedloop.records.money import Money

MOST_ROWS = 500  # of any table; the rest is counted, and is in the ledger
_TAG = 26  # longest tag shown in a table
_HOLDS = {
    "low_volume": "Too few conversions to steer by",
    "immature": "Too many conversions still to come",
    "untagged": "Too little of it is tagged",
    "window_mismatch": "Windows differ",
    "integration": "The platform does not answer well enough",
    "learning": "The platform is still learning",
    "thin_evidence": "The evidence does not say which way",
    "no_gain": "No move is worth it",
    "no_spend": "No spend was seen",
    "paused": "Paused",
    "approval": "Waits for approval",
    "health": "The loop is held as a whole",
    "guardrail": "A guardrail stands in the way",
    "limits": "The limits leave no room",
    "waiting": "A step taken earlier is still being waited for",
}
_MODES = {
    "shadow": "Shadow: nothing is sent to any platform",
    "approve": "Approve: nothing is sent until a person approves it",
    "auto": "Auto: changes are sent within the limits",
}


def _money(money: Money | None) -> str:
    return "" if money is None else minus(repr(money).removesuffix(" XXX"))  # XXX: "no currency" in ISO 4217


def _currency(code: str | None) -> str:
    return "units of money" if code in (None, "XXX") else str(code)


def _arm(arm: Arm) -> str:
    """Return an arm as HTML: the last tag that is known stands out least likely to be shared, so none is hidden."""
    tags = ["?" if t is None else t if len(t) <= _TAG else t[: _TAG - 1] + "…" for t in arm]
    return "<i> / </i>".join(f"<bdi>{text(t)}</bdi>" for t in tags)


def _sum(amounts: Sequence[Money | None]) -> Money | None:
    """Return the sum, None when nothing is known or currencies differ."""
    known = [a for a in amounts if a is not None]
    if not known or len({a.currency for a in known}) > 1:
        return None
    return Money(sum(a.micros for a in known), known[0].currency)


def _verdict(report: CycleReport) -> str:
    plan = report.plan
    held = count(len(plan.holds), "budget")
    if not plan.decisions:
        reasons = Counter(h.reason for h in plan.holds).most_common(1)
        if report.note.startswith("health:"):
            why = f" Health comes first: {sentence(report.health.because)}."
        elif reasons:
            why = f" Main reason: {_HOLDS.get(reasons[0][0], reasons[0][0]).lower()} ({reasons[0][1]:,} of {len(plan.holds):,})."
        else:
            why = ""
        return (
            f"<b>Leave every budget as it is.</b> All {held} are held.{why}"
            if plan.holds
            else "<b>There is nothing to decide:</b> no arm was ranked."
        )
    moved = _sum([Money(max(d.after.micros - d.before.micros, 0), d.after.currency) for d in plan.decisions])
    more = f", {_money(moved)} a day put where it earns more" if moved is not None and moved.micros > 0 else ""
    gain = plan.gain
    return (
        f"<b>Move {count(len(plan.decisions), 'budget')}{more}.</b> Expected: <b>{signed(gain.estimate)}</b> {text(plan.unit)} a day, "
        f"{between(gain.low, gain.high, sign=True)} with {number(100 * gain.level)} % probability; "
        f"it helps with a probability of <b>{percent(plan.p_gain)}</b>. " + (f"{held} {_stays(plan)}." if plan.holds else "")
    )


def _stays(plan: Plan) -> str:
    return "stays as it is" if len(plan.holds) == 1 else "stay as they are"


def _tiles(report: CycleReport) -> str:
    plan = report.plan
    before = _sum([*(d.before for d in plan.decisions), *(h.budget for h in plan.holds)])
    after = _sum([*(d.after for d in plan.decisions), *(h.budget for h in plan.holds)])
    tiles = []
    if after is not None and before is not None:
        was = "unchanged" if after == before else f"was {_money(before)}"
        tiles.append(("All budgets, a day", _money(after), was))
    if plan.decisions and math.isfinite(plan.gain.estimate):
        tiles.append(
            (
                f"{text(plan.unit.capitalize() if plan.unit.islower() else plan.unit)} gained a day",
                signed(plan.gain.estimate),
                between(plan.gain.low, plan.gain.high, sign=True),
            )
        )
    if plan.decisions:
        tiles.append(("Probability that it helps", percent(plan.p_gain), f"if not, expect to lose {amount(plan.expected_shortfall)} a day"))
    worst = [f for f in (*report.health.conditions, *report.health.findings) if f.severity != "ok"]
    well = sum(f.severity == "ok" for f in report.health.conditions)
    tiles.append(
        (
            "Conditions for a loop",
            f"{well} of {len(report.health.conditions)} met",
            count(len(worst), "thing") + " to look at" if worst else "all well",
        )
    )
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><small>{a}</small><b>{b}</b><small>{c}</small></div>' for a, b, c in tiles)
        + "</div>"
    )


def _changes(report: CycleReport) -> str:
    plan = report.plan
    if not plan.decisions:
        return "<h2>What changes</h2><p>Nothing. Why each budget stays is said below, with what would change that.</p>"
    shown = plan.decisions[:MOST_ROWS]
    several = len({d.after.currency for d in shown}) > 1  # amounts of several currencies share no scale: bars are then shares of before
    unit = [d.before.units / 100.0 if several and d.before.micros else 1.0 for d in shown]
    bars = [(d.before.units / u, d.after.units / u) for d, u in zip(shown, unit, strict=True)]
    budget = Scale.of([0.0, *(b for bar in bars for b in bar)], zero=True)
    gains, gain_scale = svg.strips([d.gain.low for d in shown], [d.gain.estimate for d in shown], [d.gain.high for d in shown], zero=True)
    rows = []
    for d, gain, bar in zip(shown, gains, bars, strict=True):
        change = d.after.micros - d.before.micros
        share = f"{signed(100 * change / d.before.micros)} %" if d.before.micros else "new"
        way = f'<b class="{"up" if change >= 0 else "down"}">{"▲" if change >= 0 else "▼"} {share}</b>'
        name = f'{_arm(d.arm)}<p class="why">{sentence(d.reason)}</p>'
        moved = f"{minus(f'{d.before.units:,.2f}')} → <b>{_money(d.after)}</b> {way}"
        sure = f"{estimated(d.gain.low, d.gain.estimate, d.gain.high, sign=True)}, helps: {percent(d.p_gain)}"
        budgets = f"{svg.bars(budget, *bar)}<small>{moved}</small>"
        rows.append([name, budgets, f"{gain}<small>{sure}</small>"])
    gained = f"Gain a day, {text(plan.unit)} ({number(100 * plan.gain.level)} % interval){svg.axis(gain_scale)}"
    scale = ", % of before" if several else ""
    heads = ["Arm, and why", f"Budget a day, before → after{scale}{svg.axis(budget)}", gained]
    backgrounds = {1: svg.grid(budget), 2: svg.grid(gain_scale, 0.0)}
    return (
        "<h2>What changes, and why</h2>"
        '<p class="soft">Pale bar: budget before. Coloured bar: after. Each gain is that of the one move made alone; '
        "the gain of the plan above is not their sum, because its parts share money and evidence.</p>"
        + long_table(heads, "ass", rows, backgrounds, len(plan.decisions) - len(shown), "moves")
        + _by_platform(report)
    )


def _by_platform(report: CycleReport) -> str:
    groups: dict[str, list[tuple[Money | None, Money | None]]] = {}
    acts: list[Decision | Hold] = [*report.plan.decisions, *report.plan.holds]
    for act in acts:
        pair = (act.before, act.after) if isinstance(act, Decision) else (act.budget, act.budget)
        groups.setdefault("?" if act.target is None else act.target.platform, []).append(pair)
    if len(groups) < 2:
        return ""
    totals = [(name, _sum([p[0] for p in pairs]), _sum([p[1] for p in pairs])) for name, pairs in groups.items()]
    known = sorted(((n, b, a) for n, b, a in totals if b is not None and a is not None), key=lambda t: -t[2].micros)[:30]
    if len(known) < 2 or len({a.currency for _, _, a in known}) > 1:
        return ""
    scale = Scale.of([0.0, *(m.units for _, b, a in known for m in (b, a))], zero=True)
    rows = [
        [f"<bdi>{text(n)}</bdi>", svg.bars(scale, b.units, a.units), _money(b), _money(a), minus(f"{(a - b).units:+,.2f}")]
        for n, b, a in known
    ]
    return "<h3>By platform</h3>" + table(
        ["Platform", f"Budget a day{svg.axis(scale)}", "Before", "After", "Change"], "asrrr", rows, backgrounds={1: svg.grid(scale)}
    )


def _evidence(report: CycleReport, truth: Mapping[Arm, float] | None) -> str:
    signals = report.signals
    if not len(signals):
        return "<h2>How sure</h2><p>No arm could be ranked: no complete arm with evidence was seen.</p>"
    order = [int(i) for i in signals.order[:MOST_ROWS]]
    costs = bool(np.isfinite(signals.cost_per_conversion.estimate).any())
    column = signals.cost_per_conversion if costs else signals.rate
    what = f"Cost per conversion, {text(_currency(signals.outcomes.currency))}" if costs else "Conversions per exposure"
    truths: list[float | None] = [] if truth is None else [truth.get(signals.arms[i]) for i in order]
    known = column.take(order)
    low, middle, high = known.low.tolist(), known.estimate.tolist(), known.high.tolist()
    pictures, scale = svg.strips(low, middle, high, truths=truths)
    rows = []
    for k, i in enumerate(order):
        shares = (signals.maturity[i], signals.borrowed_share[i])
        numbers = [percent(float(signals.p_best[i])), amount(float(signals.weekly_conversions[i])), *(percent(float(s)) for s in shares)]
        rows.append(
            [
                _rank(k + 1, None if signals.rank_interval is None else signals.rank_interval[i]),
                _arm(signals.arms[i]),
                pictures[k],
                estimated(low[k], middle[k], high[k]),
                *numbers,
            ]
        )
    level = f"{number(100 * column.level)} %"
    heads = ["", "Arm", f"{what}{svg.axis(scale)}", f"{level} interval", "Best", "A week", "Seen", "Borrowed"]
    words = (
        f"Best first. The dot is the estimate; with {level} probability the true value lies on the line ({text(column.kind)} interval). "
        "An arrow: the line runs on beyond the scale. "
        + ("" if signals.rank_interval is None else "In brackets: the ranks that an arm may truly have. ")
        + "<b>Best</b>: probability of being the best arm. <b>A week</b>: conversions. "
        "<b>Seen</b>: share of the conversions of these touches that has arrived by now. <b>Borrowed</b>: share of the estimate that "
        "comes from arms alike rather than from this one."
    )
    credit = signals.caused_share is None
    words += (
        " The line is about conversions <i>credited</i> by the attribution model."
        if credit
        else " The line is about conversions <i>caused</i>: what the arm took part in, less what would have come anyway by the tests made "
        "and, where none was made, by stated priors."
    )
    if truth is not None:
        apart = (
            "where the two part, credit is not cause, and only a lift test can tell" if credit else "a lift test would bring the two nearer"
        )
        words += f" The diamond is the true cost per conversion <i>caused</i>, known because this market is simulated: {apart}."
    more = len(signals) - len(order)
    return f'<h2>How sure</h2><p class="soft">{words}</p>' + long_table(heads, "rasrrrrr", rows, {2: svg.grid(scale)}, more, "arms")


def _rank(rank: int, interval: Interval | None) -> str:
    """Return a rank, and in brackets the ranks that the arm may truly have."""
    if interval is None or interval.low == interval.high:
        return str(rank)
    return f'{rank} <span class="soft">({interval.low:.0f}–{interval.high:.0f})</span>'


def _held(report: CycleReport) -> str:
    holds = report.plan.holds
    if not holds:
        return "<h2>What is held</h2><p>Nothing: every ranked budget moves.</p>"
    parts = [f'<h2>What is held, and what would lift it</h2><p class="soft">{count(len(holds), "budget")} left alone.</p>']
    left = MOST_ROWS
    for reason, n in Counter(h.reason for h in holds).most_common():
        mine = [h for h in holds if h.reason == reason]
        rows = [[_arm(h.arm), _money(h.budget), sentence(h.explanation), sentence(h.lift)] for h in mine[: max(left, 0)]]
        left -= len(rows)
        lines = table(["Arm", "Budget a day", "Why", "What would lift it"], "arww", rows, more=n - len(rows))
        opened = " open" if n <= 12 else ""
        parts.append(
            f'<details{opened}><summary>{text(_HOLDS.get(reason, reason))} <span class="soft">{n:,}</span></summary>{lines}</details>'
        )
    return "".join(parts)


def _delay(report: CycleReport, delay: Mapping[str, float] | None) -> str:
    receipts = list(report.receipts)
    parts = ["<h2>Where the delay went</h2>"]
    steps = dict(delay) if delay is not None else report.receipts.delay()
    total = sum(steps.values())
    if total > 0:
        rows = [
            [f'<span class="key s{i % 6}"></span>{text(name.capitalize())}', seconds(s), percent(s / total)]
            for i, (name, s) in enumerate(steps.items())
        ]
        parts.append(f'<p class="soft">From decision to confirmation, mean of an action: {seconds(total)}.</p>')
        parts.append(svg.stacked(list(steps), list(steps.values()), "Where the delay went") + table(["Step", "Mean", "Share"], "lrr", rows))
    elif receipts:
        parts.append("<p>No action of this cycle is settled yet, so there is no time to divide.</p>")
    else:
        parts.append(f"<p>Nothing was sent in this cycle. {_MODES[report.mode]}.</p>")
    states = Counter(r.state for r in receipts)
    if states:
        parts.append("<p>Actions: " + ", ".join(f"{n:,} {s}" for s, n in states.most_common()) + ".</p>")
    refused = [r for r in receipts if r.state in ("rejected", "diverged", "expired", "unknown")]
    if refused:
        rows = [[f"<bdi>{text(r.change.target)}</bdi>", text(r.state), text(f"{r.code} {r.message}".strip(), PROSE)] for r in refused[:60]]
        parts.append(table(["Target", "State", "The platform's words"], "alw", rows, more=len(refused) - len(rows)))
    if report.timings:
        inside = ", ".join(f"{text(room)} {seconds(s)}" for room, s in report.timings.items())
        parts.append(f'<p class="soft">Computing: {inside}.</p>')
    return "".join(parts)


def _made(report: CycleReport) -> str:
    outcomes, plan, ingested = report.outcomes, report.plan, report.ingested
    lines: list[tuple[str, object]] = [
        ("Window", f"clicks and views: {outcomes.window}"),
        ("Attribution", f"{outcomes.model}, conversion type {outcomes.conversion_type or 'any'}, revision {outcomes.revision}"),
        ("Classifier", report.signals.classifier),
        ("Conversions", f"{outcomes.n_conversions:,} seen, {outcomes.n_uncredited:,} without a touch inside the window"),
        ("Rows", f"{ingested.n_rows:,} read, {ingested.n_accepted:,} accepted, {len(ingested.quarantine):,} set aside"),
        ("Duplicates", f"{ingested.n_duplicates:,} dropped"),
        ("Tags", f"{ingested.tags.completeness:.1%} of touches and spend carry every tag"),
        *((f"Data of {name}", f"complete until {from_us(us):%Y-%m-%d %H:%M} UTC") for name, us in list(outcomes.watermark.items())[:20]),
        ("Plan", f"{plan.plan_id}, for {number(plan.horizon_days)} days"),
        *((name.replace("_", " ").capitalize(), value) for name, value in list(plan.provenance.items())[:30] if name != "classifier"),
    ]
    body = "".join(f"<dt>{text(name)}</dt><dd>{text(value, PROSE)}</dd>" for name, value in lines)
    return f"<h2>How it was made</h2><dl>{body}</dl>"


def render(
    report: CycleReport,
    *,
    title: str = "Closed loop",
    history: Sequence[Mapping[str, Any]] | None = None,
    delay: Mapping[str, float] | None = None,
    truth: Mapping[Arm, float] | None = None,
) -> str:
    """Return one self-contained HTML file: no script, no request, dark and light, fit to print.

    Args:
        report: The cycle.
        title: Heading of the page.
        history: One mapping per past cycle, oldest first: ``day`` (date or text), ``cost_per_conversion`` (an `Interval`, or a number
            with ``cost_per_conversion_low`` and ``cost_per_conversion_high``), ``spend``, ``truth``, ``note`` (a word for a
            vertical mark); all optional.
        delay: Mean seconds of an action by step; by default that of the report's receipts.
        truth: True values of the ranked quantity by arm, where the market is simulated.
    """
    tone, advice = ADVICE[report.health.advice]
    note = f"<p>{text(report.note, PROSE)}</p>" if report.note and not report.note.startswith("health:") else ""  # the verdict says it
    if report.mode == "approve" and report.plan.decisions:
        note += f"<p>Plan <b>{text(report.plan.plan_id)}</b> waits for a person; it is sent when it is approved under this id.</p>"
    head = (
        f"<h1>{text(title)}: cycle {report.cycle}</h1>"
        f'<p class="soft line">{report.now:%A, %d %B %Y, %H:%M} UTC &nbsp; <span class="badge">{_MODES[report.mode]}</span> '
        f'<span class="badge {tone}">{advice}</span></p>'
        f'<p class="lead">{_verdict(report)}</p>{note}{_tiles(report)}'
    )
    sign = f'<div class="sign"><p>Plan {text(report.plan.plan_id)} approved by</p><p>Date</p></div>'
    parts = [
        head,
        _changes(report),
        over_time(history),
        _evidence(report, truth),
        _held(report),
        broken(report),
        _delay(report, delay),
        _made(report),
        sign,
    ]
    return page(f"{title}: cycle {report.cycle}", "\n".join(part for part in parts if part))
