"""The executor against the simulated platform: every way in which an action can end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import attrs
import pytest

from closedloop.errors import ConfigurationError, ConflictError, UnknownPlatformError
from closedloop.execute import OutboxExecutor
from closedloop.ledger import MemoryLedger, SqliteLedger
from closedloop.platforms import SimulatedPlatform
from closedloop.records.action import Change
from closedloop.records.decision import Plan, Target
from closedloop.records.money import Money

Make = Callable[..., Plan]
MINUTE = timedelta(minutes=1)


def euros(amount: float) -> Money:
    return Money.of(amount, "EUR")


def run_out(executor: OutboxExecutor, now: datetime, *, until: timedelta = timedelta(days=3)) -> datetime:
    """Tick whenever the executor asks for it, until it asks no more."""
    end = now + until
    due = executor.tick(now)
    while due is not None and due <= end:
        assert due > now, "an executor that wants to be called at once never rests"
        now = due
        due = executor.tick(now)
    return now


def states(executor: OutboxExecutor, plan_id: str) -> dict[str, str]:
    return {r.change.target.resource: r.state for r in executor.receipts(plan_id)}


def test_a_plan_is_recorded_sent_and_confirmed(make_plan: Make, start: datetime) -> None:
    """A quick platform confirms in the same call, with every time and the prior state on the receipt."""
    platform = SimulatedPlatform({"a": euros(100), "b": euros(50)})
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    receipts = executor.execute(make_plan("p", {"a": (100, 80), "b": (50, 70)}), now=start)
    assert [r.state for r in receipts] == ["confirmed", "confirmed"]
    first = receipts[0]
    assert first.prior is not None
    assert first.prior.budget == euros(100)
    assert (first.decided_at, first.recorded_at, first.sent_at, first.accepted_at, first.settled_at) == (start,) * 5
    assert platform.budget_at("a", start) == euros(80)
    assert platform.budget_at("b", start) == euros(70)
    assert executor.tick(start + MINUTE) is None


def test_executing_again_adds_nothing(make_plan: Make, start: datetime) -> None:
    """The same plan twice, also in a new process, writes no record and sends nothing; another plan of the same id is refused."""
    platform = SimulatedPlatform({"a": euros(100)})
    ledger = MemoryLedger()
    plan = make_plan("p", {"a": (100, 120)})
    OutboxExecutor(ledger, {"simulated": platform}).execute(plan, now=start)
    before = (ledger.head, len(platform.requests()))
    again = OutboxExecutor(ledger, {"simulated": platform}).execute(plan, now=start + MINUTE)
    assert [r.state for r in again] == ["confirmed"]
    assert (ledger.head, len(platform.requests())) == before
    with pytest.raises(ConflictError):
        OutboxExecutor(ledger, {"simulated": platform}).execute(make_plan("p", {"a": (120, 130)}), now=start + MINUTE)


def test_recorded_before_sent(make_plan: Make, start: datetime) -> None:
    """At the moment of a send, the ledger already holds the decision, its triggers, the prior state and the attempt."""
    ledger = MemoryLedger()
    seen: list[list[str]] = []

    class Looking(SimulatedPlatform):
        def send(self, change: Change, *, now: datetime, timeout: float = 10.0):  # type: ignore[no-untyped-def]
            newest = ledger.newest("action", subject=change.action_id)[0].entry.body["action"]["receipt"]
            plan = ledger.newest("execution", subject="p")[0].entry.body
            seen.append([newest["state"], newest["prior"]["budget"]["micros"], newest["attempts"], plan["decisions"][0]["triggers"]])
            return super().send(change, now=now, timeout=timeout)

    executor = OutboxExecutor(ledger, {"simulated": Looking({"a": euros(100)})})
    executor.execute(make_plan("p", {"a": (100, 120)}), now=start)
    assert seen == [["sending", 100_000_000, 1, {"volume": 80.0}]]


def test_latency_is_waited_out(make_plan: Make, start: datetime) -> None:
    """An accepted change that comes into force later is confirmed then, not before."""
    platform = SimulatedPlatform({"a": euros(100)}, latency=timedelta(minutes=20))
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    assert states_after(executor.execute(make_plan("p", {"a": (100, 120)}), now=start)) == ["accepted"]
    run_out(executor, start)
    receipt = executor.receipts("p")[0]
    assert receipt.state == "confirmed"
    assert receipt.settled_at is not None
    assert receipt.settled_at >= start + timedelta(minutes=20)
    assert receipt.attempts == 1


def states_after(receipts: object) -> list[str]:
    return [r.state for r in receipts]  # type: ignore[attr-defined]


def test_lost_reply_is_looked_at_and_not_repeated(make_plan: Make, start: datetime) -> None:
    """A change whose reply was lost but which was applied is confirmed by a look after the quiet period; it is sent once."""
    platform = SimulatedPlatform({"a": euros(100)})
    platform.fault("lose_reply")
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    receipts = executor.execute(make_plan("p", {"a": (100, 120)}), now=start)
    assert states_after(receipts) == ["unknown"]
    executor.tick(start + timedelta(seconds=9))
    assert states(executor, "p") == {"a": "unknown"}
    run_out(executor, start + timedelta(seconds=10))
    assert states(executor, "p") == {"a": "confirmed"}
    assert len(platform.applied()) == 1


def test_lost_request_is_sent_again_after_a_look(make_plan: Make, start: datetime) -> None:
    """A change that never arrived is sent again, but only after the quiet period and a look."""
    platform = SimulatedPlatform({"a": euros(100)})
    platform.fault("lose_request")
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", {"a": (100, 120)}), now=start)
    run_out(executor, start)
    receipt = executor.receipts("p")[0]
    assert (receipt.state, receipt.attempts) == ("confirmed", 2)
    assert len(platform.applied()) == 1


def test_stale_when_something_else_stands(make_plan: Make, start: datetime) -> None:
    """A budget that someone changed after the decision is left alone."""
    platform = SimulatedPlatform({"a": euros(100)})
    platform.alter("a", euros(90), at=start)
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    receipts = executor.execute(make_plan("p", {"a": (100, 120)}), now=start)
    assert states_after(receipts) == ["stale"]
    assert "100.00 EUR" in receipts[0].message
    assert "90.00 EUR" in receipts[0].message
    assert platform.applied() == []


def test_refused_in_the_platforms_words(make_plan: Make, start: datetime) -> None:
    """Below the minimum, in the wrong currency, unknown: refused with the platform's own code; the others go on."""
    platform = SimulatedPlatform({"a": euros(100), "b": euros(100), "c": euros(100)}, minimum=euros(10))
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    receipts = executor.execute(make_plan("p", {"a": (100, 5), "gone": (100, 120), "c": (100, 110)}), now=start)
    assert {r.change.target.resource: (r.state, r.code) for r in receipts} == {
        "a": ("rejected", "BUDGET_BELOW_MINIMUM"),
        "gone": ("rejected", "REJECTED"),
        "c": ("confirmed", ""),
    }


