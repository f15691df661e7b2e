"""Sums by integer keys: the settled part of what attribution remembers.

Law of this file: tables add. Keys are sorted and distinct, counts are integers (credit in units of 2**-32 conversion, money in
millionths), so adding is exact and in any order the same; squared revenue is the one float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.arms import IntArray

ONE = 1 << 32  # one conversion, in fixed-point units


@attrs.frozen(kw_only=True, eq=False)
class Table:
    """Sparse sums.

    Args:
        keys: Key columns by name, int64, sorted lexicographically as a whole, each combination once.
        sums: Value columns by name, of the same length.

    >>> t = Table.of({"day": np.array([2, 1, 2])}, {"n": np.array([1, 10, 100])})
    >>> t.keys["day"].tolist(), t.sums["n"].tolist()
    ([1, 2], [10, 101])
    """

    keys: Mapping[str, IntArray]
    sums: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.keys.values())))

    @classmethod
    def of(cls, keys: Mapping[str, npt.NDArray[Any]], values: Mapping[str, npt.NDArray[Any]]) -> Table:
        """Return the sums of ``values`` by ``keys`` (columns of one length, in any order)."""
        columns = {name: np.asarray(k, dtype=np.int64) for name, k in keys.items()}
        names = list(columns)
        n = len(columns[names[0]])
        if n == 0:
            return cls(keys=columns, sums={name: np.asarray(v) for name, v in values.items()})
        packed = _packed([columns[name] for name in names])
        order = np.lexsort([columns[name] for name in reversed(names)]) if packed is None else np.argsort(packed, kind="stable")
        new = np.zeros(n, dtype=np.bool_)
        new[0] = True
        for name in names:
            sorted_column = columns[name][order]
            new[1:] |= sorted_column[1:] != sorted_column[:-1]
        starts = np.flatnonzero(new)
        return cls(
            keys={name: k[order][starts] for name, k in columns.items()},
            sums={name: np.add.reduceat(np.asarray(v)[order], starts) for name, v in values.items()},
        )

    @classmethod
    def add(cls, parts: Sequence[Table]) -> Table:
        """Return the sum of tables with the same columns."""
        parts = [p for p in parts if len(p)] or list(parts[:1])
        if len(parts) == 1:
            return parts[0]
        return cls.of(
            {name: np.concatenate([p.keys[name] for p in parts]) for name in parts[0].keys},
            {name: np.concatenate([p.sums[name] for p in parts]) for name in parts[0].sums},
        )

    def take(self, index: npt.ArrayLike) -> Table:
        """Return the entries at ``index`` (a mask, or sorted positions)."""
        at = np.asarray(index)
        return Table(keys={n: k[at] for n, k in self.keys.items()}, sums={n: v[at] for n, v in self.sums.items()})

    def renamed(self, name: str, new_of_old: IntArray) -> Table:
        """Return the table with one key column mapped by an order-preserving table of new codes."""
        return attrs.evolve(self, keys={n: new_of_old[k] if n == name else k for n, k in self.keys.items()})


def _packed(columns: list[IntArray]) -> IntArray | None:
    """Return one int64 that orders as the columns do, None where it would not fit."""
    packed = np.zeros(len(columns[0]), dtype=np.int64)
    room = 1
    for column in columns:
        low = int(column.min())
        size = int(column.max()) - low + 1
        room *= size
        if room >= 2**62:
            return None
        packed = packed * size + (column - low)
    return packed


COHORT_KEYS, COHORT_SUMS = ("arm", "day", "kind"), ("exposures", "credit", "credit_squared", "value", "value_squared")
DELAY_KEYS, DELAY_SUMS = ("day", "kind", "group", "bin"), ("credit",)
SPEND_KEYS, SPEND_SUMS = ("arm", "day"), ("spend",)
PATH_KEYS, PATH_SUMS = ("day", "path"), ("won", "value", "lost")
DAY_KEYS, DAY_SUMS = ("day",), ("conversions", "uncredited", "dropped", "excess")


def empty(keys: Sequence[str], sums: Sequence[str]) -> Table:
    """Return a table without entries."""
    kinds = {"value_squared": np.float64}
    return Table(keys={n: np.empty(0, dtype=np.int64) for n in keys}, sums={n: np.empty(0, dtype=kinds.get(n, np.int64)) for n in sums})
