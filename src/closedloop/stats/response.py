"""Response curves: what the next unit of spend brings, and how little is known of it.

Law of this file: arrays in, arrays out. A curve gives an outcome *relative to the outcome at a reference spend*; the level comes from
elsewhere. Three shapes, each with one unknown parameter ``theta`` that is Normal a posteriori (Laplace):

- ``power``: ``(s / s0)^beta``, ``theta = logit beta``;
- ``log``: ``log(1 + s / h) / log(1 + s0 / h)``, ``theta = log(h / s0)``;
- ``hill``: ``[s / (s + h)] / [s0 / (s0 + h)]``, ``theta = log(h / s0)``.

All three are shifted powers (`closedloop.stats.concave.Curves`), so the *expected* curve over ``theta`` is one too, by Gauss-Hermite
quadrature. Without variation in spend ``theta`` is not identified and stays at its prior.

References:
    Jin, Wang, Sun, Chan & Koehler (2017), Bayesian methods for media mix modeling with carryover and shape effects.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from scipy.special import expit

from closedloop.errors import ConfigurationError
from closedloop.stats.concave import Curves

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SHAPES: tuple[str, ...] = ("power", "log", "hill")  # the position is the code
POWER, LOG, HILL = range(3)
_EDGE = 1e-6  # beta stays this far from 0 and 1


@attrs.frozen(kw_only=True)
class ResponsePrior:
    """Normal prior of ``theta`` for each shape.

    The default for the power law has a median exponent of 0.68 and 90 % of its mass in [0.29, 0.92]: returns diminish, by an unknown
    amount. ``log h/s0`` of the saturating shapes is centred where they have the same elasticity at ``s0``.

    Args:
        power: Location and scale of ``logit beta``.
        log, hill: Location and scale of ``log(h / s0)``.
        shared: Share of the variance of ``theta`` that all arms have in common (how saturated an account is), the rest being each
            arm's own. It is what makes differences *between* arms less uncertain than each arm's curve.

    >>> round(float(expit(ResponsePrior().power[0])), 2)
    0.68
    """

    power: tuple[float, float] = (0.75, 1.0)
    log: tuple[float, float] = (-0.26, 1.3)
    hill: tuple[float, float] = (0.75, 1.0)
    shared: float = 0.5

    def __attrs_post_init__(self) -> None:
        for name in SHAPES:
            location, scale = getattr(self, name)
            if not (np.isfinite(location) and np.isfinite(scale) and scale > 0.0):
                raise ConfigurationError("a prior needs a finite location and a scale above zero", name, (location, scale))
        if not 0.0 <= self.shared <= 1.0:
            raise ConfigurationError("a share lies in [0, 1]", "shared", self.shared)

    def of(self, shape: int) -> tuple[float, float]:
        """Return location and scale of ``theta`` for a shape's code."""
        location, scale = getattr(self, SHAPES[shape])
        return float(location), float(scale)


