"""Mixtures of Gamma densities, many at once: distribution functions and quantiles.

Law of this file: arrays in, arrays out; no marketing word, no clock, no randomness. Nothing loops over mixtures; loops run over components,
levels and Newton steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]

_NEGLIGIBLE = 1e-7  # weight of a component that cannot move a quantile visibly
_CDF_ERROR = 1e-6  # relative to the smaller tail
_NEAR = 0.02  # probits from the level before the last step, which need not be looked at again
_BENT = 0.02  # share of a step by which curvature may change it for that
_CHUNK = 4096  # mixtures that stay in the processor's cache


def mixture_cdf(x: FloatArray, shape: FloatArray, rate: FloatArray, weight: FloatArray) -> FloatArray:
    """Return the distribution function of Gamma mixtures.

    Args:
        x: Where, shape (A,).
        shape, rate, weight: Components, shape (A, R); weights sum to 1 over the last axis.

    Returns:
        P(rate <= x), shape (A,).

    >>> mixture_cdf(np.array([1.0]), np.array([[1.0]]), np.array([[1.0]]), np.array([[1.0]])).round(4).tolist()
    [0.6321]
    """
    return np.asarray((weight * special.gammainc(shape, rate * x[:, None])).sum(axis=1))


def _matched(shape: FloatArray, rate: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return shape and rate of the Gamma with the mixture's mean and variance, shape (A,) each."""
    means = shape / rate
    mean = (weight * means).sum(axis=1)
    variance = (weight * (means / rate + (means - mean[:, None]) ** 2)).sum(axis=1)
    return mean**2 / variance, mean / variance


def gamma_quantile_start(probit: FloatArray, shape: FloatArray) -> FloatArray:
    """Return an approximate quantile of Gamma(shape, 1): Wilson-Hilferty, and the leading power law where that turns negative.

    Args:
        probit: Normal quantile of the level, broadcastable.
        shape: Gamma shapes, broadcastable.
    """
    root = 1.0 - 1.0 / (9.0 * shape) + probit / (3.0 * np.sqrt(shape))
    out = np.asarray(shape * root * root * root)
    few = root <= 0.3
    if few.any():
        s, z = (np.broadcast_to(v, root.shape)[few] for v in (shape, probit))
        with np.errstate(under="ignore"):
            out[few] = np.exp((np.log(special.ndtr(z)) + special.gammaln(s + 1.0)) / s)
    return out


def mixture_quantile(level: float | FloatArray, shape: FloatArray, rate: FloatArray, weight: FloatArray) -> FloatArray:
    """Return a quantile of Gamma mixtures; see `mixture_quantiles`.

    >>> one = np.ones((1, 1))
    >>> round(float(mixture_quantile(0.5, one, one, one)[0]), 6)  # log 2
    0.693147
    """
    return np.asarray(mixture_quantiles([level], shape, rate, weight)[0])


def mixture_quantiles(levels: Sequence[float | FloatArray], shape: FloatArray, rate: FloatArray, weight: FloatArray) -> FloatArray:
    """Return quantiles of Gamma mixtures.

    Starts at the Gamma with the mixture's first two moments and takes safeguarded steps of third order (Halley) on the probit scale in
    ``log x``, where a Gamma distribution function is almost a straight line; mostly one evaluation does. Components that do not matter
    for a unit (weight under 1e-7) are not evaluated for it.

    Args:
        levels: Probabilities in (0, 1), L of them, each one number or shape (A,).
        shape, rate, weight: Components, shape (A, R); weights sum to 1 over the last axis.

    Returns:
        Quantiles, shape (L, A), with distribution function within 1e-4 of the smaller tail of the level.
    """
    n = len(shape)
    wanted = [np.broadcast_to(np.asarray(level, dtype=np.float64), (n,)) for level in levels]
    out = np.empty((len(levels), n))
    for start in range(0, n, _CHUNK):
        at = slice(start, start + _CHUNK)
        mixtures = _Mixtures.of(shape[at], rate[at], weight[at])
        for row, level in zip(out, wanted, strict=True):
            row[at] = mixtures.quantile(level[at])
    return out


