"""Ledgers written by earlier versions stay readable, and work goes on from them.

``assets/format1.db`` was written once by the version that introduced format 1: a plan of three decisions of which one was accepted,
one lost its reply and one was refused, and a state. It is never written again; a new format adds a file of its own.
"""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from closedloop.execute import OutboxExecutor
from closedloop.ledger import SqliteLedger, decode
from closedloop.ledger.chain import FORMAT
from closedloop.platforms import SimulatedPlatform
from closedloop.records.action import Action
from closedloop.records.decision import Decision
from closedloop.records.money import Money

ASSETS = Path(__file__).parent / "assets"
END = "ed7a71bda58888b341d8cc01f431f7f23e40cc4d87cb0ad683dac96d7b9feaa1"  # noted when the file was written
START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copy(ASSETS / "format1.db", tmp_path / "loop.db"))


def test_every_format_has_a_file() -> None:
    """No format is without an asset."""
    assert sorted(p.name for p in ASSETS.glob("*.db")) == [f"format{n}.db" for n in range(1, FORMAT + 1)]


def test_it_is_read_and_verified(old: Path) -> None:
    """Every record is there, is what was written, and decodes to the records of today."""
    with SqliteLedger(old) as ledger:
        end = ledger.verify()
        assert (end.sequence, end.digest) == (17, END)
        assert ledger.state("attribution") == bytes(range(256))
        kinds = Counter(r.entry.kind for r in ledger.entries())
        assert kinds == {"execution": 1, "action": 9, "request": 7}  # recorded, sending, answered; looks before, sends, one look after
        actions = [decode(r.entry.body["action"]) for r in ledger.entries(kind="action")]
        assert all(isinstance(a, Action) for a in actions)
        plan = ledger.newest("execution", subject="p1")[0].entry.body
        decisions = [decode(d) for d in plan["decisions"]]
        assert [type(d) for d in decisions] == [Decision] * 3
        assert decisions[0].after == Money.of(120, "EUR")
        assert decisions[0].triggers == {"volume": 80.0}


def test_work_goes_on_from_it(old: Path) -> None:
    """An executor of today settles what was open then, sending nothing a second time."""
    platform = SimulatedPlatform({"a": Money.of(100, "EUR"), "b": Money.of(100, "EUR"), "c": Money.of(100, "EUR")})
    for resource, amount in (("a", 120), ("b", 90)):  # what the server did with the old process's requests
        platform.alter(resource, Money.of(amount, "EUR"), at=START + timedelta(minutes=20))
    with SqliteLedger(old) as ledger:
        executor = OutboxExecutor(ledger, {"simulated": platform})
        assert [r.state for r in executor.receipts("p1")] == ["accepted", "unknown", "rejected"]
        assert executor.tick(START + timedelta(minutes=30)) is None
        assert [r.state for r in executor.receipts("p1")] == ["confirmed", "confirmed", "rejected"]
        assert platform.applied() == []
        assert ledger.verify().sequence > 17
