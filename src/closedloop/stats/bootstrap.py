"""Poisson bootstrap of sums over many independent units, as one matrix product.

Law of this file: arrays in, arrays out. Each unit's weight is Poisson with its own count as mean. With very many units they are first put
into random blocks: the block sums, centred, keep the exact covariance of the unit-by-unit bootstrap in expectation, at the cost of the
blocks alone.

References:
    Chamandy, Muralidharan, Najmi & Naidu (2012), Estimating uncertainty for massive data streams. Google technical report.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray

BLOCKS = 1024


def poisson_weights(counts: FloatArray, replicates: int, rng: np.random.Generator) -> FloatArray:
    """Return bootstrap counts, Poisson with mean ``counts`` (shape (U,)); shape (replicates, U)."""
    return rng.poisson(counts, (replicates, len(counts))).astype(np.float64)


def block_replicates(sums: FloatArray, replicates: int, rng: np.random.Generator) -> FloatArray:
    """Return bootstrap replicates of the total of block sums, every unit put into a block by chance.

    Blocks have sizes of their own by that chance, so the spread of their sums holds the spread of the number of units already; nothing may
    be added for it.

    Args:
        sums: Feature sums by block, shape (G, F).
        replicates: How many replicates B.
        rng: Where chance comes from.

    Returns:
        Shape (B, F); a feature of few units can fall below 0.
    """
    blocks = len(sums)
    total = sums.sum(axis=0)
    weights = (rng.poisson(1.0, (replicates, blocks)) - 1.0) * np.sqrt(blocks / (blocks - 1.0))
    return np.asarray(total + weights @ (sums - total / blocks))


def percentile_ends(draws: npt.ArrayLike, level: float) -> tuple[FloatArray, FloatArray]:
    """Return the equal-tailed ends of bootstrap draws of shape (B, A)."""
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.asarray(draws, dtype=np.float64), [tail, 1.0 - tail], axis=0)
    return np.asarray(low), np.asarray(high)
