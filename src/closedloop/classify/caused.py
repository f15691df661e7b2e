"""From attributed to caused: a background per click, or incrementality factors, on the posteriors of rates; STATISTICS section 8.

Law of this file: caused is what an arm took part in less its background (credit less background where only credit is known: a later touch
may have taken it), with the whole uncertainty of both, of what arms share, and of what tests found; an
arm that was never tested keeps its prior's width. A factor that the caller gives multiplies instead. The title of the signals says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

from closedloop.classify.evidence import Evidence
from closedloop.classify.following import Assumption, assumptions, log_weights, rates_under
from closedloop.classify.rates import Rates, moments
from closedloop.errors import ConfigurationError
from closedloop.records.arms import Arm, Arms
from closedloop.records.causes import CausalEvidence
from closedloop.records.interval import FloatArray, Interval, Intervals
from closedloop.records.outcomes import Outcomes
from closedloop.records.signal import GammaMixture
from closedloop.stats.background import split
from closedloop.stats.gamma_poisson import GroupPriors
from closedloop.stats.measured import measured_by
from closedloop.stats.reading import Reading, mean_rate


@runtime_checkable
class CausedShares(Protocol):
    """Caused over attributed conversions of some arms, as incrementality tests give them."""

    @property
    def arms(self) -> Arms:
        """The arms."""
        ...

    @property
    def share(self) -> Intervals:
        """Caused over attributed, one interval per arm."""
        ...


Incrementality = Mapping[Arm, Interval] | CausedShares | CausalEvidence
_K = 0.5  # concentration of the weak prior under which the credit of an arm is read, before it is taken out again
_DRAWS, _FEW = 1500, 600  # joint draws of what arms cause, and of that of thousands of arms
_MANY = 2000
_DAILY = 0.15  # default scatter of a day's log price of an exposure
_HALF_LIVES = (3.0, 7.0, 14.0, 28.0)  # days over which a price is averaged: the shortest with enough exposures
_ENOUGH = 50.0


# Probabilities of the slices of a factor's distribution, finer towards the tails; within each, mean and variance are kept.
SLICES = np.array([0.02, 0.04, 0.08, 0.16, 0.4, 0.16, 0.08, 0.04, 0.02])


def factors(evidence: Evidence, incrementality: Mapping[Arm, Interval] | CausedShares) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of each arm's factor within slices of its distribution, in canonical order, shape (S, A).

    The factor is taken to be Normal with the interval's estimate and width, cut off at zero; an arm without one has 1 and 0.

    Raises:
        ConfigurationError: An interval is unbounded or negative.
    """
    if isinstance(incrementality, CausedShares):
        given = dict(zip(incrementality.arms, incrementality.share, strict=True))
    else:
        given = {tuple(arm): interval for arm, interval in incrementality.items()}
    n = len(evidence.arms)
    centre, spread = np.ones(n), np.zeros(n)
    position = np.argsort(evidence.canonical)
    for i, arm in enumerate(evidence.arms):
        interval = given.get(arm)
        if interval is None:
            continue
        if not (interval.low >= 0.0 and np.isfinite(interval.high) and interval.high > 0.0):
            problem = f"the incrementality of {evidence.arms.label(i)} must be bounded and not negative"
            raise ConfigurationError(problem, "incrementality", str(interval), "give an interval within [0, inf), such as a lift test's")
        centre[position[i]] = interval.estimate
        spread[position[i]] = (interval.high - interval.low) / (2.0 * special.ndtri(0.5 + interval.level / 2.0))
    return _slices(centre, spread)


