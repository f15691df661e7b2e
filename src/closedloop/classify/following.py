"""How an arm's rate followed the rest of the account: the assumptions under which its past is read.

Law of this file: days in, factors of exposures out. What an arm causes per exposure is its own; what it meets by chance grows with the
conversions that others bring. So a past rate was ``(1 - s) + s l`` of the present one, ``s`` the background's share now and ``l`` the
others' conversions then over now: an account that grew tells the two apart, without a test. Or the rate rose with demand, whatever ``s``;
or it followed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

from closedloop.classify.evidence import KindEvidence
from closedloop.classify.rates import Counted, Learned, Rates, delay_covariance, fit_rates, rates_given
from closedloop.classify.recency import Groups, learn_shares
from closedloop.records.interval import FloatArray
from closedloop.records.outcomes import Outcomes
from closedloop.stats.gamma_poisson import GroupPriors, pearson_dispersion
from closedloop.stats.level import Level, smoothed

SHARES = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)  # nodes of the background's share of the present rate
_FLAT = 1.15  # an account whose level never left this factor of the present one says nothing of the shares
_FARTHEST = 20.0  # levels further apart than this tell no more than this
_LARGE = 0.02  # share of the account's conversions from which an arm's own are taken out of the others'
_LEAST = 0.05  # of the account's conversions are always others'
_ALONE = 0.15  # chance that what the other arms say of the assumptions does not hold for an arm
_YOUNGEST = 0.2  # maturity under which what a cohort lacks is not made up for


@attrs.frozen(kw_only=True, eq=False)
class Assumption:
    """One way in which past rates stand to the present one.

    Args:
        name: ``follows``, ``demand`` or ``nothing``.
        share: The background's share of the present rate; None where the assumption does not depend on it.
        chance: Prior probability; that of all shares together for each of them.
        factors: By kind of touch, what an exposure of each block counts for at the present rate, shape (A, B).
    """

    name: str
    share: float | None
    chance: float
    factors: Mapping[str, FloatArray]


def assumptions(outcomes: Outcomes, source: Outcomes, kinds: Mapping[str, KindEvidence], follows: float) -> list[Assumption]:
    """Return the assumptions under which the past is to be read; one, that rates followed nothing, where the account stood still.

    Args:
        outcomes: With the account's conversions by day.
        source: Conversions that arms took part in.
        kinds: Evidence by kind of touch.
        follows: Chance that what an arm meets grows with the others' conversions; the rest is demand's and nothing's in equal parts.
    """
    one = {name: np.ones(e.counts.shape) for name, e in kinds.items()}
    level = Level.of(outcomes) if all(e.counts.shape[1] > 1 for e in kinds.values()) else None  # one block has no past to compare
    if level is None or level.now <= 0.0 or follows <= 0.0 or not any(_moved(source, e, level) for e in kinds.values()):
        return [Assumption(name="nothing", share=None, chance=1.0, factors=one)]
    others = _Others.of(source, next(iter(kinds.values())), level)
    found = {name: others.factors(source, e) for name, e in kinds.items()}
    rest = (1.0 - follows) / 2.0
    of = [{name: f[j] for name, f in found.items()} for j in range(len(SHARES) + 1)]
    out = [Assumption(name="follows", share=s, chance=follows, factors=f) for s, f in zip(SHARES, of[:-1], strict=True)]
    if rest > 0.0:
        out.append(Assumption(name="demand", share=None, chance=rest, factors=of[-1]))
        out.append(Assumption(name="nothing", share=None, chance=rest, factors=one))
    return out


def chances(assumed: Sequence[Assumption]) -> FloatArray:
    """Return the prior probability of each assumption, every share alike likely; shape (J,), sum 1."""
    each = np.array([a.chance / (1.0 if a.share is None else len(SHARES)) for a in assumed])
    return np.asarray(each / each.sum())


def log_weights(assumed: Sequence[Assumption], evidence: FloatArray) -> FloatArray:
    """Return the log prior probability of each assumption for each arm, given the other arms; shape (J, A).

    Which of the three holds is the account's rather than the arm's: where rates of some arms stood still, demand did not rise. So each
    arm is judged by what the others say, but for a part in which it is on its own.

    Args:
        assumed: The assumptions.
        evidence: Log evidence of each for each arm, shape (J, A).
    """
    names = list(dict.fromkeys(a.name for a in assumed))
    member = np.array([[a.name == name for a in assumed] for name in names])
    chance = np.array([next(a.chance for a in assumed if a.name == name) for name in names])
    each = np.stack([special.logsumexp(evidence[mine], axis=0) - np.log(mine.sum()) for mine in member])
    told = special.softmax(np.log(chance)[:, None] + each.sum(axis=1, keepdims=True) - each, axis=0)
    return np.asarray(np.log(_ALONE * chance[:, None] + (1.0 - _ALONE) * told)[member.argmax(axis=0)])


def rates_under(
    assumed: Sequence[Assumption], name: str, source: Outcomes, e: KindEvidence, group: Groups, priors: GroupPriors, hazard: float | None,
    seed: int,
) -> list[Rates]:  # fmt: skip
    """Return the posterior of every arm's present rate under each assumption, with its evidence.

    What pasts are like is learned under all of them together, so that a growth that an assumption explains is no trend.

    Args:
        assumed: The assumptions.
        name, e: The kind of touch, and its evidence.
        source: The evidence's source.
        group: Group of each arm in canonical order, shape (A,).
        priors: The groups' priors.
        hazard: Probability of a break per day; where it is None there is one assumption.
        seed: Seed of the draws of the delay curve.
    """
    n_groups, curve = len(priors.k), source.delay.get(name)
    if len(assumed) == 1:
        return [fit_rates(source, e, group, n_groups, curve, hazard=hazard, seed=seed, priors=priors)]
    scatter, covariance = pearson_dispersion(e.pearson, group, n_groups), delay_covariance(curve, seed)
    read, more = [_counting(e, a.factors[name]) for a in assumed], []
    blocks = [Counted.of(source, own, covariance).blocks(group, scatter, covariance, whole=False) for own in read]
    for a, b in zip(assumed, blocks, strict=True):
        more.append((b.counts * np.log(a.factors[name])).sum(axis=1))  # evidences leave it out
    weighed = [(b, m + w) for b, m, w in zip(blocks, more, np.log(chances(assumed)), strict=True)]
    share, pasts = learn_shares(weighed, priors, hazard or 0.0)
    learned = Learned(hazard=hazard, priors=priors, scatter=scatter, share=share, covariance=covariance)
    found = []
    for j, (own, m) in enumerate(zip(read, more, strict=True)):
        rates = rates_given(learned, source, own, group, past=None if pasts is None else pasts[j])
        found.append(attrs.evolve(rates, evidence=rates.evidence + m))
    return found


def _counting(e: KindEvidence, factor: FloatArray) -> KindEvidence:
    """Return evidence whose past exposures count for something else at the present rate."""
    exposures = e.exposures * factor
    more = None if e.untagged_exposures is None else e.untagged_exposures * factor
    return attrs.evolve(e, exposures=exposures, exposure=exposures.sum(axis=1), untagged_exposures=more)


def _exposed(source: Outcomes, e: KindEvidence) -> tuple[npt.NDArray[np.int32], FloatArray]:
    c = source.cohorts
    return c.day[e.rows], c.exposures[e.rows] * c.maturity[e.rows]


def _moved(source: Outcomes, e: KindEvidence, level: Level) -> bool:
    """Whether arms had exposures on days whose level was another one."""
    day, exposures = _exposed(source, e)
    then = level.by_day[level.at(day)]
    return bool(((exposures > 0) & ((then > _FLAT * level.now) | (then * _FLAT < level.now))).any())


@attrs.frozen(kw_only=True, eq=False)
class _Others:
    """The account's conversions by day, and those of its large arms, which are not others' to them.

    Args:
        level: The account's.
        large: Row in ``own`` of each arm in canonical order, -1 for the small ones, shape (A,).
        own: Conversions that large arms took part in by day, smoothed, shape (L, D).
    """

    level: Level
    large: npt.NDArray[np.intp]
    own: FloatArray

    @classmethod
    def of(cls, source: Outcomes, e: KindEvidence, level: Level) -> _Others:
        """Return the others' conversions; any kind of touch will do as the evidence."""
        c, n, days = source.cohorts, len(e.count), len(level.by_day)
        unit = e.position[c.arm]
        seen = c.credit / np.maximum(c.maturity, _YOUNGEST)
        mine = unit >= 0
        at = np.flatnonzero(np.bincount(unit[mine], seen[mine], n) > _LARGE * level.by_day.sum())
        large = np.full(n, -1)
        large[at] = np.arange(len(at))
        row, day = np.where(mine, large[unit], -1), c.day - level.first
        inside = (row >= 0) & (day >= 0) & (day < days)
        own = np.bincount(row[inside] * days + day[inside], seen[inside], len(at) * days).reshape(-1, days)
        return cls(level=level, large=large, own=smoothed(own.astype(np.float64), np.ones(days)))

    def factors(self, source: Outcomes, e: KindEvidence) -> FloatArray:
        """Return what the exposures of each block count for if the background has each share, then if demand rose; (S + 1, A, B)."""
        unit, level = e.unit, self.level
        day, exposures = _exposed(source, e)
        at, row = level.at(day), self.large[unit]
        n, blocks = e.counts.shape
        block = blocks - 1 - np.clip(np.searchsorted(e.block_age[::-1], e.mark[unit] - day), 0, blocks - 1)
        cell = unit * blocks + block
        total = np.bincount(cell, exposures, n * blocks)
        then, taken, late = level.by_day[at], np.zeros(len(at)), np.zeros(len(at))
        if len(self.own):
            taken = np.where(row >= 0, self.own[row, at], 0.0)
            late = np.where(row >= 0, self.own[:, -level.days :].mean(axis=1)[row], 0.0)

        def block_means(factor: FloatArray) -> FloatArray:
            summed = np.bincount(cell, exposures * factor, n * blocks)
            return np.divide(summed, total, out=np.ones(n * blocks), where=total > 0).reshape(n, blocks)

        out = []
        for share in SHARES:
            now = np.maximum(level.now - (1.0 - share) * late, _LEAST * level.now)
            ratio = np.maximum(then - (1.0 - share) * taken, _LEAST * then) / now
            out.append(block_means(1.0 - share + share * np.clip(ratio, 1.0 / _FARTHEST, _FARTHEST)))
        out.append(block_means(np.clip(then / level.now, 1.0 / _FARTHEST, _FARTHEST)))
        return np.stack(out)
