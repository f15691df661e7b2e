"""What every platform adapter must do, tried through its public door and the faults that its author can script.

Law of this file: a check looks at the adapter only through the Protocols, and at the platform behind it only through the parts of
the subject. Each check names one fault of an adapter: a faulty adapter fails that check, and as few others as can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from closedloop.errors import AuthenticationError, NotSentError, RejectedError
from closedloop.interfaces import AppliesChanges, FindsCreated, LimitsRequests, ReadsState, ReportsSpend, RunsHoldouts, WeighsRequests
from closedloop.records.action import ChangeKind
from closedloop.records.batch import EVENT_KINDS
from closedloop.records.decision import Target
from closedloop.records.money import Money
from closedloop.testing.certificate import Check, CheckFailedError, check, need
from closedloop.testing.platform_subject import PLATFORM_FAULTS, PlatformSubject

PLATFORM_CHECKS: list[Check] = []


def _budget_is(subject: PlatformSubject, budget: Money | None, when: str) -> None:
    found = subject.read().budget
    need(found == budget, f"{when} the budget is {found}, not {budget}")


def _raises(subject: PlatformSubject, error: type[Exception], target: Target, when: str) -> None:
    try:
        state = subject.read(target)
    except error:
        return
    raise CheckFailedError(f"{when} read gave {state}, and no {error.__name__}")


@check(PLATFORM_CHECKS)
def offers_the_protocols(subject: PlatformSubject) -> None:
    """It can be read and changed, and says for how long a change without an answer may still be applied."""
    for protocol in (ReadsState, AppliesChanges):
        need(isinstance(subject.platform, protocol), f"it is no {protocol.__name__}")
    quiet = subject.platform.quiet_period
    need(isinstance(quiet, int | float) and 0 <= quiet < 86_400, f"quiet_period is {quiet!r}: a number of seconds under a day is needed")


@check(PLATFORM_CHECKS)
def reads_the_target(subject: PlatformSubject) -> None:
    """A read tells the target asked for, its money, its switch and when that was."""
    state = subject.read()
    need(state.target == subject.target, f"read told of {state.target}")
    need(isinstance(state.budget, Money), f"the budget is {state.budget!r}, not Money")
    need(state.active is True, f"active is {state.active!r} for a target that delivers")
    need(state.read_at.tzinfo is not None, "read_at has no time zone")


@check(PLATFORM_CHECKS)
def sets_exactly_what_was_asked(subject: PlatformSubject) -> None:
    """The budget becomes the amount asked for, to the last millionth, and is read back as such."""
    for amount in subject.amounts:
        result = subject.send(subject.change(budget=amount))
        need(result.status == "accepted", f"setting {amount} ended as {result.status}: {result.code} {result.message}")
        subject.settle()
        _budget_is(subject, amount, f"after setting {amount.micros} micros")


@check(PLATFORM_CHECKS)
def is_absolute(subject: PlatformSubject) -> None:
    """The same change sent twice does no more than once."""
    for _ in range(2):
        subject.send(subject.change(budget=subject.amounts[0]))
        subject.settle()
    found = subject.read().budget
    need(found is not None and abs(found.micros - subject.amounts[0].micros) < 10_000, f"sent twice, the budget is {found}")


@check(PLATFORM_CHECKS)
def pauses_and_resumes(subject: PlatformSubject) -> None:
    """Pause and resume turn the switch that a read tells, and leave the budget alone."""
    before = subject.read().budget
    turns: tuple[tuple[ChangeKind, bool], ...] = (("pause", False), ("resume", True))
    for kind, active in turns:
        result = subject.send(subject.change(kind))
        need(result.status == "accepted", f"{kind} ended as {result.status}: {result.code} {result.message}")
        subject.settle()
        state = subject.read()
        need(state.active is active, f"after {kind} active is {state.active}")
        need(state.budget == before, f"{kind} changed the budget to {state.budget}")


@check(PLATFORM_CHECKS, "other")
def leaves_other_targets_alone(subject: PlatformSubject) -> None:
    """A change of one target changes no other."""
    before = subject.read(subject.other)
    subject.send(subject.change(budget=subject.amounts[0]))
    subject.settle()
    after = subject.read(subject.other)
    need((after.budget, after.active) == (before.budget, before.active), f"{subject.other} went from {before} to {after}")


@check(PLATFORM_CHECKS)
def knows_what_does_not_exist(subject: PlatformSubject) -> None:
    """A target that does not exist is rejected, in a read and in a change."""
    _raises(subject, RejectedError, subject.unknown, f"for {subject.unknown}")
    status = subject.send(subject.change(budget=subject.amounts[0], target=subject.unknown)).status
    need(status == "rejected", f"a change of {subject.unknown} ended as {status}")


@check(PLATFORM_CHECKS)
def keeps_the_platforms_own_words(subject: PlatformSubject) -> None:
    """What the platform refuses for good is rejected with its code and words, and changes nothing."""
    before = subject.read().budget
    result = subject.send(subject.refused)
    need(result.status == "rejected", f"the refused change ended as {result.status}")
    need(bool(result.code) and bool(result.message), f"code {result.code!r} and message {result.message!r} must say why")
    subject.settle()
    _budget_is(subject, before, "after a refused change")


@check(PLATFORM_CHECKS)
def refuses_another_currency(subject: PlatformSubject) -> None:
    """A budget in another currency than the account's is rejected, not taken for the account's."""
    before = subject.read().budget
    result = subject.send(subject.change(budget=Money(subject.amounts[0].micros, subject.foreign)))
    need(result.status == "rejected", f"a budget in {subject.foreign} ended as {result.status}")
    subject.settle()
    _budget_is(subject, before, f"after a budget in {subject.foreign}")


@check(PLATFORM_CHECKS)
def needs_a_budget_to_set_one(subject: PlatformSubject) -> None:
    """A change of the budget that names no budget is rejected and changes nothing."""
    before = subject.read()
    status = subject.send(subject.change(budget=None)).status
    need(status == "rejected", f"a change of the budget without a budget ended as {status}")
    subject.settle()
    after = subject.read()
    need((after.budget, after.active) == (before.budget, before.active), f"without a budget, the target became {after}")


@check(PLATFORM_CHECKS)
def creates_findably_or_not_at_all(subject: PlatformSubject) -> None:
    """What it creates is found by its action, once; an adapter that cannot find its creations rejects them, and touches nothing."""
    before = subject.read()
    new = subject.change("create", subject.amounts[0], Target(subject.target.platform, subject.target.resource))
    if isinstance(subject.platform, FindsCreated):
        need(list(subject.platform.find(new, now=subject.now)) == [], "something bears the mark of an action that was never sent")
        status = subject.send(new).status
        need(status == "accepted", f"a creation ended as {status}")
        subject.settle()
        found = list(subject.platform.find(new, now=subject.now))
        need([s.budget for s in found] == [subject.amounts[0]], f"after one creation with {subject.amounts[0]}, found was {found}")
    else:
        status = subject.send(new).status
        need(status == "rejected", f"a creation that nothing can find again ended as {status}")
        subject.settle()
    after = subject.read()
    need((after.budget, after.active) == (before.budget, before.active), f"a creation changed what was there to {after}")


@check(PLATFORM_CHECKS)
def begins_a_holdout_once_or_none(subject: PlatformSubject) -> None:
    """A holdout begun twice under one id is one, and one ended twice has ended once; an adapter without holdouts passes."""
    platform, target = subject.platform, subject.target
    if not isinstance(platform, RunsHoldouts):
        return
    platform.start_holdout("certificate-h", [target], 0.2, now=subject.now)
    subject.settle()
    begun = platform.read_holdout("certificate-h", now=subject.now)
    need(begun.until is None, f"a holdout that runs ended at {begun.until}")
    odds = begun.treated_users / begun.control_users
    need(0.9 < odds / 4.0 < 1.1, f"one in five held out, and {odds:g} users are treated for each that is not")
    platform.start_holdout("certificate-h", [target], 0.2, now=subject.now)
    subject.settle()
    again = platform.read_holdout("certificate-h", now=subject.now)
    need(again.since == begun.since, f"begun again under the same id, it runs since {again.since}, not {begun.since}")
    try:
        platform.start_holdout("certificate-h", [target], 0.5, now=subject.now)
    except RejectedError:
        pass
    else:
        raise CheckFailedError("the same id with another share was not rejected")
    ends = []
    for _ in range(2):
        platform.end_holdout("certificate-h", now=subject.now)
        subject.settle()
        ends.append(platform.read_holdout("certificate-h", now=subject.now).until)
    need(None not in ends and ends[0] == ends[1], f"ended twice, it ended at {ends}")


@check(PLATFORM_CHECKS, "fault:throttle")
def says_when_it_is_throttled(subject: PlatformSubject) -> None:
    """A quota's refusal is told as throttled, with a time to come back, and changes nothing."""
    before = subject.read().budget
    subject.faults["throttle"]()
    result = subject.send(subject.change(budget=subject.amounts[0]))
    need(result.status == "throttled", f"refused by a quota, it said {result.status}")
    need(result.retry_at is not None and result.retry_at > subject.now, f"retry_at is {result.retry_at}, not after {subject.now}")
    need(result.scope in ("", *(s for s, _, _ in _limits(subject))), f"the scope {result.scope!r} is none of its limits")
    subject.settle()
    _budget_is(subject, before, "after a throttled change")