def _slices(centre: FloatArray, spread: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return means and variances of a Normal cut off at zero within slices, shape (S, A)."""
    safe = np.where(spread > 0, spread, 1.0)
    below = special.ndtr(-centre / safe)
    share = SLICES[:, None] * (1.0 - below)
    edge = special.ndtri(below + np.append(0.0, np.cumsum(SLICES))[:, None] * (1.0 - below))
    edge[-1] = np.inf
    density = np.exp(-0.5 * edge**2) / np.sqrt(2.0 * np.pi)
    moment = np.where(np.isfinite(edge), edge, 0.0) * density
    first = (density[:-1] - density[1:]) / share
    variance = 1.0 + (moment[:-1] - moment[1:]) / share - first**2
    uncertain = spread > 0
    return (
        np.where(uncertain, np.maximum(centre + safe * first, 1e-9), np.maximum(centre, 1e-9)),
        np.where(uncertain, safe**2 * np.maximum(variance, 0.0), 0.0),
    )


@attrs.frozen(kw_only=True, eq=False)
class Caused:
    """Rates of what arms cause, all kinds of touch together, per exposure of the arm's main kind (A arms, canonical order).

    Args:
        evidence: The evidence, with the exposure of each arm's main kind only.
        rates: Posteriors of caused conversions.
        shared: Correlation of each arm with what arms have in common, shape (A, K).
        price_spread: Standard deviation of the log of what an exposure costs, shape (A,).
        share: Caused over conversions taken part in (credited ones, where only credit is known).
        source: Per arm: ``test``, or the name of the prior.
    """

    evidence: Evidence
    rates: dict[str, Rates]
    shared: FloatArray
    price_spread: FloatArray
    share: Intervals
    source: tuple[str, ...]


def caused_rates(
    outcomes: Outcomes,
    source: Outcomes,
    evidence: Evidence,
    rates: Mapping[str, Rates],
    group: npt.NDArray[np.int32],
    known: CausalEvidence,
    *,
    hazard: float | None,
    level: float,
    seed: int,
) -> Caused:
    """Return the posteriors of what arms cause.

    Args:
        outcomes: With participation where it is known.
        source: What the evidence was gathered from: the participation, or else the outcomes.
        evidence: As from `gather`.
        rates: Posteriors of the rates of conversions taken part in, for their group's priors.
        group: Group of each arm in canonical order, shape (A,).
        known: Tests and priors.
        hazard: As in `fit_rates`.
        level: Level of the intervals of the shares.
        seed: Seed of all draws.

    Raises:
        ConfigurationError: A test names a tag that the arms do not have.
    """
    arms = evidence.arms.take(evidence.canonical)
    n, kinds = len(arms), evidence.kinds
    if not n or not kinds:
        empty = Intervals(low=np.zeros(n), estimate=np.zeros(n), high=np.full(n, np.inf), level=level, kind="credible")
        return Caused(
            evidence=evidence, rates=dict(rates), shared=np.zeros((n, 0)), price_spread=np.zeros(n), share=empty, source=("prior",) * n
        )
    used = np.stack([e.cost_exposure > 0 for e in kinds.values()])
    main = np.where(used.any(axis=0), used.argmax(axis=0), len(kinds) - 1)
    assumed = assumptions(outcomes, source, kinds, known.follows if hazard else 0.0)
    bare: dict[str, list[Rates]] = {}
    means = []
    for name, e in kinds.items():
        fitted = rates[name].priors
        assert fitted is not None  # only arms that stand alone have none, and those are never turned into causes
        centre = (fitted.weight * fitted.log_mu).sum(axis=1, keepdims=True)
        flat = np.ones_like(centre)
        weak = GroupPriors(k=_K * flat, weight=flat, log_mu=centre, sd_log_mu=0.0 * flat, informed=fitted.informed)
        means.append(np.exp(centre[group, 0]))
        bare[name] = rates_under(assumed, name, source, e, group, weak, hazard, seed)
    names = list(kinds)
    mu = np.stack(means)[main, np.arange(n)]
    price = _recent_price(outcomes, evidence, main)
    kinds = {name: attrs.evolve(e, cost_exposure=price.exposures[name]) for name, e in kinds.items()}
    evidence = attrs.evolve(evidence, kinds=kinds, spend_weighted=price.spend)
    said_by = np.sum([[np.broadcast_to(r.evidence, n) for r in each] for each in bare.values()], axis=0)  # log evidence, shape (J, A)
    said_by = said_by + log_weights(assumed, said_by)
    own, *bounds = (_readings(bare, assumed, said_by, what, evidence, main) for what in ("mixture", "fewest", "most"))
    types = list(known.priors)
    said = known.types(arms)
    kind = np.array([types.index(t) for t in said], dtype=np.int64)
    named = arms.column("platform").decode().astype(str) if "platform" in arms.columns else np.zeros(n)
    platform = np.unique(named, return_inverse=True)[1].astype(np.int64)  # by name: the order in which arms were listed must not matter
    exposures = np.stack([kinds[name].cost_exposure for name in names])[main, np.arange(n)]
    measured, covered = measured_by(known, outcomes, arms, exposures, mean_rate(own), present=len(assumed) > 1)
    found = split(
        own, k=np.full(n, _K), mu=mu, kind=kind, priors=[known.priors[t] for t in types], platform=platform,
        view=known.view(participation=outcomes.participation is not None), measured=measured,
        rng=np.random.default_rng([seed, 3]), size=_DRAWS if n <= _MANY else _FEW,
        bounds=[readings for readings in bounds if readings],
    )  # fmt: skip
    mixtures = [sliced(causes.caused) for causes in found]
    bounded = len(found) == 3
    new, only = {}, {}
    for i, name in enumerate(names):
        mine = main == i
        new[name] = attrs.evolve(
            rates[name],
            mixture=mixtures[0],
            fewest=mixtures[1] if bounded else None,
            most=mixtures[2] if bounded else None,
            fixed=None,
            point=None,
        )
        zero = np.where(mine, 1.0, 0.0)
        only[name] = attrs.evolve(kinds[name], cost_exposure=kinds[name].cost_exposure * zero, per_day=kinds[name].per_day * zero)
    share = Intervals.of_draws(found[0].caused / found[0].credited, level=level)
    basis = tuple("test" if c else f"prior: {t}" for c, t in zip(covered, said, strict=True))
    return Caused(
        evidence=attrs.evolve(evidence, kinds=only),
        rates=new,
        shared=found[0].shared,
        price_spread=price.spread,
        share=share,
        source=basis,
    )


def _readings(
    bare: Mapping[str, list[Rates]], assumed: Sequence[Assumption], log: FloatArray, what: str, evidence: Evidence,
    main: npt.NDArray[np.intp],
) -> list[Reading]:  # fmt: skip
    """Return the credited rate under each assumption, of log weight (J, A); none where a kind of touch lacks what is asked for."""
    out = []
    for j, assumption in enumerate(assumed):
        found = _summed(list(bare), [getattr(rates[j], what) for rates in bare.values()], evidence, main)
        if found is None:
            return []
        out.append(Reading(shape=found.shape, rate=found.rate, weight=found.weight, share=assumption.share, evidence=log[j]))
    return out


def _summed(names: list[str], posteriors: list[GammaMixture | None], evidence: Evidence, main: npt.NDArray[np.intp]) -> GammaMixture | None:
    """Return credited conversions of all kinds per exposure of the main kind: each component of the main kind with the others' moments."""
    n = len(main)
    exposures = np.stack([evidence.kinds[name].cost_exposure for name in names])
    base = np.maximum(exposures[main, np.arange(n)], 1e-300)
    width = max((p.shape.shape[1] for p in posteriors if p is not None), default=0)
    if not width:
        return None
    shape, rate, weight = np.ones((n, width)), np.ones((n, width)), np.zeros((n, width))
    more_mean, more_variance = np.zeros(n), np.zeros(n)
    for i, posterior in enumerate(posteriors):
        if posterior is None:
            return None
        at = np.flatnonzero(main == i)
        columns = slice(0, posterior.shape.shape[1])
        shape[at, columns], rate[at, columns] = posterior.shape[at], posterior.rate[at]
        weight[at, columns] = posterior.weight[at]
        other = (main != i) & (exposures[i] > 0)
        ratio = np.where(other, exposures[i] / base, 0.0)
        mean, variance = moments(posterior)
        more_mean += mean * ratio
        more_variance += variance * ratio**2
    mean = shape / rate + more_mean[:, None]
    variance = shape / rate**2 + more_variance[:, None]
    return GammaMixture(shape=mean**2 / variance, rate=mean / variance, weight=weight)


@attrs.frozen(kw_only=True, eq=False)
class _Price:
    """What exposures cost of late, per arm in canonical order.

    Args:
        exposures: By kind of touch, weighted exposures, shape (A,).
        spend: Spend under the same weights, shape (A,).
        spread: Standard deviation of the log of spend per exposure of the main kind, shape (A,).
    """

    exposures: dict[str, FloatArray]
    spend: FloatArray
    spread: FloatArray


def _recent_price(outcomes: Outcomes, evidence: Evidence, main: npt.NDArray[np.intp]) -> _Price:
    """Return exposures and spend of the last days: the price follows the budget, so it is that of the days just past.

    An arm with few exposures looks further back. From one day to the next prices scatter by what they do in arms with many exposures,
    and by the chance of few.

    Args:
        outcomes: Cohorts and spend.
        evidence: The arms.
        main: Position of each arm's main kind among the kinds of touch, shape (A,).
    """
    n, c, s = len(main), outcomes.cohorts, outcomes.spend
    place = np.full(len(outcomes.arms), -1, dtype=np.int64)
    place[np.flatnonzero(outcomes.arms.complete)[evidence.canonical]] = np.arange(n)
    kind = np.array([e.kind for e in evidence.kinds.values()])[main]

    def ages(arm: npt.NDArray[np.int32], day: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], FloatArray]:
        unit = place[arm]
        return unit, np.where(unit >= 0, evidence.watermark_day[unit] - day, 0.0)

    (unit, age), (spender, since) = ages(c.arm, c.day), ages(s.arm, s.day)
    settled = np.zeros(n + 1, dtype=np.bool_)  # arms with a whole day behind them; one that is not over has paid for what comes later
    settled[spender[(spender >= 0) & (since > 0)]] = True
    mine, paid = (unit >= 0) & ((age > 0) | ~settled[unit]), (spender >= 0) & ((since > 0) | ~settled[spender])
    own = mine & (c.kind == kind[unit])
    daily = _daily_scatter(c.arm[own], c.day[own], c.exposures[own], s.arm[paid], s.day[paid], s.spend[paid])
    out = _Price(exposures={name: np.zeros(n) for name in evidence.kinds}, spend=np.zeros(n), spread=np.zeros(n))
    open_ = np.ones(n, dtype=np.bool_)
    for half_life in _HALF_LIVES:
        weight, spending = np.exp2(-age / half_life) * mine, np.exp2(-since / half_life) * paid
        bought = np.bincount(unit[own], (weight * c.exposures)[own], n)
        spent = np.bincount(spender[paid], (spending * s.spend)[paid], n)
        now = open_ & (((bought >= _ENOUGH) & (spent > 0)) | (half_life == _HALF_LIVES[-1]))
        squared = np.bincount(unit[own], (weight**2 * (c.exposures**2 * daily + c.exposures))[own], n)
        out.spread[now] = np.sqrt(np.divide(squared, bought**2, out=np.zeros(n), where=bought > 0))[now]
        out.spend[now] = spent[now]
        for name, e in evidence.kinds.items():
            of_kind = mine & (c.kind == e.kind)
            out.exposures[name][now] = np.bincount(unit[of_kind], (weight * c.exposures)[of_kind], n)[now]
        open_ &= ~now
    return out


