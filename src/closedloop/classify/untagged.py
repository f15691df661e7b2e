"""What untagged events could belong to whom: incomplete arms joined to the complete arms that agree on every tag they have.

Law of this file: it shares nothing out. It says how much could be an arm's own (`by_block`: of each arm on its own), what all arms can own
together (`pool_of`: jointly), and how it would fall if tags were lost at random.

References:
    Manski (2003), "Partial Identification of Probability Distributions", chapters 1 and 2.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.classify.grid import AgeGrid
from closedloop.records.arms import Arms
from closedloop.records.interval import FloatArray
from closedloop.records.pool import Pool
from closedloop.stats.gamma_poisson import totals

Index = npt.NDArray[np.intp]


@attrs.frozen(kw_only=True, eq=False)
class Pattern:
    """Incomplete arms with the same tags missing, joined to the complete arms that they could be.

    Args:
        n_cells: Number of distinct combinations of the known tags.
        cell_of_ranked: Cell of each ranked arm, shape (A,).
        cell_of_arm: Cell of each arm of the outcomes that has this pattern, -1 for the others.
        block_of_ranked: Which arms agree on the tags that every pattern knows, shape (A,): no untagged event can be of two blocks.
    """

    n_cells: int
    cell_of_ranked: Index
    cell_of_arm: Index
    block_of_ranked: Index


def patterns_of(arms: Arms, ranked: Index) -> list[Pattern]:
    """Return the patterns of missing tags, none where every arm is complete."""
    missing = ~arms.complete
    if not missing.any():
        return []
    known = arms.codes >= 0
    codes = arms.codes[ranked]
    distinct = np.unique(known[missing], axis=0)
    block = np.unique(codes[:, distinct.all(axis=0)], axis=0, return_inverse=True)[1].reshape(-1).astype(np.intp)
    out = []
    for pattern in distinct:
        at = np.flatnonzero(missing & (known == pattern).all(axis=1))
        both = np.concatenate([codes[:, pattern], arms.codes[at][:, pattern]])
        cells, cell = np.unique(both, axis=0, return_inverse=True)
        cell = cell.reshape(-1).astype(np.intp)
        of_arm = np.full(len(arms), -1, dtype=np.intp)
        of_arm[at] = cell[len(ranked) :]
        out.append(Pattern(n_cells=max(len(cells), 1), cell_of_ranked=cell[: len(ranked)], cell_of_arm=of_arm, block_of_ranked=block))
    return out


def by_block(grid: AgeGrid, by: FloatArray, columns: tuple[FloatArray, ...], patterns: list[Pattern], n: int) -> FloatArray:
    """Return the untagged amounts that could be each arm's own, by block of days: of each arm on its own, not jointly.

    Args:
        grid: Where the rows stand.
        by: Weight of each age in each block, shape (D, B).
        columns: One column, or two whose product is meant.
        patterns: As from `patterns_of`.
        n: Number of ranked arms A.

    Returns:
        Shape (A, B).
    """
    found = np.zeros((n, by.shape[1]))
    for p in patterns:
        amount, at = incomplete(grid, by, columns, [p]), np.flatnonzero(p.cell_of_arm >= 0)
        found += np.stack([totals(p.cell_of_arm[at], column[at], p.n_cells) for column in amount.T], axis=1)[p.cell_of_ranked]
    return found


def incomplete(grid: AgeGrid, by: FloatArray, columns: tuple[FloatArray, ...], patterns: list[Pattern]) -> FloatArray:
    """Return weighted sums of every incomplete arm of the outcomes, zero for the others, shape (arms, K); arguments as in `by_block`."""
    out = np.zeros((len(grid.start) - 1, by.shape[1]))
    for p in patterns:
        arms = np.flatnonzero(p.cell_of_arm >= 0)
        for at, cut in grid.cuts(arms):
            out[arms[at]] = cut.table(*columns) @ by
    return out


def at_random(tagged: FloatArray, untagged: FloatArray, patterns: list[Pattern]) -> FloatArray:
    """Return what each arm owns of the untagged per unit of its tagged, if tags are lost at random, shape (A,).

    What could be of several arms is then split as their tagged amounts are.

    Args:
        tagged: Of every ranked arm, shape (A,).
        untagged: Of every arm of the outcomes, zero for complete ones.
    """
    ratio = np.zeros(len(tagged))
    for p in patterns:
        of_cell = totals(p.cell_of_ranked, tagged, p.n_cells)
        at = np.flatnonzero(p.cell_of_arm >= 0)
        lost = totals(p.cell_of_arm[at], untagged[at], p.n_cells)
        ratio += np.divide(lost, of_cell, out=np.zeros(p.n_cells), where=of_cell > 0)[p.cell_of_ranked]
    return ratio


def pool_of(amount: FloatArray, patterns: list[Pattern]) -> Pool:
    """Return what the ranked arms could own of an amount of every arm of the outcomes, shape (arms,)."""
    cells = []
    for p in patterns:
        at = np.flatnonzero(p.cell_of_arm >= 0)
        cells.append(totals(p.cell_of_arm[at], amount[at], p.n_cells))
    return Pool(cells=tuple(cells), cell_of_arm=tuple(p.cell_of_ranked for p in patterns), block=patterns[0].block_of_ranked)
