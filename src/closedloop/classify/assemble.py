"""Posteriors of rates to `Signals`: cost, return on spend, ranking, and what drove each number.

Law of this file: it adds money and ranks; it fits no rate. Everything inside is in canonical order and turned back at the end.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

from closedloop.classify.caused import Caused
from closedloop.classify.evidence import Evidence
from closedloop.classify.ranking import rank_arms
from closedloop.classify.rates import Rates
from closedloop.classify.returns import Bounds, Ends, Returns, thirds, total
from closedloop.records.interval import FloatArray, IntervalKind, Intervals
from closedloop.records.outcomes import Outcomes
from closedloop.records.posterior import Untagged
from closedloop.records.signal import Signals
from closedloop.stats.value import fit_value

_DRAWS = 2000  # joint draws of the contenders


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
    pools = evidence.pools if any(r.most is not None for r in rates.values()) else None
    kind = "identified" if pools else kind
    low, estimate, high = _main_rate(evidence, rates, level)

    value = fit_value(evidence.value, evidence.value_squared, evidence.value_count) if _has_value(evidence) else None
    returns = Returns(
        n_arms=n,
        posteriors={k: r.mixture for k, r in rates.items()},
        exposures={k: e.cost_exposure * (1.0 + e.blind) for k, e in kinds.items()},
        value=value,
        seed=seed,
        shared=None if caused is None else caused.shared,
    )
    mean, variance = returns.mean_and_variance()
    exposure = total(n, list(returns.exposures.values()))
    known = (mean > 0) & (variance > 0) & (exposure > 0) & np.isfinite(variance)
    spend = evidence.spend_weighted * (1.0 + evidence.spend_blind)
    spending = spend > 0
    by_spend = bool(spending.any())
    base = spend if by_spend else exposure
    comparable = known & (base > 0)
    bounds = None
    if pools is not None:
        tagged = attrs.evolve(returns, exposures={k: e.cost_exposure for k, e in kinds.items()})
        with_all = {k: r.mixture if r.most is None else r.most for k, r in rates.items()}
        per = evidence.spend_weighted if by_spend else total(n, list(tagged.exposures.values()))
        bounds = Bounds(tagged=tagged, fullest=attrs.evolve(tagged, posteriors=with_all), base=per, pools=pools)

    levels = np.array([tail, 0.5, 1.0 - tail])
    credible = bool(np.bincount(returns.sole_kind()[known] + 2, minlength=2)[0] == 0) if known.any() else True
    costs = np.stack([np.zeros(n), np.full(n, np.inf), np.full(n, np.inf)])
    at = np.flatnonzero(known & spending)
    if credible and len(at):  # one kind of touch per arm: the cost is a monotone map of the rate
        with np.errstate(divide="ignore"):
            per_exposure = spend[at] / exposure[at]
            costs[:, at] = per_exposure / np.stack([high[at], estimate[at], low[at]])
    elif len(at):
        conversions = returns.quantiles(levels, known & spending, with_value=False)
        with np.errstate(divide="ignore"):
            costs[:, at] = spend[at] / conversions[::-1, at]
    if bounds is not None and len(at):
        per_tagged = _main_rate(evidence, rates, level, per_tagged=True) if credible else None
        ends = bounds.costs(levels, known & spending, per_tagged)[:, at]
        costs[0, at], costs[2, at] = np.minimum(ends[0], costs[1, at]), np.maximum(ends[1], costs[1, at])
    if caused is not None and len(at):
        costs[:, at] = _with_price(costs[:, at], caused.price_spread[at], level)
    roas = None
    if value is not None and by_spend:
        worth = np.stack([np.zeros(n), np.zeros(n), np.full(n, np.inf)])
        worth[:, comparable] = returns.quantiles(levels, comparable, with_value=True)[:, comparable] / base[comparable]
        if bounds is not None:
            ends = bounds.worth(levels, comparable)[:, comparable]
            worth[0, comparable], worth[2, comparable] = (
                np.minimum(ends[0], worth[1, comparable]),
                np.maximum(ends[1], worth[1, comparable]),
            )
        roas_kind: IntervalKind = "credible" if bounds is None else "identified"
        roas = Intervals(low=worth[0][back], estimate=worth[1][back], high=worth[2][back], level=level, kind=roas_kind)

    def draw(rng: np.random.Generator, size: int, at: npt.NDArray[np.intp]) -> FloatArray:
        return np.asarray(returns.draw(rng, size, at, with_value=True) / base[at])

    points = thirds(mean, variance, value, base, comparable)
    cdf = returns.cdf(base) if value is None and returns.shared is None and len(kinds) == 1 else None
    means = np.divide(mean if value is None else mean * value.mean, base, out=np.zeros(n), where=comparable)
    ranking = rank_arms(points, means, draw, comparable, level=level, seed=seed, draws=_DRAWS, cdf=cdf)
    spans = None if bounds is None else bounds.ranges(ranking, comparable, level=level)
    rank_low, rank_high = (ranking.rank_low, ranking.rank_high) if spans is None else spans.rank

    def span(ends: tuple[FloatArray, FloatArray], middle: FloatArray) -> Intervals:
        return Intervals(low=ends[0][back], estimate=middle[back], high=ends[1][back], level=level, kind="identified")

    share = {k: e.cost_exposure / np.where(exposure > 0, exposure, 1.0) for k, e in kinds.items()}
    full = total(n, [e.full_exposure for e in kinds.values()])
    return Signals(
        window=outcomes.window,
        arms=evidence.arms,
        order=evidence.canonical[ranking.order].astype(np.int64),
        rate=Intervals(low=low[back], estimate=estimate[back], high=high[back], level=level, kind=kind),
        cost_per_conversion=Intervals(low=costs[0][back], estimate=costs[1][back], high=costs[2][back], level=level, kind=kind),
        roas=roas,
        posteriors={k: r.mixture.take(back) for k, r in rates.items()},
        exposures_per_day={k: e.per_day[back] for k, e in kinds.items()},
        spend_per_day=evidence.spend_per_day[back],
        value_per_conversion=(np.ones(n) if value is None else value.mean)[back],
        p_best=ranking.p_best[back],
        expected_loss=ranking.expected_loss[back],
        effective_volume=total(n, [r.volume for r in rates.values()])[back],
        weekly_conversions=total(n, [e.weekly for e in kinds.values()])[back],
        evidence_age=(total(n, [e.exposure_age for e in kinds.values()]) / np.where(full > 0, full, 1.0))[back],
        dispersion=(np.maximum.reduce([r.dispersion for r in rates.values()]) if rates else np.ones(n))[back],
        maturity=(total(n, [e.exposure for e in kinds.values()]) / np.where(full > 0, full, 1.0))[back],
        borrowed_share=(total(n, [rates[k].borrowed * share[k] for k in kinds]) + (exposure <= 0)).clip(0.0, 1.0)[back],
        tagged_share=evidence.tagged_share[back],
        classifier=classifier,
        outcomes=outcomes,
        now_us=now_us,
        rank_interval=Intervals(
            low=rank_low[back],
            estimate=ranking.rank[back],
            high=rank_high[back],
            level=level,
            kind="credible" if spans is None else "identified",
        ),
        untagged=None
        if bounds is None
        else Untagged(
            fullest={k: p.take(back) for k, p in bounds.fullest.posteriors.items()},
            exposures_per_day={k: (e.per_day / (1.0 + e.blind_recent))[back] for k, e in kinds.items()},
            conversions=bounds.pools[0].take(back),
        ),
        p_best_range=None if spans is None else span(spans.p_best, ranking.p_best),
        expected_loss_range=None if spans is None else span(spans.loss, ranking.expected_loss),
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


def _main_rate(evidence: Evidence, rates: Mapping[str, Rates], level: float, *, per_tagged: bool = False) -> Ends:
    """Return the rate interval of each arm's main kind of touch: clicks where there are any, else views; see `Rates.ends_per_tagged`."""
    n = len(evidence.arms)
    low, estimate, high = np.zeros(n), np.zeros(n), np.full(n, np.inf)
    taken = np.zeros(n, dtype=bool)
    last = len(evidence.kinds) - 1
    for i, (name, e) in enumerate(evidence.kinds.items()):
        mine = ~taken & ((e.full_exposure > 0) | (i == last))
        at = np.flatnonzero(mine & rates[name].informed)
        if len(at):
            low[at], estimate[at], high[at] = (rates[name].ends_per_tagged if per_tagged else rates[name].interval)(level, at)
        taken |= mine
    return low, estimate, high
