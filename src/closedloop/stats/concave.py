"""Concave values of quantities: sums of shifted powers.

Law of this file: arrays in, arrays out. The marginal value of a component is ``a (s + h)^-p``: a power law has ``h = 0, p = 1 - beta``, a
logarithm ``p = 1``, a Hill curve of slope one ``p = 2``. A sum over components is the expectation over a posterior of the curve.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_FLATTEST = 1e-9  # a slope of log marginal in log s nearer to zero than this is a straight line: filled greedily
_TINY = 1e-300


@attrs.frozen(kw_only=True, eq=False)
class Curves:
    """A concave value per arm, the sum of K shifted powers.

    Args:
        scale: ``a >= 0`` of each component, shape (A, K); weights of a mixture are part of it.
        shift: ``h >= 0``, shape (A, K), or (A, 1) where the components share it.
        power: ``p`` in [0, 2], shape (A, K); with ``h = 0`` it must be under 1.

    >>> root = Curves.power_law(level=np.array([2.0]), at=np.array([1.0]), exponent=np.array([[0.5]]))
    >>> root.value(np.array([4.0])), root.marginal(np.array([4.0]))
    (array([4.]), array([0.5]))
    """

    scale: FloatArray
    shift: FloatArray
    power: FloatArray

    def __len__(self) -> int:
        return len(self.scale)

    @classmethod
    def power_law(cls, *, level: FloatArray, at: FloatArray, exponent: FloatArray, weight: FloatArray | None = None) -> Curves:
        """Return ``level * sum_k weight_k (s / at)^exponent_k``.

        Args:
            level: Value at ``s = at``, shape (A,).
            at: Reference quantity, above zero, shape (A,).
            exponent: In (0, 1], shape (A, K).
            weight: Mixture weights, shape (K,) or (A, K); equal weights by default.
        """
        weights = np.full(exponent.shape[1], 1.0 / exponent.shape[1]) if weight is None else weight
        scale = level[:, None] * weights * exponent * at[:, None] ** -exponent
        return cls(scale=scale, shift=np.zeros((len(level), 1)), power=1.0 - exponent)

    def take(self, index: npt.ArrayLike) -> Curves:
        """Return the curves at positions or mask ``index``."""
        at = np.asarray(index)
        return Curves(scale=self.scale[at], shift=self.shift[at], power=self.power[at])

    def value(self, s: FloatArray) -> FloatArray:
        """Return the value of each arm at ``s`` (shape (A,)), zero at ``s = 0``."""
        h, q = self.shift, 1.0 - self.power
        z = s[:, None] + h
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.exp(q * np.log(z)) / q
            if h.any():
                growth = np.log1p(s[:, None] / h)  # log((s + h) / h)
                curved = np.exp(q * np.log(h)) * np.where(q == 0.0, growth, np.expm1(q * growth) / q)
                each = np.where(h > 0.0, curved, each)
        return np.asarray(np.where(self.scale > 0.0, self.scale * each, 0.0).sum(axis=1))

    def marginal(self, s: FloatArray) -> FloatArray:
        """Return the value of the next unit at ``s``, shape (A,); infinite at 0 where a power law starts there."""
        with np.errstate(divide="ignore"):
            return np.asarray((self.scale * np.exp(-self.power * np.log(s[:, None] + self.shift))).sum(axis=1))

    def log_marginal(self, s: FloatArray, centre: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return log marginal and its slope in ``log(s + centre)`` (both of shape (A,)), never flatter than a straight line allows."""
        near = s[:, None] + self.shift
        each = self.scale * np.exp(-self.power * np.log(np.maximum(near, _TINY)))
        total = np.maximum(each.sum(axis=1), _TINY)
        slope = -(each * self.power * ((s + centre)[:, None] / np.maximum(near, _TINY))).sum(axis=1) / total
        return np.log(total), np.minimum(slope, -_FLATTEST)
