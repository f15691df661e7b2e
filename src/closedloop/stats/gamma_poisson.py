"""Counts over exposures: Gamma-Poisson posteriors, group priors by marginal likelihood, and the scatter of counts.

Law of this file: arrays in, arrays out; no marketing word, no clock, no randomness. Counts may be fractional (weighted or
tempered), never negative. Nothing loops over units; loops run over quadrature nodes and Newton steps only.

References:
    Gelman et al., Bayesian Data Analysis (2013), sections 2.6 and 5; Rue, Martino & Chopin (2009) for integrating the
    hyper-parameters on nodes rather than plugging in one value; Fletcher (2012), "Estimating overdispersion when fitting a
    generalized linear model to sparse data", Biometrika 99, for the dispersion of sparse counts.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer]

_LOG_K = np.linspace(np.log(0.03), np.log(3e4), 11)  # first nodes of the log concentration; the ends mean "nothing shared" and "all equal"
_FINE = np.linspace(-2.7, 2.7, 9)  # second nodes, in standard deviations of the log concentration
_CV_SCALE = 0.8  # scale of the half-Cauchy hyper-prior on the relative spread 1 / sqrt(k) of rates within a group
_HERMITE = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)])  # three Gauss-Hermite nodes: exact to the fifth moment
_HERMITE_WEIGHT = np.array([1 / 6, 2 / 3, 1 / 6])
_KNOWN = 0.15  # standard deviation of the log concentration below which it is as good as known
_MAX_UNITS = 8192  # units of one group that take part in fitting its prior; more would not change it visibly


def totals(unit: npt.NDArray[np.integer], amount: FloatArray, n: int) -> FloatArray:
    """Return the sum of ``amount`` per unit, shape (n,)."""
    return np.bincount(unit, amount, n).astype(np.float64, copy=False)


@attrs.frozen(kw_only=True, eq=False)
class GroupPriors:
    """Posterior of each group's prior Gamma(k, k / mu), on a few nodes of ``k`` with a log-normal ``mu`` given each.

    Args:
        k: Concentrations, shape (G, R).
        weight: Posterior probabilities, shape (G, R), rows sum to 1.
        log_mu, sd_log_mu: Mean and standard deviation of ``log mu`` given the node, shape (G, R).
        informed: False for a group whose units have neither counts nor exposure and nothing to borrow from, shape (G,).
    """

    k: FloatArray
    weight: FloatArray
    log_mu: FloatArray
    sd_log_mu: FloatArray
    informed: npt.NDArray[np.bool_]


def _modes(
    count: FloatArray, exposure: FloatArray, group: IntArray, k: FloatArray, start: FloatArray, centre: FloatArray, spread: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mode and curvature of each group's ``log mu`` given its ``k``, and the log evidence of ``k``; shape (G,) each."""
    n_groups = len(k)
    log_mu = start
    precision = 1.0 / spread**2
    own_k = k[group]
    information = np.ones(n_groups)
    for _ in range(60):
        mean = np.exp(log_mu)[group] * exposure
        pull = own_k / (own_k + mean)
        gradient = totals(group, pull * (count - mean), n_groups) - (log_mu - centre) * precision
        information = totals(group, pull * mean / (own_k + mean) * (own_k + count), n_groups) + precision
        expected = totals(group, pull * mean, n_groups) + precision
        step = np.clip(gradient / np.maximum(information, 0.5 * expected), -2.0, 2.0)
        log_mu = log_mu + step
        if np.abs(step).max(initial=0.0) < 1e-6:
            break
    units = totals(group, np.ones_like(count), n_groups)
    counts = totals(group, count, n_groups)
    # The negative binomial of each unit, with what all units of a group share taken out of the sum.
    evidence = totals(group, special.gammaln(own_k + count) - (own_k + count) * np.log(own_k + np.exp(log_mu)[group] * exposure), n_groups)
    evidence = evidence + units * (k * np.log(k) - special.gammaln(k)) + counts * log_mu
    evidence = evidence - 0.5 * (log_mu - centre) ** 2 * precision - np.log(spread) - 0.5 * np.log(information)
    return log_mu, information, evidence


