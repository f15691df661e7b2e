"""The SQLite ledger: tampering found, faults named, files of others left alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from closedloop.errors import ConflictError, LedgerError
from closedloop.ledger import Head, SqliteLedger
from closedloop.records.action import Entry

START = datetime(2026, 1, 1, tzinfo=UTC)


def entries(first: int, count: int) -> list[Entry]:
    return [Entry(kind="k", subject=f"s{i}", at=START, body={"n": i}, key=f"k:{i}", is_open=True) for i in range(first, first + count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger file with 50 records and a state."""
    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        ledger.append(entries(0, 50), states={"s": b"state"})
    return tmp_path / "ledger.db"


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE entries SET body = '{\"n\":999}' WHERE sequence = 20",
        "UPDATE entries SET at_us = at_us + 1 WHERE sequence = 20",
        "UPDATE entries SET subject = 'other' WHERE sequence = 20",
        "UPDATE entries SET is_open = 0 WHERE sequence = 20",
        "UPDATE entries SET due_us = 5 WHERE sequence = 20",
        "UPDATE entries SET key = 'other' WHERE sequence = 20",
        "UPDATE entries SET digest = (SELECT digest FROM entries WHERE sequence = 21) WHERE sequence = 20",
        "DELETE FROM entries WHERE sequence = 20",
        "DELETE FROM entries WHERE sequence = 1",
        "UPDATE entries SET sequence = -sequence WHERE sequence IN (20, 21);UPDATE entries SET sequence = 41 + sequence WHERE sequence < 0",
        "UPDATE newest SET is_open = 0 WHERE subject = 's7'",
        "DELETE FROM newest WHERE subject = 's7'",
        "UPDATE states SET value = x'00'",
    ],
)
def test_tampering_is_found(path: Path, tampering: str) -> None:
    """An edited, removed or reordered record, a wrong index or an edited state makes `verify` raise."""
    with SqliteLedger(path) as ledger:
        assert ledger.verify().sequence == 50
    db = sqlite3.connect(path)
    db.executescript(tampering)
    db.commit()
    db.close()
    with SqliteLedger(path) as ledger, pytest.raises(LedgerError):
        ledger.verify()


def test_cut_off_end_is_found_with_a_noted_head(path: Path) -> None:
    """A chain cannot show a missing end by itself; against an end noted elsewhere it does."""
    with SqliteLedger(path) as ledger:
        noted = ledger.head
        ledger.append(entries(50, 5))
        assert ledger.verify(noted).sequence == 55
    db = sqlite3.connect(path)
    db.executescript("DELETE FROM newest WHERE sequence > 40; DELETE FROM entries WHERE sequence > 40")
    db.commit()
    db.close()
    with SqliteLedger(path) as ledger:
        assert ledger.verify() == Head(40, ledger.head.digest)
        with pytest.raises(LedgerError, match="noted"):
            ledger.verify(noted)


def test_every_flipped_byte_is_found_or_harmless(path: Path, tmp_path: Path) -> None:
    """A damaged file raises a LedgerError, on opening, reading or verifying, or holds exactly what it held."""
    with SqliteLedger(path) as ledger:
        good = [(r.entry, r.digest) for r in ledger.entries()]
    whole = path.read_bytes()
    found = 0
    for position in range(0, len(whole), 397):
        damaged = tmp_path / "damaged.db"
        damaged.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            with SqliteLedger(damaged) as ledger:
                ledger.verify()
                assert [(r.entry, r.digest) for r in ledger.entries()] == good
                assert ledger.state("s") == b"state"
        except LedgerError:
            found += 1
        for rest in tmp_path.glob("damaged.db*"):
            rest.unlink()
    assert found > 20


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    """Another program's database or a text file is refused, byte for byte unchanged."""
    other = tmp_path / "other.db"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE precious (x)")
    db.commit()
    db.close()
    text = tmp_path / "notes.txt"
    text.write_text("dear diary, " * 500)
    for file in (other, text):
        before = file.read_bytes()
        with pytest.raises(LedgerError):
            SqliteLedger(file)
        assert file.read_bytes() == before


