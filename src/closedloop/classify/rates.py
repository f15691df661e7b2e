"""Posterior of each arm's rate for one kind of touch: over-dispersion, delay, group prior and recency together.

Law of this file: evidence in, Gamma mixtures out; it knows no money and no ranking.

Recency is either the posterior of the last break (a mixture over how far back the present goes) or a half-life.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

from closedloop.classify.evidence import KindEvidence
from closedloop.records.interval import FloatArray
from closedloop.records.outcomes import DelayCurve, Outcomes
from closedloop.records.signal import GammaMixture
from closedloop.stats.changepoint import drift, last_break, shares
from closedloop.stats.gamma_poisson import GroupPriors, fit_group_priors, mixture_quantile, pearson_dispersion, posterior_mixture

_DELAY_DRAWS = 256
_K_AFTER = 1.0  # concentration of the rate after a break: it can land anywhere around the group's mean
# Histories that an arm may have had: breaks at these multiples of the expected number, or drift with these half-lives in days; how
# common each is among the arms is learned from all of them.
_BREAKS = (0.0, 0.5, 2.0)
_DRIFTS = (3.0, 10.0, 40.0)
_PRIOR_SHARES = np.array([0.7, 0.12, 0.04, 0.03, 0.06, 0.05])
_RECENT = 14.0  # age in days that sorts breaks into the two components they are merged to


@attrs.frozen(kw_only=True, eq=False)
class Rates:
    """Posterior of one kind of touch, per arm in canonical order (A arms).

    Args:
        mixture: The posterior of conversions per exposure.
        since: Probability that the present began with each block, oldest first, shape (A, B); entry 0 is "never broke".
        drifting: Probability that the rate drifts rather than breaks, shape (A,).
        borrowed: Share of the prior in the posterior rate parameter, shape (A,).
        volume: Effective number of conversions, shape (A,).
        dispersion: Over-dispersion applied, at least 1, shape (A,).
        informed: False where there was nothing at all to learn from, shape (A,).
        fewest, most: Posteriors if none, or all, of the compatible untagged conversions were the arm's own, None when all is tagged.
        priors: The groups' priors, None where arms stand alone.
        fixed: Ends of the interval where they are not quantiles of the posterior (anytime, conformal), shape (A,) each.
        point: The estimate where it is not the posterior's median.
    """

    mixture: GammaMixture
    since: FloatArray
    drifting: FloatArray
    borrowed: FloatArray
    volume: FloatArray
    dispersion: FloatArray
    informed: npt.NDArray[np.bool_]
    fewest: GammaMixture | None
    most: GammaMixture | None
    priors: GroupPriors | None
    fixed: tuple[FloatArray, FloatArray] | None = None
    point: FloatArray | None = None

    def interval(self, level: float, at: npt.NDArray[np.intp]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return low, median and high of the rate of the arms at ``at``; the identified set's ends where tags are missing.

        References:
            Imbens & Manski (2004), "Confidence intervals for partially identified parameters", Econometrica 72.
        """
        tail = (1.0 - level) / 2.0
        own = _at(self.mixture, at)
        estimate = quantile(own, 0.5) if self.point is None else self.point[at]
        if self.fixed is not None:
            low, high = self.fixed[0][at], self.fixed[1][at]
            return low, np.clip(estimate, low, high), high
        if self.fewest is None or self.most is None:
            return quantile(own, tail), estimate, quantile(own, 1.0 - tail)
        few, many = _at(self.fewest, at), _at(self.most, at)
        spread = np.sqrt(np.maximum(moments(few)[1], moments(many)[1]))
        tails = _imbens_manski(np.maximum(moments(many)[0] - moments(few)[0], 0.0) / np.maximum(spread, 1e-300), level)
        low = np.minimum(quantile(few, tails), quantile(own, tail))
        high = np.maximum(quantile(many, 1.0 - tails), quantile(own, 1.0 - tail))
        return low, estimate, high

    def scaled(self, mean: FloatArray, variance: FloatArray, share: FloatArray) -> Rates:
        """Return the posterior of the rate times an independent factor, given in slices.

        Args:
            mean, variance: Of the factor within each slice, per arm, shape (S, A); 1 and 0 change nothing.
            share: Probability of each slice, shape (S,).
        """

        def times(mixture: GammaMixture) -> GammaMixture:
            """Each component times each slice: a Gamma with the product's exact mean and variance."""
            m, f, v = mixture.shape / mixture.rate, mean[:, :, None], variance[:, :, None]
            spread = (m / mixture.rate + m**2) * (v + f**2) - (m * f) ** 2
            parts = ((m * f) ** 2 / spread, m * f / spread, mixture.weight * share[:, None, None])
            shape, rate, weight = (np.concatenate(list(part), axis=1) for part in parts)
            return GammaMixture(shape=shape, rate=rate, weight=weight)

        fewest, most = (None if m is None else times(m) for m in (self.fewest, self.most))
        return attrs.evolve(self, mixture=times(self.mixture), fewest=fewest, most=most)


