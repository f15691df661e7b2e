"""How far back the present goes: the posterior of the last break of a rate, by exact summation over segmentations.

Law of this file: arrays in, arrays out. Counts come in blocks of time, oldest first; a break can happen between blocks only.
The sum runs over all segmentations (a product-partition model), so no earlier state is needed and the answer does not depend
on when it was last asked: unlike an online filter it can be recomputed after any restatement.

References:
    Barry & Hartigan (1992), "Product partition models for change point problems", Annals of Statistics 20;
    Adams & MacKay (2007), "Bayesian online changepoint detection", for the same posterior as a filter over run lengths.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]

_CHUNK = 16_384  # units whose blocks stay in the processor's cache


def last_break(
    count: FloatArray,
    exposure: FloatArray,
    days: FloatArray,
    *,
    k: FloatArray,
    mu: FloatArray,
    k_after: float | FloatArray,
    hazard: float,
) -> FloatArray:
    """Return the posterior of where the last segment of each unit begins.

    Each segment's rate is drawn anew: the first from Gamma(k, k / mu), later ones from Gamma(k_after, k_after / mu).

    Args:
        count, exposure: Per unit and block, oldest block first, shape (A, B).
        days: Length of each block in days, shape (B,).
        k, mu: Concentration and mean of the first segment's prior, shape (A,).
        k_after: Concentration after a break; small means that a break can lead anywhere.
        hazard: Probability of a break per day, in [0, 1).

    Returns:
        Probabilities, shape (A, B), rows sum to 1; entry 0 is "never broke".

    >>> prior = {"k": np.ones(1), "mu": np.full(1, 0.05), "k_after": 1.0, "hazard": 0.01}
    >>> calm = last_break(np.array([[50.0, 50.0]]), np.array([[1e3, 1e3]]), np.ones(2), **prior)
    >>> broken = last_break(np.array([[50.0, 150.0]]), np.array([[1e3, 1e3]]), np.ones(2), **prior)
    >>> bool(calm[0, 1] < 0.01), bool(broken[0, 1] > 0.99)
    (True, True)
    """
    n, blocks = count.shape
    out = np.empty((n, blocks))
    k_later = np.broadcast_to(np.asarray(k_after, dtype=np.float64), (n,))
    for start in range(0, n, _CHUNK):
        at = slice(start, start + _CHUNK)
        out[at] = _last_break(count[at], exposure[at], days, k[at], mu[at], k_later[at], hazard)
    return out


def _last_break(
    count: FloatArray, exposure: FloatArray, days: FloatArray, k: FloatArray, mu: FloatArray, k_after: FloatArray, hazard: float
) -> FloatArray:
    n, blocks = count.shape
    if blocks == 1 or hazard == 0.0:
        only = np.zeros((n, blocks))
        only[:, 0] = 1.0
        return only
    # Sums of the last blocks: c[i] holds blocks i.. ; a segment [i, j) is a difference.
    c = np.concatenate([np.cumsum(count.T[::-1], axis=0)[::-1], np.zeros((1, n))])
    x = np.concatenate([np.cumsum(exposure.T[::-1], axis=0)[::-1], np.zeros((1, n))])
    log_stay = np.log1p(-hazard)
    # A break between blocks j - 1 and j may have happened on any day of block j - 1's length around the border.
    gap = 0.5 * (days[1:] + days[:-1])
    log_break = np.log(-np.expm1(gap * log_stay))
    constant = {True: k * np.log(k / mu) - special.gammaln(k), False: k_after * np.log(k_after / mu) - special.gammaln(k_after)}
    prior = {True: (k, k / mu), False: (k_after, k_after / mu)}

    def segment(i: int, j: int) -> FloatArray:
        """Log evidence of blocks i..j-1 as one segment, the constant of the counts left out."""
        shape, rate = prior[i == 0]
        s = shape + np.maximum(c[i] - c[j], 0.0)
        value = constant[i == 0] + special.gammaln(s) - s * np.log(rate + np.maximum(x[i] - x[j], 0.0))
        inside = gap[i : j - 1].sum() * log_stay  # no break inside the segment
        return np.asarray(value + inside)

    ended = [np.zeros(n)]  # log P(data of blocks < j, a segment ends at j)
    last = np.empty((n, blocks))
    for j in range(1, blocks + 1):
        terms = np.stack([ended[i] + (log_break[i - 1] if i else 0.0) + segment(i, j) for i in range(j)])
        if j == blocks:
            last = (terms - terms.max(axis=0)).T
        else:
            ended.append(np.asarray(special.logsumexp(terms, axis=0)))
    weight = np.exp(last)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))