@check(PLATFORM_CHECKS, "fault:lose_reply")
def calls_a_lost_reply_unknown(subject: PlatformSubject) -> None:
    """Without an answer the change was perhaps applied: that is unknown, neither no nor yes."""
    subject.faults["lose_reply"]()
    result = subject.send(subject.change(budget=subject.amounts[0]))
    need(result.status == "unknown", f"without an answer it said {result.status}")
    subject.settle()
    _budget_is(subject, subject.amounts[0], "after a lost reply")


@check(PLATFORM_CHECKS, "fault:lose_request", "writes")
def sends_once(subject: PlatformSubject) -> None:
    """One send is one request: the adapter never tries again on its own."""
    if subject.writes is None:  # pragma: no cover - needed, see above
        return
    subject.faults["lose_request"]()
    before = subject.writes()
    status = subject.send(subject.change(budget=subject.amounts[0])).status
    sent = subject.writes() - before
    need(sent <= 1, f"one send made {sent} requests")
    need(status in ("unknown", "not_sent"), f"without an answer it said {status}")


@check(PLATFORM_CHECKS, "fault:late")
def applies_within_its_quiet_period(subject: PlatformSubject) -> None:
    """What is applied late is applied before the quiet period ends: afterwards a look may be trusted."""
    subject.faults["late"]()
    status = subject.send(subject.change(budget=subject.amounts[0])).status
    need(status in ("unknown", "accepted"), f"a change that is applied late was told as {status}")
    subject.settle()
    _budget_is(subject, subject.amounts[0], f"after the quiet period of {subject.platform.quiet_period} s")


