"""`BayesClassifier`: Gamma-Poisson rates with delay, recency, over-dispersion and pooling; STATISTICS sections 2-4 and 7.

Law of this file: outcomes in, signals out; the same evidence gives the same answer whatever the order of events, batches or
arms. Nothing loops over arms.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

from closedloop.classify.evidence import Evidence, KindEvidence, gather, now_microseconds
from closedloop.classify.ranking import rank_arms
from closedloop.errors import ConfigurationError, WindowMismatchError
from closedloop.records.interval import FloatArray, Intervals
from closedloop.records.moments import parse_duration, to_us
from closedloop.records.outcomes import DelayCurve, Outcomes
from closedloop.records.signal import GammaMixture, Signals
from closedloop.records.window import AttributionWindow
from closedloop.stats.gamma_poisson import fit_group_priors, mixture_quantile, pearson_dispersion, posterior_mixture, totals

_DRAWS = 4000
_DELAY_DRAWS = 256
_VALUE_PSEUDO = 5.0  # conversions' worth of the group's mean value in every arm's


def _half_life(value: str | timedelta | None) -> timedelta | None:
    return None if value is None else parse_duration(value, "half_life")


@attrs.frozen
class BayesClassifier:
    """Rank arms by posteriors whose intervals say how little is known.

    Args:
        window: The attribution window of the evidence; outcomes made under another one are refused.
        level: Level of every interval, in (0, 1).
        half_life: Age at which evidence counts half, such as ``"28d"``; None forgets nothing.
        groups: Tag columns whose combinations pool their arms; those that the arms lack are left out.
        seed: Seed of the draws behind P(best) and the expected loss.

    Raises:
        ConfigurationError: An argument is not valid.

    References:
        Gelman et al. (2013), chapters 2 and 5; Fletcher (2012) for sparse dispersion.
    """

    window: AttributionWindow
    level: float = attrs.field(default=0.9, kw_only=True)
    half_life: timedelta | None = attrs.field(default=timedelta(days=28), converter=_half_life, kw_only=True)
    groups: tuple[str, ...] = attrs.field(default=("platform", "audience"), converter=tuple, kw_only=True)
    seed: int = attrs.field(default=0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise ConfigurationError("a level lies between 0 and 1", "level", self.level, "use 0.9 for a 90 % interval")
        if self.half_life is not None and self.half_life <= timedelta(0):
            raise ConfigurationError("a half-life is longer than zero", "half_life", str(self.half_life))

    def classify(self, outcomes: Outcomes, *, now: datetime | None = None) -> Signals:
        """Return the complete arms ranked, each number with its interval.

        Args:
            outcomes: As attribution gave them, made under the same window.
            now: When (aware); None takes the data watermark.

        Raises:
            WindowMismatchError: The outcomes were made under another window.
            InputError: A cohort lies in the future, or a count is negative or not finite.
        """
        if outcomes.window != self.window:
            raise WindowMismatchError(
                "the outcomes were attributed under another window", "window", repr(outcomes.window), f"attribute under {self.window!r}"
            )
        now_us = None if now is None else to_us(now)
        days = None if self.half_life is None else self.half_life / timedelta(days=1)
        evidence = gather(outcomes, half_life_days=days, now_us=now_us)
        rng = np.random.default_rng(self.seed)
        group, names = evidence.arms.take(evidence.canonical).groups(self.groups)
        rates = {name: _rates(outcomes, e, group, len(names), name, rng) for name, e in evidence.kinds.items()}
        return _signals(self, outcomes, evidence, rates, group, len(names), rng, now_microseconds(outcomes, now_us))


@attrs.frozen(kw_only=True, eq=False)
class _Rates:
    """Posterior of one kind of touch, per arm in canonical order."""

    shape: FloatArray
    rate: FloatArray
    weight: FloatArray
    borrowed: FloatArray
    dispersion: FloatArray
    tempering: FloatArray
    informed: npt.NDArray[np.bool_]

    def quantile(self, level: float) -> FloatArray:
        return mixture_quantile(level, self.shape, self.rate, self.weight)

    def moments(self) -> tuple[FloatArray, FloatArray]:
        means = self.shape / self.rate
        mean = (self.weight * means).sum(axis=1)
        return mean, (self.weight * (means / self.rate + (means - mean[:, None]) ** 2)).sum(axis=1)

    def at(self, index: npt.NDArray[np.intp]) -> GammaMixture:
        return GammaMixture(shape=self.shape[index], rate=self.rate[index], weight=self.weight[index])


def _rates(outcomes: Outcomes, e: KindEvidence, group: npt.NDArray[np.int32], n_groups: int, name: str, rng: np.random.Generator) -> _Rates:
    """Return the posterior of each arm's rate for one kind of touch."""
    n = len(group)
    c = outcomes.cohorts
    own = np.divide(e.count_raw, e.exposure_raw, out=np.zeros(n), where=e.exposure_raw > 0)
    expected = own[e.unit] * c.exposures[e.rows] * c.maturity[e.rows]
    ratio = pearson_dispersion(c.credit[e.rows], expected, e.unit, group, n_groups)[group]
    dispersion = np.maximum(ratio / e.credit_dispersion, 1.0)
    tempering = dispersion * e.credit_dispersion
    count, exposure = e.count / tempering, e.exposure / tempering
    priors = fit_group_priors(count, exposure, group, n_groups)
    spread = _delay_variance(outcomes, e, outcomes.delay.get(name), rng)
    shape, rate, weight, borrowed = posterior_mixture(count, exposure, group, priors, exposure_variance=spread)
    return _Rates(
        shape=shape,
        rate=rate,
        weight=weight,
        borrowed=borrowed,
        dispersion=dispersion,
        tempering=tempering,
        informed=priors.informed[group],
    )


