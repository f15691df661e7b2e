"""How far back the present goes: calm, breaks and drift of a rate, weighed by their evidence.

Law of this file: arrays in, arrays out. Counts come in blocks of time, oldest first; a break can happen between blocks only.
The sum over breaks runs over all segmentations (a product-partition model), so no earlier state is needed and the answer does not
depend on when it was last asked: unlike an online filter it can be recomputed after any restatement. All evidences leave out the
same constant of the counts, so that they can be compared.

References:
    Barry & Hartigan (1992), "Product partition models for change point problems", Annals of Statistics 20;
    Adams & MacKay (2007), "Bayesian online changepoint detection", for the same posterior as a filter over run lengths;
    West, Harrison & Migon (1985), "Dynamic generalized linear models and Bayesian forecasting", JASA 80, for the drifting rate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]

_CHUNK = 8192  # units (times walks) whose blocks stay in the processor's cache


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


def _segments(count: FloatArray, exposure: FloatArray, k: FloatArray, mu: FloatArray, k_after: FloatArray) -> list[FloatArray]:
    """Return the log evidence of blocks i..j-1 as one segment, at [i][j - i - 1] (shape (A,) there)."""
    c, x = np.cumsum(count.T, axis=0), np.cumsum(exposure.T, axis=0)
    before_c, before_x = np.zeros_like(c), np.zeros_like(x)
    before_c[1:], before_x[1:] = c[:-1], x[:-1]
    out = []
    shape, rate = k, k / mu
    for i in range(len(c)):
        if i < 2:
            shape, rate = (k, k / mu) if i == 0 else (k_after, k_after / mu)
            constant = shape * np.log(rate) - special.gammaln(shape)
        whole = c[i:] - (before_c[i] - shape)
        term = x[i:] - (before_x[i] - rate)
        np.log(term, out=term)
        term *= whole
        found = special.gammaln(whole)
        found -= term
        found += constant
        out.append(found)
    return out


def _sum_over_breaks(segment: list[FloatArray], days: FloatArray, hazard: float) -> tuple[FloatArray, FloatArray]:
    """Return the posterior of the last segment's first block, shape (A, B), and the log evidence, shape (A,)."""
    blocks = len(segment)
    n = segment[0].shape[1]
    if blocks == 1 or hazard == 0.0:
        only = np.zeros((n, blocks))
        only[:, 0] = 1.0
        return only, segment[0][-1]
    # A break between two blocks may have happened on any day between their middles.
    gap = 0.5 * (days[1:] + days[:-1])
    log_stay = gap * np.log1p(-hazard)
    log_break = np.append(0.0, np.log(-np.expm1(log_stay)))
    stayed = np.append(0.0, np.cumsum(log_stay))  # up to each block
    ended = np.zeros((blocks + 1, n))  # log P(data of blocks < j, a segment ends at j)
    terms = np.empty((blocks, n))
    for j in range(1, blocks + 1):
        for i in range(j):
            np.add(segment[i][j - i - 1], ended[i], out=terms[i])
            terms[i] += log_break[i] + stayed[j - 1] - stayed[i]
        part = terms[:j]
        top = part.max(axis=0)
        part -= top
        with np.errstate(under="ignore"):
            np.exp(part, out=part)
        total = part.sum(axis=0)
        ended[j] = top + np.log(total)
    return (terms / total).T, ended[-1]


