"""No secret reaches the ledger, whatever an adapter or its client says in an error."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from closedloop.errors import AuthenticationError
from closedloop.execute import OutboxExecutor
from closedloop.ledger import SqliteLedger
from closedloop.records.action import AttemptResult, Change, TargetState
from closedloop.records.decision import Target
from closedloop.records.money import Money

START = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = "EAAGsecret0123456789"
URL = f"https://graph.example/v26.0/1?access_token={SECRET}"


class Careless:
    """An adapter that lets its client's exceptions through, with the whole URL in their text."""

    quiet_period = 0.0

    def __init__(self, *, read_error: Callable[[], Exception] | None = None, send_error: Callable[[], Exception] | None = None) -> None:
        self._read_error, self._send_error = read_error, send_error

    def read(self, target: Target, *, now: datetime) -> TargetState:
        if self._read_error is not None:
            raise self._read_error()
        return TargetState(target=target, budget=Money.of(100, "EUR"), active=True, read_at=now)

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        if self._send_error is not None:
            raise self._send_error()
        return AttemptResult(status="accepted")


@pytest.mark.parametrize("make", [ConnectionError, ValueError, RuntimeError, KeyError, lambda text: OSError(5, text)])
@pytest.mark.parametrize("where", ["read_error", "send_error"])
def test_unforeseen_errors_leave_only_their_type(tmp_path: Path, make: Callable[[str], Exception], where: str) -> None:
    """An exception with the token in its text becomes a state and a type's name; the file holds no trace of the token."""
    platform = Careless(**{where: lambda: make(f"GET {URL} failed")})  # type: ignore[arg-type]
    path = tmp_path / "ledger.db"
    with SqliteLedger(path) as ledger:
        executor = OutboxExecutor(ledger, {"careless": platform}, expiry=timedelta(hours=1))
        change = Change(action_id="x", target=Target("careless", "a"), budget=Money.of(120, "EUR"))
        executor.submit("p", [change], now=START, reason="test")
        now = START
        for _ in range(8):
            now += timedelta(minutes=7)
            executor.tick(now)
        receipt = executor.receipts("p")[0]
        assert receipt.state in ("recorded", "unknown", "expired")
        assert "adapter raised" in receipt.message or receipt.code in ("NOT_APPLIED", "ATTEMPTS")
        written = b"".join(p.read_bytes() for p in tmp_path.iterdir())
        assert SECRET.encode() not in written
        assert b"adapter raised" in written
        ledger.verify()


def test_a_revoked_token_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    """A platform whose credentials do not serve is asked rarely, its words stay on the receipt, and other platforms are not held up."""
    asked = []

    def refuse() -> Exception:
        asked.append(1)
        return AuthenticationError("the token was revoked", None, None, "renew it")

    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        fine = Careless()
        executor = OutboxExecutor(ledger, {"bad": Careless(read_error=refuse), "fine": fine})
        budget = Money.of(100, "EUR")
        targets = [Target(name, f"r{i}") for name in ("bad", "fine") for i in range(5)]
        changes = [Change(action_id=str(target), target=target, budget=budget) for target in targets]
        receipts = executor.submit("p", changes, now=START, reason="test")
        assert [r.state for r in receipts] == ["recorded"] * 5 + ["confirmed"] * 5
        assert (receipts[0].code, receipts[0].message) == ("AUTHENTICATION", "the token was revoked renew it")
        assert len(asked) == 1, "one failure speaks for the whole platform"
        for minute in range(60):
            executor.tick(START + timedelta(minutes=minute))
        assert len(asked) < 12
