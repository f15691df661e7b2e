"""What each arm's past was like: calm, broken or drifting; and the posterior of its present rate under all of them.

Law of this file: counts and exposures by block in, Gamma mixtures out. How common each past is among the arms is learned from all of
them first; given that, every arm's posterior is its own, so some arms can be computed again without the others.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray
from closedloop.records.posterior import GammaMixture
from closedloop.stats.changepoint import last_break, shares, walk, weights
from closedloop.stats.gamma_poisson import GroupPriors, posterior_mixture

Groups = npt.NDArray[np.integer]

_K_AFTER = 1.0  # concentration of the rate after a break: it can land anywhere around the group's mean
_WALKS = (0.01, 0.02, 0.04, 0.08)  # standard deviations of a day's step of the log rate
_MODELS = 2 + len(_WALKS)  # calm, breaks, and the walks
_LEARNERS = 4096  # arms from which the shares are learned; more would not change them visibly
_CHUNK = 8192


def _templates() -> tuple[FloatArray, FloatArray]:
    """Return typical populations, shape (T, M), and their prior probabilities: calm, breaking, and drifting at about one pace each."""
    calm = [0.85, 0.11, *[0.04 / len(_WALKS)] * len(_WALKS)]
    breaking = [0.50, 0.45, *[0.05 / len(_WALKS)] * len(_WALKS)]
    rows = [calm, breaking]
    for pace in range(len(_WALKS)):
        near = 0.3 ** np.abs(np.arange(len(_WALKS)) - pace)
        rows.append([0.05, 0.08, *(0.87 * near / near.sum()).tolist()])
    return np.array(rows), np.array([0.7, 0.1, *[0.2 / len(_WALKS)] * len(_WALKS)])


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


@attrs.frozen(kw_only=True, eq=False)
class Present:
    """Posterior of the present rate of some arms.

    Args:
        mixture: Components are the nodes of the group prior if nothing changed, breaks, and drift.
        borrowed: Share of the prior in the posterior rate parameter, shape (A,).
        volume: Effective number of conversions, shape (A,).
        broke: Probability of a break anywhere in the past, shape (A,).
    """

    mixture: GammaMixture
    borrowed: FloatArray
    volume: FloatArray
    broke: FloatArray


@attrs.frozen(kw_only=True, eq=False)
class Past:
    """Evidence of every model (M, A), where the last break was if there was one (A, B), and the posteriors of the walks."""

    evidence: FloatArray
    since: FloatArray
    walks: list[tuple[FloatArray, FloatArray, FloatArray]]


def forgets(blocks: Blocks, hazard: float) -> bool:
    """Whether anything can be forgotten: breaks are possible and there is more than one block."""
    return hazard > 0.0 and blocks.counts.shape[1] > 1


def centre(values: FloatArray, priors: GroupPriors) -> FloatArray:
    """Return the geometric centre over the nodes of each group's prior, shape (G,)."""
    return np.asarray(np.exp((priors.weight * values).sum(axis=1)))


def _past(b: Blocks, priors: GroupPriors, hazard: float) -> Past:
    k, mu = centre(np.log(priors.k), priors)[b.group], centre(priors.log_mu, priors)[b.group]
    # Where the delay curve is uncertain, a young block says less about a break.
    counts, exposures = b.counts, b.exposures
    if b.block_variance.any():
        trust = 1.0 / (1.0 + b.block_variance * exposures * mu[:, None])
        counts, exposures = counts * trust, exposures * trust
    since, evidence = last_break(counts, exposures, b.days, k=k, mu=mu, k_after=np.minimum(k, _K_AFTER), hazards=[0.0, hazard])
    walks = [walk(counts, exposures, b.days, k=k, mu=mu, sd=sd) for sd in _WALKS]
    return Past(evidence=np.stack([*evidence, *(w[3] for w in walks)]), since=since[1], walks=[w[:3] for w in walks])


def learn_shares(blocks: Blocks, priors: GroupPriors, hazard: float) -> tuple[FloatArray, Past | None]:
    """Return how common each past is among the arms, shape (M,), and the arms' pasts where all were looked at."""
    templates, prior = _templates()
    used = np.flatnonzero(blocks.exposures.sum(axis=1) > 0)
    if not forgets(blocks, hazard) or not len(used):
        return np.asarray(templates[0]), None
    used = used[:: -(-len(used) // _LEARNERS)]
    past = _past(blocks.take(used), priors, hazard)
    return shares(past.evidence, templates, prior), past if len(used) == len(blocks.counts) else None


def present(
    blocks: Blocks, priors: GroupPriors, share: FloatArray, hazard: float, *, seen: Blocks | None = None, past: Past | None = None
) -> Present:
    """Return the posterior of every arm's present rate.

    Args:
        blocks: The evidence.
        priors: The groups' priors.
        share: How common each past is, as from `learn_shares`.
        hazard: Probability of a break per day; zero forgets nothing.
        seen: The evidence of what the past was like, None for the same.
        past: What the past was like, where `learn_shares` has found it already.
    """
    n = len(blocks.counts)
    components = priors.k.shape[1] + (2 if forgets(blocks, hazard) else 0)
    shape, rate, weight = (np.empty((n, components)) for _ in range(3))
    numbers = np.empty((3, n))
    for start in range(0, n, _CHUNK):
        at = slice(start, start + _CHUNK)
        part = blocks.take(at)
        if forgets(blocks, hazard):
            other = part if seen is None else seen.take(at)
            found = _present(part, other, past or _past(other, priors, hazard), priors, share)
        else:
            found = _whole(part, priors)
        shape[at], rate[at], weight[at] = found.mixture.shape, found.mixture.rate, found.mixture.weight
        numbers[0, at], numbers[1, at], numbers[2, at] = found.borrowed, found.volume, found.broke
    return Present(mixture=GammaMixture(shape=shape, rate=rate, weight=weight), borrowed=numbers[0], volume=numbers[1], broke=numbers[2])


def _whole(b: Blocks, priors: GroupPriors) -> Present:
    """Return the posterior if nothing changed."""
    count, exposure = b.counts.sum(axis=1), b.exposures.sum(axis=1)
    uncertain = b.log_variance[:, 0] if b.log_variance.any() else None
    shape, rate, weight, borrowed = posterior_mixture(count, exposure, b.group, priors, exposure_variance=uncertain)
    return Present(mixture=GammaMixture(shape=shape, rate=rate, weight=weight), borrowed=borrowed, volume=count, broke=np.zeros(len(count)))


def _present(b: Blocks, seen: Blocks, past: Past, priors: GroupPriors, share: FloatArray) -> Present:
    model = weights(past.evidence, share)
    since = past.since.T * model[1]
    since[0] += model[0]
    calm = _whole(b, priors)
    k, mu = centre(np.log(priors.k), priors)[b.group], centre(priors.log_mu, priors)[b.group]
    walks = past.walks if b is seen else [walk(b.counts, b.exposures, b.days, k=k, mu=mu, sd=sd)[:3] for sd in _WALKS]
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
    for w, (s, r, left) in zip(model[2:], walks, strict=True):
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
    return Present(mixture=mixture, borrowed=borrowed, volume=volume, broke=since[1:].sum(axis=0))