def test_a_later_version_is_refused(path: Path) -> None:
    """A ledger written by a later version of the library is not touched."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(LedgerError, match="later version"):
        SqliteLedger(path)


def test_missing_folder_and_closed_ledger(tmp_path: Path) -> None:
    """Errors name the path and whose move it is."""
    with pytest.raises(LedgerError, match="folder"):
        SqliteLedger(tmp_path / "nowhere" / "ledger.db")
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.append(entries(0, 1))


def test_locked_by_another_process(path: Path) -> None:
    """A ledger that another process keeps locked raises after the wait; when it is free, the same call succeeds."""
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with SqliteLedger(path, busy_timeout=0.05) as ledger:
        with pytest.raises(LedgerError, match="locked"):
            ledger.append(entries(50, 1))
        assert len(list(ledger.entries())) == 50, "readers are not stopped by a writer"
        holder.execute("ROLLBACK")
        assert ledger.append(entries(50, 1)) == 1
    holder.close()


def test_two_handles_take_turns(path: Path) -> None:
    """Each goes on from where the other stopped, knows the other's keys, and after a refused batch the chain is whole."""
    with SqliteLedger(path) as one, SqliteLedger(path) as two:
        for i in range(50, 60):
            assert (one if i % 2 else two).append(entries(i, 1)) == 1
        assert two.append(entries(58, 4)) == 2, "two of the four were written by the other handle, or by this one"
        assert one.append(entries(58, 4)) == 0
        clash = [Entry(kind="k", subject="s61", at=START, body={"n": -1}, key="k:61")]
        with pytest.raises(ConflictError):
            one.append([*entries(62, 1), *clash])
        assert one.append(entries(62, 1), states={"s": b"new"}) == 1
        assert two.append([]) == 0
        assert two.append([*entries(63, 1), *entries(63, 1)]) == 1, "once, though twice in the batch"
        assert one.verify() == two.verify() == one.head == two.head
        assert one.head.sequence == 64
        assert [r.entry.body["n"] for r in two.entries()] == list(range(64))


def test_full_disk_loses_nothing(path: Path) -> None:
    """When there is no more room, the append raises, nothing of it is kept, and it succeeds once there is room."""
    with SqliteLedger(path) as ledger:
        pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
        ledger._db.execute(f"PRAGMA max_page_count={pages}")
        big = [Entry(kind="k", subject="big", at=START, body={"x": "y" * 50_000}, key="big")]
        with pytest.raises(LedgerError, match="full"):
            ledger.append([*entries(50, 1), *big])
        assert ledger.verify().sequence == 50
        ledger._db.execute("PRAGMA max_page_count=1000000")
        assert ledger.append([*entries(50, 1), *big]) == 2
        ledger.verify()


def test_read_only_ledger_can_be_read(path: Path) -> None:
    """A ledger opened for reading is read and verified; writing raises."""
    with SqliteLedger(path, read_only=True) as ledger:
        assert ledger.verify().sequence == 50
        with pytest.raises(LedgerError, match=r"read-?only"):
            ledger.append(entries(50, 1))


def test_a_copy_is_a_ledger(path: Path, tmp_path: Path) -> None:
    """Closed, the ledger is one file; a copy of it is the same ledger."""
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    with SqliteLedger(copy) as ledger:
        assert ledger.verify().sequence == 50


def _write(path: Path, name: str) -> None:
    with SqliteLedger(path, busy_timeout=60) as ledger:
        for i in range(40):
            ledger.append([Entry(kind="k", subject=name, at=START, body={"i": i}, key=f"{name}:{i}")])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_write_one_chain(path: Path) -> None:
    """Records of processes that write at the same time form one unbroken chain and none is lost."""
    writers = []
    for name in ("one", "two"):
        writers.append(os.fork())
        if writers[-1] == 0:
            try:
                _write(path, name)
                os._exit(0)
            finally:  # the child must never return into the test runner
                os._exit(1)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in writers] == [0, 0]
    with SqliteLedger(path) as ledger:
        assert ledger.verify().sequence == 130
        for name in ("one", "two"):
            assert [r.entry.body["i"] for r in ledger.entries(subject=name)] == list(range(40))
