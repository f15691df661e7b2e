"""The ledgers that every promise is tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from closedloop.ledger import MemoryLedger, SqliteLedger

LEDGERS: dict[str, Callable[[Path], Any]] = {
    "memory": lambda folder: MemoryLedger(),
    "sqlite": lambda folder: SqliteLedger(folder / "ledger.db"),
}


@pytest.fixture(params=sorted(LEDGERS))
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = LEDGERS[request.param](tmp_path)
    yield made
    made.close()
