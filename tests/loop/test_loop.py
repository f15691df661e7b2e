"""The loop's modes and its control by people; what it does when a platform, a clock or a ledger is not as expected."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import closedloop as cl
from closedloop.simulation import Simulator, small

WINDOW = cl.AttributionWindow(click="3d", view="1d")
TAGS = cl.TagSchema(arm=("platform", "campaign"))
START = datetime(2026, 3, 2, tzinfo=UTC)
CAMPAIGNS = ("good", "poor")
RATE = {"good": 5, "poor": 25}  # every fifth and every twenty-fifth click converts


def rows_of(day: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for campaign in CAMPAIGNS:
        where = {"platform": "sim", "campaign": campaign}
        at = START + timedelta(days=day)
        rows.append({"event_id": f"s{day}{campaign}", "kind": "spend", "occurred_at": at, "cost": 100.0, "currency": "EUR", **where})
        for i in range(300):
            user, moment = f"{day}-{campaign}-{i}", at + timedelta(minutes=i)
            rows.append({"event_id": f"k{user}", "kind": "click", "occurred_at": moment, "user_id": user, **where})
            if i % RATE[campaign] == 0:
                rows.append({"event_id": f"c{user}", "kind": "conversion", "occurred_at": moment + timedelta(hours=3), "user_id": user})
    return rows


def platform(**settings: Any) -> cl.SimulatedPlatform:
    return cl.SimulatedPlatform({c: cl.Money.of(100, "EUR") for c in CAMPAIGNS}, name="sim", **settings)


def loop_of(**parts: Any) -> cl.ClosedLoop:
    constraints = cl.Constraints(minimum_volume=20, min_probability=0.6)
    given = {"platforms": {"sim": platform()}, "constraints": constraints, "tags": TAGS, **parts}
    return cl.ClosedLoop(window=WINDOW, **given)


def now_of(day: int) -> datetime:
    return START + timedelta(days=day + 1)


def run_days(loop: cl.ClosedLoop, days: int, first: int = 0) -> cl.CycleReport:
    for day in range(first, first + days):
        report = loop.run_cycle(rows_of(day), now=now_of(day))
        loop.tick(now_of(day) + timedelta(hours=1))
    return report


def budgets(loop: cl.ClosedLoop, day: int) -> dict[str, float]:
    at = now_of(day) + timedelta(hours=2)
    return {c: loop.platforms["sim"].budget_at(c, at).units for c in CAMPAIGNS}


def test_auto_moves_money_to_the_better_arm_within_the_step() -> None:
    """The loop moves money from the poor to the good arm, at most 20 % a cycle, and keeps the total."""
    loop = loop_of()
    run_days(loop, 6)
    after = budgets(loop, 5)
    assert after["good"] > 100 > after["poor"]
    assert sum(after.values()) == pytest.approx(200.0)
    history = [m.units for _, m in loop.platforms["sim"].history("good")]
    assert all(b <= a * 1.2 + 0.01 for a, b in pairwise(history))
    assert {r.state for r in loop.receipts()} == {"confirmed"}


def test_shadow_decides_and_sends_nothing() -> None:
    """In shadow mode there is a plan, and the platform hears nothing but reads."""
    loop = loop_of(mode="shadow")
    report = run_days(loop, 6)
    assert report.plan.decisions
    assert loop.platforms["sim"].applied() == []
    assert len(loop.receipts()) == 0


def test_approve_waits_for_a_named_person() -> None:
    """In approve mode a plan is sent once, after somebody's recorded yes."""
    loop = loop_of(mode="approve")
    run_days(loop, 6)
    waiting = loop.awaiting_approval()
    assert waiting
    assert loop.platforms["sim"].applied() == []
    receipts = loop.approve(waiting[-1].plan_id, by="Ada", now=now_of(5) + timedelta(hours=3))
    assert {r.state for r in receipts} == {"confirmed"}
    assert waiting[-1].plan_id not in [p.plan_id for p in loop.awaiting_approval()]
    approvals = list(loop.ledger.entries(kind="approval"))
    assert [(r.entry.subject, r.entry.body["by"]) for r in approvals] == [(waiting[-1].plan_id, "Ada")]
    with pytest.raises(cl.ConfigurationError, match="no such plan"):
        loop.approve(waiting[-1].plan_id, by="Ada", now=now_of(6))


