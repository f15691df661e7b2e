"""The suite finds faults: an honest adapter passes every check, and each faulty one fails exactly the check that names its fault."""

import itertools
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from closedloop.errors import AuthenticationError, ConfigurationError, NotSentError, RejectedError
from closedloop.records.action import AttemptResult, Change, TargetState
from closedloop.records.decision import Target
from closedloop.records.holdout import HoldoutCounts
from closedloop.records.money import Money
from closedloop.testing import PLATFORM_CHECKS, PLATFORM_FAULTS, PlatformSubject, certify

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKEN = "secret-token-0123456789"
A, B = Target("p", "a"), Target("p", "b")


class Server:
    """Two campaigns behind an adapter; amounts in hundredths of a euro."""

    def __init__(self):
        self.cents = {"a": 5000, "b": 6000}
        self.active = {"a": True, "b": True}
        self.clock, self.queue, self.fault, self.writes = 0.0, [], None, 0
        self.down, self.token = False, TOKEN

    def advance(self, step: timedelta):
        self.clock += step.total_seconds()
        for _, resource, cents in [q for q in self.queue if q[0] <= self.clock]:
            self.cents[resource] = cents
        self.queue = [q for q in self.queue if q[0] > self.clock]

    def put(self, token, resource, cents=None, active=None):
        """Return the status of HTTP and words; None is no answer."""
        self.writes += 1
        if token != self.token:
            return 401, "token expired"
        if resource not in self.cents:
            return 404, "no such campaign"
        if cents is not None and cents < 100:
            return 400, "the least budget is 1.00"
        fault, self.fault = self.fault, None
        if fault == "throttle":
            return 429, "slow down"
        if fault == "late":
            self.queue.append((self.clock + 5.0, resource, cents))
            return 200, "accepted"
        if fault not in ("ignore", "lose_request"):
            if cents is not None:
                self.cents[resource] = cents
            if active is not None:
                self.active[resource] = active
        return {"lose_reply": None, "lose_request": None, "server_error": (500, "oops")}.get(fault, (200, "done"))


class Honest:
    """An adapter without a fault."""

    quiet_period = 10.0
    status_of = {200: "accepted", 401: "not_sent", 404: "rejected", 400: "rejected", 429: "throttled", 500: "unknown"}

    def __init__(self, server):
        self.server, self.token = server, TOKEN

    def cents(self, budget):
        return budget.micros // 10_000

    def read(self, target, *, now):
        if self.server.down:
            raise NotSentError("nobody listens")
        if self.token != self.server.token:
            raise AuthenticationError("token expired")
        if target.resource not in self.server.cents:
            raise RejectedError("no such campaign", "target", str(target))
        budget = Money(self.server.cents[target.resource] * 10_000, "EUR")
        return TargetState(target=target, budget=budget, active=self.server.active[target.resource], read_at=now)

    def send(self, change, *, now, timeout=10.0):
        if self.server.down:
            return AttemptResult(status="not_sent", code="down", message="nobody listens")
        if change.budget is not None and change.budget.currency != "EUR":
            return AttemptResult(status="rejected", code="currency", message="the account is in EUR")
        if change.kind == "create" or (change.kind == "set_budget" and change.budget is None):
            return AttemptResult(status="rejected", code="kind", message="that cannot be done here")
        cents = None if change.budget is None else self.cents(change.budget)
        return self.told(self.put(change.target.resource, cents, {"pause": False, "resume": True}.get(change.kind)), now)

    def put(self, resource, cents, active):
        return self.server.put(self.token, resource, cents, active)

    def told(self, answer, now):
        if answer is None:
            return AttemptResult(status="unknown", code="timeout", message="no answer")
        http, words = answer
        retry_at = now + timedelta(seconds=30) if http == 429 else None
        return AttemptResult(status=self.status_of[http], code=str(http), message=words, retry_at=retry_at)

    def limits(self, target):
        return (("calls", 100.0, 60.0),)

    def cost(self, change):
        return 1.0

    def report(self, *, since, until):
        days = (until - since).days
        return [
            {"event_id": f"{d}", "kind": "spend", "occurred_at": since + timedelta(days=d), "cost": 1.5, "currency": "EUR"}
            for d in range(days)
        ]


class QuietForDays(Honest):
    quiet_period = 1e6


