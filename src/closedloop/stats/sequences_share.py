"""Evidence that one stream of counts earns more per unit than the others, valid at every look.

Law of this file: arrays in, arrays out. Given how many events all streams had in a period, one stream's part is binomial with its
share of the exposure when all earn the same. The likelihood ratio against an odds factor ``theta``, multiplied over periods and mixed
over ``theta``, is a test martingale: the chance that it *ever* reaches ``1 / alpha`` under the null is at most ``alpha`` (Ville 1939),
whatever the exposures were chosen by, as long as they were chosen before the period's events.

What is equal under the null is the level of a response ``s^beta``, and ``beta`` is not known: the smallest evidence over a grid of
exponents is taken, which is a bound for each of them.

References:
    Robbins (1970), Statistical methods related to the law of the iterated logarithm. Howard, Ramdas, McAuliffe & Sekhon (2021),
    Time-uniform, nonparametric, nonasymptotic confidence sequences. Vovk & Wang (2021), E-values: calibration, combination and
    applications.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

FloatArray = npt.NDArray[np.float64]

EXPONENTS = (0.3, 0.5, 0.7, 0.85, 1.0)
_SPREAD = 0.5  # of log theta in the mixture: factors up to about 2 are expected
_POINTS = 24


def log_evidence(count: FloatArray, exposure: FloatArray, *, exponents: tuple[float, ...] = EXPONENTS) -> tuple[FloatArray, FloatArray]:
    """Return, after each period, the log e-value that each stream earns more than the others together, and that it earns less.

    Args:
        count: Events by period and stream, whole numbers, shape (T, A).
        exposure: Exposure (spend) by period and stream, zero or more, shape (T, A).
        exponents: The null holds for a response ``exposure ** beta`` with any of these.

    Returns:
        Two arrays of shape (T, A). Over both sides and A streams, evidence of at least ``2 A / alpha`` has a chance of at most
        ``alpha`` ever to occur when all streams are alike.

    >>> more, less = log_evidence(np.array([[30.0, 10.0]] * 20), np.full((20, 2), 5.0))
    >>> bool(more[-1, 0] > 20 and less[-1, 1] > 20 and less[-1, 0] < 0)
    True
    """
    total = count.sum(axis=1)
    point = np.linspace(0.0625, 3.0, _POINTS)  # half-Normal grid of log theta
    log_weight = -0.5 * point**2
    log_weight -= logsumexp(log_weight)
    least = [np.full(count.shape, np.inf), np.full(count.shape, np.inf)]
    for beta in exponents:
        scaled = np.where(exposure > 0.0, np.maximum(exposure, 1e-300) ** beta, 0.0)
        share = scaled / np.maximum(scaled.sum(axis=1, keepdims=True), 1e-300)
        used = (share > 0.0) & (share < 1.0)
        for side, sign in enumerate((1.0, -1.0)):
            logs = np.empty((_POINTS, *count.shape))
            for j, log_theta in enumerate(sign * _SPREAD * point):
                each = count * log_theta - total[:, None] * np.log1p(np.expm1(log_theta) * share)
                logs[j] = np.cumsum(np.where(used, each, 0.0), axis=0)
            least[side] = np.minimum(least[side], logsumexp(logs + log_weight[:, None, None], axis=0))
    return least[0], least[1]


def certain(
    count: FloatArray, exposure: FloatArray, *, alpha: float, streams: npt.ArrayLike | None = None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which streams are, after the last period, certainly better and certainly worse than the others together.

    Args:
        count, exposure: As in `log_evidence`.
        alpha: Chance, over all streams, both sides and every look, of any false answer.
        streams: Positions of the m streams to answer for, all by default; the correction is for all of them either way.

    Returns:
        Two arrays of shape (m,).
    """
    chosen = np.arange(count.shape[1]) if streams is None else np.asarray(streams)
    if not len(chosen):
        nothing = np.zeros(len(chosen), dtype=bool)
        return nothing, nothing
    rest_count = count.sum(axis=1, keepdims=True)
    bar = np.log(2.0 * count.shape[1] / alpha)
    point = np.linspace(0.0625, 3.0, _POINTS)
    log_weight = -0.5 * point**2 - logsumexp(-0.5 * point**2)
    answers = [np.ones(len(chosen), dtype=bool), np.ones(len(chosen), dtype=bool)]
    for beta in EXPONENTS:
        scaled = np.where(exposure > 0.0, np.maximum(exposure, 1e-300) ** beta, 0.0)
        share = scaled[:, chosen] / np.maximum(scaled.sum(axis=1, keepdims=True), 1e-300)
        used = (share > 0.0) & (share < 1.0)
        mine, total = np.where(used, count[:, chosen], 0.0).sum(axis=0), np.where(used, rest_count, 0.0)
        for side, sign in enumerate((1.0, -1.0)):
            logs = [mine * g - (total * np.log1p(np.expm1(g) * share)).sum(axis=0) for g in sign * _SPREAD * point]
            answers[side] &= logsumexp(np.array(logs) + log_weight[:, None], axis=0) >= bar
    return answers[0], answers[1]