def test_pause_holds_everything_and_resume_lets_it_go_on() -> None:
    """A paused loop learns and holds, says who paused it and why; resumed, it moves again."""
    loop = loop_of()
    run_days(loop, 3)
    before = budgets(loop, 2)
    loop.pause("creative recall", by="Ada", now=now_of(2) + timedelta(hours=4))
    report = run_days(loop, 2, first=3)
    assert not report.plan.decisions
    assert "paused" in {h.reason for h in report.plan.holds}
    assert any("creative recall" in h.explanation for h in report.plan.holds)
    assert budgets(loop, 4) == before
    assert report.outcomes.n_conversions == 5 * (60 + 12)
    loop.resume(by="Ada", now=now_of(4) + timedelta(hours=4))
    assert run_days(loop, 1, first=5).plan.decisions


def test_pause_stops_what_is_queued() -> None:
    """A decision recorded while the platform was down is not sent after a pause."""
    loop = loop_of()
    run_days(loop, 2)
    loop.platforms["sim"].fault("unreachable", times=50)
    loop.run_cycle(rows_of(2), now=now_of(2))
    sent = len(loop.platforms["sim"].applied())
    loop.pause("stop", by="Ada", now=now_of(2) + timedelta(minutes=1))
    for hours in range(1, 12):
        loop.tick(now_of(2) + timedelta(hours=hours))
    assert len(loop.platforms["sim"].applied()) == sent


def test_an_unreachable_platform_is_held_and_the_others_go_on() -> None:
    """A platform that is down gives integration holds with its words; nothing raises, and learning goes on."""
    loop = loop_of()
    run_days(loop, 3)
    loop.platforms["sim"].outage(now_of(3) - timedelta(hours=1), now_of(3) + timedelta(hours=1))
    report = loop.run_cycle(rows_of(3), now=now_of(3))
    assert not report.plan.decisions
    assert {h.reason for h in report.plan.holds} == {"integration"}
    assert [f.scope for f in report.health.findings if f.severity == "critical"] == ["sim"]
    assert report.outcomes.n_conversions == 4 * (60 + 12)


def test_an_arm_without_adapter_is_analysed_and_held() -> None:
    """No adapter for the platform tag: a ranking, and holds that name what is missing and what is there."""
    loop = loop_of(platforms={"other": platform()})
    report = run_days(loop, 4)
    assert len(report.signals) == 2
    assert {h.reason for h in report.plan.holds} == {"integration"}
    assert all("'sim'" in h.explanation and "other" in h.explanation for h in report.plan.holds)


def test_a_clock_that_goes_back_is_refused() -> None:
    """A cycle before the last one is refused, and nothing is kept of it."""
    loop = loop_of()
    run_days(loop, 2)
    with pytest.raises(cl.InputError, match="clock went back"):
        loop.run_cycle(rows_of(2), now=now_of(0))
    assert loop.cycles == 2
    with pytest.raises(cl.InputError, match="zone"):
        loop.run_cycle(rows_of(2), now=datetime(2026, 4, 1))  # noqa: DTZ001


def test_a_ledger_of_another_account_window_or_arm_is_refused(tmp_path: Path) -> None:
    """A ledger serves one account under one window; the mend is named, and the right loop still opens it."""
    path = tmp_path / "loop.db"
    with loop_of(ledger=path, name="acme") as loop:
        run_days(loop, 2)
    with pytest.raises(cl.ConfigurationError, match="acme"):
        loop_of(ledger=path, name="globex")
    with pytest.raises(cl.WindowMismatchError, match="click=3d"):
        cl.ClosedLoop(window=cl.AttributionWindow(click="7d"), ledger=path, tags=TAGS, name="acme")
    with pytest.raises(cl.ConfigurationError, match="arm"):
        loop_of(ledger=path, name="acme", tags=cl.TagSchema(arm=("campaign",)))
    with loop_of(ledger=path, name="acme") as again:
        assert again.cycles == 2
        again.verify()


def test_rows_may_be_delivered_again_and_in_other_pieces() -> None:
    """The same days in other deliveries (all twice; yesterday again with today) leave the same remembered state."""
    once, twice = loop_of(mode="shadow"), loop_of(mode="shadow")
    for day in range(3):
        once.run_cycle(rows_of(day), now=now_of(day))
        again = [*rows_of(max(day - 1, 0)), *rows_of(day)]
        report = twice.run_cycle(again, now=now_of(day))
    assert report.outcomes.n_conversions == 3 * (60 + 12)
    mine, other = (
        loop.attribution.attribute(cl.EventBatch.empty(), state=loop.attribution.load(loop.ledger.state("attribution") or b""))
        for loop in (once, twice)
    )
    assert mine.cohorts.credit.tolist() == other.cohorts.credit.tolist()
    assert mine.cohorts.exposures.tolist() == other.cohorts.exposures.tolist()