def _along(
    count: FloatArray, exposure: FloatArray, group: IntArray, log_k: FloatArray, centre: FloatArray, spread: FloatArray
) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Return `_modes` at each row of ``log_k`` (shape (K, G)), each search beginning where the last one ended."""
    out: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    for row in log_k:
        out.append(_modes(count, exposure, group, np.exp(row), out[-1][0] if out else centre, centre, spread))
    return out


def _thinned(count: FloatArray, exposure: FloatArray, group: IntArray, limit: int) -> npt.NDArray[np.intp]:
    """Return positions of at most about ``limit`` units a group, spread evenly over their exposures; independent of the units' order.

    Of groups of more than four times as many, an even part by position is looked at, so that sorting stays cheap.
    """
    sizes = np.bincount(group)
    if sizes.max(initial=0) > 4 * limit:
        step = -(-sizes // (2 * limit))[group]
        kept = np.flatnonzero(np.arange(len(group)) % step == 0)
        return np.asarray(kept[_thinned(count[kept], exposure[kept], group[kept], limit)])
    order = np.lexsort((count, exposure, group))
    if sizes.max(initial=0) <= limit:
        return order
    start = np.cumsum(sizes) - sizes
    sorted_group = group[order]
    place = np.arange(len(order)) - start[sorted_group]
    share = np.minimum(1.0, limit / sizes[sorted_group])
    keep = np.floor((place + 1) * share) > np.floor(place * share)
    return np.asarray(order[keep], dtype=np.intp)


def fit_group_priors(count: FloatArray, exposure: FloatArray, group: IntArray, n_groups: int, *, nodes: int = 3) -> GroupPriors:
    """Return the posterior of each group's prior from the marginal likelihood of its units, with a second level over groups.

    ``log mu`` of the groups is Normal around their common centre; the relative spread ``1 / sqrt(k)`` has a half-Cauchy
    hyper-prior of scale 0.8 mixed with what the other groups show, so that five units never give ``k = inf``.

    Args:
        count, exposure: Per unit, shape (A,); tempered and maturity-weighted already.
        group: Group of each unit, shape (A,), in [0, n_groups).
        n_groups: Number of groups G.
        nodes: Nodes R kept per group.

    Returns:
        Nodes of shape (G, R), one node where every group's concentration is as good as known. Where nothing at all is known,
        ``informed`` is False and the nodes are a placeholder.
    """
    seen = exposure > 0
    total, total_exposure = float(count[seen].sum()), float(exposure[seen].sum())
    if total_exposure <= 0.0:
        one = np.ones((n_groups, 1))
        return GroupPriors(k=0.1 * one, weight=one, log_mu=np.log(0.01) * one, sd_log_mu=one, informed=np.zeros(n_groups, dtype=bool))
    c, x, g = count[seen], exposure[seen], np.asarray(group)[seen]
    pick = _thinned(c, x, g, _MAX_UNITS)
    c, x, g = c[pick], x[pick], g[pick]
    centre, spread = _second_level(c, x, g, n_groups, np.log((total + 0.5) / total_exposure))
    coarse = np.repeat(_LOG_K[:, None], n_groups, axis=1)
    evidence = np.stack([found[2] for found in _along(c, x, g, coarse, centre, spread)])
    weight, log_prior = _weights_of_k(evidence)
    # A second pass on finer nodes around each group's posterior: with thousands of units it is narrower than the first grid.
    mean = (weight * coarse).sum(axis=0)
    sd = np.sqrt((weight * (coarse - mean) ** 2).sum(axis=0) + (_LOG_K[1] - _LOG_K[0]) ** 2 / 12)
    fine = np.clip(mean + _FINE[:, None] * sd, _LOG_K[0], _LOG_K[-1])
    log_mu, information, evidence = (np.stack(a) for a in zip(*_along(c, x, g, fine, centre, spread), strict=True))
    evidence = evidence + np.stack([np.interp(fine[:, j], _LOG_K, log_prior[:, j]) for j in range(n_groups)], axis=1)
    weight = np.exp(evidence - evidence.max(axis=0)) * np.gradient(fine, axis=0)
    weight = weight / weight.sum(axis=0)
    mean = (weight * fine).sum(axis=0)
    surely = np.sqrt((weight * (fine - mean) ** 2).sum(axis=0)).max() < _KNOWN  # thousands of units: one node says it all
    return _merged(weight, fine, log_mu, 1.0 / information, 1 if surely else nodes)


def _second_level(count: FloatArray, exposure: FloatArray, group: IntArray, n_groups: int, pooled: float) -> tuple[FloatArray, FloatArray]:
    """Return centre and spread of the Normal over groups' ``log mu`` (shape (G,)): DerSimonian-Laird with a floor and a wide prior."""
    wide = 2.0
    counts, exposures = np.bincount(group, count, n_groups), np.bincount(group, exposure, n_groups)
    used = (exposures > 0) & (counts > 0)
    if used.sum() < 3:
        return np.full(n_groups, pooled), np.full(n_groups, wide)
    log_rate = np.log(counts[used] / exposures[used])
    variance = 1.0 / counts[used] + 0.05  # a little for the spread of units inside the group
    w = 1.0 / variance
    mean = (w * log_rate).sum() / w.sum()
    q = (w * (log_rate - mean) ** 2).sum()
    between = max(0.0, (q - (used.sum() - 1)) / (w.sum() - (w**2).sum() / w.sum()))
    n = used.sum()
    spread = np.sqrt((n * between + 4.0 * 0.5**2) / (n + 4.0) + 0.05)  # four pseudo-groups with spread 0.5
    w = 1.0 / (variance + spread**2)
    centre = (w * log_rate).sum() / w.sum()
    return np.full(n_groups, centre), np.full(n_groups, spread * np.sqrt(1 + 1 / n))