def test_accepted_without_effect_is_diverged(make_plan: Make, start: datetime) -> None:
    """A platform that says yes and does nothing is found out by reading back."""
    platform = SimulatedPlatform({"a": euros(100)})
    platform.fault("ignore")
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", {"a": (100, 120)}), now=start)
    run_out(executor, start)
    receipt = executor.receipts("p")[0]
    assert (receipt.state, receipt.code) == ("diverged", "NO_EFFECT")


def test_changed_by_someone_else_while_unknown_is_diverged(make_plan: Make, start: datetime) -> None:
    """After a lost reply, a value that is neither ours nor the old one is reported, not overwritten."""
    platform = SimulatedPlatform({"a": euros(100)})
    platform.fault("lose_request")
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", {"a": (100, 120)}), now=start)
    platform.alter("a", euros(77), at=start + timedelta(seconds=5))
    run_out(executor, start)
    assert executor.receipts("p")[0].code == "CHANGED"
    assert platform.budget_at("a", start + timedelta(days=1)) == euros(77)


def test_newer_decision_supersedes(make_plan: Make, start: datetime) -> None:
    """A waiting action gives way to a newer decision for the same target; only the newer one is sent."""
    platform = SimulatedPlatform({"a": euros(100)})
    platform.outage(start, start + timedelta(hours=1))
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", {"a": (100, 120)}), now=start)
    executor.execute(make_plan("q", {"a": (100, 130)}, made_at=start + MINUTE), now=start + MINUTE)
    assert states(executor, "p") == {"a": "superseded"}
    run_out(executor, start + MINUTE)
    assert states(executor, "q") == {"a": "confirmed"}
    assert [c.budget for c in platform.applied()] == [euros(130)]


def test_newer_decision_waits_for_one_under_way(make_plan: Make, start: datetime) -> None:
    """One change of a target at a time: the newer one waits, and is stale when the older one took effect."""
    platform = SimulatedPlatform({"a": euros(100)}, latency=timedelta(minutes=2))
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", {"a": (100, 120)}), now=start)
    executor.execute(make_plan("q", {"a": (100, 130)}, made_at=start + MINUTE), now=start + MINUTE)
    assert states(executor, "q") == {"a": "recorded"}
    run_out(executor, start + MINUTE)
    assert states(executor, "p") == {"a": "confirmed"}
    assert states(executor, "q") == {"a": "stale"}