def test_unknown_mode_lists_the_valid_ones() -> None:
    """A misspelt mode is answered with the three."""
    with pytest.raises(cl.ConfigurationError, match="shadow, approve, auto"):
        loop_of(mode="automatic")


def test_hook_hears_of_every_room() -> None:
    """A hook gets each room's name, seconds and result, for logs and metrics."""
    heard: list[str] = []
    loop = loop_of(hook=lambda room, seconds, result: heard.append(room) if seconds >= 0 else None)
    run_days(loop, 1)
    assert [h for i, h in enumerate(heard) if h not in heard[:i]] == ["execute", "ingest", "attribute", "classify", "health", "decide"]


def test_something_is_entered_around_every_room() -> None:
    """The context of `around` is open while a room works, closed after it, and sees what the room raises."""
    open_rooms: list[str] = []
    seen: list[tuple[str, str]] = []

    @contextmanager
    def around(room: str) -> Iterator[None]:
        open_rooms.append(room)
        try:
            yield
        except cl.InputError as error:
            seen.append((room, type(error).__name__))
            raise
        finally:
            open_rooms.remove(room)

    during: list[tuple[str, ...]] = []

    class Watched(cl.TableIngestor):
        def ingest(self, rows: Any) -> cl.Ingested:
            during.append(tuple(open_rooms))
            return super().ingest(rows)

    loop = loop_of(around=around, ingestor=Watched(tags=TAGS))
    run_days(loop, 1)
    assert during == [("ingest",)]
    assert open_rooms == []
    with pytest.raises(cl.InputError):
        loop.run_cycle([{"nothing": 1}], now=now_of(1))
    assert seen == [("ingest", "MissingColumnError")]


def test_an_adapter_that_breaks_holds_its_own_arms() -> None:
    """A fault inside an adapter's code is told with the hold of its arms; the cycle ends, and the next one moves again."""
    loop = loop_of()
    run_days(loop, 3)
    healthy, broken = loop.platforms["sim"].read, {}
    vars(loop.platforms["sim"])["read"] = lambda target, *, now: broken["token"]
    report = loop.run_cycle(rows_of(3), now=now_of(3))
    assert {h.reason for h in report.plan.holds} == {"integration"}
    assert "KeyError: 'token'" in report.plan.holds[0].explanation
    vars(loop.platforms["sim"])["read"] = healthy
    assert loop.run_cycle(rows_of(4), now=now_of(4)).plan.decisions


def test_a_campaign_with_a_critical_finding_is_held_and_the_rest_stays_in_balance() -> None:
    """A finding about one campaign holds its arm with the finding's words, and the others' moves still add up."""
    measured = cl.Interval(low=0.1, estimate=0.2, high=0.3, level=0.9, kind="credible")
    finding = cl.Finding(
        name="wrong_attribution", severity="critical", scope="sim / poor", measured=measured, threshold=0.5,
        evidence="its credit is five times what the test allows", mend="run a lift test",
    )  # fmt: skip
    loop = loop_of()
    run_days(loop, 4)
    before = budgets(loop, 3)
    report = loop.run_cycle(rows_of(4), now=now_of(4), findings=[finding])
    held = {h.arm[1]: h for h in report.plan.holds}
    assert held["poor"].reason == "health"
    assert "five times" in held["poor"].explanation
    assert held["poor"].lift == "run a lift test"
    assert sum(d.after.units - d.before.units for d in report.plan.decisions) == pytest.approx(0.0)
    loop.tick(now_of(4) + timedelta(hours=1))
    assert budgets(loop, 4)["poor"] == before["poor"]
    assert cl.replay(loop).identical


class Checked(cl.SimulatedPlatform):
    """A platform whose adapter checks itself at the start."""

    trouble: Exception | None = None
    versions = {"platform": "sim", "sdk": "1.2", "api": "v9"}

    def check(self, *, now: datetime) -> tuple[str, ...]:
        if self.trouble is not None:
            raise self.trouble
        return ("version v9 ends on 2026-12-01",)