def _daily_scatter(
    arm: npt.NDArray[np.int32], day: npt.NDArray[np.int32], exposures: FloatArray, spender: npt.NDArray[np.int32],
    spent_on: npt.NDArray[np.int32], spend: FloatArray,
) -> float:  # fmt: skip
    """Return the variance of a day's log price beyond chance, from steps between neighbouring days with twenty exposures and more."""
    key, spend_key = arm.astype(np.int64) * (1 << 32) + day, spender.astype(np.int64) * (1 << 32) + spent_on
    if not len(key) or not len(spend_key):
        return _DAILY**2
    at = np.minimum(np.searchsorted(spend_key, key), len(spend_key) - 1)
    good = (spend_key[at] == key) & (spend[at] > 0.0) & (exposures >= 20)
    key, log, chance = key[good], np.log(exposures[good] / spend[at][good]), 1.0 / exposures[good]
    steps = 0.5 * (np.diff(log) ** 2 - chance[1:] - chance[:-1])[np.diff(key) == 1]
    return (max(float(steps.sum()), 0.0) + 10 * _DAILY**2) / (len(steps) + 10)  # the default counts as ten days


def sliced(draws: FloatArray) -> GammaMixture:
    """Return a Gamma mixture with the distribution of the draws of each arm, shape (D, A): slices with their own mean and variance."""
    ordered = np.sort(draws, axis=0)
    ends = np.rint(np.append(0.0, np.cumsum(SLICES)) * len(draws)).astype(int)
    parts = [ordered[a:b] for a, b in pairwise(ends.tolist())]
    mean = np.maximum(np.stack([p.mean(axis=0) for p in parts], axis=1), 1e-12)
    variance = np.maximum(np.stack([p.var(axis=0) for p in parts], axis=1), (1e-4 * mean) ** 2)
    weight = np.broadcast_to(np.diff(ends) / len(draws), mean.shape)
    return GammaMixture(shape=mean**2 / variance, rate=mean / variance, weight=np.array(weight))