class TellsAnotherTarget(Honest):
    def read(self, target, *, now):
        state = super().read(target, now=now)
        return TargetState(target=B, budget=state.budget, active=state.active, read_at=now)


class CutsFloats(Honest):
    def cents(self, budget):
        return int(budget.units * 100)  # 1.15 * 100 is 114.99999999999999


class SendsDifferences(Honest):
    asked, step = None, 0

    def cents(self, budget):
        if budget != self.asked:
            self.asked, self.step = budget, super().cents(budget) - self.server.cents["a"]
        return self.server.cents["a"] + self.step


class ForgetsToResume(Honest):
    def send(self, change, *, now, timeout=10.0):
        return AttemptResult(status="accepted") if change.kind == "resume" else super().send(change, now=now)


class SpillsOver(Honest):
    def put(self, resource, cents, active):
        if cents is not None:
            self.server.cents["b"] = 777
        return super().put(resource, cents, active)


class InventsTargets(Honest):
    def read(self, target, *, now):
        try:
            return super().read(target, now=now)
        except RejectedError:
            return TargetState(target=target, budget=None, active=False, read_at=now)


class HasNoWords(Honest):
    def told(self, answer, now):
        return AttemptResult(status="rejected") if answer and answer[0] == 400 else super().told(answer, now)


class TakesAnyCurrency(Honest):
    def send(self, change, *, now, timeout=10.0):
        if change.budget is not None:
            change = attrs.evolve(change, budget=Money(change.budget.micros, "EUR"))
        return super().send(change, now=now)


class TakesNothingForABudget(Honest):
    def send(self, change, *, now, timeout=10.0):
        if change.kind == "set_budget" and change.budget is None:
            return AttemptResult(status="accepted")
        return super().send(change, now=now)


class PausesWhatItDoesNotKnow(Honest):
    def send(self, change, *, now, timeout=10.0):
        if change.kind == "create":
            change = Change(action_id="x", target=change.target, kind="pause")
        return super().send(change, now=now)


class Creates(Honest):
    """Another honest one: it creates, and finds what it created."""

    marks = True

    def __init__(self, server):
        super().__init__(server)
        self.made = []

    def send(self, change, *, now, timeout=10.0):
        if change.kind != "create":
            return super().send(change, now=now)
        self.made.append((change.action_id if self.marks else "", change.budget))
        return AttemptResult(status="accepted")

    def find(self, change, *, now):
        return [TargetState(target=B, budget=b, active=True, read_at=now) for mark, b in self.made if mark == change.action_id]


class CreatesUnmarked(Creates):
    marks = False


class ThrottledForever(Honest):
    def told(self, answer, now):
        result = super().told(answer, now)
        return AttemptResult(status="throttled", code="429", message="slow down") if result.status == "throttled" else result


class TakesSilenceForNo(Honest):
    def told(self, answer, now):
        return AttemptResult(status="not_sent", code="timeout", message="no answer") if answer is None else super().told(answer, now)


class TriesAgain(Honest):
    def put(self, resource, cents, active):
        answer = super().put(resource, cents, active)
        if answer is None:
            super().put(resource, cents, active)
        return answer


class LooksTooSoon(Honest):
    quiet_period = 0.0


class TakesFailureForNo(Honest):
    status_of = {**Honest.status_of, 500: "rejected"}


class Remembers(Honest):
    def __init__(self, server):
        super().__init__(server)
        self.last = {}

    def send(self, change, *, now, timeout=10.0):
        result = super().send(change, now=now)
        if result.status == "accepted" and change.budget is not None:
            self.last[change.target] = change.budget
        return result

    def read(self, target, *, now):
        state = super().read(target, now=now)
        return TargetState(target=target, budget=self.last.get(target, state.budget), active=state.active, read_at=now)


class Caches(Honest):
    def __init__(self, server):
        super().__init__(server)
        self.kept = {}

    def send(self, change, *, now, timeout=10.0):
        self.kept.clear()
        return super().send(change, now=now)

    def read(self, target, *, now):
        return self.kept.setdefault(target, super().read(target, now=now))


class QueuesInSecret(Honest):
    def send(self, change, *, now, timeout=10.0):
        return AttemptResult(status="accepted") if self.server.down else super().send(change, now=now)


class MistakesCredentials(Honest):
    def read(self, target, *, now):
        try:
            return super().read(target, now=now)
        except AuthenticationError:
            raise RejectedError("401") from None