@attrs.frozen(kw_only=True, eq=False)
class _Mixtures:
    """Components along the first axis, shape (R, A), with what every evaluation needs; and each mixture's matched Gamma, shape (A,)."""

    shape: FloatArray
    rate: FloatArray
    weight: FloatArray
    constant: FloatArray
    matched_shape: FloatArray
    matched_rate: FloatArray

    @classmethod
    def of(cls, shape: FloatArray, rate: FloatArray, weight: FloatArray) -> _Mixtures:
        matched = _matched(shape, rate, weight)
        s, r, w = shape.T.copy(), rate.T.copy(), weight.T.copy()
        # A component without weight is evaluated at zero, where the distribution function is known without work.
        r[w <= _NEGLIGIBLE] = 0.0
        with np.errstate(divide="ignore"):
            constant = s * np.log(r) - special.gammaln(s)
        return cls(shape=s, rate=r, weight=w, constant=constant, matched_shape=matched[0], matched_rate=matched[1])

    def take(self, at: npt.NDArray[np.bool_]) -> _Mixtures:
        return attrs.evolve(self, shape=self.shape[:, at], rate=self.rate[:, at], weight=self.weight[:, at], constant=self.constant[:, at])

    def at(self, u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return distribution function, density and slope of the density of ``log x`` at u, shape (A,)."""
        cdf, density, slope = np.zeros_like(u), np.zeros_like(u), np.zeros_like(u)
        x = np.exp(u)
        for s, r, w, constant in zip(self.shape, self.rate, self.weight, self.constant, strict=True):
            scaled = r * x
            part = special.gammainc(s, scaled)
            part *= w
            cdf += part
            part = s * u
            part += constant
            part -= scaled
            np.exp(part, out=part)
            part *= w
            density += part
            np.subtract(s, scaled, out=scaled)
            scaled *= part
            slope += scaled
        return cdf, density, slope

    def quantile(self, levels: FloatArray) -> FloatArray:
        """Return one quantile of each mixture, shape (A,)."""
        n, mixtures = len(levels), self
        wanted = special.ndtri(levels)
        floor = -690.0
        u = np.log(np.maximum(gamma_quantile_start(wanted, self.matched_shape) / self.matched_rate, np.exp(floor)))
        low, high = np.full(n, floor), np.full(n, 700.0)
        out = np.empty(n)
        open_ = np.arange(n)
        for _ in range(100):
            cdf, density, slope = mixtures.at(u)
            above = cdf > levels
            high, low = np.where(above, u, high), np.where(above, low, u)
            probit = special.ndtri(np.clip(cdf, 1e-300, 1 - 1e-16))
            gap = probit - wanted
            with np.errstate(all="ignore"):
                first = density * (np.sqrt(2 * np.pi) * np.exp(0.5 * probit**2))
                second = first * slope / density + probit * first**2
                newton = gap / first
                step = newton / np.clip(1.0 - 0.5 * newton * second / first, 0.5, 2.0)
                new = u - step
            safe = (new > low) & (new < high)
            # The error of a step is about its cube: after a small one, where the curve is not bent, nothing needs a look.
            near = safe & (np.abs(gap) < _NEAR) & (np.abs(newton - step) < _BENT * np.abs(step))
            tail = np.minimum(levels, 1.0 - levels)
            going = ~near & (np.abs(cdf - levels) > _CDF_ERROR * tail) & (high - low > 1e-13)
            out[open_] = np.where(near, new, u)
            u = np.where(safe, new, 0.5 * (low + high))  # halve where the slope vanished
            if not going.any():
                break
            if not going.all():
                open_, u, low, high, levels, wanted = (a[going] for a in (open_, u, low, high, levels, wanted))
                mixtures = mixtures.take(going)
        return np.exp(out)