@check(PLATFORM_CHECKS, "fault:server_error")
def calls_a_server_error_unknown(subject: PlatformSubject) -> None:
    """A failure of the server may come after the change was applied: that is unknown."""
    subject.faults["server_error"]()
    status = subject.send(subject.change(budget=subject.amounts[0])).status
    need(status == "unknown", f"after a failure of the server it said {status}")


@check(PLATFORM_CHECKS, "fault:ignore")
def reads_instead_of_remembering(subject: PlatformSubject) -> None:
    """A read asks the platform: a change that was accepted without effect is seen not to be there."""
    before = subject.read().budget
    subject.faults["ignore"]()
    subject.send(subject.change(budget=subject.amounts[0]))
    subject.settle()
    _budget_is(subject, before, "after a change without effect")


@check(PLATFORM_CHECKS, "alter")
def sees_the_changes_of_others(subject: PlatformSubject) -> None:
    """What someone else changed is seen by the next read: nothing is kept from one read to the next."""
    subject.read()
    if subject.alter is not None:
        subject.alter(subject.amounts[1])
    subject.settle()
    _budget_is(subject, subject.amounts[1], "after someone else's change")


@check(PLATFORM_CHECKS, "fault:unreachable")
def tells_when_nobody_listens(subject: PlatformSubject) -> None:
    """When the platform cannot be reached a read says so, and a change is not told as taken or refused."""
    subject.faults["unreachable"]()
    _raises(subject, NotSentError, subject.target, "with nobody listening")
    status = subject.send(subject.change(budget=subject.amounts[0])).status
    need(status in ("not_sent", "unknown", "throttled"), f"with nobody listening it said {status}")