def test_outage_is_waited_out_and_then_given_up(make_plan: Make, start: datetime) -> None:
    """An unreachable platform is asked again, ever more rarely; after the expiry the action is not sent any more."""
    platform = SimulatedPlatform({"a": euros(100), "b": euros(100)})
    platform.outage(start, start + timedelta(days=2))
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", {"a": (100, 120), "b": (100, 90)}), now=start)
    run_out(executor, start)
    assert states(executor, "p") == {"a": "expired", "b": "expired"}
    assert len(platform.requests("outage")) < 80


def test_unknown_platform_is_refused_before_anything_is_recorded(make_plan: Make, start: datetime) -> None:
    """A plan for a platform that is not here raises, lists those that are, and leaves the ledger empty."""
    ledger = MemoryLedger()
    executor = OutboxExecutor(ledger, {"simulated": SimulatedPlatform({"a": euros(100)})})
    with pytest.raises(UnknownPlatformError, match="simulated"):
        executor.execute(make_plan("p", {"a": (100, 120)}, platform="other"), now=start)
    assert ledger.head.sequence == 0


def test_impossible_quota_is_refused(make_plan: Make, start: datetime) -> None:
    """An action that can never fit a quota is a mistake of the set-up, said before anything is recorded."""
    ledger = MemoryLedger()
    executor = OutboxExecutor(ledger, {"simulated": SimulatedPlatform({"a": euros(100)}, quota=(2, 60))})
    with pytest.raises(ConfigurationError, match="quota"):
        executor.execute(make_plan("p", {"a": (100, 120)}), now=start)
    assert ledger.head.sequence == 0


