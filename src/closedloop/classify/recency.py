"""What each arm's past was like: calm, broken or drifting; and the posterior of its present rate under all of them.

Law of this file: counts and exposures by block in, Gamma mixtures out. How common each past is among the arms is learned from all of
them first; given that, every arm's posterior is its own, so some arms can be computed again without the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray
from closedloop.records.posterior import GammaMixture
from closedloop.stats.changepoint import last_break, shares, walk, weights
from closedloop.stats.gamma_poisson import GroupPriors, posterior_mixture

Groups = npt.NDArray[np.integer]
Walked = tuple[FloatArray, FloatArray, FloatArray, FloatArray]

_K_AFTER = 1.0  # concentration of the rate after a break: it can land anywhere around the group's mean
_PACES = (0.01, 0.02, 0.04, 0.08)  # standard deviations of a day's step of the log rate, where it walks without aim
_SLOPES = (-0.03, -0.015, 0.015, 0.03)  # means of a day's step, where it keeps rising or falling
_ROUND_A_SLOPE = 0.02  # standard deviation of a day's step around such a slope, which is none of these four exactly
_SDS = (*_PACES, *[_ROUND_A_SLOPE] * len(_SLOPES))
_MEANS = (*[0.0] * len(_PACES), *_SLOPES)
_MODELS = 2 + len(_SDS)  # calm, breaks, the walks and the trends
_UNSEEN = 0.004  # share of a walk or trend among the arms under which it is left out
_LEARNERS = 4096  # arms from which the shares are learned; more would not change them visibly
_CHUNK = 8192
_FEW = 16.0  # counts under which an arm's days are looked at in coarse blocks: single days say nothing of it
_COARSE = np.array([4, 14, 28, 56, 112])  # ages in days between which it can break


def _templates() -> tuple[FloatArray, FloatArray]:
    """Return typical populations, shape (T, M), and their prior probabilities.

    Calm; breaking; walking at about one pace each; rising or falling together at about one slope each; each arm with a trend of its own.
    """
    walks, trends = len(_PACES), len(_SLOPES)
    few = np.full(trends, 0.01 / trends)
    rows = [[0.85, 0.11, *np.full(walks, 0.03 / walks), *few], [0.50, 0.45, *np.full(walks, 0.04 / walks), *few]]
    for pace in range(walks):
        near = 0.3 ** np.abs(np.arange(walks) - pace)
        rows.append([0.05, 0.08, *(0.86 * near / near.sum()), *few])
    for slope in range(trends):
        same = np.where(np.arange(trends) == slope, 0.6, 0.1 / (trends - 1))
        rows.append([0.05, 0.05, *np.full(walks, 0.2 / walks), *same])
    rows.append([0.10, 0.05, *np.full(walks, 0.15 / walks), *np.full(trends, 0.7 / trends)])
    prior = np.array([0.7, 0.1, *np.full(walks, 0.15 / walks), *np.full(trends, 0.03 / trends), 0.02])
    return np.array(rows), prior


@attrs.frozen(kw_only=True, eq=False)
class Blocks:
    """Counts of some arms by block of days, oldest block first (A arms, B blocks).

    Args:
        counts, exposures: Tempered, shape (A, B).
        log_variance: Variance of the log exposure from each block to the newest, shape (A, B), or (1, 1) where it is known.
        block_variance: Variance of the log share seen of each block, shape (B,).
        days: Length of each block, shape (B,).
        group: Shape (A,).
    """

    counts: FloatArray
    exposures: FloatArray
    log_variance: FloatArray
    block_variance: FloatArray
    days: FloatArray
    group: Groups

    def take(self, at: slice | npt.NDArray[np.intp]) -> Blocks:
        """Return the blocks of some arms."""
        uncertain = self.log_variance[at] if len(self.log_variance) == len(self.counts) > 1 else self.log_variance
        return attrs.evolve(self, counts=self.counts[at], exposures=self.exposures[at], log_variance=uncertain, group=self.group[at])

    def coarse(self) -> Blocks:
        """Return the same counts in fewer blocks."""
        ends = np.cumsum(self.days[::-1])[::-1]
        first = np.flatnonzero(np.append(True, np.diff(np.searchsorted(_COARSE, ends)) != 0))
        days = np.add.reduceat(self.days, first)
        return Blocks(
            counts=np.add.reduceat(self.counts, first, axis=1),
            exposures=np.add.reduceat(self.exposures, first, axis=1),
            log_variance=self.log_variance[:, first] if self.log_variance.shape[1] > 1 else self.log_variance,
            block_variance=np.add.reduceat(self.block_variance * self.days, first) / days,
            days=days,
            group=self.group,
        )

    def parts(self) -> list[tuple[npt.NDArray[np.intp], bool]]:
        """Return positions of arms that are looked at together, and whether in coarse blocks; small enough for the processor's cache."""
        few = self.counts.sum(axis=1) < _FEW
        out = []
        for which in (False, True):
            at = np.flatnonzero(few == which)
            out += [(at[start : start + _CHUNK], which) for start in range(0, len(at), _CHUNK)]
        return out