class Leaks(Honest):
    def told(self, answer, now):
        result = super().told(answer, now)
        url = f"https://host/a?access_token={self.token}"
        return AttemptResult(status=result.status, code="timeout", message=f"no answer from {url}") if answer is None else result


class LeaksInContext(Honest):
    def read(self, target, *, now):
        try:
            if self.server.down:
                raise OSError(f"https://host/a?access_token={self.token}")
            return super().read(target, now=now)
        except OSError as error:
            raise NotSentError("nobody listens") from error


class CountsElsewhere(Honest):
    def costs(self, change, target):
        return {"calls": 1.0, "score": 3.0}


class NamesAnew(Honest):
    number = itertools.count()

    def report(self, *, since, until):
        return [{**row, "event_id": f"{next(self.number)}"} for row in super().report(since=since, until=until)]


class HoldsOut(Honest):
    """An adapter without a fault that runs holdouts too."""

    def __init__(self, server):
        super().__init__(server)
        self.running = {}

    def start_holdout(self, holdout_id, targets, share, *, now):
        known = self.running.setdefault(holdout_id, {"targets": list(targets), "share": share, "since": now, "until": None})
        if (known["targets"], known["share"]) != (list(targets), share):
            raise RejectedError("begun otherwise", "holdout_id", holdout_id)

    def read_holdout(self, holdout_id, *, now):
        known = self.running[holdout_id]
        users = {"treated_users": 1000 * (1 - known["share"]), "control_users": 1000 * known["share"]}
        return HoldoutCounts(holdout_id=holdout_id, treated=0, control=0, since=known["since"], until=known["until"], **users)

    def end_holdout(self, holdout_id, *, now):
        self.running[holdout_id]["until"] = self.running[holdout_id]["until"] or now


class BeginsAnew(HoldsOut):
    """Begins the holdout again when it is asked again."""

    def start_holdout(self, holdout_id, targets, share, *, now):
        self.running.pop(holdout_id, None)
        super().start_holdout(holdout_id, targets, share, now=now)


class TakesAnyShare(HoldsOut):
    """Does not notice that the same id comes with another share."""

    def start_holdout(self, holdout_id, targets, share, *, now):
        if holdout_id not in self.running:
            super().start_holdout(holdout_id, targets, share, now=now)


class EndsTwice(HoldsOut):
    """Lets a holdout end whenever it is asked to."""

    def end_holdout(self, holdout_id, *, now):
        self.running[holdout_id]["until"] = now


class HoldsOutTheOthers(HoldsOut):
    """Mistakes the share that is held out for the share that is shown the ads."""

    def read_holdout(self, holdout_id, *, now):
        found = super().read_holdout(holdout_id, now=now)
        return attrs.evolve(found, treated_users=found.control_users, control_users=found.treated_users)


class NeverEnds(HoldsOut):
    """Forgets to end a holdout."""

    def end_holdout(self, holdout_id, *, now):
        return


FAULTY = {
    **dict.fromkeys((BeginsAnew, TakesAnyShare, EndsTwice, HoldsOutTheOthers, NeverEnds), "begins_a_holdout_once_or_none"),
    QuietForDays: "offers_the_protocols",
    TellsAnotherTarget: "reads_the_target",
    CutsFloats: "sets_exactly_what_was_asked",
    SendsDifferences: "is_absolute",
    ForgetsToResume: "pauses_and_resumes",
    SpillsOver: "leaves_other_targets_alone",
    InventsTargets: "knows_what_does_not_exist",
    HasNoWords: "keeps_the_platforms_own_words",
    TakesAnyCurrency: "refuses_another_currency",
    TakesNothingForABudget: "needs_a_budget_to_set_one",
    PausesWhatItDoesNotKnow: "creates_findably_or_not_at_all",
    CreatesUnmarked: "creates_findably_or_not_at_all",
    ThrottledForever: "says_when_it_is_throttled",
    TakesSilenceForNo: "calls_a_lost_reply_unknown",
    TriesAgain: "sends_once",
    LooksTooSoon: "applies_within_its_quiet_period",
    TakesFailureForNo: "calls_a_server_error_unknown",
    Remembers: "reads_instead_of_remembering",
    Caches: "sees_the_changes_of_others",
    QueuesInSecret: "tells_when_nobody_listens",
    MistakesCredentials: "tells_bad_credentials_apart",
    Leaks: "keeps_its_secrets",
    LeaksInContext: "keeps_its_secrets",
    CountsElsewhere: "declares_limits_that_can_be_kept",
    NamesAnew: "reports_rows_of_the_event_table",
}


