"""How far back the present goes: calm, breaks and drift of a rate, weighed by their evidence.

Law of this file: arrays in, arrays out. Counts come in blocks of time, oldest first; a break can happen between blocks only.
The sum over breaks runs over all segmentations (a product-partition model), so no earlier state is needed and the answer does not
depend on when it was last asked: unlike an online filter it can be recomputed after any restatement. All evidences leave out the
same constant of the counts, so that they can be compared.

References:
    Barry & Hartigan (1992), "Product partition models for change point problems", Annals of Statistics 20;
    Adams & MacKay (2007), "Bayesian online changepoint detection", for the same posterior as a filter over run lengths;
    Smith & Miller (1986), "A non-Gaussian state space model", for the discounted Gamma-Poisson filter.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    hazards: Sequence[float],
) -> tuple[FloatArray, FloatArray]:
    """Return the posterior of where the last segment of each unit begins, for each probability of a break.

    Each segment's rate is drawn anew: the first from Gamma(k, k / mu), later ones from Gamma(k_after, k_after / mu).

    Args:
        count, exposure: Per unit and block, oldest block first, shape (A, B).
        days: Length of each block in days, shape (B,).
        k, mu: Concentration and mean of the first segment's prior, shape (A,).
        k_after: Concentration after a break; small means that a break can lead anywhere.
        hazards: Probabilities of a break per day, each in [0, 1), H of them.

    Returns:
        Probabilities, shape (H, A, B), that sum to 1 over the last axis and whose entry 0 is "never broke"; log evidence, shape (H, A).

    >>> prior = {"k": np.ones(1), "mu": np.full(1, 0.05), "k_after": 1.0, "hazards": [0.01]}
    >>> calm, _ = last_break(np.array([[50.0, 50.0]]), np.array([[1e3, 1e3]]), np.ones(2), **prior)
    >>> broken, _ = last_break(np.array([[50.0, 150.0]]), np.array([[1e3, 1e3]]), np.ones(2), **prior)
    >>> bool(calm[0, 0, 1] < 0.01), bool(broken[0, 0, 1] > 0.99)
    (True, True)
    """
    n, blocks = count.shape
    since, evidence = np.empty((len(hazards), n, blocks)), np.empty((len(hazards), n))
    k_later = np.broadcast_to(np.asarray(k_after, dtype=np.float64), (n,))
    for start in range(0, n, _CHUNK):
        at = slice(start, start + _CHUNK)
        segment = _segments(count[at], exposure[at], k[at], mu[at], k_later[at])
        for h, hazard in enumerate(hazards):
            since[h, at], evidence[h, at] = _sum_over_breaks(segment, days, hazard)
    return since, evidence


def _segments(count: FloatArray, exposure: FloatArray, k: FloatArray, mu: FloatArray, k_after: FloatArray) -> list[list[FloatArray]]:
    """Return the log evidence of blocks i..j-1 as one segment, at [i][j - i - 1]."""
    n, blocks = count.shape
    # Sums of the last blocks: c[i] holds blocks i.. ; a segment [i, j) is a difference.
    c = np.concatenate([np.cumsum(count.T[::-1], axis=0)[::-1], np.zeros((1, n))])
    x = np.concatenate([np.cumsum(exposure.T[::-1], axis=0)[::-1], np.zeros((1, n))])
    out = []
    for i in range(blocks):
        shape = k if i == 0 else k_after
        rate = shape / mu
        constant = shape * np.log(rate) - special.gammaln(shape)
        row = []
        for j in range(i + 1, blocks + 1):
            s = shape + np.maximum(c[i] - c[j], 0.0)
            row.append(constant + special.gammaln(s) - s * np.log(rate + np.maximum(x[i] - x[j], 0.0)))
        out.append(row)
    return out


def _sum_over_breaks(segment: list[list[FloatArray]], days: FloatArray, hazard: float) -> tuple[FloatArray, FloatArray]:
    """Return the posterior of the last segment's first block, shape (A, B), and the log evidence, shape (A,)."""
    blocks = len(segment)
    n = len(segment[0][0])
    if blocks == 1 or hazard == 0.0:
        only = np.zeros((n, blocks))
        only[:, 0] = 1.0
        return only, segment[0][-1]
    # A break between two blocks may have happened on any day between their middles.
    gap = 0.5 * (days[1:] + days[:-1])
    log_stay = gap * np.log1p(-hazard)
    log_break = np.log(-np.expm1(log_stay))
    ended = [np.zeros(n)]  # log P(data of blocks < j, a segment ends at j)
    for j in range(1, blocks + 1):
        terms = np.stack(
            [ended[i] + (log_break[i - 1] if i else 0.0) + segment[i][j - i - 1] + log_stay[i : j - 1].sum() for i in range(j)]
        )
        top = terms.max(axis=0)
        with np.errstate(under="ignore"):
            weight = np.exp(terms - top)
        total = weight.sum(axis=0)
        ended.append(top + np.log(total))
    return (weight / total).T, ended[-1]


def drift(
    count: FloatArray, exposure: FloatArray, days: FloatArray, *, k: FloatArray, mu: FloatArray, k_after: FloatArray, half_life: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the posterior of a rate that drifts: a Gamma-Poisson filter whose evidence halves every ``half_life`` days.

    What is forgotten is replaced by the broad prior Gamma(k_after, k_after / mu), so that the posterior never collapses.

    Args:
        count, exposure: Per unit and block, oldest block first, shape (A, B).
        days: Length of each block in days, shape (B,).
        k, mu, k_after: As in `last_break`, shape (A,).
        half_life: In days.

    Returns:
        shape and rate of the Gamma posterior now, and the log evidence, shape (A,) each.
    """
    a, b = k.astype(np.float64), k / mu
    evidence = np.zeros(len(k))
    gap = np.append(0.0, 0.5 * (days[1:] + days[:-1]))
    for j in range(count.shape[1]):
        keep = 2.0 ** (-gap[j] / half_life)
        a, b = keep * a + (1.0 - keep) * k_after, keep * b + (1.0 - keep) * k_after / mu
        new_a, new_b = a + count[:, j], b + exposure[:, j]
        evidence += a * np.log(b) - special.gammaln(a) + special.gammaln(new_a) - new_a * np.log(new_b)
        a, b = new_a, new_b
    return a, b, evidence


def shares(evidence: FloatArray, prior: FloatArray, *, pseudo: float = 4.0, iterations: int = 30) -> FloatArray:
    """Return each unit's posterior over models whose shares in the population are learned (EM with a Dirichlet prior).

    Args:
        evidence: Log evidence per model and unit, shape (M, A).
        prior: Prior shares of the models, shape (M,).
        pseudo: Units' worth of the prior.
        iterations: EM steps.

    Returns:
        Probabilities, shape (M, A), columns sum to 1.
    """
    share = prior / prior.sum()
    with np.errstate(under="ignore"):
        likelihood = np.exp(evidence - evidence.max(axis=0))
        for _ in range(iterations):
            posterior = share[:, None] * likelihood
            posterior = posterior / posterior.sum(axis=0)
            share = (pseudo * prior / prior.sum() + posterior.sum(axis=1)) / (pseudo + evidence.shape[1])
        posterior = share[:, None] * likelihood
        return np.asarray(posterior / posterior.sum(axis=0))
