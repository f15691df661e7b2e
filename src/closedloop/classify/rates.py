"""Posterior of each arm's rate for one kind of touch: over-dispersion, delay, group prior and recency together.

Law of this file: evidence in, Gamma mixtures out; it knows no money and no ranking. What is learned from all arms (`Learned`) comes first;
given that, every arm's posterior is its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

from closedloop.classify.evidence import KindEvidence
from closedloop.classify.recency import Blocks, Groups, Past, learn_shares, present
from closedloop.records.interval import FloatArray
from closedloop.records.outcomes import DelayCurve, Outcomes
from closedloop.records.posterior import GammaMixture
from closedloop.stats.gamma_mixture import mixture_quantile, mixture_quantiles
from closedloop.stats.gamma_poisson import GroupPriors, fit_group_priors, pearson_dispersion

_DELAY_DRAWS = 256


@attrs.frozen(kw_only=True, eq=False)
class Rates:
    """Posterior of one kind of touch, per arm in canonical order (A arms).

    Args:
        mixture: The posterior of conversions per exposure.
        broke: Probability of a break anywhere in the past, shape (A,).
        borrowed: Share of the prior in the posterior rate parameter, shape (A,).
        volume: Effective number of conversions, shape (A,).
        dispersion: Over-dispersion applied, at least 1, shape (A,).
        informed: False where there was nothing at all to learn from, shape (A,).
        fewest, most: Posteriors if none, or all, of the compatible untagged conversions were the arm's own, None when all is tagged.
        priors: The groups' priors, None where arms stand alone.
        fixed: Ends of the interval where they are not quantiles of the posterior (anytime, conformal), shape (A,) each.
        point: The estimate where it is not the posterior's median.
        evidence: Log evidence of the counts, up to a constant of the counts; zero where nothing can be forgotten, shape (A,).
    """

    mixture: GammaMixture
    broke: FloatArray
    borrowed: FloatArray
    volume: FloatArray
    dispersion: FloatArray
    informed: npt.NDArray[np.bool_]
    fewest: GammaMixture | None
    most: GammaMixture | None
    priors: GroupPriors | None
    fixed: tuple[FloatArray, FloatArray] | None = None
    point: FloatArray | None = None
    evidence: FloatArray | float = 0.0

    def interval(self, level: float, at: npt.NDArray[np.intp]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return low, median and high of the rate of the arms at ``at``; the identified set's ends where tags are missing.

        References:
            Imbens & Manski (2004), "Confidence intervals for partially identified parameters", Econometrica 72.
        """
        tail = (1.0 - level) / 2.0
        own = _at(self.mixture, at)
        if self.fixed is not None:
            low, high = self.fixed[0][at], self.fixed[1][at]
            estimate = quantile(own, 0.5) if self.point is None else self.point[at]
            return low, np.clip(estimate, low, high), high
        low, estimate, high = quantiles(own, (tail, 0.5, 1.0 - tail))
        if self.fewest is None or self.most is None:
            return low, estimate, high
        ends = _ends_of_set(_at(self.fewest, at), _at(self.most, at), level)
        return np.minimum(ends[0], low), estimate, np.maximum(ends[1], high)

    def ends_per_tagged(self, level: float, at: npt.NDArray[np.intp]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return low, median and high of conversions, untagged ones that could be the arm's own included, per *tagged* exposure.

        What the tagged exposures cost is known, so this, not the rate, is what a cost per conversion rests on.
        """
        low, estimate, high = attrs.evolve(self, fewest=None, most=None).interval(level, at)
        if self.most is None:
            return low, estimate, high
        few, many = _ends_of_set(_at(self.mixture, at), _at(self.most, at), level)
        return few, estimate, np.maximum(many, few)

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


def _ends_of_set(few: GammaMixture, many: GammaMixture, level: float) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the interval of a rate between two posteriors' rates."""
    spread = np.sqrt(np.maximum(moments(few)[1], moments(many)[1]))
    tails = _imbens_manski(np.maximum(moments(many)[0] - moments(few)[0], 0.0) / np.maximum(spread, 1e-300), level)
    return quantile(few, tails), quantile(many, 1.0 - tails)


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


def quantiles(mixture: GammaMixture, levels: Sequence[float]) -> FloatArray:
    """Return quantiles of each arm's posterior, shape (L, A)."""
    return mixture_quantiles(levels, mixture.shape, mixture.rate, mixture.weight)


def moments(mixture: GammaMixture) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of each arm's posterior, shape (A,)."""
    means = mixture.shape / mixture.rate
    mean = (mixture.weight * means).sum(axis=1)
    return mean, (mixture.weight * (means / mixture.rate + (means - mean[:, None]) ** 2)).sum(axis=1)


def _at(mixture: GammaMixture, index: npt.NDArray[np.intp]) -> GammaMixture:
    return mixture if len(index) == len(mixture.shape) else mixture.take(index)


def independent(shape: FloatArray, rate: FloatArray, *, volume: FloatArray) -> Rates:
    """Return posteriors Gamma(shape, rate) of arms that stand alone.

    Args:
        shape, rate, volume: Shape (A,); a rate of zero is an arm of which nothing is known.
    """
    n = len(shape)
    known = rate > 0
    return Rates(
        mixture=GammaMixture(shape=shape[:, None], rate=np.where(known, rate, 50.0)[:, None], weight=np.ones((n, 1))),
        broke=np.zeros(n),
        borrowed=np.zeros(n),
        volume=volume,
        dispersion=np.ones(n),
        informed=known,
        fewest=None,
        most=None,
        priors=None,
    )


@attrs.frozen(kw_only=True, eq=False)
class Learned:
    """What was learned of one kind of touch from all arms together; the rest of a posterior is the arm's own.

    Args:
        hazard: Probability of a break per day; None where a half-life weighs.
        priors: The groups' priors.
        scatter: Variance of counts over their mean, per group, not cut off at 1, shape (G,).
        share: How common each past is among the arms, shape (M,).
        covariance: Covariance of the log share seen at each young age, shape (J - 1, J - 1); empty where everything is mature.
    """

    hazard: float | None
    priors: GroupPriors
    scatter: FloatArray
    share: FloatArray
    covariance: FloatArray


def fit_rates(
    outcomes: Outcomes,
    e: KindEvidence,
    group: Groups,
    n_groups: int,
    curve: DelayCurve | None,
    *,
    hazard: float | None,
    seed: int,
    priors: GroupPriors | None = None,
) -> Rates:
    """Learn what the arms have in common and return the posterior of every arm's rate.

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
    learned, past = learn(outcomes, e, group, n_groups, curve, hazard=hazard, seed=seed, priors=priors)
    return rates_given(learned, outcomes, e, group, past=past)


def learn(
    outcomes: Outcomes,
    e: KindEvidence,
    group: Groups,
    n_groups: int,
    curve: DelayCurve | None,
    *,
    hazard: float | None,
    seed: int,
    priors: GroupPriors | None = None,
) -> tuple[Learned, list[Past] | None]:
    """Return what the arms have in common, and their pasts where all were looked at; arguments as in `fit_rates`."""
    scatter, covariance = pearson_dispersion(e.pearson, group, n_groups), delay_covariance(curve, seed)
    blocks = Counted.of(outcomes, e, covariance).blocks(group, scatter, covariance, whole=hazard is None)
    if priors is None:
        priors = fit_group_priors(blocks.counts.sum(axis=1), blocks.exposures.sum(axis=1), group, n_groups)
    share, past = learn_shares([(blocks, np.zeros(len(e.count)))], priors, hazard or 0.0)
    return Learned(hazard=hazard, priors=priors, scatter=scatter, share=share, covariance=covariance), None if past is None else past[0]


@attrs.frozen(kw_only=True, eq=False)
class Counted:
    """Counts of arms that a posterior rests on (A arms, B blocks); see `KindEvidence` for the columns.

    Args:
        young: Recency-weighted mature exposure by age below the end of the delay curve, shape (A, J - 1), None without a curve.
    """

    counts: FloatArray
    exposures: FloatArray
    count: FloatArray
    exposure: FloatArray
    credit_dispersion: FloatArray
    block_days: FloatArray
    block_age: FloatArray
    young: FloatArray | None

    @classmethod
    def of(cls, outcomes: Outcomes, e: KindEvidence, covariance: FloatArray) -> Counted:
        """Return the counts of a kind of touch."""
        names = ("counts", "exposures", "count", "exposure", "credit_dispersion", "block_days", "block_age")
        return cls(**{name: getattr(e, name) for name in names}, young=_young(outcomes, e, len(covariance)) if len(covariance) else None)

    def dispersion(self, group: Groups, scatter: FloatArray) -> FloatArray:
        """Return the over-dispersion applied, at least 1, shape (A,)."""
        return np.maximum(scatter[group] / self.credit_dispersion, 1.0)

    def blocks(self, group: Groups, scatter: FloatArray, covariance: FloatArray, *, whole: bool) -> Blocks:
        """Return tempered counts by block; as one block of recency-weighted sums where ``whole``."""
        t = (self.dispersion(group, scatter) * self.credit_dispersion)[:, None]
        variance, block_variance = self._delay_variance(covariance)
        return Blocks(
            counts=(self.count[:, None] if whole else self.counts) / t,
            exposures=(self.exposure[:, None] if whole else self.exposures) / t,
            log_variance=variance[:, :1] if whole else variance,
            block_variance=block_variance[:1] if whole else block_variance,
            days=self.block_days.sum(keepdims=True) if whole else self.block_days,
            group=group,
        )

    def _delay_variance(self, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what not knowing the delay curve does to log mature exposures.

        Returns:
            Variance of the log exposure from each block to the newest, shape (A, B), or (1, 1) of zero where the curve is known (with a
            half-life: weighted, column 0 only is meant), and variance of the log share seen of each block, shape (B,).
        """
        n, blocks = self.counts.shape
        if self.young is None:
            return np.zeros((1, 1)), np.zeros(blocks)
        oldest, newest = self.block_age, np.append(self.block_age[1:], 0.0)
        whole = np.cumsum(self.exposures[:, ::-1], axis=1)[:, ::-1].copy()
        whole[:, 0] = self.exposure  # weighted sums for column 0; equal weights make them the same
        variance = np.zeros((n, blocks))
        ages = np.arange(1, len(covariance) + 1)
        for b in range(blocks - 1, -1, -1):
            if b + 1 < blocks and oldest[b + 1] >= len(covariance):  # the next block reaches all young ages already
                variance[:, b] = variance[:, b + 1]
                continue
            part = self.young * (ages <= oldest[b])
            variance[:, b] = ((part @ covariance) * part).sum(axis=1)
        variance = np.divide(variance, whole**2, out=np.zeros_like(variance), where=whole > 0)
        inside = np.diagonal(covariance)
        of_block = [inside[(ages <= o) & (ages > y)] for o, y in zip(oldest, newest, strict=True)]
        return np.minimum(variance, 25.0), np.array([v.mean() if len(v) else 0.0 for v in of_block])


def rates_given(learned: Learned, outcomes: Outcomes, e: KindEvidence, group: Groups, *, past: list[Past] | None = None) -> Rates:
    """Return the posterior of every arm's rate, given what the arms have in common.

    Args:
        learned: As from `learn`, of these arms or of others.
        outcomes: The evidence's source.
        e: Evidence of one kind of touch.
        group: Group of each arm in canonical order, shape (A,).
        past: What the past of these very arms was like, where it is known already.
    """
    n, hazard = len(e.count), learned.hazard
    counted = Counted.of(outcomes, e, learned.covariance)
    dispersion = counted.dispersion(group, learned.scatter)
    tempering = dispersion * e.credit_dispersion
    blocks = counted.blocks(group, learned.scatter, learned.covariance, whole=hazard is None)
    found = present(blocks, learned.priors, learned.share, hazard or 0.0, past=past)
    volume = found.volume
    if hazard is None:
        volume = np.divide(e.count**2, e.squared * tempering, out=np.zeros(n), where=e.squared > 0)
    fewest = most = None
    if e.untagged_counts is not None and e.untagged_exposures is not None:
        more_c, more_x = e.untagged_counts / tempering[:, None], e.untagged_exposures / tempering[:, None]
        if hazard is None:
            more_c, more_x = more_c.sum(axis=1, keepdims=True), more_x.sum(axis=1, keepdims=True)
        # What could be the arm's own does not change what its past was like: the models keep their weights.
        common = (learned.priors, learned.share, hazard or 0.0)
        fewest = present(attrs.evolve(blocks, exposures=blocks.exposures + more_x), *common, seen=blocks)
        most = present(attrs.evolve(blocks, counts=blocks.counts + more_c), *common, seen=blocks)
    rates = Rates(
        mixture=found.mixture,
        broke=found.broke,
        borrowed=found.borrowed,
        volume=volume,
        dispersion=dispersion,
        informed=learned.priors.informed[group],
        fewest=None if fewest is None else fewest.mixture,
        most=None if most is None else most.mixture,
        priors=learned.priors,
        evidence=found.evidence,
    )
    return rates.scaled(np.ones((1, n)), e.blind_spread[None] ** 2, np.ones(1)) if e.blind_spread.any() else rates


def delay_covariance(curve: DelayCurve | None, seed: int) -> FloatArray:
    """Return the covariance of the log share seen at each young age from draws of the curve, shape (J - 1, J - 1); empty without one."""
    if curve is None or len(curve.share_seen) < 2:
        return np.empty((0, 0))
    bins = len(curve.share_seen)
    hazard = np.random.default_rng(seed).beta(curve.shape_a[1:], curve.shape_b[1:], (_DELAY_DRAWS, bins - 1))
    share = np.ones((_DELAY_DRAWS, bins))
    share[:, :-1] = np.cumprod((1.0 - hazard)[:, ::-1], axis=1)[:, ::-1]
    return np.atleast_2d(np.cov(share / np.maximum(share.mean(axis=0), 1e-12), rowvar=False))[:-1, :-1]


def _young(outcomes: Outcomes, e: KindEvidence, n_ages: int) -> FloatArray:
    """Return recency-weighted mature exposure by age from 1, shape (A, J - 1); older cohorts are surely complete."""
    c, n = outcomes.cohorts, len(e.count)
    place = np.clip(c.age[e.rows], 1, n_ages + 1) - 1
    young = np.flatnonzero(place < n_ages)
    unit, place = e.unit[young], place[young]
    rows = young if isinstance(e.rows, slice) else e.rows[young]
    amount = c.exposures[rows] * c.maturity[rows]
    if e.half_life_days is not None:
        amount = amount * np.exp2(-np.maximum(e.mark[unit] - c.day[rows], 0.0) / e.half_life_days)
    return np.asarray(np.bincount(unit * n_ages + place, amount, n * n_ages).reshape(n, n_ages), dtype=np.float64)
