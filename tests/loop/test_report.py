"""The report says what the records say, and stays inert whatever the data hold."""

import math
import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.loop.cycle import CycleReport
from closedloop.loop.report import render
from closedloop.records.action import Change, Receipt, Receipts
from closedloop.records.arms import TAG_COLUMNS, Arms
from closedloop.records.batch import EventBatch
from closedloop.records.decision import Decision, Hold, Plan, Target
from closedloop.records.feedback import Finding, HealthReport
from closedloop.records.interval import Interval, Intervals
from closedloop.records.moments import to_us
from closedloop.records.money import Money
from closedloop.records.outcomes import Cohorts, Outcomes, SpendDays
from closedloop.records.quarantine import Ingested, Quarantine, QuarantinedRow, TagReport
from closedloop.records.signal import GammaMixture, Signals
from closedloop.records.window import AttributionWindow

NOW = datetime(2026, 3, 9, 6, 0, tzinfo=UTC)
WINDOW = AttributionWindow(click="7d", view="1d")
HOSTILE = (
    "<script>document.title='owned'</script>",
    "\u202egnp.exe\u2066",
    "x" * 10_000,
    '"><img src="http://127.0.0.1:9/leak.png" onerror=alert(1)>',
    '=HYPERLINK("http://evil.example","sum")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "</style></table><h1>approved",
    "Z\u0300\u0301\u0302\u0303" * 50,
    "&lt;b&gt; &amp;amp;",
    "javascript:alert(1)",
    "\x1b[31mred\x00",
    "عرض الربيع",
)


def interval(low: float, estimate: float, high: float) -> Interval:
    return Interval(low=low, estimate=estimate, high=high, level=0.9, kind="credible")


