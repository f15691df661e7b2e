"""Power loss: whatever part of the unflushed writes reaches the disk, every acknowledged record is there and the chain is whole.

A child process appends, under strace, which notes every write and flush of its files and every acknowledgement in their order. From
that list disks are made on which the power fails between any two calls: what was flushed before is there; of every later write any
part may be, by sectors of 512 bytes, in any order, and so may a file's later length. Checkpoints are frequent in the child, so that the
power fails within them too. The same child without the flush of each commit must be caught losing records, else the test sees nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
import pytest

from closedloop.errors import LedgerError
from closedloop.ledger import Head, SqliteLedger

FULL = os.environ.get("CLOSEDLOOP_FULL") == "1"
SECTOR = 512
FILES = ("ledger.db", "ledger.db-wal")
_CHILD = """
import os, sys
from datetime import UTC, datetime
from closedloop.ledger import SqliteLedger
from closedloop.records.action import Entry
at = datetime(2026, 1, 1, tzinfo=UTC)
with SqliteLedger(sys.argv[1]) as ledger:
    ledger._db.execute("PRAGMA wal_autocheckpoint=25")
    if sys.argv[2] == "NORMAL":
        ledger._db.execute("PRAGMA synchronous=NORMAL")
    number = 0
    for commit in range(int(sys.argv[3])):
        batch = range(number, number + 1 + commit * 7 % 5)
        entries = [
            Entry(kind="k", subject=f"s{i % 9}", at=at, body={"n": i, "text": "x" * (i * 97 % 1500)}, key=f"k{i}", is_open=i % 2 == 0)
            for i in batch
        ]
        ledger.append(entries, states={"s": str(commit).encode() * 50})
        number = batch.stop
        os.write(1, f"ack {number} {commit} {ledger.head.digest}\\n".encode())
"""
_CALL = re.compile(r"(pwrite64|write|fdatasync|fsync|ftruncate)\((\d+)<([^>]*)>(?:, (.*))?\) += (-?\d+)")


@attrs.define
class File:
    """One file on the disk: what was flushed, and what may or may not have arrived since."""

    flushed: bytearray = attrs.field(factory=bytearray)
    pending: list[tuple[int, bytes | None]] = attrs.field(factory=list)  # (offset, data), or (length, None)

    @staticmethod
    def _put(content: bytearray, at: int, data: bytes | None) -> None:
        if data is None:
            content[at:] = bytes(max(0, at - len(content)))
            return
        content.extend(bytes(max(0, at + len(data) - len(content))))
        content[at : at + len(data)] = data

    def flush(self) -> None:
        for at, data in self.pending:
            self._put(self.flushed, at, data)
        self.pending = []

    def after_power_loss(self, rng: np.random.Generator) -> bytes:
        """Return what the disk holds when any part of the pending writes has arrived."""
        content, keep = bytearray(self.flushed), rng.choice([0.0, 0.5, 0.9, 1.0])
        for at, data in self.pending:
            if data is None:
                if rng.random() < keep:
                    self._put(content, at, None)
                continue
            for begin in range(0, len(data), SECTOR):
                if rng.random() < keep:
                    self._put(content, at + begin, data[begin : begin + SECTOR])
        return bytes(content)


def run(folder: Path, synchronous: str, commits: int) -> list[Call]:
    """Run the child under strace and return its calls; skip where no process may be traced."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    noted = folder / "calls"
    options = ["-f", "--seccomp-bpf", "-y", "-xx", "-s", "70000", "-e", "trace=pwrite64,write,fdatasync,fsync,ftruncate", "-o", str(noted)]
    child = [sys.executable, "-c", _CHILD, str(folder / "ledger.db"), synchronous, str(commits)]
    done = subprocess.run([strace, *options, *child], capture_output=True, text=True, check=False)
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("this system does not let a process be traced")
    assert done.returncode == 0, done.stderr
    return list(calls(noted.read_text().splitlines()))


@attrs.frozen
class Call:
    """A call on one of the ledger's files: a write, a new length, or a flush; or what had been acknowledged from here on."""

    name: str
    at: int = 0
    data: bytes | None = None
    flush: bool = False
    acknowledged: tuple[int, int, str] | None = None  # records, commit, digest of the last