@attrs.frozen(kw_only=True, eq=False)
class Present:
    """Posterior of the present rate of some arms.

    Args:
        mixture: Components are the nodes of the group prior if nothing changed, breaks, and drift.
        borrowed: Share of the prior in the posterior rate parameter, shape (A,).
        volume: Effective number of conversions, shape (A,).
        broke: Probability of a break anywhere in the past, shape (A,).
        evidence: Log evidence of the counts, up to a constant of the counts; zero where nothing can be forgotten, shape (A,).
    """

    mixture: GammaMixture
    borrowed: FloatArray
    volume: FloatArray
    broke: FloatArray
    evidence: FloatArray


@attrs.frozen(kw_only=True, eq=False)
class Past:
    """Evidence of the models (M, A), where the last break was if there was one (A, B), and the posteriors of the walks and trends."""

    evidence: FloatArray
    since: FloatArray
    walks: tuple[FloatArray, FloatArray, FloatArray]

    def only(self, kept: npt.NDArray[np.intp]) -> Past:
        """Return the same with some of the walks and trends."""
        a, b, left = (column[kept] for column in self.walks)
        return Past(evidence=self.evidence[np.append([0, 1], kept + 2)], since=self.since, walks=(a, b, left))


def forgets(blocks: Blocks, hazard: float) -> bool:
    """Whether anything can be forgotten: breaks are possible and there is more than one block."""
    return hazard > 0.0 and blocks.counts.shape[1] > 1


def centre(values: FloatArray, priors: GroupPriors) -> FloatArray:
    """Return the geometric centre over the nodes of each group's prior, shape (G,)."""
    return np.asarray(np.exp((priors.weight * values).sum(axis=1)))


def _walks(counts: FloatArray, exposures: FloatArray, b: Blocks, k: FloatArray, mu: FloatArray, kept: npt.NDArray[np.intp]) -> Walked:
    sd, slope = np.array(_SDS)[kept], np.array(_MEANS)[kept]
    return walk(counts, exposures, b.days, k=k, mu=mu, sd=sd, slope=slope)


def _past(b: Blocks, priors: GroupPriors, hazard: float, kept: npt.NDArray[np.intp]) -> Past:
    k, mu = centre(np.log(priors.k), priors)[b.group], centre(priors.log_mu, priors)[b.group]
    # Where the delay curve is uncertain, a young block says less about a break.
    counts, exposures = b.counts, b.exposures
    if b.block_variance.any():
        trust = 1.0 / (1.0 + b.block_variance * exposures * mu[:, None])
        counts, exposures = counts * trust, exposures * trust
    since, evidence = last_break(counts, exposures, b.days, k=k, mu=mu, k_after=np.minimum(k, _K_AFTER), hazards=[0.0, hazard])
    shape, rate, left, walked = _walks(counts, exposures, b, k, mu, kept)
    return Past(evidence=np.concatenate([evidence, walked]), since=since[1], walks=(shape, rate, left))


