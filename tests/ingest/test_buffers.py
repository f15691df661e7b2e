"""Texts as machine words: the same answer as a hash table of strings, whatever the texts, with collisions made on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

pa = pytest.importorskip("pyarrow")

from closedloop.ingest import buffers  # noqa: E402
from closedloop.ingest.buffers import FEWEST_ROWS, Words, holds_nul, longest_bytes, numbered, perhaps_repeated, text_array  # noqa: E402

N = FEWEST_ROWS + 5_000


def texts(kind: str) -> list[str | None]:
    """Columns of many distinct texts, a tenth of them repeated."""
    rng = np.random.default_rng(7)
    number = rng.integers(0, N * 4, N)
    number[rng.integers(0, N, N // 10)] = number[rng.integers(0, N, N // 10)]
    made: dict[str, Any] = {
        "short": lambda i: f"u{i % 99_999}",
        "eight": lambda i: f"{i:08d}",
        "long": lambda i: f"{i:032x}-{i % 7}",
        "prefix": lambda i: f"customer-number-{i:09d}",
        "ragged": lambda i: "x" * (i % 40) + str(i),
        "unicode": lambda i: "\u00e9" * (i % 3) + chr(0x4E00 + i % 20_000) + str(i % 10),
        "nul": lambda i: "ab\0" * (i % 3) + str(i) + "\0" * (i % 4),
        "missing": lambda i: None if i % 5 == 0 else "" if i % 7 == 0 else str(i),
    }
    return [made[kind](int(i)) for i in number]


KINDS = ["short", "eight", "long", "prefix", "ragged", "unicode", "nul", "missing"]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_a_hash_table(kind: str) -> None:
    """Equal texts share a number, distinct ones do not, nulls are -1, and the distinct texts come sorted."""
    column = texts(kind)
    array = pa.array([None, *column, None], pa.large_string()).slice(1, N)  # an array that begins inside its buffer
    found = numbered(array)
    assert found is not None
    codes, distinct = found
    listed = distinct.to_pylist()
    assert listed == sorted({t for t in column if t is not None})
    assert [None if c < 0 else listed[c] for c in codes.tolist()] == column


@pytest.mark.parametrize("kind", KINDS)
def test_every_repeated_text_is_among_the_candidates(kind: str) -> None:
    """No text that occurs twice is missed, and not every row is a candidate."""
    column = [t for t in texts(kind) if t is not None]
    rows = perhaps_repeated(pa.array(column, pa.large_string()))
    assert rows is not None or kind == "missing"
    repeated = np.flatnonzero(pd.Series(column, dtype=object).duplicated(keep=False))
    if rows is not None:
        assert set(repeated.tolist()) <= set(rows.tolist())
        assert len(rows) < len(column)


def test_equal_hashes_do_not_make_equal_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hash that many texts share nothing is merged: the column is left to the ordinary way."""
    array = pa.array([f"a rather long text {i}" for i in range(N)], pa.large_string())
    true = Words.hashes
    monkeypatch.setattr(Words, "hashes", lambda self: (true(self)[0] % np.uint64(N // 2), False))
    assert numbered(array) is None
    rows = perhaps_repeated(array)
    assert rows is None or len(rows) == N


def test_hashes_that_differ_in_low_bits_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the shortcut to the sorting order mixes hashes, they are put in order among themselves and the answer stays."""
    column = [f"u{i % 15_000}" for i in np.random.default_rng(1).permutation(N)]
    true = Words.hashes
    monkeypatch.setattr(Words, "hashes", lambda self: (true(self)[0] >> np.uint64(40), False))
    found = numbered(pa.array(column, pa.large_string()))
    assert found is None or [found[1][int(c)].as_py() for c in found[0][:100]] == column[:100]
    rng = np.random.default_rng(2)
    for high in (0, 1, 5_000):  # all in one run, in two, and two or three in most
        h = rng.integers(0, 900, N).astype(np.uint64) + (rng.integers(0, high + 1, N).astype(np.uint64) << np.uint64(40))
        order, starts = buffers._grouping_order(h)
        assert np.array_equal(h[order], np.sort(h))
        assert sorted(order.tolist()) == list(range(N))
        assert np.array_equal(h[order[starts]], np.unique(h))
        assert all((np.diff(group) > 0).all() for group in np.split(order, starts[1:])[:500])


def test_eight_bytes_are_told_apart_for_certain_unless_a_control_character_ends_them() -> None:
    """Hashes of up to eight bytes are one to one; the texts made to share one are noticed, and told apart by their bytes."""
    plain = Words.of(pa.array([f"{i:08d}" for i in range(N)] + ["u7", "\u00e9" * 4], pa.large_string()))
    assert plain is not None
    h, certain = plain.hashes()
    assert certain
    assert len(np.unique(h)) == N + 2
    clash = ["abcdefg", "abcdefg\x0f", *(f"{i:08d}" for i in range(N))]
    words = Words.of(pa.array(clash, pa.large_string()))
    assert words is not None
    h, certain = words.hashes()
    assert h[0] == h[1]
    assert not certain
    found = numbered(pa.array(clash, pa.large_string()))
    assert found is None or found[0][0] != found[0][1]


def test_what_is_left_to_the_ordinary_way() -> None:
    """Few rows, few distinct texts, one very long text, columns that are not Arrow's."""
    assert numbered(pa.array([str(i) for i in range(100)], pa.large_string())) is None
    assert numbered(pa.array([str(i % 9) for i in range(N)], pa.large_string())) is None
    assert numbered(pa.array(["x" * 600, *(str(i) for i in range(N))], pa.large_string())) is None
    assert perhaps_repeated(pa.array(["x" * 600, *(str(i) for i in range(N))], pa.large_string())) is None
    assert text_array(pd.Series(["a"], dtype=object)) is None
    assert text_array(pd.Series([1.5])) is None


def test_bytes_of_a_column() -> None:
    """Longest text and NUL are those of the rows that are there, not of the buffer they were cut from."""
    array = pa.array(["a" * 99, "b\0", "c", None, "\u00e9\u00e9"], pa.large_string())
    assert (longest_bytes(array), holds_nul(array)) == (99, True)
    assert (longest_bytes(array.slice(2)), holds_nul(array.slice(2))) == (4, False)
