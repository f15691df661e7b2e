"""What arms return on what was spent (or shown): conversions, times value, by draws or exactly; and its ends where tags are missing.

Law of this file: posteriors of rates in, quantiles, draws and distribution functions of returns out. It ranks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

from closedloop.classify.joint import Ranges, ranges
from closedloop.classify.ranking import Cdf, Ranking
from closedloop.classify.rates import moments, quantiles
from closedloop.records.interval import FloatArray
from closedloop.records.pool import Pool
from closedloop.records.posterior import GammaMixture, correlated, coupled
from closedloop.stats.gamma_mixture import gamma_quantile_start
from closedloop.stats.value import ValuePosterior

_SUM_DRAWS = 1000  # draws per arm where a sum or a product has no closed form
_CHUNK = 4096
Ends = tuple[FloatArray, FloatArray, FloatArray]


@attrs.frozen(kw_only=True, eq=False)
class Returns:
    """Conversions (and value) of some exposures, per arm in canonical order.

    Args:
        n_arms: Number of arms A.
        posteriors, exposures: By kind of touch, the exposures of shape (A,).
        value: Of a conversion, None where conversions alone count.
        seed: Seed of the draws.
        shared: Correlation of each arm with what arms have in common, shape (A, K), None where they are independent.
    """

    n_arms: int
    posteriors: Mapping[str, GammaMixture]
    exposures: Mapping[str, FloatArray]
    value: ValuePosterior | None
    seed: int
    shared: FloatArray | None = None

    def mean_and_variance(self) -> tuple[FloatArray, FloatArray]:
        """Return mean and variance of each arm's conversions, shape (A,)."""
        n = self.n_arms
        mean, variance = np.zeros(n), np.zeros(n)
        for name, x in self.exposures.items():
            m, v = moments(self.posteriors[name])
            mean += m * x
            variance += v * x**2
        return mean, variance

    def sole_kind(self) -> npt.NDArray[np.intp]:
        """Return, per arm, the position of the only kind of touch with exposure, -1 for none and -2 for several."""
        used = np.array([x > 0 for x in self.exposures.values()]).reshape(len(self.exposures), self.n_arms)
        several = used.sum(axis=0)
        return np.where(several == 1, used.argmax(axis=0) if len(used) else 0, np.where(several == 0, -1, -2))

    def draw(self, rng: np.random.Generator, size: int, at: npt.NDArray[np.intp], *, with_value: bool) -> FloatArray:
        """Return joint draws of conversions, times value where asked, shape (size, M)."""
        total = np.zeros((size, len(at)))
        for name, x in self.exposures.items():
            total += self.posteriors[name].take(at).draws(rng, size) * x[at]
        if self.shared is not None:
            total = correlated(total, self.shared[at], rng)
        if with_value and self.value is not None:
            total *= self.value.draws(rng, size, at)
        return total

    def cdf(self, base: FloatArray) -> Cdf:
        """Return the distribution functions of conversions per unit of the base, where there is one kind of touch."""
        ((name, exposures),) = self.exposures.items()
        mixture = self.posteriors[name]

        def of(x: FloatArray, at: npt.NDArray[np.intp]) -> FloatArray:
            per_unit = (base[at] / exposures[at])[:, None]
            own = mixture.take(at)
            parts = [
                w[:, None] * special.gammainc(s[:, None], (r[:, None] * per_unit) * x)
                for s, r, w in zip(own.shape.T, own.rate.T, own.weight.T, strict=True)
            ]
            return np.asarray(np.sum(parts, axis=0))

        return of

    def _chunks(self, at: npt.NDArray[np.intp], *, with_value: bool) -> Iterator[tuple[npt.NDArray[np.intp], FloatArray]]:
        rng = np.random.default_rng([self.seed, int(with_value)])
        for start in range(0, len(at), _CHUNK):
            part = at[start : start + _CHUNK]
            yield part, self.draw(rng, _SUM_DRAWS, part, with_value=with_value)

    def quantiles(self, levels: FloatArray, known: npt.NDArray[np.bool_], *, with_value: bool) -> FloatArray:
        """Return quantiles, shape (L, A): exact where one Gamma mixture is all there is, else from draws."""
        n = self.n_arms
        out = np.zeros((len(levels), n))
        sole = self.sole_kind()
        exact = known & (sole >= 0) & (not with_value or self.value is None)
        for i, (name, x) in enumerate(self.exposures.items()):
            at = np.flatnonzero(exact & (sole == i))
            mixture = self.posteriors[name] if len(at) == n else self.posteriors[name].take(at)
            if len(at):
                out[:, at] = quantiles(mixture, levels.tolist()) * x[at]
        for at, draws in self._chunks(np.flatnonzero(known & ~exact), with_value=with_value):
            out[:, at] = np.quantile(draws, levels, axis=0)
        return out