def _delay_variance(outcomes: Outcomes, e: KindEvidence, curve: DelayCurve | None, rng: np.random.Generator) -> FloatArray | None:
    """Return the variance of each arm's log mature exposure that comes from not knowing the delay curve, None without a curve."""
    if curve is None or len(curve.share_seen) < 2:
        return None
    bins = len(curve.share_seen)
    hazard = rng.beta(curve.shape_a[1:], curve.shape_b[1:], (_DELAY_DRAWS, bins - 1))
    share = np.ones((_DELAY_DRAWS, bins))
    share[:, :-1] = np.cumprod((1.0 - hazard)[:, ::-1], axis=1)[:, ::-1]
    covariance = np.cov(share / np.maximum(share.mean(axis=0), 1e-12), rowvar=False)
    age = np.clip(outcomes.cohorts.age[e.rows], 1, bins) - 1
    amount = e.weight * outcomes.cohorts.exposures[e.rows] * outcomes.cohorts.maturity[e.rows]
    n = len(e.exposure)
    young = age < bins - 1  # older cohorts are surely complete
    by_age = totals(e.unit[young] * (bins - 1) + age[young], amount[young], n * (bins - 1)).reshape(n, bins - 1)
    variance = np.einsum("aj,jk,ak->a", by_age, covariance[:-1, :-1], by_age)
    return np.asarray(variance / np.maximum(e.exposure, 1e-300) ** 2)