def learn_shares(
    readings: Sequence[tuple[Blocks, FloatArray]], priors: GroupPriors, hazard: float
) -> tuple[FloatArray, list[list[Past]] | None]:
    """Return how common each past is among the arms, shape (M,), and the arms' pasts where all were looked at.

    Args:
        readings: The evidence under each assumption of what past exposures count for, with the assumption's log weight for every arm, (A,).
        priors: The groups' priors.
        hazard: Probability of a break per day.

    Returns:
        The shares, and the pasts under each assumption, part by part.
    """
    blocks = readings[0][0]
    templates, prior = _templates()
    used = np.flatnonzero(blocks.exposures.sum(axis=1) > 0)
    if not forgets(blocks, hazard) or not len(used):
        return np.asarray(templates[0]), None
    used = used[:: -(-len(used) // _LEARNERS)]
    evidence, found = np.full((_MODELS, len(used)), -np.inf), []
    for assumed, weight in readings:
        some = assumed.take(used)
        parts = some.parts()
        pasts = [_past(_cut(some, at, coarse), priors, hazard, np.arange(_MODELS - 2)) for at, coarse in parts]
        own = np.concatenate([past.evidence + weight[used[at]] for (at, _), past in zip(parts, pasts, strict=True)], axis=1)
        evidence = np.logaddexp(evidence, own)
        found.append(pasts)
    return shares(evidence, templates, prior), found if len(used) == len(blocks.counts) else None


def _cut(blocks: Blocks, at: npt.NDArray[np.intp], coarse: bool) -> Blocks:
    part = blocks.take(at)
    return part.coarse() if coarse else part


def present(
    blocks: Blocks,
    priors: GroupPriors,
    share: FloatArray,
    hazard: float,
    *,
    seen: Blocks | None = None,
    past: list[Past] | None = None,
) -> Present:
    """Return the posterior of every arm's present rate.

    Args:
        blocks: The evidence.
        priors: The groups' priors.
        share: How common each past is, as from `learn_shares`.
        hazard: Probability of a break per day; zero forgets nothing.
        seen: The evidence of what the past was like, None for the same.
        past: What the past was like, part by part, where `learn_shares` has found it already.
    """
    n = len(blocks.counts)
    components = priors.k.shape[1] + (2 if forgets(blocks, hazard) else 0)
    shape, rate, weight = (np.empty((n, components)) for _ in range(3))
    numbers = np.zeros((4, n))
    kept = np.flatnonzero(share[2:] >= _UNSEEN)
    share = share[np.append([0, 1], kept + 2)]
    source = blocks if seen is None else seen
    for i, (at, coarse) in enumerate(source.parts()):
        if forgets(blocks, hazard):
            part = _cut(blocks, at, coarse)
            other = part if seen is None else _cut(seen, at, coarse)
            was = _past(other, priors, hazard, kept) if past is None else past[i].only(kept)
            found = _present(part, other, was, priors, share, kept)
        else:
            found = _whole(blocks.take(at), priors)
        shape[at], rate[at], weight[at] = found.mixture.shape, found.mixture.rate, found.mixture.weight
        numbers[:, at] = found.borrowed, found.volume, found.broke, found.evidence
    mixture = GammaMixture(shape=shape, rate=rate, weight=weight)
    return Present(mixture=mixture, borrowed=numbers[0], volume=numbers[1], broke=numbers[2], evidence=numbers[3])


def _whole(b: Blocks, priors: GroupPriors) -> Present:
    """Return the posterior if nothing changed."""
    count, exposure = b.counts.sum(axis=1), b.exposures.sum(axis=1)
    uncertain = b.log_variance[:, 0] if b.log_variance.any() else None
    shape, rate, weight, borrowed = posterior_mixture(count, exposure, b.group, priors, exposure_variance=uncertain)
    return Present(
        mixture=GammaMixture(shape=shape, rate=rate, weight=weight),
        borrowed=borrowed,
        volume=count,
        broke=np.zeros(len(count)),
        evidence=np.zeros(len(count)),
    )


def _present(b: Blocks, seen: Blocks, past: Past, priors: GroupPriors, share: FloatArray, kept: npt.NDArray[np.intp]) -> Present:
    model, evidence = weights(past.evidence, share)
    since = past.since.T * model[1]
    since[0] += model[0]
    calm = _whole(b, priors)
    k, mu = centre(np.log(priors.k), priors)[b.group], centre(priors.log_mu, priors)[b.group]
    walks = past.walks if b is seen else _walks(b.counts, b.exposures, b, k, mu, kept)[:3]
    first_k, k = k, np.minimum(k, _K_AFTER)
    mass, first, second = (np.zeros((2, len(mu))) for _ in range(3))
    borrowed, volume = since[0] * calm.borrowed, since[0] * calm.volume

    def add(j: int, w: FloatArray, s: FloatArray, r: FloatArray, uncertain: FloatArray | float) -> None:
        """Add a Gamma(s, r) of weight w to component j; ``uncertain`` is the variance of its log exposure."""
        mean = s / r
        part = w * mean
        mass[j] += w
        first[j] += part
        second[j] += part * (1.0 / r + mean * (1.0 + uncertain))

    c, x = k.copy(), k / mu
    for i in range(len(since) - 1, 0, -1):
        c += b.counts[:, i]
        x += b.exposures[:, i]
        uncertain = b.log_variance[:, i] if b.log_variance.shape[1] > 1 else 0.0
        add(0, since[i], c, x, uncertain)
        borrowed += since[i] * (k / mu) / x
        volume += since[i] * (c - k)
    whole = b.log_variance[:, 0] if b.log_variance.shape[1] > 1 else 0.0
    for w, s, r, left in zip(model[2:], *walks, strict=True):
        add(1, w, s, r, whole)
        borrowed += w * left * (first_k / mu) / r
        volume += w * (s - left * first_k)
    filled = mass > 0
    m = np.where(filled, first / np.where(filled, mass, 1.0), calm.mixture.mean)
    v = np.where(filled, second / np.where(filled, mass, 1.0) - m**2, m**2)
    v = np.maximum(v, 1e-12 * m**2)
    mixture = GammaMixture(
        shape=np.concatenate([calm.mixture.shape, (m**2 / v).T], axis=1),
        rate=np.concatenate([calm.mixture.rate, (m / v).T], axis=1),
        weight=np.concatenate([calm.mixture.weight * since[:1].T, mass.T], axis=1),
    )
    return Present(mixture=mixture, borrowed=borrowed, volume=volume, broke=since[1:].sum(axis=0), evidence=evidence)
