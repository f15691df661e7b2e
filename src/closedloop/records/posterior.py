"""Posteriors of rates as mixtures of Gamma densities, joint draws of them, and what untagged evidence could add."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray
from closedloop.records.pool import Pool


@attrs.frozen(kw_only=True, eq=False)
class GammaMixture:
    """Posterior of one rate per arm: a mixture of Gamma densities (one component when nothing is forgotten).

    Args:
        shape, rate: Gamma parameters, shape (A, R); mean ``shape / rate`` conversions per exposure.
        weight: Mixture weights, shape (A, R), rows sum to 1.
    """

    shape: FloatArray
    rate: FloatArray
    weight: FloatArray

    @property
    def mean(self) -> FloatArray:
        """Posterior mean per arm, shape (A,)."""
        return np.asarray((self.weight * self.shape / self.rate).sum(axis=1))

    def take(self, at: npt.NDArray[np.integer]) -> GammaMixture:
        """Return the posteriors at the given positions."""
        return GammaMixture(shape=self.shape[at], rate=self.rate[at], weight=self.weight[at])

    def draws(self, rng: np.random.Generator, size: int) -> FloatArray:
        """Return joint draws (independent over arms given the hyper-parameters), shape (size, A)."""
        arms, components = self.shape.shape
        if components == 1:
            return rng.standard_gamma(self.shape[:, 0], (size, arms)) / self.rate[:, 0]
        upper = np.cumsum(self.weight, axis=1)
        u = rng.random((size, arms))
        pick = np.zeros((size, arms), dtype=np.intp)
        for r in range(components - 1):
            pick += u > upper[:, r]
        at = pick + components * np.arange(arms)
        return np.asarray(rng.standard_gamma(self.shape.ravel()[at]) / self.rate.ravel()[at])


def coupled(own: FloatArray, most: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return draws of both, shape (D, A) each, put so that an arm that is high in the first is high in the second, and never below."""
    place = np.argsort(np.argsort(own, axis=0), axis=0)
    return own, np.maximum(np.take_along_axis(np.sort(most, axis=0), place, axis=0), own)


def correlated(draws: FloatArray, shared: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the same draws of each arm in an order that gives arms their correlation through what they share.

    Args:
        draws: Independent draws, shape (D, A).
        shared: Shape (A, K).
        rng: Source of randomness.
    """
    own = np.sqrt(np.maximum(1.0 - (shared**2).sum(axis=1), 0.0))
    score = rng.standard_normal((len(draws), shared.shape[1])) @ shared.T + own * rng.standard_normal(draws.shape)
    place = np.argsort(np.argsort(score, axis=0), axis=0)
    return np.asarray(np.take_along_axis(np.sort(draws, axis=0), place, axis=0))


@attrs.frozen(kw_only=True, eq=False)
class Untagged:
    """What arms could own of the untagged evidence, jointly; `Signals.total_per_day` rests on it.

    Args:
        fullest: Per kind of touch, posteriors of conversions per *tagged* exposure if all untagged conversions that could be an arm's
            were its own.
        exposures_per_day: Per kind of touch, tagged exposures a day, shape (A,).
        conversions: Who could own the untagged conversions.
    """

    fullest: Mapping[str, GammaMixture]
    exposures_per_day: Mapping[str, FloatArray]
    conversions: Pool

    def take(self, at: npt.NDArray[np.int64]) -> Untagged:
        """Return the same for some arms."""
        return Untagged(
            fullest={k: p.take(at) for k, p in self.fullest.items()},
            exposures_per_day={k: v[at] for k, v in self.exposures_per_day.items()},
            conversions=self.conversions.take(at),
        )