def _signals(
    classifier: BayesClassifier,
    outcomes: Outcomes,
    evidence: Evidence,
    rates: dict[str, _Rates],
    group: npt.NDArray[np.int32],
    n_groups: int,
    rng: np.random.Generator,
    now_us: int,
) -> Signals:
    n, level = len(evidence.arms), classifier.level
    tail = (1.0 - level) / 2.0
    back = np.argsort(evidence.canonical)  # canonical values in the order of the arms
    kinds = evidence.kinds

    # The arm's main kind of touch: clicks where there are any, else views.
    low, estimate, high = np.zeros(n), np.zeros(n), np.full(n, np.inf)
    taken = np.zeros(n, dtype=bool)
    last = len(kinds) - 1
    for i, (name, e) in enumerate(kinds.items()):
        mine = ~taken & ((e.full_exposure > 0) | (i == last))
        r = rates[name]
        at = np.flatnonzero(mine & r.informed)
        low[at], estimate[at], high[at] = (mixture_quantile(p, r.shape[at], r.rate[at], r.weight[at]) for p in (tail, 0.5, 1.0 - tail))
        taken |= mine

    # Conversions of any kind that the (recency-weighted) exposure brings once mature.
    mean, variance = np.zeros(n), np.zeros(n)
    for name, e in kinds.items():
        m, v = rates[name].moments()
        mean += m * e.full_exposure
        variance += v * e.full_exposure**2
    known = (mean > 0) & (variance > 0)
    spending = evidence.spend_weighted > 0
    by_spend = bool(spending.any())
    exposure = sum((e.full_exposure for e in kinds.values()), np.zeros(n))
    base = evidence.spend_weighted if by_spend else exposure
    comparable = known & (base > 0)
    single = _single_kind(kinds, rates, n)

    def conversions(p: float) -> FloatArray:
        """Quantile of the conversions: exact for one kind of touch, from matched moments for the sum of two."""
        out = np.zeros(n)
        for name, at in single.items():
            r = rates[name]
            out[at] = mixture_quantile(p, r.shape[at], r.rate[at], r.weight[at]) * kinds[name].full_exposure[at]
        rest = known.copy()
        for at in single.values():
            rest[at] = False
        at = np.flatnonzero(rest)
        out[at] = special.gammaincinv(mean[at] ** 2 / variance[at], p) * variance[at] / mean[at]
        return out

    cost_low, cost, cost_high = np.zeros(n), np.full(n, np.inf), np.full(n, np.inf)
    at = np.flatnonzero(known & spending)
    with np.errstate(divide="ignore"):
        cost_high[at], cost[at], cost_low[at] = (evidence.spend_weighted[at] / conversions(p)[at] for p in (tail, 0.5, 1.0 - tail))
    value, value_variance = _value(evidence, group, n_groups)
    has_value = bool((evidence.value > 0).any())

    def worth(p: float) -> FloatArray:
        """Quantile of the return per unit of base, value included (moments matched)."""
        m, v = mean * value, (variance + mean**2) * (value_variance + value**2) - (mean * value) ** 2
        out = np.zeros(n)
        out[comparable] = (special.gammaincinv(m[comparable] ** 2 / v[comparable], p) * v[comparable] / m[comparable]) / base[comparable]
        return out

    def draw(at: npt.NDArray[np.intp]) -> FloatArray:
        total = np.zeros((_DRAWS, len(at)))
        for name, e in kinds.items():
            total += rates[name].at(at).draws(rng, _DRAWS) * e.full_exposure[at]
        if has_value:
            with np.errstate(divide="ignore", invalid="ignore"):
                k = value[at] ** 2 / value_variance[at]
            total *= rng.standard_gamma(k, (_DRAWS, len(at))) * (value[at] / k)
        return np.asarray(total / base[at])

    roas = None
    if has_value and by_spend:
        rl, re, rh = np.zeros(n), np.zeros(n), np.full(n, np.inf)
        ok = comparable
        rl[ok], re[ok], rh[ok] = worth(tail)[ok], worth(0.5)[ok], worth(1.0 - tail)[ok]
        roas = Intervals(low=rl[back], estimate=re[back], high=rh[back], level=level, kind="credible")
    ranking = rank_arms(worth(1 / 6), worth(0.5), worth(5 / 6), draw, comparable)

    def total(values: dict[str, FloatArray]) -> FloatArray:
        return np.asarray(sum(values.values(), np.zeros(n)))

    effective = total(
        {k: np.divide(e.count**2, e.squared * rates[k].tempering, out=np.zeros(n), where=e.squared > 0) for k, e in kinds.items()}
    )
    share = {k: e.full_exposure / np.where(exposure > 0, exposure, 1.0) for k, e in kinds.items()}
    age = total({k: totals(e.unit, e.weight * outcomes.cohorts.exposures[e.rows] * e.age, n) for k, e in kinds.items()})
    return Signals(
        window=outcomes.window,
        arms=evidence.arms,
        order=evidence.canonical[ranking.order].astype(np.int64),
        rate=Intervals(low=low[back], estimate=estimate[back], high=high[back], level=level, kind="credible"),
        cost_per_conversion=Intervals(low=cost_low[back], estimate=cost[back], high=cost_high[back], level=level, kind="credible"),
        roas=roas,
        posteriors={k: r.at(back) for k, r in rates.items()},
        exposures_per_day={k: e.per_day[back] for k, e in kinds.items()},
        spend_per_day=evidence.spend_per_day[back],
        value_per_conversion=value[back],
        p_best=ranking.p_best[back],
        expected_loss=ranking.expected_loss[back],
        effective_volume=effective[back],
        weekly_conversions=total({k: e.weekly for k, e in kinds.items()})[back],
        evidence_age=(age / np.where(exposure > 0, exposure, 1.0))[back],
        dispersion=(np.maximum.reduce([r.dispersion for r in rates.values()]) if rates else np.ones(n))[back],
        maturity=(total({k: e.exposure for k, e in kinds.items()}) / np.where(exposure > 0, exposure, 1.0))[back],
        borrowed_share=(total({k: rates[k].borrowed * share[k] for k in kinds}) + (exposure <= 0))[back].clip(0.0, 1.0),
        tagged_share=evidence.tagged_share[back],
        classifier=f"BayesClassifier(level={level:g})",
        outcomes=outcomes,
        now_us=now_us,
    )


def _single_kind(kinds: dict[str, KindEvidence], rates: dict[str, _Rates], n: int) -> dict[str, npt.NDArray[np.intp]]:
    """Return, per kind, the arms that have exposure of that kind only."""
    used = {k: (e.full_exposure > 0) & rates[k].informed for k, e in kinds.items()}
    count = sum((u.astype(np.int64) for u in used.values()), np.zeros(n, dtype=np.int64))
    return {k: np.flatnonzero(u & (count == 1)) for k, u in used.items()}


def _value(evidence: Evidence, group: npt.NDArray[np.int32], n_groups: int) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of the revenue per conversion, pooled towards the group; 1 and about 0 where no revenue is given."""
    n = len(group)
    if not (evidence.value > 0).any():
        return np.ones(n), np.full(n, 1e-12)
    value, count = evidence.value, evidence.value_count
    g_value, g_count = totals(group, value, n_groups), totals(group, count, n_groups)
    g_squared = totals(group, evidence.value_squared, n_groups)
    pooled = value.sum() / max(count.sum(), 1e-12)
    g_mean = (g_value + pooled) / (g_count + 1.0)
    second = (g_squared + 2.0 * pooled**2) / (g_count + 1.0)
    relative = np.maximum(second / g_mean**2 - 1.0, 0.05)  # squared coefficient of variation of one conversion
    mean = (value + _VALUE_PSEUDO * g_mean[group]) / (count + _VALUE_PSEUDO)
    return np.asarray(mean), np.asarray(mean**2 * relative[group] / (count + _VALUE_PSEUDO))
