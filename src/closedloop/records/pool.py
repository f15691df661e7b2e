"""An amount that no one can be named for, and who could own it: the untagged part of the evidence."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray


@attrs.frozen(kw_only=True, eq=False)
class Pool:
    """An untagged amount (conversions, or spend) that A arms could own jointly: it is spent once.

    Each pattern of missing tags is a partition: an amount in a cell can belong to the arms of that cell, which agree on the tags it has,
    and to no other. It need not belong to any of them.

    Args:
        cells: Amount of each cell, one array per pattern.
        cell_of_arm: Cell of each arm, shape (A,), one array per pattern.
        block: Which arms agree on the tags that every pattern knows, shape (A,): no amount can be of two blocks.

    Example:
        >>> pool = Pool(cells=(np.array([5.0, 1.0]),), cell_of_arm=(np.array([0, 0, 1]),), block=np.array([0, 0, 1]))
        >>> pool.own.tolist()  # the first two arms share a cell
        [5.0, 5.0, 1.0]
        >>> float(pool.most(np.ones(3)))  # jointly
        6.0
    """

    cells: tuple[FloatArray, ...]
    cell_of_arm: tuple[npt.NDArray[np.intp], ...]
    block: npt.NDArray[np.intp]

    @property
    def own(self) -> FloatArray:
        """The most that each arm alone could own, shape (A,)."""
        return np.asarray(np.sum([c[at] for c, at in zip(self.cells, self.cell_of_arm, strict=True)], axis=0))

    @property
    def supply(self) -> FloatArray:
        """The most that the arms of each block can own together, shape (blocks,)."""
        out = np.zeros(int(self.block.max(initial=-1)) + 1)
        for amount, of_arm in zip(self.cells, self.cell_of_arm, strict=True):
            block_of_cell = np.full(len(amount), -1)
            block_of_cell[of_arm] = self.block
            used = block_of_cell >= 0
            np.add.at(out, block_of_cell[used], amount[used])
        return out

    def most(self, worth: FloatArray) -> FloatArray:
        """Return the most that the arms can gain together if a unit is worth ``worth`` to each: every cell goes to its dearest arm.

        Args:
            worth: Zero or more, shape (..., A).

        Returns:
            Shape (...).
        """
        gain = np.zeros(worth.shape[:-1])
        for amount, of_arm in zip(self.cells, self.cell_of_arm, strict=True):
            order = np.argsort(of_arm, kind="stable")
            first = np.flatnonzero(np.append(True, np.diff(of_arm[order]) > 0)) if len(order) else order
            if len(first):
                gain = gain + np.maximum.reduceat(worth[..., order], first, axis=-1) @ amount[of_arm[order[first]]]
        return gain

    def take(self, at: npt.NDArray[np.integer]) -> Pool:
        """Return the pool for some of the arms; what the others could own stays in it."""
        return attrs.evolve(self, cell_of_arm=tuple(of_arm[at] for of_arm in self.cell_of_arm), block=self.block[at])