def opener(kind, **changes):
    """Return what opens a fresh subject around an adapter of a kind."""

    @contextmanager
    def open_subject():
        server = Server()
        faults = {
            **{name: (lambda name=name: setattr(server, "fault", name)) for name in PLATFORM_FAULTS},
            "unreachable": lambda: setattr(server, "down", True),
            "revoke": lambda: setattr(server, "token", "another"),
        }
        parts = {
            "platform": kind(server), "target": A, "other": B, "unknown": Target("p", "zz"), "now": NOW, "faults": faults,
            "secrets": (TOKEN,),
            "amounts": (Money.of("71.23", "EUR"), Money.of("1.15", "EUR")), "advance": server.advance, "writes": lambda: server.writes,
            "alter": lambda budget: server.cents.update(a=budget.micros // 10_000), "report_span": (NOW, NOW + timedelta(days=3)),
            "refused": Change(action_id="r", target=A, budget=Money.of("0.50", "EUR")),
        }  # fmt: skip
        yield PlatformSubject(**{**parts, **changes})

    return open_subject


@pytest.mark.parametrize("kind", [Honest, Creates, HoldsOut], ids=lambda kind: kind.__name__)
def test_an_honest_adapter_passes_all(kind):
    """Nothing fails and nothing is excused: the suite does not cry wolf."""
    certificate = certify(opener(kind), PLATFORM_CHECKS, about="Honest")
    assert (certificate.failed, certificate.excused) == ((), ())
    assert len(certificate.passed) == len(PLATFORM_CHECKS) >= 24
    assert certificate.ok


@pytest.mark.parametrize("kind", FAULTY, ids=lambda kind: kind.__name__)
def test_a_faulty_adapter_fails_exactly_its_check(kind):
    """One fault, one failed check, named after it."""
    certificate = certify(opener(kind), PLATFORM_CHECKS)
    assert certificate.failed == (FAULTY[kind],), certificate


def test_every_check_finds_a_fault():
    """No check is there that nothing can fail."""
    assert set(FAULTY.values()) == {check.name for check in PLATFORM_CHECKS}


class TestExcuses:
    def test_a_missing_capability_with_a_reason(self):
        """An excuse is shown with its reason, and nothing is called passed that did not run."""
        reason = "the platform lets no one else in"
        certificate = certify(opener(Honest, alter=None, excused={"sees_the_changes_of_others": reason}), PLATFORM_CHECKS)
        assert certificate.excused == ("sees_the_changes_of_others",)
        assert certificate.ok
        assert reason in repr(certificate)

    def test_a_missing_capability_without_a_reason(self):
        """What is missing without an excuse fails, and the missing part is named."""
        certificate = certify(opener(Honest, alter=None), PLATFORM_CHECKS)
        assert certificate.failed == ("sees_the_changes_of_others",)
        assert "alter missing" in certificate.explanations[certificate.names.index("sees_the_changes_of_others")]

    def test_an_excuse_for_what_is_there(self):
        """A failing check cannot be excused away while all it needs is there."""
        certificate = certify(opener(Remembers, excused={"reads_instead_of_remembering": "inconvenient"}), PLATFORM_CHECKS)
        assert certificate.failed == ("reads_instead_of_remembering",)

    def test_an_excuse_without_a_reason_or_a_check(self):
        """An empty reason fails; an excuse for no check is an error of the set-up."""
        assert certify(opener(Honest, alter=None, excused={"sees_the_changes_of_others": " "}), PLATFORM_CHECKS).failed
        with pytest.raises(ConfigurationError, match="sends_twice"):
            certify(opener(Honest, excused={"sends_twice": "?"}), PLATFORM_CHECKS)


def test_the_certificate_shows_itself():
    """A certificate is a table: in a terminal, escaped in a notebook, and as a frame."""
    certificate = certify(opener(HasNoWords), PLATFORM_CHECKS, about="<b>")
    assert "23 passed, 1 failed, 0 excused of 24" in repr(certificate)
    assert "<b>" not in certificate._repr_html_()
    assert list(certificate.to_frame()["outcome"]).count("failed") == 1