@check(PLATFORM_CHECKS, "fault:revoke")
def tells_bad_credentials_apart(subject: PlatformSubject) -> None:
    """Credentials that do not serve raise AuthenticationError in a read; a change is held, not lost in doubt."""
    subject.faults["revoke"]()
    _raises(subject, AuthenticationError, subject.target, "with revoked credentials")
    status = subject.send(subject.change(budget=subject.amounts[0])).status
    need(status in ("not_sent", "rejected"), f"with revoked credentials it said {status}")


@check(PLATFORM_CHECKS, "secrets")
def keeps_its_secrets(subject: PlatformSubject) -> None:
    """No secret shows in a result, an error or the adapter's repr, whatever goes wrong."""
    texts = [repr(subject.platform)]
    for fault in (f for f in PLATFORM_FAULTS if f in subject.faults):
        if fault in ("unreachable", "revoke"):  # they do not end: each of the others comes first
            continue
        subject.faults[fault]()
        texts.append(repr(subject.send(subject.change(budget=subject.amounts[0]))))
        subject.settle()
    for fault in ("revoke", "unreachable"):
        if fault in subject.faults:
            subject.faults[fault]()
            texts.append(repr(subject.send(subject.change(budget=subject.amounts[0]))))
            texts.extend(_told(subject))
    for secret in subject.secrets:
        need(not any(secret in text for text in texts), f"a secret of {len(secret)} characters is told")


def _told(subject: PlatformSubject) -> list[str]:
    """Return all that an exception of a read would tell in a log, with what hangs on it."""
    try:
        return [repr(subject.read())]
    except Exception as error:  # noqa: BLE001 - whatever it is, its words are what is looked at
        told: list[str] = []
        link: BaseException | None = error
        while link is not None:
            told += [str(link), repr(link)]
            link = link.__cause__ or link.__context__
        return told


def _limits(subject: PlatformSubject) -> list[tuple[str, float, float]]:
    return list(subject.platform.limits(subject.target)) if isinstance(subject.platform, LimitsRequests) else []


@check(PLATFORM_CHECKS)
def declares_limits_that_can_be_kept(subject: PlatformSubject) -> None:
    """Declared quotas are positive, every cost counts against a declared one, and a single change fits each."""
    limits = _limits(subject)
    for scope, units, seconds in limits:
        need(bool(scope) and units > 0 and seconds > 0, f"the limit {(scope, units, seconds)} is empty")
    need(len({(s, w) for s, _, w in limits}) == len(limits), "the same scope and window is declared twice")
    if isinstance(subject.platform, LimitsRequests):
        for change in (None, subject.change(budget=subject.amounts[0]), subject.change("pause")):
            costs: Mapping[str, float] = {scope: subject.platform.cost(change) for scope, _, _ in limits}
            if isinstance(subject.platform, WeighsRequests):
                costs = subject.platform.costs(change, subject.target)
            need(set(costs) <= {s for s, _, _ in limits}, f"costs count against {sorted(set(costs) - {s for s, _, _ in limits})}")
            need(all(c >= 0 for c in costs.values()), f"a cost is below zero: {dict(costs)}")
            need(all(costs.get(s, 0.0) <= units for s, units, _ in limits), f"one request costs more than its limit: {dict(costs)}")


@check(PLATFORM_CHECKS, "report_span")
def reports_rows_of_the_event_table(subject: PlatformSubject) -> None:
    """A report gives rows of the event table: known kinds, distinct and stable ids, aware times within the span, no cost below zero."""
    need(isinstance(subject.platform, ReportsSpend), "it is no ReportsSpend")
    if subject.report_span is None:  # pragma: no cover - needed, see above
        return
    since, until = subject.report_span
    rows, again = (list(subject.platform.report(since=since, until=until)) for _ in range(2))
    need(bool(rows), "the report is empty")
    ids = [row["event_id"] for row in rows]
    need(len(set(ids)) == len(ids), "two rows have one event_id")
    need(ids == [row["event_id"] for row in again], "the same report read twice has other event ids")
    for row in rows:
        need(row["kind"] in EVENT_KINDS, f"the kind {row['kind']!r} is none of {EVENT_KINDS}")
        moment = row["occurred_at"]
        need(moment.tzinfo is not None, "occurred_at has no time zone")
        need(since - timedelta(days=1) <= moment < until, f"{row['event_id']} occurred at {moment}, outside {since} to {until}")
        need((row.get("cost") or 0) >= 0, f"{row['event_id']} cost {row.get('cost')}")
