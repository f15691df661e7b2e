"""Revenue per conversion with partial pooling: the Gamma-Gamma model.

Law of this file: arrays in, arrays out. A value is Gamma(p, nu) given its unit's ``nu``, and ``nu`` is Gamma(q, gamma) over units, so
a unit's mean value is ``p / nu`` and its posterior is inverse Gamma.

References:
    Fader & Hardie (2013), "The Gamma-Gamma model of monetary value"; Colombo & Jiang (1999).
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]

_Q = np.exp(np.linspace(np.log(1.5), np.log(400.0), 24))  # q > 1, so that the mean over units exists


@attrs.frozen(kw_only=True, eq=False)
class ValuePosterior:
    """Posterior of each unit's mean value, an inverse Gamma: ``scale / G`` with G ~ Gamma(shape, 1).

    Args:
        shape, scale: Shape (A,).
        p, q, gamma: The fitted hyper-parameters.
    """

    shape: FloatArray
    scale: FloatArray
    p: float
    q: float
    gamma: float

    @property
    def mean(self) -> FloatArray:
        """Posterior mean value, shape (A,)."""
        return np.asarray(self.scale / (self.shape - 1.0))

    def quantile(self, level: float) -> FloatArray:
        """Return a quantile of the mean value, shape (A,)."""
        return np.asarray(self.scale / special.gammainccinv(self.shape, level))

    def draws(self, rng: np.random.Generator, size: int, index: npt.NDArray[np.intp]) -> FloatArray:
        """Return draws of the mean value of the units at ``index``, shape (size, M)."""
        return np.asarray(self.scale[index] / rng.standard_gamma(self.shape[index], (size, len(index))))


def log_evidence(mean: FloatArray, n: FloatArray, p: float, q: float, gamma: float) -> FloatArray:
    """Return the log density of each unit's observed mean value of ``n`` conversions (Fader & Hardie 2013, equation 1b).

    Args:
        mean: Observed mean value, shape (A,), above zero.
        n: Conversions, shape (A,), above zero.
    """
    a = p * n
    return np.asarray(
        special.gammaln(a + q)
        - special.gammaln(a)
        - special.gammaln(q)
        + q * np.log(gamma)
        + (a - 1.0) * np.log(mean)
        + a * np.log(n)
        - (a + q) * np.log(gamma + n * mean)
    )


def fit_value(value: FloatArray, squared: FloatArray, n: FloatArray) -> ValuePosterior:
    """Fit the Gamma-Gamma model and return every unit's posterior mean value.

    ``p`` comes from the spread of single values inside units, ``q`` and ``gamma`` from the marginal likelihood of the units' means with a
    weak prior on ``q`` (relative spread between units ``1 / sqrt(q)``, half-Cauchy of scale 1).

    Args:
        value, squared: Sums of values and of squared values per unit, shape (A,).
        n: Conversions per unit, shape (A,); units without conversions or value take the pooled posterior.

    Raises:
        ValueError: No unit has a value.

    >>> p = fit_value(np.array([100.0, 0.0]), np.array([1100.0, 0.0]), np.array([10.0, 0.0]))
    >>> bool(9 < p.mean[0] < 13 and p.quantile(0.95)[1] > p.quantile(0.95)[0])
    True
    """
    used = (n > 0) & (value > 0)
    if not used.any():
        raise ValueError("no unit has a value")
    m, x, s = value[used] / n[used], n[used], squared[used]
    within = np.maximum(s - x * m**2, 0.0)
    freedom = np.maximum(x - 1.0, 0.0)
    # Squared coefficient of variation inside units, each unit scaled by its own mean, with two pseudo-values of spread 1.
    relative = (float((within / m**2).sum()) + 2.0) / (float(freedom.sum()) + 2.0)
    p = float(np.clip(1.0 / relative, 0.05, 400.0))
    pooled = float((x * m).sum() / x.sum())
    best = (-np.inf, 0.0, 0.0)
    for q in _Q:
        gamma = _gamma(m, x, p, float(q), pooled)
        cv = q**-0.5
        total = float(log_evidence(m, x, p, float(q), gamma).sum()) + np.log(cv / (1.0 + cv**2))
        if total > best[0]:
            best = (total, float(q), gamma)
    _, q, gamma = best
    count, total_value = np.where(used, n, 0.0), np.where(used, value, 0.0)
    return ValuePosterior(shape=q + p * count, scale=p * (gamma + total_value), p=p, q=q, gamma=gamma)


def _gamma(mean: FloatArray, n: FloatArray, p: float, q: float, pooled: float) -> float:
    """Return the ``gamma`` of largest likelihood given p and q: Newton steps on its logarithm."""
    log_gamma = np.log(pooled * (q - 1.0) / p)
    for _ in range(50):
        share = np.exp(log_gamma) / (np.exp(log_gamma) + n * mean)
        gradient = float((q - (p * n + q) * share).sum())
        curvature = float(((p * n + q) * share * (1.0 - share)).sum())
        step = float(np.clip(gradient / max(curvature, 1e-12), -1.0, 1.0))
        log_gamma += step
        if abs(step) < 1e-10:
            break
    return float(np.exp(log_gamma))