def _weights_of_k(evidence: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return posterior weights over the first nodes of ``k`` and the log prior that led to them, shape (K, G) each."""
    cv = np.exp(-0.5 * _LOG_K)
    base = cv / (1.0 + (cv / _CV_SCALE) ** 2)  # half-Cauchy on cv, as a density of log k
    base /= base.sum()
    likelihood = np.exp(evidence - evidence.max(axis=0))
    prior = np.repeat(base[:, None], evidence.shape[1], axis=1)
    posterior = prior
    for _ in range(8 if evidence.shape[1] > 1 else 1):
        posterior = prior * likelihood
        posterior = posterior / posterior.sum(axis=0)
        others = posterior.sum(axis=1, keepdims=True) - posterior
        used, prior = prior, 2.0 * base[:, None] + others  # the base counts as two groups
        prior = prior / prior.sum(axis=0)
    return posterior, np.log(used)


def _merged(weight: FloatArray, log_k: FloatArray, log_mu: FloatArray, variance: FloatArray, nodes: int) -> GroupPriors:
    """Return ``nodes`` bins of about equal weight per group from (K, G) fine nodes, each at its weighted mean."""
    n_groups = weight.shape[1]
    upper = np.cumsum(weight, axis=0)
    place = np.clip(((upper - 0.5 * weight) * nodes).astype(np.intp), 0, nodes - 1)
    columns = [np.zeros((nodes, n_groups)) for _ in range(4)]
    at = (place, np.broadcast_to(np.arange(n_groups), place.shape))
    for column, values in zip(columns, (np.ones(1), log_k, log_mu, log_mu**2 + variance), strict=True):
        np.add.at(column, at, weight * values)
    mass = np.maximum(columns[0], 1e-300)
    filled = columns[0] > 0
    mean_log_k, mean = (np.where(filled, c / mass, 0.0) for c in columns[1:3])
    sd = np.sqrt(np.maximum(np.where(filled, columns[3] / mass - mean**2, 0.0), 0.0))
    total = columns[0].sum(axis=0)
    return GroupPriors(
        k=np.exp(mean_log_k.T), weight=(columns[0] / total).T, log_mu=mean.T, sd_log_mu=sd.T, informed=np.ones(n_groups, dtype=bool)
    )


def posterior_mixture(
    count: FloatArray, exposure: FloatArray, group: IntArray, priors: GroupPriors, *, exposure_variance: FloatArray | None = None
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return each unit's posterior as a Gamma mixture over the nodes of its group's prior.

    Given ``k``, the uncertainty of ``mu`` (three-point quadrature) and of the exposure (delta method) is folded into each
    component by matching its mean and variance.

    Args:
        count, exposure: Per unit, shape (A,).
        group: Group of each unit, shape (A,).
        priors: As from `fit_group_priors`.
        exposure_variance: Variance of the log exposure, shape (A,), None for known exposure.

    Returns:
        shape, rate, weight of shape (A, R), and the share of the prior in the posterior rate parameter, shape (A,).
    """
    k, weight = priors.k[group], priors.weight[group]
    mean, second = np.zeros_like(k), np.zeros_like(k)
    borrowed = np.zeros(len(count))
    for z, w in zip(_HERMITE.tolist(), _HERMITE_WEIGHT.tolist(), strict=True):
        prior_rate = k / np.exp(priors.log_mu + z * priors.sd_log_mu)[group]
        rate = prior_rate + exposure[:, None]
        m = (k + count[:, None]) / rate
        variance = m / rate
        if exposure_variance is not None:
            variance = variance + m**2 * exposure_variance[:, None]  # the group's mean rests on the same uncertain exposures
        mean += w * m
        second += w * (variance + m**2)
        borrowed += w * (weight * prior_rate / rate).sum(axis=1)
    spread = np.maximum(second - mean**2, 1e-12 * mean**2)
    return mean**2 / spread, mean / spread, weight, borrowed


@attrs.frozen(kw_only=True, eq=False)
class PearsonSums:
    """Residuals of cells around their means, summed per unit (A units), so that parts can be added.

    Args:
        squares: Sum of squared residuals over expectations.
        residual: Sum of residuals relative to expectations.
        cells, means: Cells with an expectation above zero, and means that were fitted to them.
    """

    squares: FloatArray
    residual: FloatArray
    cells: FloatArray
    means: FloatArray

    @classmethod
    def empty(cls, n: int) -> PearsonSums:
        """Return zeros for ``n`` units."""
        return cls(squares=np.zeros(n), residual=np.zeros(n), cells=np.zeros(n), means=np.zeros(n))

    def put(self, at: slice, part: PearsonSums) -> None:
        """Write the sums of some units into their places."""
        for name in ("squares", "residual", "cells", "means"):
            getattr(self, name)[at] = getattr(part, name)


def pearson_sums(count: FloatArray, exposure: FloatArray, member: FloatArray, counts: FloatArray, exposures: FloatArray) -> PearsonSums:
    """Return the sums behind `pearson_dispersion` per unit, around the mean rate of each of its blocks of cells.

    Args:
        count, exposure: Per unit and cell, shape (A, D); cells without exposure are left out.
        member: Which cells share a fitted mean, shape (D, B) of zeros and ones.
        counts, exposures: The sums by block, shape (A, B).
    """
    empty = exposure <= 0
    filled: FloatArray | npt.NDArray[np.float32] = member.sum(axis=0)
    if empty.any():
        filled = (~empty).astype(np.float32) @ member.astype(np.float32)
        count, exposure = count * ~empty, np.where(empty, 1.0, exposure)
        counts = count @ member
    used = (counts > 0) & (exposures > 0)
    inverse = np.divide(exposures, counts, out=np.zeros_like(counts), where=used)  # of the block's mean rate
    relative = count / exposure
    first = relative @ member
    relative *= count
    second = relative @ member
    # With rate r and expected r x: the sum of (c - r x)^2 / (r x), written out.
    return PearsonSums(
        squares=np.maximum(second * inverse - counts * used, 0.0).sum(axis=1),
        residual=(first * inverse - filled * used).sum(axis=1),
        cells=np.asarray((filled * used).sum(axis=1), dtype=np.float64),
        means=used.sum(axis=1).astype(np.float64),
    )


def pearson_dispersion(sums: PearsonSums, group: IntArray, n_groups: int, *, pseudo: float = 20.0) -> FloatArray:
    """Return the over-dispersion of cell counts around their units' means, per group (Fletcher 2012), shrunk to 1.

    Very sparse cells pull the estimate towards 1: units without any count are left out.

    Args:
        sums: As from `pearson_sums`, per unit.
        group: Group of each unit, shape (A,).
        n_groups: Number of groups G.
        pseudo: Degrees of freedom of the prior guess 1.

    Returns:
        Ratio of variance to mean, shape (G,), not yet cut off at 1.
    """
    cells, means, squares, residual = (totals(group, v, n_groups) for v in (sums.cells, sums.means, sums.squares, sums.residual))
    freedom = np.maximum(cells - means, 0.0)
    ratio = squares / np.maximum(freedom, 1) / np.maximum(1.0 + residual / np.maximum(cells, 1.0), 0.1)
    return np.asarray((pseudo + freedom * ratio) / (pseudo + freedom))