def _imbens_manski(width: FloatArray, level: float) -> FloatArray:
    """Return the tail probability at each end so that the parameter, not the whole set, is covered with ``level``.

    Args:
        width: Length of the identified set in standard errors, shape (A,).
    """
    low, high = np.full_like(width, special.ndtri(level)), np.full_like(width, special.ndtri(0.5 + level / 2))
    for _ in range(50):
        middle = 0.5 * (low + high)
        short = special.ndtr(middle + width) - special.ndtr(-middle) < level
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray(special.ndtr(-high))


def quantile(mixture: GammaMixture, level: float | FloatArray) -> FloatArray:
    """Return a quantile of each arm's posterior, shape (A,)."""
    return mixture_quantile(level, mixture.shape, mixture.rate, mixture.weight)


def moments(mixture: GammaMixture) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of each arm's posterior, shape (A,)."""
    means = mixture.shape / mixture.rate
    mean = (mixture.weight * means).sum(axis=1)
    return mean, (mixture.weight * (means / mixture.rate + (means - mean[:, None]) ** 2)).sum(axis=1)


def _at(mixture: GammaMixture, index: npt.NDArray[np.intp]) -> GammaMixture:
    return mixture if len(index) == len(mixture.shape) else take(mixture, index)


def take(mixture: GammaMixture, index: npt.NDArray[np.intp]) -> GammaMixture:
    """Return the posteriors at the given positions."""
    return GammaMixture(shape=mixture.shape[index], rate=mixture.rate[index], weight=mixture.weight[index])


def independent(shape: FloatArray, rate: FloatArray, *, volume: FloatArray) -> Rates:
    """Return posteriors Gamma(shape, rate) of arms that stand alone.

    Args:
        shape, rate, volume: Shape (A,); a rate of zero is an arm of which nothing is known.
    """
    n = len(shape)
    known = rate > 0
    return Rates(
        mixture=GammaMixture(shape=shape[:, None], rate=np.where(known, rate, 50.0)[:, None], weight=np.ones((n, 1))),
        since=np.ones((n, 1)),
        drifting=np.zeros(n),
        borrowed=np.zeros(n),
        volume=volume,
        dispersion=np.ones(n),
        informed=known,
        fewest=None,
        most=None,
        priors=None,
    )


def fit_rates(
    outcomes: Outcomes,
    e: KindEvidence,
    group: npt.NDArray[np.int32],
    n_groups: int,
    curve: DelayCurve | None,
    *,
    hazard: float | None,
    seed: int,
    priors: GroupPriors | None = None,
) -> Rates:
    """Return the posterior of every arm's rate.

    Args:
        outcomes: The evidence's source.
        e: Evidence of one kind of touch.
        group: Group of each arm in canonical order, shape (A,).
        n_groups: Number of groups.
        curve: The delay curve of the kind, None when everything is mature.
        hazard: Probability of a break per day; None weighs by the half-life instead.
        seed: Seed of the draws of the delay curve.
        priors: Group priors to keep instead of fitting them.
    """
    n, blocks = e.counts.shape
    c = outcomes.cohorts
    # Cells are compared with the mean of their arm and block, so that breaks and drift are not taken for noise.
    own = np.divide(e.counts, e.exposures, out=np.zeros_like(e.counts), where=e.exposures > 0)
    expected = own[e.unit, e.block] * c.exposures[e.rows] * c.maturity[e.rows]
    ratio = pearson_dispersion(c.credit[e.rows], expected, e.unit * blocks + e.block, np.repeat(group, blocks), n_groups)[group]
    dispersion = np.maximum(ratio / e.credit_dispersion, 1.0)
    tempering = dispersion * e.credit_dispersion
    variance, block_variance = _delay_variance(outcomes, e, curve, seed)
    if hazard is None:
        counts, exposures, untagged_c, untagged_x = e.count[:, None], e.exposure[:, None], e.untagged_counts, e.untagged_exposures
        untagged_c = None if untagged_c is None else untagged_c.sum(axis=1, keepdims=True)
        untagged_x = None if untagged_x is None else untagged_x.sum(axis=1, keepdims=True)
        volume = np.divide(e.count**2, e.squared * tempering, out=np.zeros(n), where=e.squared > 0)
        variance = variance[:, :1]
    else:
        counts, exposures, untagged_c, untagged_x = e.counts, e.exposures, e.untagged_counts, e.untagged_exposures
        volume = np.zeros(n)
    t = tempering[:, None]
    counts, exposures = counts / t, exposures / t
    if priors is None:
        priors = fit_group_priors(counts.sum(axis=1), exposures.sum(axis=1), group, n_groups)
    history = _calm(n)
    if hazard is not None:
        # Where the delay curve is uncertain, a young block says less about a break.
        mu = _centre(priors.log_mu, priors, group)
        trust = 1.0 / (1.0 + block_variance * exposures * mu[:, None])
        history = _histories(counts * trust, exposures * trust, e.block_days, group, priors, hazard)
        volume = (history.since * _from_start(counts)).sum(axis=1) + history.drifting * history.drift_volume
    args = (variance, history, e.block_age, e.block_days, group, priors)
    mixture, borrowed = _mixture(counts, exposures, *args)
    fewest = most = None
    if untagged_c is not None and untagged_x is not None:
        args = (variance, attrs.evolve(history, drifts=None), *args[2:])
        fewest, _ = _mixture(counts, exposures + untagged_x / t, *args)
        most, _ = _mixture(counts + untagged_c / t, exposures, *args)
    return Rates(
        mixture=mixture,
        since=history.since,
        drifting=history.drifting,
        borrowed=borrowed,
        volume=volume,
        dispersion=dispersion,
        informed=priors.informed[group],
        fewest=fewest,
        most=most,
        priors=priors,
    )