def test_restart_goes_on_from_the_ledger(make_plan: Make, start: datetime, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A new process with the same ledger file and a server that went on confirms what the first one sent."""
    path = tmp_path / "server.db"
    budgets = {"a": euros(100)}
    latency = timedelta(minutes=20)
    with SqliteLedger(tmp_path / "loop.db") as ledger:
        platform = SimulatedPlatform(budgets, latency=latency, path=path)
        OutboxExecutor(ledger, {"simulated": platform}).execute(make_plan("p", {"a": (100, 120)}), now=start)
        platform.close()
    with SqliteLedger(tmp_path / "loop.db") as ledger:
        executor = OutboxExecutor(ledger, {"simulated": SimulatedPlatform(budgets, latency=latency, path=path)})
        assert [r.state for r in executor.receipts()] == ["accepted"]
        run_out(executor, start + timedelta(hours=1))
        assert states(executor, "p") == {"a": "confirmed"}
        assert len(executor.receipts()) == 0
        ledger.verify()


def test_quota_is_kept_and_used(make_plan: Make, start: datetime) -> None:
    """The server never sees more than its quota in any window, refuses nothing, and all actions end confirmed."""
    resources = [f"r{i:03d}" for i in range(60)]
    platform = SimulatedPlatform({r: euros(100) for r in resources}, quota=(20, 600))
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    plan = make_plan("p", {r: (100, 101, float(i)) for i, r in enumerate(resources)})
    executor.execute(plan, now=start)
    run_out(executor, start)
    assert set(states(executor, "p").values()) == {"confirmed"}
    assert platform.requests("refused") == []
    sent = [c.resource for c in platform.applied()]
    assert sent == sorted(resources, reverse=True), "most valuable first"
    assert max(r.waited_for_quota for r in executor.receipts("p")) > 1800


def test_cuts_go_first(make_plan: Make, start: datetime) -> None:
    """A cut is sent before a raise of greater value, so the total is never overspent when quota runs out between them."""
    platform = SimulatedPlatform({"up": euros(100), "down": euros(100)})
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", {"up": (100, 150, 9.0), "down": (100, 50, -3.0)}), now=start)
    assert [c.resource for c in platform.applied()] == ["down", "up"]


def creation(name: str, number: int) -> Change:
    return Change(action_id=f"c{number}", target=Target("simulated", name), kind="create", budget=euros(10))


@pytest.mark.parametrize(("fault", "attempts"), [(None, 1), ("lose_reply", 1), ("lose_request", 2)])
def test_creation_is_made_once(start: datetime, fault: str | None, attempts: int) -> None:
    """A creation carries the action's id; after a lost reply it is found by it, and made again only when it is not there."""
    platform = SimulatedPlatform({}, latency=timedelta(seconds=2))
    if fault is not None:
        platform.fault(fault)  # type: ignore[arg-type]
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.submit("new", [creation("spring", 1), creation("spring", 2)], now=start, reason="two campaigns of one name")
    run_out(executor, start)
    assert [(r.state, r.attempts) for r in executor.receipts("new")] == [("confirmed", attempts), ("confirmed", 1)]
    assert sorted(c.action_id for c in platform.applied()) == ["c1", "c2"]


def test_pause_and_resume_leave_the_budget_alone(make_plan: Make, start: datetime) -> None:
    """A pause does not supersede a budget change that waits; both are carried out, the pause first."""
    platform = SimulatedPlatform({"a": euros(100)})
    platform.outage(start, start + MINUTE)
    executor = OutboxExecutor(MemoryLedger(), {"simulated": platform})
    executor.execute(make_plan("p", {"a": (100, 120)}), now=start)
    pause = Change(action_id="pause", target=Target("simulated", "a"), kind="pause")
    executor.submit("stop", [pause], now=start, reason="the landing page is down")
    end = run_out(executor, start)
    assert states(executor, "p") == states(executor, "stop") == {"a": "confirmed"}
    assert [c.kind for c in platform.applied()] == ["pause", "set_budget"]
    assert platform.budget_at("a", end) == euros(0)
    executor.submit("go", [Change(action_id="resume", target=pause.target, kind="resume")], now=end + MINUTE, reason="it is up again")
    assert platform.budget_at("a", end + MINUTE) == euros(120)


def test_a_platforms_refusal_outlives_the_process(make_plan: Make, start: datetime) -> None:
    """Told to wait an hour, no action of that quota is tried by the next process either before the hour is over."""
    ledger = MemoryLedger()
    platform = SimulatedPlatform({"a": euros(100), "b": euros(100)}, quota=(100, 60))
    platform.fault("throttle", seconds=3600, resource="a")
    OutboxExecutor(ledger, {"simulated": platform}).execute(make_plan("p", {"a": (100, 120, 2.0)}), now=start)
    asked = len(platform.requests())
    executor = OutboxExecutor(ledger, {"simulated": platform})
    executor.execute(make_plan("q", {"b": (100, 120)}), now=start + MINUTE)
    assert len(platform.requests()) == asked
    run_out(executor, start + MINUTE)
    assert all(at >= start + 60 * MINUTE for at, _ in platform.requests()[asked:])
    assert {**states(executor, "p"), **states(executor, "q")} == {"a": "confirmed", "b": "confirmed"}


def test_the_platforms_word_on_usage_outlives_the_process(make_plan: Make, start: datetime) -> None:
    """Told that others use nearly all of a quota, the next process waits as this one would have."""

    class Telling(SimulatedPlatform):
        def send(self, change: Change, *, now: datetime, timeout: float = 10.0):  # type: ignore[no-untyped-def]
            return attrs.evolve(super().send(change, now=now, timeout=timeout), usage={self.name: 0.99})

    ledger = MemoryLedger()
    platform = Telling({"a": euros(100), "b": euros(100)}, quota=(1000, 3600), latency=MINUTE)
    OutboxExecutor(ledger, {"simulated": platform}).execute(make_plan("p", {"a": (100, 120)}), now=start)
    asked = len(platform.requests())
    executor = OutboxExecutor(ledger, {"simulated": platform})
    executor.execute(make_plan("q", {"b": (100, 120)}), now=start + MINUTE)
    run_out(executor, start + MINUTE)
    changes = [r.sent_at for r in executor.receipts("q")]
    assert changes[0] is not None
    assert changes[0] >= start + 59 * MINUTE
    assert len(platform.requests()) > asked


def test_a_worker_may_come_back_under_its_name(make_plan: Make, start: datetime) -> None:
    """A second process of the same name goes on; its records do not meet those of the first."""
    ledger = MemoryLedger()
    platform = SimulatedPlatform({r: euros(100) for r in "abc"}, quota=(100, 60), latency=MINUTE)
    for i, resource in enumerate("abc"):
        executor = OutboxExecutor(ledger, {"simulated": platform}, worker="w", headroom=1.0)
        executor.execute(make_plan(resource, {resource: (100, 120 + i)}), now=start + i * MINUTE)
        executor.tick(start + i * MINUTE + MINUTE / 2)
    run_out(executor, start + 5 * MINUTE)
    assert {r.entry.body["action"]["receipt"]["state"] for r in ledger.newest("action")} == {"confirmed"}
    assert len({r.entry.key for r in ledger.entries(kind="request")}) == len(platform.requests())


def test_the_adapters_versions_are_recorded_once(make_plan: Make, start: datetime) -> None:
    """SDK and API versions stand in the ledger beside the plans, once for each set of versions."""
    ledger = MemoryLedger()
    platform = SimulatedPlatform({"a": euros(100)})
    for i, api in enumerate(("v25", "v25", "v26", "v25")):
        platform.versions = {"sdk": "34.0.0", "api": api}  # type: ignore[attr-defined]
        executor = OutboxExecutor(ledger, {"simulated": platform})
        for j in range(2):
            executor.execute(make_plan(f"p{i}{j}", {"a": (100 + 2 * i + j, 101 + 2 * i + j)}), now=start + (2 * i + j) * MINUTE)
    assert [r.entry.body["versions"]["api"] for r in ledger.entries(kind="platform", subject="simulated")] == ["v25", "v26"]