@attrs.frozen(kw_only=True, eq=False)
class Bounds:
    """Returns of the tagged alone, and with all untagged conversions that could be each arm's own; per unit of tagged base."""

    tagged: Returns
    fullest: Returns
    base: FloatArray
    pools: tuple[Pool, Pool]

    def costs(self, levels: FloatArray, known: npt.NDArray[np.bool_], per_tagged: Ends | None) -> FloatArray:
        """Return low and high of the cost per conversion, shape (2, A).

        What tagged exposures cost is known; to whom untagged spend belongs is not.

        Args:
            levels: Ascending.
            known: Where there is a cost.
            per_tagged: Ends of conversions per tagged exposure (as `_main_rate`), None to draw sums over kinds of touch.
        """
        if per_tagged is None:
            few = self.tagged.quantiles(levels, known, with_value=False)[0]
            many = self.fullest.quantiles(levels, known, with_value=False)[-1]
        else:
            exposure = total(len(self.base), list(self.tagged.exposures.values()))
            few, many = per_tagged[0] * exposure, per_tagged[2] * exposure
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([self.base / many, (self.base + self.pools[1].own) / few])

    def worth(self, levels: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
        """Return low and high of the return on spend, shape (2, A)."""
        few = self.tagged.quantiles(levels, known, with_value=True)[0]
        many = self.fullest.quantiles(levels, known, with_value=True)[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([few / (self.base + self.pools[1].own), many / self.base])

    def ranges(self, ranking: Ranking, comparable: npt.NDArray[np.bool_], *, level: float) -> Ranges:
        """Return the bounds of ranks, P(best) and expected loss."""

        def draw(rng: np.random.Generator, size: int, at: npt.NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
            return coupled(*(r.draw(rng, size, at, with_value=True) for r in (self.tagged, self.fullest)))

        one = np.ones_like(self.base)
        value = self.tagged.value
        tagged, fullest = (thirds(*r.mean_and_variance(), value, one, comparable) for r in (self.tagged, self.fullest))
        base = np.where(self.base > 0, self.base, 1.0)
        return ranges(ranking, draw, (tagged, fullest), base, self.pools, comparable, level=level, seed=self.tagged.seed)


def total(n: int, parts: list[FloatArray]) -> FloatArray:
    """Return the sum of the parts, zeros of shape (n,) where there are none."""
    return np.sum(parts, axis=0) if parts else np.zeros(n)


def thirds(
    mean: FloatArray, variance: FloatArray, value: ValuePosterior | None, base: FloatArray, comparable: npt.NDArray[np.bool_]
) -> FloatArray:
    """Return the middles of the three thirds of each arm's return, from the Gamma of its mean and variance, shape (3, A)."""
    if value is not None:
        v = value.mean
        relative = 1.0 / np.maximum(value.shape - 2.0, 0.5)  # squared coefficient of variation of an inverse Gamma
        variance = v**2 * (variance * (1.0 + relative) + mean**2 * relative)
        mean = mean * v
    out = np.zeros((3, len(mean)))
    m, s = mean[comparable], variance[comparable]
    probits = np.array([[-0.9674215661017014], [0.0], [0.9674215661017014]])  # normal quantiles of 1/6, 1/2, 5/6
    out[:, comparable] = gamma_quantile_start(probits, m**2 / s) * s / m / base[comparable]
    return out