def calls(lines: list[str]) -> Iterator[Call]:
    """Yield the calls that strace noted."""
    for line in lines:
        found = _CALL.search(line)
        if found is None:
            continue
        call, descriptor, path, rest, result = found.groups()
        name = Path(bytes.fromhex(path.replace("\\x", "")).decode() if path.startswith("\\x") else path).name
        text = re.match(r'"((?:\\x[0-9a-f]{2})*)"', rest or "")
        data = b"" if text is None else bytes.fromhex(text[1].replace("\\x", ""))
        if descriptor == "1" and data.startswith(b"ack "):
            _, number, commit, digest = data.decode().split()
            yield Call("", acknowledged=(int(number), int(commit), digest))
        elif name in FILES and call == "pwrite64":
            assert len(data) == int(result), "the whole of each write is noted"
            yield Call(name, int((rest or "").rsplit(", ", 1)[1], 0), data)
        elif name in FILES and call == "ftruncate":
            yield Call(name, int(rest or "", 0))
        elif name in FILES:
            yield Call(name, flush=True)


def disks(noted: list[Call]) -> Iterator[tuple[dict[str, File], tuple[int, int, str] | None]]:
    """Yield the disk after each call, with the last acknowledgement."""
    files = {name: File() for name in FILES}
    acknowledged = None
    for call in noted:
        if call.acknowledged is not None:
            acknowledged = call.acknowledged
        elif call.flush:
            files[call.name].flush()
        else:
            files[call.name].pending.append((call.at, call.data))
        yield files, acknowledged


def losses(noted: list[Call], folder: Path, images: int, seed: int) -> tuple[list[str], int]:
    """Let the power fail at ``images`` random calls, and return what was wrong and how many images held writes in flight."""
    rng = np.random.default_rng(seed)
    first = next(i for i, call in enumerate(noted) if call.acknowledged is not None)
    chosen = np.bincount(rng.integers(first, len(noted), images), minlength=len(noted))
    wrong, in_flight = [], 0
    for i, (files, acknowledged) in enumerate(disks(noted)):
        for _ in range(chosen[i]):
            place = folder / "image"
            place.mkdir()
            for name, file in files.items():
                (place / name).write_bytes(file.after_power_loss(rng))
                in_flight += bool(file.pending)
            assert acknowledged is not None
            try:
                check(place / "ledger.db", *acknowledged)
            except (LedgerError, AssertionError) as error:
                wrong.append(f"call {i}: {error}")
            shutil.rmtree(place)
    return wrong, in_flight


def check(path: Path, number: int, commit: int, digest: str) -> None:
    """Check that everything acknowledged is there, and of the next commit all or nothing."""
    with SqliteLedger(path) as ledger:
        end = ledger.verify(Head(number, digest))
        following = (0, 1 + (commit + 1) * 7 % 5)
        assert end.sequence - number in following, f"{end.sequence - number} records of a commit of {following[1]}"
        whole = end.sequence > number
        assert ledger.state("s") == str(commit + whole).encode() * 50
        assert [r.entry.body["n"] for r in ledger.entries()] == list(range(end.sequence))


def test_power_loss_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """At any call, with any part of the unflushed writes on the disk: all acknowledged records, and a whole chain.

    The calls themselves say so too: between two acknowledgements the log is written, then flushed, and nothing of it is in flight then.
    """
    noted = run(tmp_path, "FULL", 40)
    wrong, in_flight = losses(noted, tmp_path, 5000 if FULL else 50, seed=1)
    assert wrong == []
    assert in_flight > 20, "most images are made while writes are in flight"
    replies = [bool(files["ledger.db-wal"].pending) for call, (files, _) in zip(noted, disks(noted), strict=True) if call.acknowledged]
    assert replies == [False] * 40
    written = sum(call.name == "ledger.db-wal" and call.data is not None for call in noted)
    assert written > 40 * 5, "the log's writes are seen"
    assert sum(call.name == "ledger.db" and call.flush for call in noted) > 5, "checkpoints are among them"


def test_without_the_flush_records_are_lost(tmp_path: Path) -> None:
    """What the test would see if a commit were acknowledged before it is flushed."""
    wrong, _ = losses(run(tmp_path, "NORMAL", 20), tmp_path, 20, seed=2)
    assert len(wrong) > 3
