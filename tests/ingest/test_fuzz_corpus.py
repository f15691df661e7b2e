"""Every input that fuzzing kept is replayed: nothing but InputError, rows in are rows out, nothing active in any report."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = Path(__file__).resolve().parents[1] / "fuzz"
INPUTS = sorted(p for p in (FUZZ / "corpus").glob("*/*") if p.is_file())


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_ingest", FUZZ / "fuzz_ingest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_corpus() -> None:
    """A replay of nothing would always pass."""
    assert len({p.parent.name for p in INPUTS}) == 3
    assert len(INPUTS) >= 25


@pytest.mark.parametrize("path", INPUTS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_replay(path: Path, harness: ModuleType) -> None:
    """One kept input keeps every promise of its door."""
    harness.one(path.parent.name, path.read_bytes())