def cycle(n: int = 12, seed: int = 1, names: tuple[str, ...] = (), mode: str = "auto", moves: bool = True) -> CycleReport:
    """A cycle over ``n`` arms with figures of a plausible shop: two thirds of the arms move, the rest are held."""
    rng = np.random.default_rng(seed)
    places = ("google", "meta", "tiktok")
    arms_list = [
        (
            places[i % 3],
            names[i % len(names)] if names else ("spring-sale", "brand", "retargeting", "newcomers")[i // 3 % 4],
            ("lookalike", "past-buyers", "interest-running")[i // 2 % 3],
            f"video-{i:03d}",
            names[(i + 1) % len(names)] if names else ("feed", "stories", "search")[i % 3],
        )
        for i in range(n)
    ]
    arms = Arms.of(TAG_COLUMNS, arms_list)
    cost = np.exp(rng.normal(3.0, 0.5, n))
    spread = np.exp(rng.uniform(0.15, 0.8, n))
    high = cost * spread
    estimate = cost.copy()
    if n > 5:
        high[5] = np.inf
        estimate[4], high[4] = np.inf, np.inf
    costs = Intervals(low=cost / spread, estimate=estimate, high=high, level=0.9, kind="credible")
    order = np.argsort(cost)
    ones = np.ones(n)
    no_days = np.empty(0, dtype=np.int32)
    none = np.empty(0)
    outcomes = Outcomes(
        window=WINDOW, arms=arms,
        cohorts=Cohorts(
            arm=no_days, day=no_days, kind=np.empty(0, dtype=np.int8), exposures=none, credit=none, credit_squared=none, value=none,
            value_squared=none, maturity=none, age=no_days,
        ),
        spend=SpendDays(arm=no_days, day=no_days, spend=none), delay={},
        credits=Intervals(low=ones, estimate=ones, high=ones, level=0.9, kind="credible"), conversion_type="purchase", model="last",
        currency="EUR", watermark={p: to_us(NOW - timedelta(hours=5)) for p in places}, revision=63, n_conversions=4312, n_uncredited=611,
    )  # fmt: skip
    signals = Signals(
        window=WINDOW, arms=arms, order=order,
        rate=Intervals(low=0.01 * ones, estimate=0.02 * ones, high=0.03 * ones, level=0.9, kind="credible"),
        cost_per_conversion=costs, roas=None,
        posteriors={"click": GammaMixture(shape=ones[:, None], rate=ones[:, None], weight=ones[:, None])},
        exposures_per_day={"click": 100 * ones}, spend_per_day=50 * ones, value_per_conversion=ones,
        p_best=rng.dirichlet(np.where(np.arange(n) == order[0], 20.0, 0.4)) if n else none, expected_loss=0.1 * ones,
        effective_volume=rng.uniform(20, 400, n), weekly_conversions=rng.uniform(5, 140, n), evidence_age=9 * ones,
        dispersion=1.2 * ones, maturity=rng.uniform(0.6, 0.97, n), borrowed_share=rng.uniform(0.02, 0.7, n), tagged_share=0.97 * ones,
        classifier="BayesClassifier 0.1.0", outcomes=outcomes, now_us=to_us(NOW),
    )  # fmt: skip
    decisions, holds = [], []
    for rank, i in enumerate(order):
        arm = arms[int(i)]
        target = Target(arm[0], f"budget-{i}")
        before = Money.of(round(float(rng.uniform(80, 900)), 2), "EUR")
        if rank % 3 != 2 and moves:
            step = 0.2 if rank < n / 2 else -0.2
            after = Money(int(before.micros * (1 + step)) // 10_000 * 10_000, "EUR")
            middle = abs(step) * before.units / float(cost[i]) * 0.3 * (1 if step > 0 else -0.4)
            ends = sorted((middle - 0.6 * abs(middle), middle + 0.9 * abs(middle)))
            word = "more" if step > 0 else "less"
            why = f"A further euro here returns {word} than elsewhere: marginal cost {cost[i]:.1f} EUR against 21.4 EUR."
            gain = interval(ends[0], middle, ends[1])
            decisions.append(
                Decision(decision_id=f"d{i}", arm=arm, target=target, before=before, after=after, gain=gain, p_gain=0.93, reason=why)
            )
        else:
            reason = ("low_volume", "thin_evidence", "immature")[rank // 3 % 3]
            known = interval(-math.inf, 0.0, math.inf) if reason == "low_volume" else interval(-1.0, 0.2, 2.0)
            holds.append(
                Hold(
                    arm=arm, target=target, budget=before, reason=reason, gain=known,
                    explanation="31 conversions a week in this campaign, 50 are needed before a move can be told from noise.",
                    lift="About 9 more days at this pace, or fewer audiences in the campaign.",
                )
            )  # fmt: skip
    plan = Plan(
        plan_id="p-20260309-7c1f", made_at=NOW, window=WINDOW, decisions=tuple(decisions), holds=tuple(holds),
        gain=interval(0.9, 4.1, 7.4) if decisions else interval(0, 0, 0), p_gain=0.96 if decisions else 0.0, expected_shortfall=0.2,
        horizon_days=7.0,
        provenance={"seed": 7, "closedloop": "0.1.0", "numpy": "2.4.6", "total": "5,400.00 EUR", "max_step": 0.2},
    )  # fmt: skip
    health = HealthReport(
        conditions=(
            Finding(name="one_window", severity="ok", scope="account", measured=interval(0, 0, 0), threshold=0,
                    evidence="All layers share AttributionWindow(click=7d, view=1d)."),
            Finding(name="tagging", severity="ok", scope="account", measured=interval(0.969, 0.971, 0.973), threshold=0.95,
                    evidence="97.1 % of touches and 98.0 % of spend carry every tag; 95 % are needed."),
            Finding(name="volume", severity="warning", scope="account", measured=interval(20, 31, 44), threshold=50,
                    evidence="2 of 4 campaigns have fewer than 50 mature conversions a week.",
                    mend="Join the campaigns newcomers and brand."),
            Finding(name="integrations", severity="critical", scope="account", measured=interval(0.4, 0.5, 0.6), threshold=0.95,
                    evidence="tiktok confirmed 9 of 18 changes within a day; 2 replies were lost.",
                    mend="Renew the access token of tiktok."),
        ),
        findings=(
            Finding(name="stale_data", severity="warning", scope="meta / brand", measured=interval(20, 22, 30), threshold=24,
                    evidence="Its spend arrives 22 hours after the end of the day.", mend="Read its report twice a day."),
        ),
        advice="hold" if not moves else "run", because="Three of four conditions are met; the campaigns under the minimum volume are held.",
        campaigns={"newcomers": "manual"},
    )  # fmt: skip
    receipts = [
        Receipt(
            action_id=d.decision_id, plan_id=plan.plan_id, change=Change(action_id=d.decision_id, target=d.target, budget=d.after),
            prior=None, state="rejected" if k == 2 else "confirmed", attempts=1, decided_at=NOW, recorded_at=NOW + timedelta(seconds=0.2),
            sent_at=NOW + timedelta(seconds=40 + 3 * k), accepted_at=NOW + timedelta(seconds=42 + 3 * k),
            settled_at=NOW + timedelta(seconds=73 + 3 * k), waited_for_quota=35.0 + 3 * k, code="BUDGET_TOO_LOW" if k == 2 else "",
            message="the budget is below the minimum of the campaign" if k == 2 else "",
        )
        for k, d in enumerate(decisions)
    ]  # fmt: skip
    bad = QuarantinedRow(
        position=17, field="cost", value="'-3.1'", reason="negative", mend="a cost is zero or more; check the sign of refunds",
        row={"event_id": "e17", "cost": "-3.1"},
    )  # fmt: skip
    return CycleReport(
        cycle=63, now=NOW, mode=mode,
        ingested=Ingested(
            batch=EventBatch.empty(), quarantine=Quarantine(rows=(bad,)), n_rows=18_412, n_accepted=18_399, n_duplicates=12,
            tags=TagReport(platform=places, campaign=("a", "b", "c"), rows=(100, 100, 100), tagged=(98, 97, 96)),
        ),
        outcomes=outcomes, signals=signals, plan=plan, receipts=Receipts.of(receipts if mode == "auto" else []), health=health,
        timings={"ingest": 0.31, "attribute": 0.12, "classify": 0.05, "decide": 0.2, "execute": 0.03, "health": 0.01},
    )  # fmt: skip


def history(days: int = 70) -> list[dict[str, object]]:
    rng = np.random.default_rng(3)
    rows = []
    for i in range(days):
        truth = 27.0 - 6.0 / (1 + math.exp(-(i - 34) / 5))
        wide = 0.06 + 0.5 / (1 + i)
        middle = truth * math.exp(rng.normal(0, wide / 2))
        rows.append({
            "day": date(2026, 1, 1) + timedelta(days=i), "spend": 5000 + 300 * math.sin(i), "conversions": 200, "truth": truth,
            "cost_per_conversion": interval(middle * math.exp(-1.64 * wide), middle, middle * math.exp(1.64 * wide)),
            "note": "loop on" if i == 28 else "",
        })  # fmt: skip
    return rows


class Page(HTMLParser):
    """What a reader's browser would find: tags, attributes, words; fails on tags that do not match."""

    VOID = ("meta", "br", "col")

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs_: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs_
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs_: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs_

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


WORDS = "html head meta title style body main h1 h2 h3 p b i small span br div bdi details summary dl dt dd"
PICTURES = "svg path rect circle text table colgroup col thead tbody tr th td"
KNOWN_TAGS = {*WORDS.split(), *PICTURES.split()}


@pytest.mark.parametrize("names", [(), HOSTILE])
def test_page_is_well_formed_and_holds_only_elements_that_do_nothing(names: tuple[str, ...]) -> None:
    """No name can bring an element, a script, a handler, a link or a request into the page."""
    page = Page(render(cycle(40, names=names), title=names[0] if names else "A shop", history=history()))
    assert set(page.tags) <= KNOWN_TAGS
    assert {name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "action", "srcset", "data")} == set()
    styles = [value or "" for name, value in page.attributes if name == "style"]
    assert not any("url(" in value for value in styles)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=5))
def test_no_name_at_all_breaks_the_page(names: list[str]) -> None:
    """Whatever stands in the tags, the page is well-formed, brings no element of its own, and holds no control character."""
    source = render(cycle(6, names=tuple(names)), title=names[0])
    assert set(Page(source).tags) <= KNOWN_TAGS
    assert not [c for c in source if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"]


def test_hostile_names_are_shown_shortened_and_without_control_or_direction_characters() -> None:
    """Escapes, right-to-left overrides and ten thousand letters do not reach the reader; the visible rest of the name does."""
    source = render(cycle(40, names=HOSTILE))
    assert not [c for c in source if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"]
    assert "x" * 100 not in source
    words = Page(source).text
    assert "<script>document.title" in words
    assert "&lt;b&gt; &amp;amp;" in words  # shown as it was written, not decoded once more
    assert "عرض الربيع" in words


def test_no_cell_is_a_formula_for_a_spreadsheet() -> None:
    """A table pasted from the report into a spreadsheet computes nothing: no cell begins with = + @ or an ASCII minus."""
    source = render(attrs.evolve(cycle(40), note="=1+1"))
    for names in (("=1+1",), ("@SUM(A1)",), ("+cmd|' /C calc'!A0",), ("-2+3+cmd",)):
        arms_source = render(_renamed(cycle(6), names[0]))
        for part in (source, arms_source):
            cells = [re.sub(r"<[^>]*>", "", c) for c in re.findall(r"<(?:td|dd|p|th)[^>]*>(.*?)</(?:td|dd|p|th)>", part, flags=re.S)]
            assert len(cells) > 60
            assert [c for c in cells if re.match(r"\s*[=@\-]|\s*\+[^0-9]", c)] == []


def _renamed(report: CycleReport, name: str) -> CycleReport:
    """The same cycle where every arm's first tag is ``name``, so that it begins its cell."""

    def changed(arm: tuple[str | None, ...]) -> tuple[str | None, ...]:
        return (name, *arm[1:])

    arms = Arms.of(TAG_COLUMNS, [changed(a) for a in report.signals.arms])
    plan = attrs.evolve(
        report.plan,
        decisions=tuple(attrs.evolve(d, arm=changed(d.arm)) for d in report.plan.decisions),
        holds=tuple(attrs.evolve(h, arm=changed(h.arm)) for h in report.plan.holds),
    )
    return attrs.evolve(report, signals=attrs.evolve(report.signals, arms=arms), plan=plan)


@pytest.mark.parametrize("names", [(), HOSTILE, ("&" * 200,)])
def test_five_hundred_arms_stay_under_a_megabyte(names: tuple[str, ...]) -> None:
    """The file can be sent by mail."""
    source = render(cycle(500, names=names), history=history(700))
    assert len(source.encode()) < 1_000_000


def test_more_arms_than_rows_are_counted_not_dropped_in_silence() -> None:
    """What the tables leave out is said."""
    words = Page(render(cycle(800))).text
    assert words.count("and 300 more, all in the ledger") == 1  # the ranking
    assert "and 34 more, all in the ledger" in words  # 534 moves


def test_every_move_and_every_hold_is_said_with_its_numbers_and_reasons() -> None:
    """Who signs finds each amount, each reason and what would lift each hold."""
    report = cycle(12)
    words = Page(render(report)).text
    for d in report.plan.decisions:
        assert f"{d.before.units:,.2f} → {d.after!r}" in words
        assert d.reason in words
    for h in report.plan.holds:
        assert repr(h.budget) in words
    assert words.count(report.plan.holds[0].lift) == len(report.plan.holds) == 4
    total = sum(d.before.micros for d in report.plan.decisions) + sum(h.budget.micros for h in report.plan.holds if h.budget)
    assert f"was {Money(total, 'EUR')!r}" in words
    assert "BUDGET_TOO_LOW the budget is below the minimum of the campaign" in words


def test_unbounded_intervals_are_said_in_words() -> None:
    """Ignorance is said aloud: no infinity sign, no nan, no invented number."""
    report = cycle(12)
    words = Page(render(report)).text
    low = report.signals.cost_per_conversion.low
    assert f"{low[4]:.3g} or more" in words  # neither estimate nor upper end
    assert not re.search(r"\b(nan|inf|None)\b|∞", words)


def test_probabilities_are_never_rounded_to_certainty() -> None:
    """0.9996 is not 100 %."""
    report = cycle(12)
    words = Page(render(attrs.evolve(report, plan=attrs.evolve(report.plan, p_gain=0.9996)))).text
    assert "with a probability of > 99 %" in words
    assert "100 %" not in words


def test_a_cycle_without_moves_says_so_first() -> None:
    """The first sentence is the decision."""
    words = Page(render(cycle(12, mode="approve", moves=False))).text
    assert "Leave every budget as it is. All 12 budgets are held. Main reason: too few conversions to steer by (6 of 12)." in words
    assert "Nothing was sent in this cycle. Approve: nothing is sent until a person approves it." in words


def test_a_plan_that_waits_names_its_id_to_approve() -> None:
    """Who approves needs the id, on the screen and at the line for the signature."""
    report = cycle(12, mode="approve")
    words = Page(render(report)).text
    assert f"Plan {report.plan.plan_id} waits for a person" in words
    assert f"Plan {report.plan.plan_id} approved by" in words
    assert "waits for a person" not in Page(render(cycle(12))).text


def test_a_cycle_without_arms_renders() -> None:
    """An empty first day is a report, not a crash."""
    words = Page(render(cycle(0))).text
    assert "There is nothing to decide: no arm was ranked." in words
    assert "No arm could be ranked" in words


def test_delay_shares_come_from_the_receipts() -> None:
    """The steps add up to the mean time from decision to confirmation."""
    report = cycle(12)
    steps = report.receipts.delay()
    spent = [(r.settled_at - r.decided_at).total_seconds() for r in report.receipts if r.settled_at]
    assert sum(steps.values()) == pytest.approx(sum(spent) / len(spent))
    assert steps["queue: quota"] == pytest.approx(np.mean([r.waited_for_quota for r in report.receipts]))
    given = Page(render(report, delay={"decision": 1.0, "platform": 3.0})).text
    assert "Decision1 s25 % Platform3 s75 %" in given


def test_the_same_cycle_gives_the_same_bytes() -> None:
    """A report can be compared with an earlier one."""
    assert render(cycle(12), history=history()) == render(cycle(12), history=history())


def test_history_is_optional_in_every_part() -> None:
    """A gap in the past is a gap in the line."""
    rows = [
        {"day": "Mon"},
        {"day": "Tue", "cost_per_conversion": 3.0},
        {},
        {"cost_per_conversion": interval(1, 2, math.inf), "spend": None},
    ]
    source = render(cycle(6), history=rows)
    assert "Cost per conversion over time" in source
    assert not re.search(r'"[^"]*\bnan\b', source)
    assert "over time" not in render(cycle(6), history=[{"day": "Mon"}])


def test_every_reason_to_hold_has_its_words() -> None:
    """A reason that is new in the code is not shown as a code word."""
    from typing import get_args

    from closedloop.loop.report import _HOLDS
    from closedloop.records.decision import HoldReason

    assert set(get_args(HoldReason)) == set(_HOLDS)


def test_ranks_say_how_far_they_may_be_off() -> None:
    """The second of the ranking may be first to fifth, and the reader is told."""
    report = cycle(6)
    ranks = Intervals(low=np.ones(6), estimate=np.arange(1.0, 7.0), high=np.array([1.0, 5, 5, 6, 6, 6]), level=0.9, kind="credible")
    placed = np.empty(6, dtype=int)
    placed[report.signals.order] = np.arange(6)
    words = Page(render(attrs.evolve(report, signals=attrs.evolve(report.signals, rank_interval=ranks.take(placed))))).text
    assert "In brackets: the ranks that an arm may truly have." in words
    assert f"2 (1–5){report.signals[1].arm[0]}" in words
    assert f"Borrowed1{report.signals[0].arm[0]}" in words.replace("Borrowed ", "Borrowed")  # the first is surely the first
    assert "In brackets" not in Page(render(report)).text
