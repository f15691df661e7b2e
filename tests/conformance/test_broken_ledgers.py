"""The ledger suite finds faults: the embedded ledger passes every check, and each faulty one fails exactly its check."""

import sqlite3
from contextlib import contextmanager
from datetime import timedelta

import attrs
import pytest

from closedloop.errors import LedgerError
from closedloop.ledger import SqliteLedger
from closedloop.testing import LEDGER_CHECKS, LedgerSubject, certify


class NothingWhenEmpty(SqliteLedger):
    def newest(self, *args, **filters):
        return super().newest(*args, **filters) if list(self.entries()) else None


class CutsTimes(SqliteLedger):
    def append(self, entries, *, states=None):
        def cut(moment):
            return None if moment is None else moment.replace(microsecond=moment.microsecond // 1000 * 1000)

        return super().append([attrs.evolve(e, due_at=cut(e.due_at)) for e in entries], states=states)


class SortsLargeBatches(SqliteLedger):
    def append(self, entries, *, states=None):
        entries = sorted(entries, key=lambda e: e.at) if len(entries) > 3 else entries
        return super().append(entries, states=states)


class CountsTwins(SqliteLedger):
    def append(self, entries, *, states=None):
        known = {r.entry.key for r in self.entries()}
        super().append(entries, states=states)
        return sum(e.key not in known for e in entries)


class WritesStatesFirst(SqliteLedger):
    def append(self, entries, *, states=None):
        super().append([], states=states)
        return super().append(entries)


class EmptyForNever(SqliteLedger):
    def state(self, name):
        return super().state(name) or b""


class SinceIsAfter(SqliteLedger):
    def entries(self, *, since=None, **filters):
        return super().entries(since=None if since is None else since + timedelta(microseconds=1), **filters)


class DueIsBefore(SqliteLedger):
    def newest(self, kind, *, due_by=None, **filters):
        return super().newest(kind, due_by=None if due_by is None else due_by - timedelta(microseconds=1), **filters)


class SharesBodies(SqliteLedger):
    def __init__(self, path):
        super().__init__(path)
        self.bodies = {}

    def append(self, entries, *, states=None):
        count = super().append(entries, states=states)
        for e in entries:
            self.bodies.setdefault(e.key, e.body)
        return count

    def entries(self, **filters):
        for r in super().entries(**filters):
            yield attrs.evolve(r, entry=attrs.evolve(r.entry, body=self.bodies.get(r.entry.key, r.entry.body)))


class TiresAfterAHundred(SqliteLedger):
    def newest(self, kind, **filters):
        return [r for r in super().newest(kind, **filters) if r.sequence <= 100]


class LosesStates(SqliteLedger):
    def close(self):
        try:
            with self._transaction():
                self._db.execute("DELETE FROM states")
        except sqlite3.Error:
            pass  # closed already
        super().close()


class KnowsItsOwnKeys(SqliteLedger):
    def __init__(self, path):
        super().__init__(path)
        self.known = {r.entry.key for r in self.entries()}

    def append(self, entries, *, states=None):
        unknown = {e.key for e in entries} - self.known
        if any(r.entry.key in unknown for r in self.entries()):
            raise LedgerError("UNIQUE constraint failed")
        count = super().append(entries, states=states)
        self.known |= unknown
        return count


class ChecksNoBodies(SqliteLedger):
    def verify(self, head=None):
        records = list(self.entries())
        if [r.entry.key for r in records] != [f"key{r.sequence}" for r in records] or len(records) != 5:
            raise LedgerError("a record is gone or out of place")


class ChecksNoGaps(SqliteLedger):
    def verify(self, head=None):
        if [r.sequence for r in self.entries()] == [1, 2, 3, 4, 5]:
            super().verify()


class ChecksNoOrder(SqliteLedger):
    def verify(self, head=None):
        if sorted((r.entry.key, dict(r.entry.body)["n"]) for r in self.entries()) != [(f"key{n}", n) for n in range(1, 6)]:
            super().verify()


FAULTY = {
    NothingWhenEmpty: "offers_the_protocol",
    CutsTimes: "gives_back_what_was_written",
    SortsLargeBatches: "keeps_the_sequence",
    CountsTwins: "writes_a_known_entry_once",
    WritesStatesFirst: "refuses_a_conflict_whole",
    EmptyForNever: "keeps_states",
    SinceIsAfter: "filters_its_records",
    DueIsBefore: "knows_the_newest",
    SharesBodies: "keeps_its_own_copy",
    TiresAfterAHundred: "agrees_with_a_model",
    LosesStates: "outlives_its_process",
    KnowsItsOwnKeys: "two_handles_see_one_truth",
    ChecksNoBodies: "notices_an_edited_record",
    ChecksNoGaps: "notices_a_removed_record",
    ChecksNoOrder: "notices_reordered_records",
}


def opener(kind, folder):
    numbers = iter(range(10_000))

    @contextmanager
    def open_subject():
        path = folder / f"{next(numbers)}.db"
        opened = [kind(path)]

        def another():
            opened.append(kind(path))
            return opened[-1]

        def reopen():
            opened[0].close()
            return another()

        def tamper(how):
            store = sqlite3.connect(path)
            with store:
                if how == "edit":
                    store.execute("UPDATE entries SET body = replace(body, '3', '4') WHERE sequence = 3")
                elif how == "remove":
                    store.execute("DELETE FROM entries WHERE sequence = 3")
                else:
                    for old, new in ((2, -1), (3, 2), (-1, 3)):
                        store.execute("UPDATE entries SET sequence = ? WHERE sequence = ?", (new, old))
            store.close()

        try:
            yield LedgerSubject(ledger=opened[0], reopen=reopen, second=another, tamper=tamper)
        finally:
            for ledger in opened:
                ledger.close()

    return open_subject


def test_the_embedded_ledger_passes_all(tmp_path):
    """Nothing fails and nothing is excused."""
    certificate = certify(opener(SqliteLedger, tmp_path), LEDGER_CHECKS)
    assert certificate.passed == tuple(c.name for c in LEDGER_CHECKS)


@pytest.mark.parametrize("kind", FAULTY, ids=lambda kind: kind.__name__)
def test_a_faulty_ledger_fails_exactly_its_check(kind, tmp_path):
    """One fault, one failed check, named after it."""
    certificate = certify(opener(kind, tmp_path), LEDGER_CHECKS)
    assert certificate.failed == (FAULTY[kind],), certificate


def test_every_check_finds_a_fault():
    """No check is there that nothing can fail."""
    assert set(FAULTY.values()) == {check.name for check in LEDGER_CHECKS}