@attrs.frozen(kw_only=True, eq=False)
class Response:
    """The posterior of one curve per arm.

    Args:
        shape: Code of the shape (position in `SHAPES`), shape (A,).
        location, scale: Normal posterior of ``theta``, shape (A,).
        common: The part of ``scale`` that moves all arms together, at most ``scale``, shape (A,).
        at: Reference spend ``s0`` a day, above zero, shape (A,).
        prior_share: Variance of the posterior as a share of the prior's: 1 where nothing was learned, shape (A,).
    """

    shape: IntArray
    location: FloatArray
    scale: FloatArray
    common: FloatArray
    at: FloatArray
    prior_share: FloatArray

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def from_prior(cls, prior: ResponsePrior, at: FloatArray, shape: int = POWER) -> Response:
        """Return the prior itself for every arm."""
        location, scale = prior.of(shape)
        n = len(at)
        return cls(
            shape=np.full(n, shape, dtype=np.int64),
            location=np.full(n, location),
            scale=np.full(n, scale),
            common=np.full(n, scale * prior.shared**0.5),
            at=np.asarray(at, dtype=float),
            prior_share=np.ones(n),
        )

    def take(self, index: npt.ArrayLike) -> Response:
        """Return the curves of some arms."""
        at = np.asarray(index)
        return attrs.evolve(self, **{f.name: getattr(self, f.name)[at] for f in attrs.fields(Response)})

    def draw(self, rng: np.random.Generator, size: int) -> FloatArray:
        """Return joint draws of ``theta``, shape (size, A)."""
        own = np.sqrt(np.maximum(self.scale**2 - self.common**2, 0.0))
        return self.location + self.common * rng.standard_normal((size, 1)) + own * rng.standard_normal((size, len(self)))

    def nodes(self, k: int = 8) -> tuple[FloatArray, FloatArray]:
        """Return Gauss-Hermite nodes of ``theta`` (shape (A, k)) and their weights (shape (k,))."""
        x, w = np.polynomial.hermite_e.hermegauss(k)
        return self.location[:, None] + self.scale[:, None] * x, w / w.sum()

    def curves(self, level: FloatArray, k: int = 8) -> Curves:
        """Return the expected curves over ``theta`` when the outcome at ``s0`` is ``level`` (shape (A,))."""
        theta, weight = self.nodes(k)
        return self.curves_at(theta, level[:, None] * weight)

    def curves_at(self, theta: FloatArray, level: FloatArray) -> Curves:
        """Return ``sum_k level_k curve(s; theta_k)`` (both of shape (A, K)) as shifted powers."""
        at = self.at[:, None]
        code = self.shape[:, None]
        beta = beta_of(theta)
        h = at * np.exp(np.where(code == POWER, 0.0, theta))
        x0 = at / h
        # d/ds of each relative curve, written as a (s + h)^-p.
        power = beta * at**-beta
        log = 1.0 / np.log1p(x0)
        hill = h * (1.0 + x0) / x0
        scale = level * np.where(code == POWER, power, np.where(code == LOG, log, hill))
        return Curves(
            scale=scale,
            shift=np.zeros((len(at), 1)) if not (code != POWER).any() else np.where(code == POWER, 0.0, h),
            power=np.where(code == POWER, 1.0 - beta, np.where(code == LOG, 1.0, 2.0)),
        )

    def ratio(self, s: FloatArray, theta: FloatArray) -> FloatArray:
        """Return the outcome at ``s`` (shape (A,)) relative to that at ``s0`` for draws of ``theta`` (shape (D, A))."""
        x = s / self.at
        if not (self.shape != POWER).any():
            with np.errstate(divide="ignore"):
                return np.asarray(np.exp(beta_of(theta) * np.log(x)))
        with np.errstate(divide="ignore"):
            power = np.exp(beta_of(theta) * np.log(x))
        h = np.exp(np.where(self.shape == POWER, 0.0, theta))
        log = np.log1p(x / h) / np.log1p(1.0 / h)
        hill = x * (1.0 + h) / (x + h)
        return np.asarray(np.where(self.shape == POWER, power, np.where(self.shape == LOG, log, hill)))

    def change(self, before: FloatArray, after: FloatArray, theta: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return ``ratio(after) - ratio(before)`` for draws of ``theta`` (shape (D, A)), in their precision and without cancellation."""
        kind = theta.dtype
        x0, x1 = (before / self.at).astype(kind), (after / self.at).astype(kind)
        codes = np.unique(self.shape)
        if len(codes) == 1:
            return _change(int(codes[0]), x0, x1, theta)
        out = np.empty_like(theta)
        for code in codes:
            mine = self.shape == code
            out[:, mine] = _change(int(code), x0[mine], x1[mine], theta[:, mine])
        return out

    def elasticity(self, theta: FloatArray | None = None) -> FloatArray:
        """Return the relative change of the outcome per relative change of spend at ``s0``, at ``theta`` (the median by default)."""
        t = self.location if theta is None else theta
        h = np.exp(np.where(self.shape == POWER, 0.0, t))
        return np.asarray(
            np.where(self.shape == POWER, beta_of(t), np.where(self.shape == LOG, 1.0 / ((1.0 + h) * np.log1p(1.0 / h)), h / (1.0 + h)))
        )


def _change(
    code: int, x0: npt.NDArray[np.floating], x1: npt.NDArray[np.floating], theta: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    if code == POWER:
        beta = np.clip(expit(theta), _EDGE, 1.0 - _EDGE, dtype=theta.dtype)
        with np.errstate(divide="ignore", invalid="ignore"):
            grown = np.exp(beta * np.log(x0)) * np.expm1(beta * np.log(x1 / x0))
            return np.asarray(grown if (x0 > 0.0).all() else np.where(x0 > 0.0, grown, np.exp(beta * np.log(x1))))
    h = np.exp(theta)
    if code == LOG:
        return np.asarray(np.log1p((x1 - x0) / (h + x0)) / np.log1p(1.0 / h))
    return np.asarray((1.0 + h) * h * (x1 - x0) / ((x1 + h) * (x0 + h)))


def beta_of(theta: FloatArray) -> FloatArray:
    """Return the exponent of the power law, kept a little away from 0 and 1."""
    return np.asarray(np.clip(expit(theta), _EDGE, 1.0 - _EDGE))
