"""Rows by arm and day as small dense tables, one row per arm and one column per age in days.

Law of this file: it knows rows, arms and ages, and nothing of what the columns mean. Tables are cut for some arms at a time, small enough
to stay in the processor's cache, always in the order asked for; memory beyond the input is that of one cut.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray

Index = npt.NDArray[np.intp]

_CELLS = 131_072  # cells of one table
_RANGE = 512  # widest range of ages that has one column per day; beyond, only ages that occur have one


@attrs.frozen(kw_only=True, eq=False)
class AgeGrid:
    """Rows sorted by arm.

    Args:
        start: First row of each arm, and the number of rows at the end, shape (arms + 1,).
        rows: Where each row stands in the source's columns, None where they are the same.
        ages: Age of each table column in days, oldest first, shape (D,).
        age: Age of each row, shape (N,); None where every arm has each age once, in the order of ``ages``.
    """

    start: Index
    rows: Index | None
    ages: FloatArray
    age: npt.NDArray[np.int64] | None

    @classmethod
    def of(cls, arm: npt.NDArray[np.integer], day: npt.NDArray[np.integer], marks: FloatArray, rows: Index | None = None) -> AgeGrid:
        """Return the grid of some rows.

        Args:
            arm, day: Of every row of the source.
            marks: First day not complete of each arm, shape (arms,): age is this less the day.
            rows: The rows to use, None for all.
        """
        if rows is not None:
            arm, day = arm[rows], day[rows]
        if len(arm) > 1 and not bool((arm[1:] >= arm[:-1]).all()):
            order = np.argsort(arm, kind="stable")
            rows = order if rows is None else rows[order]
            arm, day = arm[order], day[order]
        n = len(marks)
        mark = marks.astype(np.int64)
        same = bool((mark == mark[0]).all()) if n else True
        width = len(arm) // max(n, 1)
        if same and 0 < width <= _RANGE and _regular(arm, day, n, width):
            ages = mark[0] - day[:width].astype(np.float64)
            return cls(start=np.arange(n + 1, dtype=np.intp) * width, rows=rows, ages=ages, age=None)
        start = np.append(0, np.cumsum(np.bincount(arm, minlength=n))).astype(np.intp)
        age = mark[0] - day if same and n else mark[arm] - day
        oldest, newest = (int(age.max()), int(age.min())) if len(age) else (0, 0)
        ages = np.arange(oldest, newest - 1, -1) if oldest - newest < _RANGE else np.unique(age)[::-1]
        return cls(start=start, rows=rows, ages=ages.astype(np.float64), age=age.astype(np.int64))

    def cuts(self, arms: Index) -> Iterator[tuple[slice, Cut]]:
        """Yield places in ``arms`` and the tables of the arms there, in order."""
        size = max(_CELLS // max(len(self.ages), 1), 16)
        for first in range(0, len(arms), size):
            place = slice(first, min(first + size, len(arms)))
            yield place, self.cut(arms[place])

    def cut(self, arms: Index) -> Cut:
        """Return the tables of some arms."""
        width = len(self.ages)
        if self.age is None:
            whole = len(arms) == len(self.start) - 1 and bool((arms == np.arange(len(arms))).all())
            return Cut(grid=self, arms=arms, whole=whole, rows=None, cell=None)
        first, end = self.start[arms], self.start[arms + 1]
        length = end - first
        place = np.repeat(first - np.append(0, np.cumsum(length)[:-1]), length) + np.arange(length.sum())
        age = self.age[place]
        if width and self.ages[0] - self.ages[-1] + 1 == width:
            column = int(self.ages[0]) - age
        else:
            column = width - 1 - np.searchsorted(self.ages[::-1], age)
        cell = np.repeat(np.arange(len(arms)) * width, length) + column
        return Cut(grid=self, arms=arms, whole=False, rows=place if self.rows is None else self.rows[place], cell=cell)


def _regular(arm: npt.NDArray[np.integer], day: npt.NDArray[np.integer], n: int, width: int) -> bool:
    """Whether every one of ``n`` arms (sorted) has the same ``width`` days one after the other."""
    if len(arm) != n * width:
        return False
    arms, days = arm.reshape(n, width), day.reshape(n, width)
    each = np.arange(n)
    if not (bool((arms[:, 0] == each).all()) and bool((arms[:, -1] == each).all()) and bool((np.diff(days[0]) == 1).all())):
        return False
    return bool((days == days[0]).all())


@attrs.frozen(kw_only=True, eq=False)
class Cut:
    """The rows of some arms, ready to be laid out as tables; see `AgeGrid`."""

    grid: AgeGrid
    arms: Index
    whole: bool
    rows: Index | None
    cell: Index | None

    def table(self, column: FloatArray, factor: FloatArray | None = None) -> FloatArray:
        """Return a column of the source (times another one) by arm and age, shape (arms, D); zero where there is no row."""
        width = len(self.grid.ages)
        shape = (len(self.arms), width)
        if self.cell is None:
            return self._regular(column) if factor is None else self._regular(column) * self._regular(factor)
        values = column[self.rows] if factor is None else column[self.rows] * factor[self.rows]
        return np.asarray(np.bincount(self.cell, values, shape[0] * width).reshape(shape), dtype=np.float64)

    def _regular(self, column: FloatArray) -> FloatArray:
        width = len(self.grid.ages)
        if self.grid.rows is not None:
            return np.asarray(column[self.grid.rows.reshape(-1, width)[self.arms]])
        by_arm = column.reshape(-1, width)
        return by_arm if self.whole else by_arm[self.arms]

    def sum(self, column: FloatArray) -> FloatArray:
        """Return the sum of a column of the source per arm, shape (arms,)."""
        return np.asarray(self.table(column).sum(axis=1))