def test_adapters_check_themselves_and_their_versions_are_recorded() -> None:
    """A warning is a finding; a revoked token holds that platform's arms until it is mended, and raises nothing."""
    adapter = Checked({c: cl.Money.of(100, "EUR") for c in CAMPAIGNS}, name="sim")
    adapter.trouble = cl.AuthenticationError("the token was revoked", "access_token", None, "renew the token")
    loop = loop_of(platforms={"sim": adapter})
    report = run_days(loop, 4)
    assert {(h.reason, h.explanation) for h in report.plan.holds} == {("health", "the token was revoked")}
    assert {h.lift for h in report.plan.holds} == {"renew the token"}
    adapter.trouble = None
    report = loop.run_cycle(rows_of(4), now=now_of(4))
    assert "version v9 ends on 2026-12-01" in [f.evidence for f in report.health.findings]
    assert report.plan.decisions
    cycle = loop.ledger.newest("cycle", subject="loop")[0].entry.body
    assert cycle["versions"] == {"sim": {"platform": "sim", "sdk": "1.2", "api": "v9"}}


def test_a_plan_is_taken_back_and_recorded_like_any_other() -> None:
    """Reverting the last plan restores the budgets before it, within the largest step, and names who asked."""
    loop = loop_of()
    run_days(loop, 3)
    before = budgets(loop, 2)
    report = run_days(loop, 1, first=3)
    assert report.plan.decisions
    assert budgets(loop, 3) != before
    plan = loop.revert(report.plan.plan_id, by="Ada", now=now_of(3) + timedelta(hours=4))
    loop.tick(now_of(3) + timedelta(hours=5))
    after = {c: loop.platforms["sim"].budget_at(c, now_of(3) + timedelta(hours=6)).units for c in CAMPAIGNS}
    assert after == pytest.approx(before, abs=0.01) or all(
        abs(after[c] - before[c]) < abs(budgets(loop, 3)[c] - before[c]) for c in CAMPAIGNS
    )
    assert plan.provenance["by"] == "Ada"
    assert {r.state for r in loop.receipts()} == {"confirmed"}
    assert cl.replay(loop).identical
    with pytest.raises(cl.ConfigurationError, match="no such plan"):
        loop.revert("plan-x", by="Ada", now=now_of(4))


def test_what_somebody_else_changed_is_found_on_start(tmp_path: Path) -> None:
    """A budget altered between two runs is a finding of the first cycle after the start, and the loop plans from what stands."""
    shared = platform()
    with loop_of(ledger=tmp_path / "loop.db", platforms={"sim": shared}) as loop:
        run_days(loop, 4)
    shared.alter("good", cl.Money.of(77, "EUR"), at=now_of(3) + timedelta(hours=5))
    with loop_of(ledger=tmp_path / "loop.db", platforms={"sim": shared}) as loop:
        rows = {str(d.target): d.verdict for d in loop.reconcile(now=now_of(4)).differing}
        assert list(rows) == ["sim:good"]
        report = loop.run_cycle(rows_of(4), now=now_of(4))
    assert "reconciliation" in [f.name for f in report.health.findings]
    assert 77.0 in [d.before.units for d in report.plan.decisions if d.arm[1] == "good"] + [
        h.budget.units for h in report.plan.holds if h.arm[1] == "good" and h.budget is not None
    ]


def test_health_has_a_trend_from_the_ledger(tmp_path: Path) -> None:
    """The slopes of the four conditions come from the ledger, also in a loop opened again, and are those of the reports themselves."""
    market = Simulator(small(), seed=2)
    with cl.ClosedLoop(window=WINDOW, platforms=market.platforms, ledger=tmp_path / "loop.db") as loop:
        days = market.run(loop, 6, keep_reports=True).days
    with cl.ClosedLoop(window=WINDOW, platforms=market.platforms, ledger=tmp_path / "loop.db") as loop:
        found = {(t.name, t.scope): t for t in loop.trends().rows}
        assert loop.trends(last=2).rows[0].n_cycles == 2
        with pytest.raises(cl.ConfigurationError, match="last"):
            loop.trends(last=0)
    said = {(t.name, t.scope): t for t in cl.trends([d.report.health for d in days]).rows}
    assert found == said
    assert {name for name, scope in found if scope == "account"} >= {"one_window", "tagging", "volume", "integrations"}
    assert found["volume", "account"].direction == "rising"  # conversions are still coming in
    assert found["volume", "account"].n_cycles == 6
