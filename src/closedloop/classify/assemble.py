"""Posteriors of rates to `Signals`: cost, return on spend, ranking, and what drove each number.

Law of this file: it adds money and ranks; it fits no rate. Everything inside is in canonical order and turned back at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

from closedloop.classify.caused import Caused
from closedloop.classify.evidence import Evidence
from closedloop.classify.ranking import Cdf, rank_arms
from closedloop.classify.rates import Rates, moments, quantiles, take
from closedloop.records.interval import FloatArray, IntervalKind, Intervals
from closedloop.records.outcomes import Outcomes
from closedloop.records.signal import Signals, correlated
from closedloop.stats.gamma_poisson import gamma_quantile_start
from closedloop.stats.value import ValuePosterior, fit_value

_DRAWS = 2000  # joint draws of the contenders
_SUM_DRAWS = 1000  # draws per arm where a sum or a product has no closed form
_CHUNK = 4096
_SLICE = 1 / 6  # the middle of the lowest third; ranking represents each posterior by the middles of its thirds


@attrs.frozen(kw_only=True, eq=False)
class _Returns:
    """Conversions (and value) of the exposure that the base bought, per arm in canonical order."""

    evidence: Evidence
    rates: Mapping[str, Rates]
    value: ValuePosterior | None
    seed: int
    shared: FloatArray | None = None

    def mean_and_variance(self) -> tuple[FloatArray, FloatArray]:
        n = len(self.evidence.arms)
        mean, variance = np.zeros(n), np.zeros(n)
        for name, e in self.evidence.kinds.items():
            m, v = moments(self.rates[name].mixture)
            mean += m * e.cost_exposure
            variance += v * e.cost_exposure**2
        return mean, variance

    def sole_kind(self) -> npt.NDArray[np.intp]:
        """Return, per arm, the position of the only kind of touch with exposure, -1 for none and -2 for several."""
        used = np.array([(e.cost_exposure > 0) for e in self.evidence.kinds.values()]).reshape(
            len(self.evidence.kinds), len(self.evidence.arms)
        )
        several = used.sum(axis=0)
        return np.where(several == 1, used.argmax(axis=0) if len(used) else 0, np.where(several == 0, -1, -2))

    def draw(self, rng: np.random.Generator, size: int, at: npt.NDArray[np.intp], *, with_value: bool) -> FloatArray:
        """Return joint draws of conversions, times value where asked, shape (size, M)."""
        total = np.zeros((size, len(at)))
        for name, e in self.evidence.kinds.items():
            total += take(self.rates[name].mixture, at).draws(rng, size) * e.cost_exposure[at]
        if self.shared is not None:
            total = correlated(total, self.shared[at], rng)
        if with_value and self.value is not None:
            total *= self.value.draws(rng, size, at)
        return total

    def cdf(self, base: FloatArray) -> Cdf:
        """Return the distribution functions of conversions per unit of the base, where there is one kind of touch."""
        ((name, e),) = self.evidence.kinds.items()
        mixture = self.rates[name].mixture

        def of(x: FloatArray, at: npt.NDArray[np.intp]) -> FloatArray:
            per_unit = (base[at] / e.cost_exposure[at])[:, None]
            own = take(mixture, at)
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
        n = len(self.evidence.arms)
        out = np.zeros((len(levels), n))
        sole = self.sole_kind()
        exact = known & (sole >= 0) & (not with_value or self.value is None)
        for i, (name, e) in enumerate(self.evidence.kinds.items()):
            at = np.flatnonzero(exact & (sole == i))
            mixture = self.rates[name].mixture if len(at) == n else take(self.rates[name].mixture, at)
            if len(at):
                out[:, at] = quantiles(mixture, levels.tolist()) * e.cost_exposure[at]
        for at, draws in self._chunks(np.flatnonzero(known & ~exact), with_value=with_value):
            out[:, at] = np.quantile(draws, levels, axis=0)
        return out


def assemble(
    outcomes: Outcomes,
    evidence: Evidence,
    rates: Mapping[str, Rates],
    *,
    level: float,
    seed: int,
    now_us: int,
    classifier: str,
    kind: IntervalKind = "credible",
    caused: Caused | None = None,
) -> Signals:
    """Return the signals of arms whose rates are known.

    Args:
        outcomes: The evidence's source.
        evidence: As from `gather`.
        rates: Posterior per kind of touch in use.
        level: Level of the intervals.
        seed: Seed of all draws.
        now_us: Microseconds UTC.
        classifier: Name for the title.
        kind: What the intervals of rates claim, where no tags are missing.
        caused: Where the rates are of caused conversions: what arms share, and the caused share of credit.
    """
    n = len(evidence.arms)
    tail = (1.0 - level) / 2.0
    back = np.argsort(evidence.canonical)  # canonical values in the order of the arms
    kinds = evidence.kinds
    identified = any(r.fewest is not None for r in rates.values())
    kind = "identified" if identified else kind
    low, estimate, high = _main_rate(evidence, rates, level)

    value = fit_value(evidence.value, evidence.value_squared, evidence.value_count) if _has_value(evidence) else None
    returns = _Returns(evidence=evidence, rates=rates, value=value, seed=seed, shared=None if caused is None else caused.shared)
    mean, variance = returns.mean_and_variance()
    exposure = _total(n, [e.cost_exposure for e in kinds.values()])
    known = (mean > 0) & (variance > 0) & (exposure > 0) & np.isfinite(variance)
    spending = evidence.spend_weighted > 0
    by_spend = bool(spending.any())
    base = evidence.spend_weighted if by_spend else exposure
    comparable = known & (base > 0)

    levels = np.array([tail, 0.5, 1.0 - tail])
    credible = bool(np.bincount(returns.sole_kind()[known] + 2, minlength=2)[0] == 0) if known.any() else True
    costs = np.stack([np.zeros(n), np.full(n, np.inf), np.full(n, np.inf)])
    at = np.flatnonzero(known & spending)
    if credible and len(at):  # one kind of touch per arm: the cost is a monotone map of the rate, identified set included
        with np.errstate(divide="ignore"):
            per_exposure = evidence.spend_weighted[at] / exposure[at]
            costs[:, at] = per_exposure / np.stack([high[at], estimate[at], low[at]])
    elif len(at):
        conversions = returns.quantiles(levels, known & spending, with_value=False)
        with np.errstate(divide="ignore"):
            costs[:, at] = evidence.spend_weighted[at] / conversions[::-1, at]
    if caused is not None and len(at):
        costs[:, at] = _with_price(costs[:, at], caused.price_spread[at], level)
    roas = None
    if value is not None and by_spend:
        worth = np.stack([np.zeros(n), np.zeros(n), np.full(n, np.inf)])
        worth[:, comparable] = returns.quantiles(levels, comparable, with_value=True)[:, comparable] / base[comparable]
        roas = Intervals(low=worth[0][back], estimate=worth[1][back], high=worth[2][back], level=level, kind="credible")

    def draw(rng: np.random.Generator, size: int, at: npt.NDArray[np.intp]) -> FloatArray:
        return np.asarray(returns.draw(rng, size, at, with_value=True) / base[at])

    points = _thirds(mean, variance, value, base, comparable)
    cdf = returns.cdf(base) if value is None and returns.shared is None and len(kinds) == 1 else None
    means = np.divide(mean if value is None else mean * value.mean, base, out=np.zeros(n), where=comparable)
    ranking = rank_arms(points, means, draw, comparable, level=level, seed=seed, draws=_DRAWS, cdf=cdf)
    share = {k: e.cost_exposure / np.where(exposure > 0, exposure, 1.0) for k, e in kinds.items()}
    full = _total(n, [e.full_exposure for e in kinds.values()])
    return Signals(
        window=outcomes.window,
        arms=evidence.arms,
        order=evidence.canonical[ranking.order].astype(np.int64),
        rate=Intervals(low=low[back], estimate=estimate[back], high=high[back], level=level, kind=kind),
        cost_per_conversion=Intervals(low=costs[0][back], estimate=costs[1][back], high=costs[2][back], level=level, kind=kind),
        roas=roas,
        posteriors={k: take(r.mixture, back) for k, r in rates.items()},
        exposures_per_day={k: e.per_day[back] for k, e in kinds.items()},
        spend_per_day=evidence.spend_per_day[back],
        value_per_conversion=(np.ones(n) if value is None else value.mean)[back],
        p_best=ranking.p_best[back],
        expected_loss=ranking.expected_loss[back],
        effective_volume=_total(n, [r.volume for r in rates.values()])[back],
        weekly_conversions=_total(n, [e.weekly for e in kinds.values()])[back],
        evidence_age=(_total(n, [e.exposure_age for e in kinds.values()]) / np.where(full > 0, full, 1.0))[back],
        dispersion=(np.maximum.reduce([r.dispersion for r in rates.values()]) if rates else np.ones(n))[back],
        maturity=(_total(n, [e.exposure for e in kinds.values()]) / np.where(full > 0, full, 1.0))[back],
        borrowed_share=(_total(n, [rates[k].borrowed * share[k] for k in kinds]) + (exposure <= 0)).clip(0.0, 1.0)[back],
        tagged_share=evidence.tagged_share[back],
        classifier=classifier,
        outcomes=outcomes,
        now_us=now_us,
        rank_interval=Intervals(
            low=ranking.rank_low[back], estimate=ranking.rank[back], high=ranking.rank_high[back], level=level, kind="credible"
        ),
        shared=None if caused is None else caused.shared[back],
        caused_share=None if caused is None else caused.share.take(back),
        caused_by=() if caused is None else tuple(caused.source[int(i)] for i in back),
    )


def _with_price(costs: FloatArray, spread: FloatArray, level: float) -> FloatArray:
    """Return costs (low, estimate, high; shape (3, M)) whose ends allow for a price known up to ``spread`` (of its log).

    On the log scale the two uncertainties add as variances do, on each side on its own.
    """
    reach = special.ndtri(0.5 + level / 2.0) * spread
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(costs)
        low, high = np.hypot(log[1] - log[0], reach), np.hypot(log[2] - log[1], reach)
        out = np.stack([np.exp(log[1] - low), costs[1], np.exp(log[1] + high)])
    return np.where(np.isfinite(costs[1]), out, costs)


def _has_value(evidence: Evidence) -> bool:
    return bool(((evidence.value > 0) & (evidence.value_count > 0)).any())


def _total(n: int, parts: list[FloatArray]) -> FloatArray:
    return np.sum(parts, axis=0) if parts else np.zeros(n)


def _main_rate(evidence: Evidence, rates: Mapping[str, Rates], level: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the rate interval of each arm's main kind of touch: clicks where there are any, else views."""
    n = len(evidence.arms)
    low, estimate, high = np.zeros(n), np.zeros(n), np.full(n, np.inf)
    taken = np.zeros(n, dtype=bool)
    last = len(evidence.kinds) - 1
    for i, (name, e) in enumerate(evidence.kinds.items()):
        mine = ~taken & ((e.full_exposure > 0) | (i == last))
        at = np.flatnonzero(mine & rates[name].informed)
        if len(at):
            low[at], estimate[at], high[at] = rates[name].interval(level, at)
        taken |= mine
    return low, estimate, high


def _thirds(
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
