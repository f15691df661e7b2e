"""What every ledger must do, tried through the `Ledger` Protocol and what its author can do behind it.

Law of this file: expected values come from a model of a few lines (a list and a dictionary), never from another ledger. Each check
names one fault of a ledger.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from closedloop.errors import LedgerError
from closedloop.interfaces import Ledger
from closedloop.records.action import Entry, Recorded
from closedloop.testing.certificate import Check, CheckFailedError, check, need

LEDGER_CHECKS: list[Check] = []
_START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
_BODY: Mapping[str, Any] = {
    "text": "naïve ☃ \"quoted\" \\ 'single'\n\t\x00 end",
    "large": 2**53 + 1,
    "small": -1,
    "number": 0.1,
    "nothing": None,
    "truth": [True, False],
    "nested": {"b": [1, {"c": "d"}], "a": []},
    "empty": "",
}


@attrs.define(kw_only=True)
class LedgerSubject:
    """A ledger together with what its author can do behind it.

    Args:
        ledger: The ledger, empty.
        reopen: Closes it and returns it opened again on the same store; None for a ledger that does not outlive its process.
        second: Returns another handle to the same store, as another process would have.
        tamper: Changes the store behind the ledger's back: ``edit`` (the body of a record), ``remove`` (a record in the
            middle), ``reorder`` (two records change places).
        excused: By name of a check, why it cannot be run: which capability the ledger lacks.
    """

    ledger: Any
    reopen: Callable[[], Any] | None = None
    second: Callable[[], Any] | None = None
    tamper: Callable[[str], None] | None = None
    excused: Mapping[str, str] = attrs.field(factory=dict)

    def offers(self, part: str) -> bool:
        """Return whether the subject has a part."""
        return getattr(self, part) is not None


def entry(n: int, *, kind: str = "action", subject: str | None = None, body: Mapping[str, Any] | None = None, **more: Any) -> Entry:
    """Return entry number ``n`` of a test."""
    return Entry(
        kind=kind,
        subject=subject or f"s{n}",
        at=_START + timedelta(minutes=n),
        body={"n": n} if body is None else body,
        key=more.pop("key", f"key{n}"),
        **more,
    )


def _all(ledger: Any, **filters: Any) -> list[Recorded]:
    return list(ledger.entries(**filters))


def _keys(records: Any) -> list[str]:
    return [r.entry.key for r in records]


def _refuses(words: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except LedgerError:
        return
    raise CheckFailedError(f"{words} was not refused with a LedgerError")


@check(LEDGER_CHECKS)
def offers_the_protocol(subject: LedgerSubject) -> None:
    """It has the four methods of a ledger, and starts empty."""
    need(isinstance(subject.ledger, Ledger), f"{type(subject.ledger).__name__} is no Ledger")
    need(_all(subject.ledger) == [], "a new ledger is not empty")
    need(list(subject.ledger.newest("action")) == [], "a new ledger has newest records")


@check(LEDGER_CHECKS)
def gives_back_what_was_written(subject: LedgerSubject) -> None:
    """Bodies, times to the microsecond, keys and flags come back exactly as they were written."""
    written = [
        entry(1, body=_BODY, is_open=True, due_at=_START + timedelta(days=1, microseconds=1)),
        entry(2, kind="cycle", subject="snow ☃ / %_*?'\"", body={}),
    ]
    subject.ledger.append(written)
    for want, found in zip(written, _all(subject.ledger), strict=True):
        for name in ("kind", "subject", "at", "key", "is_open", "due_at"):
            need(
                getattr(found.entry, name) == getattr(want, name),
                f"{name}: wrote {getattr(want, name)!r}, read {getattr(found.entry, name)!r}",
            )
        body = dict(found.entry.body)
        need(body == dict(want.body), f"the body came back as {body!r}")
        need(all(type(body[k]) is type(v) for k, v in want.body.items()), f"a value of the body changed its type: {body!r}")
        need(found.entry.at.tzinfo is not None, "a time came back without its zone")


@check(LEDGER_CHECKS)
def keeps_the_sequence(subject: LedgerSubject) -> None:
    """Records come back in the order in which they were written, numbered 1, 2, 3, over many batches."""
    order = [7, 3, 9, 1, 8, 2]  # neither by key nor by time
    subject.ledger.append([entry(n) for n in order[:4]])
    subject.ledger.append([])
    subject.ledger.append([entry(n) for n in order[4:]])
    found = _all(subject.ledger)
    need(_keys(found) == [f"key{n}" for n in order], f"the order is {_keys(found)}")
    need([r.sequence for r in found] == list(range(1, 7)), f"the numbers are {[r.sequence for r in found]}")


@check(LEDGER_CHECKS)
def writes_a_known_entry_once(subject: LedgerSubject) -> None:
    """An entry whose key and body are known is skipped, also within a batch; the count tells how many were new."""
    first = subject.ledger.append([entry(1), entry(2)])
    again = subject.ledger.append([entry(2), entry(3), entry(3), entry(1)])
    need((first, again) == (2, 1), f"two new, then one new, were counted as {first} and {again}")
    need(_keys(_all(subject.ledger)) == ["key1", "key2", "key3"], f"recorded were {_keys(_all(subject.ledger))}")


@check(LEDGER_CHECKS)
def refuses_a_conflict_whole(subject: LedgerSubject) -> None:
    """A known key with another body is refused, and nothing of its batch is written, no entry and no state."""
    subject.ledger.append([entry(1)], states={"s": b"old"})
    batch = [entry(2), entry(1, body={"n": "other"}), entry(3)]
    _refuses("a known key with another body", lambda: subject.ledger.append(batch, states={"s": b"new"}))
    need(_keys(_all(subject.ledger)) == ["key1"], f"after a refused batch the records are {_keys(_all(subject.ledger))}")
    need(subject.ledger.state("s") == b"old", "a state of a refused batch was written")
    _refuses("two bodies for one key in one batch", lambda: subject.ledger.append([entry(5), entry(5, body={"n": "other"})]))
    need(_keys(_all(subject.ledger)) == ["key1"], "an entry of a batch that contradicts itself was written")


@check(LEDGER_CHECKS)
def keeps_states(subject: LedgerSubject) -> None:
    """A state is kept byte by byte as last written, None when never written, also without entries."""
    need(subject.ledger.state("a") is None, "a state that was never written is there")
    value = bytes(range(256)) * 20
    subject.ledger.append([entry(1)], states={"a": value, "b": b""})
    subject.ledger.append([], states={"b": b"second"})
    need(subject.ledger.state("a") == value, "a state came back changed")
    need(subject.ledger.state("b") == b"second", "the second value of a state is not the one read")


@check(LEDGER_CHECKS)
def filters_its_records(subject: LedgerSubject) -> None:
    """Records are found by kind, subject, sequence number and time, each and together."""
    kinds = ("plan", "action", "action", "cycle", "action")
    subject.ledger.append([entry(n, kind=k, subject=f"s{n % 2}") for n, k in enumerate(kinds, start=1)])
    wanted: list[tuple[dict[str, Any], list[int]]] = [
        ({"kind": "action"}, [2, 3, 5]),
        ({"subject": "s1"}, [1, 3, 5]),
        ({"kind": "action", "subject": "s1"}, [3, 5]),
        ({"after": 3}, [4, 5]),
        ({"after": 5}, []),
        ({"since": _START + timedelta(minutes=4)}, [4, 5]),
        ({"kind": "action", "after": 2, "since": _START + timedelta(minutes=3)}, [3, 5]),
        ({"kind": "none"}, []),
    ]
    for filters, numbers in wanted:
        found = [r.sequence for r in _all(subject.ledger, **filters)]
        need(found == numbers, f"{filters} found {found}, not {numbers}")


@check(LEDGER_CHECKS)
def knows_the_newest(subject: LedgerSubject) -> None:
    """The newest record of each subject is its present state: by kind, by subject, only the open ones, only those due."""
    hour = timedelta(hours=1)
    subject.ledger.append(
        [
            entry(1, subject="a", is_open=True, due_at=_START + 3 * hour),
            entry(2, subject="b", is_open=True, due_at=_START + 2 * hour),
            entry(3, subject="c", is_open=True, due_at=_START + 1 * hour),
            entry(4, kind="cycle", subject="a", is_open=True, due_at=_START),
        ]
    )
    subject.ledger.append([entry(5, subject="b", is_open=False), entry(6, subject="a", is_open=True, due_at=_START + 2 * hour)])
    newest = subject.ledger.newest
    need(sorted(_keys(newest("action"))) == ["key3", "key5", "key6"], f"newest are {_keys(newest('action'))}")
    need(_keys(newest("action", only_open=True)) == ["key3", "key6"], f"open, by due time, are {_keys(newest('action', only_open=True))}")
    due = newest("action", only_open=True, due_by=_START + hour)
    need(_keys(due) == ["key3"], f"due within the hour (its end included) are {_keys(due)}")
    need(_keys(newest("action", subject="a")) == ["key6"], f"the newest of one subject is {_keys(newest('action', subject='a'))}")
    need(_keys(newest("action", subject="z")) == [], "a subject that is not there has a newest record")
    need(_keys(newest("cycle")) == ["key4"], f"the newest of another kind is {_keys(newest('cycle'))}")


@check(LEDGER_CHECKS)
def keeps_its_own_copy(subject: LedgerSubject) -> None:
    """A body changed by the caller afterwards, or by a reader, does not change the record."""
    numbers = [1, 2]
    subject.ledger.append([entry(1, body={"list": numbers, "n": 1})])
    numbers.append(3)
    dict(_all(subject.ledger)[0].entry.body)["list"].append(4)
    found = dict(_all(subject.ledger)[0].entry.body)
    need(found == {"list": [1, 2], "n": 1}, f"the record became {found}")


@check(LEDGER_CHECKS)
def agrees_with_a_model(subject: LedgerSubject) -> None:
    """Over 300 random batches it says what a list and a dictionary say."""
    rng = random.Random(20260301)
    model: list[Entry] = []
    states: dict[str, bytes] = {}
    for _ in range(300):
        batch = []
        for _ in range(rng.randrange(4)):
            if model and rng.random() < 0.2:
                batch.append(rng.choice(model))
                continue
            due = _START + timedelta(minutes=rng.randrange(100))
            n = len(model) + len(batch) + rng.randrange(10**9)
            batch.append(entry(n, subject=f"s{rng.randrange(9)}", kind=rng.choice(("a", "b")), is_open=rng.random() < 0.5, due_at=due))
        state = {f"state{rng.randrange(3)}": rng.randbytes(8)} if rng.random() < 0.3 else None
        known = {e.key for e in model}
        new = list({e.key: e for e in batch if e.key not in known}.values())
        count = subject.ledger.append(batch, states=state)
        need(count == len(new), f"{len(new)} new entries were counted as {count}")
        model += new
        states.update(state or {})
    need(_keys(_all(subject.ledger)) == [e.key for e in model], "the records differ from the model's")
    for kind in ("a", "b"):
        newest = {e.subject: e for e in model if e.kind == kind}
        found = {r.entry.subject: r.entry.key for r in subject.ledger.newest(kind)}
        need(found == {s: e.key for s, e in newest.items()}, f"newest of {kind} differs from the model's")
        by = _START + timedelta(minutes=50, seconds=30)
        due_model = {e.key for e in newest.values() if e.is_open and e.due_at is not None and e.due_at <= by}
        due_found = set(_keys(subject.ledger.newest(kind, only_open=True, due_by=by)))
        need(due_found == due_model, f"due of {kind} differs from the model's")
    need(all(subject.ledger.state(name) == value for name, value in states.items()), "a state differs from the model's")


@check(LEDGER_CHECKS, "reopen")
def outlives_its_process(subject: LedgerSubject) -> None:
    """What was appended is there after closing and opening again, and the sequence goes on."""
    subject.ledger.append([entry(1, is_open=True), entry(2)], states={"s": b"kept"})
    if subject.reopen is None:  # pragma: no cover - needed, see above
        return
    ledger = subject.reopen()
    need(_keys(_all(ledger)) == ["key1", "key2"], f"after opening again the records are {_keys(_all(ledger))}")
    need(ledger.state("s") == b"kept", "after opening again the state is gone")
    need(_keys(ledger.newest("action", only_open=True)) == ["key1"], "after opening again what is open differs")
    need(ledger.append([entry(2), entry(3)]) == 1, "after opening again a known entry counts as new")
    need([r.sequence for r in _all(ledger)] == [1, 2, 3], "after opening again the sequence does not go on")


@check(LEDGER_CHECKS, "second")
def two_handles_see_one_truth(subject: LedgerSubject) -> None:
    """Two handles on one store number one sequence, see each other's records, and never write an entry twice."""
    if subject.second is None:  # pragma: no cover - needed, see above
        return
    other = subject.second()
    counts = [subject.ledger.append([entry(1)]), other.append([entry(1), entry(2)]), subject.ledger.append([entry(2), entry(3)])]
    need(counts == [1, 1, 1], f"new entries were counted as {counts}")
    for ledger in (subject.ledger, other):
        need([(r.sequence, r.entry.key) for r in _all(ledger)] == [(1, "key1"), (2, "key2"), (3, "key3")], "a handle sees another truth")
    _refuses("a key that the other handle wrote with another body", lambda: subject.ledger.append([entry(2, body={"n": "other"})]))


@check(LEDGER_CHECKS, "tamper")
def notices_an_edited_record(subject: LedgerSubject) -> None:
    """`verify` finds a record whose body was edited behind the ledger's back."""
    _tampered(subject, "edit")


@check(LEDGER_CHECKS, "tamper")
def notices_a_removed_record(subject: LedgerSubject) -> None:
    """`verify` finds that a record in the middle is gone."""
    _tampered(subject, "remove")


@check(LEDGER_CHECKS, "tamper")
def notices_reordered_records(subject: LedgerSubject) -> None:
    """`verify` finds that two records changed places."""
    _tampered(subject, "reorder")


def _tampered(subject: LedgerSubject, how: str) -> None:
    subject.ledger.append([entry(n) for n in range(1, 6)])
    subject.ledger.verify()  # a sound ledger passes: an exception fails the check
    if subject.tamper is not None:
        subject.tamper(how)
    _refuses(f"a store after {how}", subject.ledger.verify)