@attrs.frozen(kw_only=True, eq=False)
class _History:
    """What each arm's past was like: probabilities of calm and of the last break (A, B), of drift (A,) and of each half-life (H, A)."""

    since: FloatArray
    drifting: FloatArray
    half_lives: FloatArray
    drift_volume: FloatArray
    drifts: list[tuple[FloatArray, FloatArray]] | None = None


def _calm(n: int) -> _History:
    return _History(since=np.ones((n, 1)), drifting=np.zeros(n), half_lives=np.zeros((len(_DRIFTS), n)), drift_volume=np.zeros(n))


def _centre(values: FloatArray, priors: GroupPriors, group: npt.NDArray[np.int32]) -> FloatArray:
    """Return the geometric centre over the nodes of the group prior, per arm."""
    return np.asarray(np.exp((priors.weight * values).sum(axis=1))[group])


def _concentrations(priors: GroupPriors, group: npt.NDArray[np.int32]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return k, mu and the concentration after a break, per arm."""
    k = _centre(np.log(priors.k), priors, group)
    return k, _centre(priors.log_mu, priors, group), np.minimum(k, _K_AFTER)


def _histories(
    counts: FloatArray, exposures: FloatArray, days: FloatArray, group: npt.NDArray[np.int32], priors: GroupPriors, hazard: float
) -> _History:
    n, blocks = counts.shape
    if hazard == 0.0 or blocks == 1:
        since = np.zeros((n, blocks))
        since[:, 0] = 1.0
        return attrs.evolve(_calm(n), since=since)
    k, mu, after = _concentrations(priors, group)
    since, evidence = last_break(counts, exposures, days, k=k, mu=mu, k_after=after, hazards=[b * hazard for b in _BREAKS])
    drifts = [drift(counts, exposures, days, k=k, mu=mu, k_after=after, half_life=h) for h in _DRIFTS]
    weight = shares(np.concatenate([evidence, np.stack([d[2] for d in drifts])]), _PRIOR_SHARES)
    of_drift = weight[len(_BREAKS) :]
    drifting = of_drift.sum(axis=0)
    volumes = np.stack([np.maximum(d[0] - after, 0.0) for d in drifts])
    return _History(
        since=np.einsum("ha,hab->ab", weight[: len(_BREAKS)], since),
        drifting=drifting,
        half_lives=of_drift,
        drift_volume=(of_drift * volumes).sum(axis=0) / np.where(drifting > 0, drifting, 1.0),
        drifts=[d[:2] for d in drifts],
    )


def _from_start(blocks: FloatArray) -> FloatArray:
    """Return, per block, the sum from that block to the newest one, shape (A, B)."""
    return np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1]


def _mixture(
    counts: FloatArray,
    exposures: FloatArray,
    variance: FloatArray,
    history: _History,
    block_age: FloatArray,
    block_days: FloatArray,
    group: npt.NDArray[np.int32],
    priors: GroupPriors,
) -> tuple[GammaMixture, FloatArray]:
    """Return the posterior and the share borrowed from the group.

    Components: the nodes of the group prior if nothing changed, breaks by their age, and drift.
    """
    c, x = _from_start(counts), _from_start(exposures)
    since = history.since
    shape, rate, weight, borrowed = posterior_mixture(c[:, 0], x[:, 0], group, priors, exposure_variance=variance[:, 0])
    if since.shape[1] == 1:
        return GammaMixture(shape=shape, rate=rate, weight=weight), borrowed
    _, mu, k = _concentrations(priors, group)
    place = np.where(block_age <= _RECENT, 1, 0)
    mass, first, second = (np.zeros((3, len(mu))) for _ in range(3))
    total_borrowed = since[:, 0] * borrowed

    def add(j: int, w: FloatArray, s: FloatArray, r: FloatArray, uncertain: FloatArray) -> None:
        """Add a Gamma(s, r) of weight w to component j; ``uncertain`` is the variance of its log exposure."""
        mean, own = s / r, 1.0 - k / mu / r
        mass[j] += w
        first[j] += w * mean
        second[j] += w * (mean / r + mean**2 * (1.0 + uncertain))
        total_borrowed[:] += w * (1.0 - own)

    for i in range(1, since.shape[1]):
        add(int(place[i]), since[:, i], k + c[:, i], k / mu + x[:, i], variance[:, i])
    if history.drifting.any():
        first_k = _centre(np.log(priors.k), priors, group)
        for i, half_life in enumerate(_DRIFTS):
            if history.drifts is not None:
                s, r = history.drifts[i]
            else:
                s, r, _ = drift(counts, exposures, block_days, k=first_k, mu=mu, k_after=k, half_life=half_life)
            add(2, history.half_lives[i], s, r, variance[:, 0])
    filled = mass > 0
    m = np.where(filled, first / np.where(filled, mass, 1.0), shape[:, 0] / rate[:, 0])
    v = np.where(filled, second / np.where(filled, mass, 1.0) - m**2, m**2)
    v = np.maximum(v, 1e-12 * m**2)
    return (
        GammaMixture(
            shape=np.concatenate([shape, (m**2 / v).T], axis=1),
            rate=np.concatenate([rate, (m / v).T], axis=1),
            weight=np.concatenate([weight * since[:, :1], mass.T], axis=1),
        ),
        total_borrowed,
    )


def _delay_variance(outcomes: Outcomes, e: KindEvidence, curve: DelayCurve | None, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return what not knowing the delay curve does to log mature exposures.

    Returns:
        Variance of the log exposure from each block to the newest, shape (A, B) (with a half-life: weighted, column 0 only is meant),
        and variance of the log share seen of each block, shape (B,).
    """
    n, blocks = e.counts.shape
    if curve is None or len(curve.share_seen) < 2:
        return np.zeros((n, blocks)), np.zeros(blocks)
    bins = len(curve.share_seen)
    hazard = np.random.default_rng(seed).beta(curve.shape_a[1:], curve.shape_b[1:], (_DELAY_DRAWS, bins - 1))
    share = np.ones((_DELAY_DRAWS, bins))
    share[:, :-1] = np.cumprod((1.0 - hazard)[:, ::-1], axis=1)[:, ::-1]
    covariance = np.atleast_2d(np.cov(share / np.maximum(share.mean(axis=0), 1e-12), rowvar=False))[:-1, :-1]
    age = np.clip(outcomes.cohorts.age[e.rows], 1, bins) - 1
    young = np.flatnonzero(age < bins - 1)  # older cohorts are surely complete
    amount = (e.weight * outcomes.cohorts.exposures[e.rows] * outcomes.cohorts.maturity[e.rows])[young]
    by_age = np.bincount(e.unit[young] * (bins - 1) + age[young], amount, n * (bins - 1)).reshape(n, bins - 1)
    whole = _from_start(e.exposures)
    whole[:, 0] = e.exposure  # weighted sums for column 0; equal weights make them the same
    variance = np.zeros((n, blocks))
    ages = np.arange(1, bins)
    for b in range(blocks - 1, -1, -1):
        if b + 1 < blocks and e.block_age[b + 1] >= bins - 1:  # the next block reaches all young ages already
            variance[:, b] = variance[:, b + 1]
            continue
        part = by_age * (ages <= e.block_age[b])
        variance[:, b] = ((part @ covariance) * part).sum(axis=1)
    variance = np.divide(variance, whole**2, out=np.zeros_like(variance), where=whole > 0)
    inside = np.diagonal(covariance)
    oldest, newest = e.block_age, np.append(e.block_age[1:], 0.0)
    of_block = [inside[(ages <= o) & (ages > y)] for o, y in zip(oldest, newest, strict=True)]
    return np.minimum(variance, 25.0), np.array([v.mean() if len(v) else 0.0 for v in of_block])