def walk(
    count: FloatArray,
    exposure: FloatArray,
    days: FloatArray,
    *,
    k: FloatArray,
    mu: FloatArray,
    sd: Sequence[float] | FloatArray,
    slope: Sequence[float] | FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the posterior of a rate whose logarithm walks at random: a Gamma-Poisson filter of known evolution variance.

    Between blocks the variance of the log rate grows by ``sd**2`` a day and its mean by ``slope``, so what is forgotten depends on how
    much is known: a rate seen in a thousand counts a day is known from the last days alone, a rare one keeps months.

    Args:
        count, exposure: Per unit and block, oldest block first, shape (A, B).
        days: Length of each block in days, shape (B,).
        k, mu: As in `last_break`, shape (A,).
        sd: Standard deviations of a day's step of the log rate, one for each of S walks.
        slope: Mean of a day's step, one for each walk; zero when None.

    Returns:
        shape and rate of the Gamma posterior now, the share of the first prior left in them, and the log evidence, shape (S, A) each.
    """
    n, walks = len(k), len(sd)
    out = np.empty((4, walks, n))
    steady = np.zeros(walks) if slope is None else np.asarray(slope)
    gap = np.append(0.0, 0.5 * (days[1:] + days[:-1]))
    grown, shrunk = (np.square(sd)[:, None] * gap).T[:, :, None], np.exp(-steady[:, None] * gap).T[:, :, None]
    for start in range(0, n, _CHUNK // max(walks, 1)):
        at = slice(start, start + _CHUNK // max(walks, 1))
        c, x = count[at].T.copy(), exposure[at].T.copy()
        a, b = np.tile(k[at], (walks, 1)), np.tile(k[at] / mu[at], (walks, 1))
        evidence, left = np.zeros(a.shape), np.ones(a.shape)
        for j in range(len(c)):
            if j:
                keep = 1.0 / (1.0 + grown[j] * a)  # variance of the logarithm is about 1 / a
                a *= keep
                left *= keep
                b *= keep * shrunk[j]
            new_a, new_b = a + c[j], b + x[j]
            evidence += a * np.log(b)
            evidence -= new_a * np.log(new_b)
            evidence += _log_rising(a, new_a)
            a, b = new_a, new_b
        out[:, :, at] = a, b, left, evidence
    return out[0], out[1], out[2], out[3]


def _log_rising(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return log Gamma(b) - log Gamma(a) to 1e-7, in about half the time of two calls: Stirling's series three places up."""
    quotient = b * (b + 1.0) * (b + 2.0)
    quotient /= a * (a + 1.0) * (a + 2.0)
    out = _stirling(b + 3.0)
    out -= _stirling(a + 3.0)
    out -= np.log(quotient)
    return out


def _stirling(z: FloatArray) -> FloatArray:
    inverse = 1.0 / z
    square = inverse * inverse
    out = square * (-1.0 / 1680.0)
    for term in (1.0 / 1260.0, -1.0 / 360.0, 1.0 / 12.0):
        out += term
        out *= square if term != 1.0 / 12.0 else inverse
    out -= z
    log = np.log(z)
    log *= z - 0.5
    out += log
    return out


def shares(evidence: FloatArray, templates: FloatArray, prior: FloatArray, *, pseudo: float = 20.0, iterations: int = 60) -> FloatArray:
    """Return how common each model is in the population, learned from all units.

    The units' evidences first weigh whole templates (all calm; breaks common; all drifting at about one pace): many units that each say
    little together say much. Their average is then the Dirichlet prior of an EM over the units, for mixed populations.

    Args:
        evidence: Log evidence per model and unit, shape (M, A).
        templates: Shares of the models under each template, shape (T, M), rows sum to 1, all above zero.
        prior: Prior probability of each template, shape (T,).
        pseudo: Units' worth of the templates' average in the EM.
        iterations: EM steps.

    Returns:
        Shares, shape (M,), sum 1.
    """
    with np.errstate(under="ignore"):
        likelihood = np.exp(evidence - evidence.max(axis=0))
        log_template = np.log(prior) + np.log(templates @ likelihood).sum(axis=1)
        of_template = np.exp(log_template - log_template.max())
        base = (of_template / of_template.sum()) @ templates
        share = base
        for _ in range(iterations):
            posterior = share[:, None] * likelihood
            posterior /= posterior.sum(axis=0)
            share = (pseudo * base + posterior.sum(axis=1)) / (pseudo + evidence.shape[1])
    return np.asarray(share)


def weights(evidence: FloatArray, share: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return each unit's posterior over models of given shares, shape (M, A), columns sum to 1; and its log evidence of all, shape (A,)."""
    with np.errstate(under="ignore"):
        top = evidence.max(axis=0)
        posterior = share[:, None] * np.exp(evidence - top)
        total = posterior.sum(axis=0)
        return np.asarray(posterior / total), np.asarray(top + np.log(total))
