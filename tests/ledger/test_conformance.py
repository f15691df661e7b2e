"""What every ledger promises: one suite for all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closedloop.errors import ConflictError, InputError, InvariantError
from closedloop.interfaces import Ledger
from closedloop.ledger import MemoryLedger
from closedloop.records.action import Entry

START = datetime(2026, 1, 1, tzinfo=UTC)


def entry(number: int, *, subject: str = "s", kind: str = "action", is_open: bool = False, due: float | None = None, **body: Any) -> Entry:
    due_at = None if due is None else START + timedelta(minutes=due)
    at = START + timedelta(minutes=number)
    return Entry(kind=kind, subject=subject, at=at, body=body or {"n": number}, key=f"{kind}:{number}", is_open=is_open, due_at=due_at)


def keys(found: Any) -> list[str]:
    return [r.entry.key for r in found]


def test_is_a_ledger(ledger: Any) -> None:
    """It offers the four methods."""
    assert isinstance(ledger, Ledger)


def test_what_was_appended_comes_back_in_sequence(ledger: Any) -> None:
    """Entries come back equal, numbered from 1 without a gap, each with a digest of its own."""
    entries = [entry(i, subject=f"s{i % 2}", is_open=bool(i % 2), due=i) for i in range(5)]
    assert ledger.append(entries[:3]) == 3
    assert ledger.append(entries[3:]) == 2
    found = list(ledger.entries())
    assert [r.entry for r in found] == entries
    assert [r.sequence for r in found] == [1, 2, 3, 4, 5]
    assert len({r.digest for r in found}) == 5


def test_same_key_same_body_is_skipped(ledger: Any) -> None:
    """Appending again adds nothing, also inside one batch and beside new entries; the first record stands."""
    first = entry(1)
    assert ledger.append([first, first]) == 1
    later = Entry(kind=first.kind, subject=first.subject, at=START + timedelta(days=9), body={"n": 1}, key=first.key)
    assert ledger.append([later, entry(2)]) == 1
    assert keys(ledger.entries()) == ["action:1", "action:2"]
    assert next(iter(ledger.entries())).entry.at == first.at


@pytest.mark.parametrize("other", [{"n": 2}, {"n": 1.5}, {"n": 1, "m": None}])
def test_same_key_other_body_is_refused_whole(ledger: Any, other: dict[str, Any]) -> None:
    """A known key with another body raises and nothing of the batch, no state either, is written."""
    ledger.append([entry(1)], states={"s": b"old"})
    with pytest.raises(ConflictError, match="action:1"):
        ledger.append([entry(2), entry(1, **other), entry(3)], states={"s": b"new"})
    assert keys(ledger.entries()) == ["action:1"]
    assert ledger.state("s") == b"old"
    with pytest.raises(ConflictError):
        ledger.append([entry(5), entry(5, **other)])
    assert keys(ledger.entries()) == ["action:1"]


def test_same_key_other_subject_is_refused(ledger: Any) -> None:
    """A key belongs to one kind and subject."""
    ledger.append([entry(1)])
    with pytest.raises(ConflictError):
        ledger.append([Entry(kind="action", subject="other", at=START, body={"n": 1}, key="action:1")])


def test_states_are_named_bytes(ledger: Any) -> None:
    """A state is what was last written under its name, byte by byte; an unknown name gives None."""
    everything = bytes(range(256)) * 40
    assert ledger.state("a") is None
    assert ledger.append([], states={"a": everything, "b": b""}) == 0
    ledger.append([entry(1)], states={"b": b"2"})
    assert (ledger.state("a"), ledger.state("b"), ledger.state("c")) == (everything, b"2", None)


def test_entries_are_filtered(ledger: Any) -> None:
    """By kind, subject, sequence number and time, together."""
    ledger.append([entry(1, subject="a"), entry(2, subject="b"), entry(3, subject="a", kind="mode"), entry(4, subject="a")])
    assert keys(ledger.entries(kind="action")) == ["action:1", "action:2", "action:4"]
    assert keys(ledger.entries(kind="action", subject="a")) == ["action:1", "action:4"]
    assert keys(ledger.entries(after=2)) == ["mode:3", "action:4"]
    assert keys(ledger.entries(since=START + timedelta(minutes=3))) == ["mode:3", "action:4"]
    assert keys(ledger.entries(kind="action", subject="a", after=1, since=START)) == ["action:4"]
    assert keys(ledger.entries(kind="nothing")) == []


def test_more_entries_than_one_page(ledger: Any) -> None:
    """A long ledger is read whole, and may grow while it is read."""
    ledger.append([entry(i) for i in range(2345)])
    reader = ledger.entries(kind="action")
    first = next(reader)
    ledger.append([entry(9999, kind="mode")])
    assert [first.sequence, *(r.sequence for r in reader)] == list(range(1, 2346))


def test_newest_is_the_present_state(ledger: Any) -> None:
    """The newest record of each subject, open ones by due time: none first, then the earliest, then by sequence."""
    ledger.append(
        [entry(1, subject="a", is_open=True, due=30), entry(2, subject="b", is_open=True, due=10), entry(3, subject="c", is_open=True)]
    )
    ledger.append([entry(4, subject="b", is_open=True, due=40), entry(5, subject="d"), entry(6, subject="e", is_open=True, due=30)])
    assert keys(ledger.newest("action", only_open=True)) == ["action:3", "action:1", "action:6", "action:4"]
    assert sorted(keys(ledger.newest("action"))) == ["action:1", "action:3", "action:4", "action:5", "action:6"]
    assert keys(ledger.newest("action", only_open=True, due_by=START + timedelta(minutes=30))) == ["action:3", "action:1", "action:6"]
    assert keys(ledger.newest("action", subject="b")) == ["action:4"]
    assert keys(ledger.newest("action", subject="d", only_open=True)) == []
    assert keys(ledger.newest("mode", subject="b")) == []
    ledger.append([entry(7, subject="a")])
    assert keys(ledger.newest("action", only_open=True)) == ["action:3", "action:6", "action:4"]


@pytest.mark.parametrize("name", ["kind", "subject", "key"])
def test_nameless_entries_are_refused(ledger: Any, name: str) -> None:
    """An entry without kind, subject or key raises and names the field."""
    parts: dict[str, Any] = {"kind": "k", "subject": "s", "key": "x", name: ""}
    with pytest.raises(InvariantError, match=name):
        ledger.append([Entry(at=START, body={}, **parts)])


def test_bad_content_is_refused_whole(ledger: Any) -> None:
    """A body that is no JSON, or a time without zone, raises before anything is written."""
    with pytest.raises(InvariantError):
        ledger.append([entry(1), entry(2, x=float("nan"))])
    with pytest.raises(InputError):
        ledger.append([entry(1), Entry(kind="k", subject="s", at=datetime(2026, 1, 1), body={}, key="x")])  # noqa: DTZ001
    assert keys(ledger.entries()) == []


def test_hostile_text_comes_back(ledger: Any) -> None:
    """NUL, quotes, lone surrogates in a body, emoji and very long text are kept as they are."""
    nasty = {"text": "\x00'; DROP TABLE entries; --\ud800 🎈" + "x" * 100_000, "nested": [{"ключ": ["值", None, True, 1e-300]}]}
    ledger.append([Entry(kind="k'", subject='s"; 🎈', at=START, body=nasty, key="k%_?")])
    found = ledger.newest("k'", subject='s"; 🎈')
    assert found[0].entry.body == nasty
    assert found[0].entry.key == "k%_?"


def test_chain_is_intact_and_its_end_is_known(ledger: Any) -> None:
    """`verify` follows the chain to the last record and returns its number and digest."""
    assert ledger.verify().sequence == 0
    ledger.append([entry(i) for i in range(10)], states={"s": b"x"})
    end = ledger.verify()
    last = list(ledger.entries())[-1]
    assert (end.sequence, end.digest) == (last.sequence, last.digest)


batches = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.booleans(), st.none() | st.integers(0, 5), st.integers(0, 1)), max_size=4),
    max_size=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches)
def test_all_ledgers_write_the_same_chain(ledger: Any, work: list[list[tuple[Any, ...]]]) -> None:
    """Whatever is appended, conflicts included, any ledger ends with the same records and digests as the plain one in memory."""
    reference = MemoryLedger()
    begin = ledger.verify().sequence  # examples share one ledger, so keys carry its length
    for batch in work:
        made = [
            Entry(
                kind="k",
                subject=f"{begin}-{s}",
                at=START,
                body={"v": v},
                key=f"{begin}-{k}",
                is_open=o,
                due_at=None if d is None else START + timedelta(days=d),
            )
            for k, s, o, d, v in batch
        ]
        results = []
        for one in (ledger, reference):
            try:
                results.append(one.append(made))
            except ConflictError as error:
                results.append(str(error))
        assert results[0] == results[1]
    strip = [(r.entry, r.sequence - begin) for r in ledger.entries(after=begin)]
    assert strip == [(r.entry, r.sequence) for r in reference.entries()]
    for subject in {r.entry.subject for r in reference.entries()}:
        assert keys(ledger.newest("k", subject=subject)) == keys(reference.newest("k", subject=subject))
    ledger.verify()
