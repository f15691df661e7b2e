"""Counts over exposures: Gamma-Poisson posteriors, group priors by marginal likelihood, mixtures and their quantiles.

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

_LOG_K = np.linspace(np.log(0.03), np.log(3e4), 24)  # nodes of the log concentration; the ends mean "nothing shared" and "all equal"
_CV_SCALE = 0.5  # scale of the half-Cauchy hyper-prior on the relative spread 1 / sqrt(k) of rates within a group
_HERMITE = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)])  # three Gauss-Hermite nodes: exact to the fifth moment
_HERMITE_WEIGHT = np.array([1 / 6, 2 / 3, 1 / 6])
_MAX_UNITS = 4096  # units of one group that take part in fitting its prior; more would not change it visibly


def totals(unit: npt.NDArray[np.integer], amount: FloatArray, n: int) -> FloatArray:
    """Return the sum of ``amount`` per unit, shape (n,)."""
    return np.bincount(unit, amount, n).astype(np.float64, copy=False)


def mixture_cdf(x: FloatArray, shape: FloatArray, rate: FloatArray, weight: FloatArray) -> FloatArray:
    """Return the distribution function of Gamma mixtures.

    Args:
        x: Where, shape (A,).
        shape, rate, weight: Components, shape (A, R); weights sum to 1 over the last axis.

    Returns:
        P(rate <= x), shape (A,).

    >>> mixture_cdf(np.array([1.0]), np.array([[1.0]]), np.array([[1.0]]), np.array([[1.0]])).round(4).tolist()
    [0.6321]
    """
    return np.asarray((weight * special.gammainc(shape, rate * x[:, None])).sum(axis=1))


def _matched(shape: FloatArray, rate: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return shape and rate of the Gamma with the mixture's mean and variance, shape (A,) each."""
    means = shape / rate
    mean = (weight * means).sum(axis=1)
    variance = (weight * (means / rate + (means - mean[:, None]) ** 2)).sum(axis=1)
    return mean**2 / variance, mean / variance


def mixture_quantile(level: float, shape: FloatArray, rate: FloatArray, weight: FloatArray) -> FloatArray:
    """Return a quantile of Gamma mixtures.

    A single component is inverted exactly; a mixture starts at the Gamma with its first two moments and takes safeguarded
    Newton steps on the probit scale in ``log x``, where a Gamma distribution function is almost a straight line.

    Args:
        level: Probability, in (0, 1).
        shape, rate, weight: Components, shape (A, R); weights sum to 1 over the last axis.

    Returns:
        Quantiles, shape (A,), with distribution function within 1e-9 of ``level``.

    >>> one = np.ones((1, 1))
    >>> round(float(mixture_quantile(0.5, one, one, one)[0]), 6)  # log 2
    0.693147
    """
    n, components = shape.shape
    if components == 1:
        return np.asarray(special.gammaincinv(shape[:, 0], level) / rate[:, 0])
    matched_shape, matched_rate = _matched(shape, rate, weight)
    tiny = 1e-300
    u = np.log(np.maximum(special.gammaincinv(matched_shape, level) / matched_rate, tiny))
    low, high = np.full(n, np.log(tiny)), np.full(n, 700.0)
    wanted = special.ndtri(level)
    todo = np.arange(n)
    s, r, w = shape, rate, weight
    log_gamma = special.gammaln(shape)
    for _ in range(100):
        at = u[todo]
        scaled = r * np.exp(at)[:, None]
        cdf = (w * special.gammainc(s, scaled)).sum(axis=1)
        slope = (w * np.exp(s * np.log(scaled) - scaled - log_gamma)).sum(axis=1)  # d cdf / d log x
        above = cdf > level
        high[todo] = np.where(above, at, high[todo])
        low[todo] = np.where(above, low[todo], at)
        open_ = np.abs(cdf - level) > 1e-10
        probit = special.ndtri(np.clip(cdf, 1e-300, 1 - 1e-16))
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            step = (wanted - probit) * np.exp(-0.5 * probit**2) / np.sqrt(2 * np.pi) / slope
        new = at + step
        outside = ~((new > low[todo]) & (new < high[todo]))  # also where the slope vanished
        new = np.where(outside, 0.5 * (low[todo] + high[todo]), new)
        u[todo[open_]] = new[open_]
        open_ &= high[todo] - low[todo] > 1e-13
        if not open_.any():
            break
        if not open_.all():
            todo, s, r, w, log_gamma = todo[open_], s[open_], r[open_], w[open_], log_gamma[open_]
    return np.asarray(np.exp(u))


def log_marginal(count: FloatArray, exposure: FloatArray, k: FloatArray, mu: FloatArray) -> FloatArray:
    """Return the negative-binomial log marginal likelihood of counts given the group's Gamma(k, k / mu), without constants in k and mu.

    Args:
        count, exposure: Shape (A,) or broadcastable; exposure zero gives zero.
        k, mu: Concentration and mean rate of the group, broadcastable.
    """
    return np.asarray(
        special.gammaln(k + count) - special.gammaln(k) + k * np.log(k) + count * np.log(mu) - (k + count) * np.log(k + mu * exposure)
    )


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
    count: FloatArray, exposure: FloatArray, group: IntArray, n_groups: int, k: float, centre: FloatArray, spread: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mode and curvature of each group's ``log mu`` given ``k``, and the log evidence of ``k``; shape (G,) each."""
    log_mu = centre.copy()
    precision = 1.0 / spread**2
    for _ in range(60):
        mean = np.exp(log_mu)[group] * exposure
        gradient = np.bincount(group, k * (count - mean) / (k + mean), n_groups) - (log_mu - centre) * precision
        information = np.bincount(group, k * mean / (k + mean) * (k + count) / (k + mean), n_groups) + precision
        expected = np.bincount(group, k * mean / (k + mean), n_groups) + precision
        step = np.clip(gradient / np.maximum(information, 0.5 * expected), -2.0, 2.0)
        log_mu = log_mu + step
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    evidence = totals(group, log_marginal(count, exposure, np.full(1, k), np.exp(log_mu)[group]), n_groups)
    evidence = evidence - 0.5 * (log_mu - centre) ** 2 * precision - np.log(spread) - 0.5 * np.log(information)
    return log_mu, information, evidence


def _thinned(count: FloatArray, exposure: FloatArray, group: IntArray, limit: int) -> npt.NDArray[np.intp]:
    """Return positions of at most about ``limit`` units a group, spread evenly over their exposures; independent of the units' order."""
    order = np.lexsort((count, exposure, group))
    sizes = np.bincount(group)
    if sizes.max(initial=0) <= limit:
        return order
    start = np.cumsum(sizes) - sizes
    sorted_group = group[order]
    place = np.arange(len(order)) - start[sorted_group]
    share = np.minimum(1.0, limit / sizes[sorted_group])
    keep = np.floor((place + 1) * share) > np.floor(place * share)
    return np.asarray(order[keep], dtype=np.intp)


def fit_group_priors(count: FloatArray, exposure: FloatArray, group: IntArray, n_groups: int, *, nodes: int = 4) -> GroupPriors:
    """Return the posterior of each group's prior from the marginal likelihood of its units, with a second level over groups.

    ``log mu`` of the groups is Normal around their common centre; the relative spread ``1 / sqrt(k)`` has a half-Cauchy
    hyper-prior of scale 0.5 mixed with what the other groups show, so that five units never give ``k = inf``.

    Args:
        count, exposure: Per unit, shape (A,); tempered and maturity-weighted already.
        group: Group of each unit, shape (A,), in [0, n_groups).
        n_groups: Number of groups G.
        nodes: Nodes R kept per group.

    Returns:
        Nodes of shape (G, R). Where nothing at all is known, ``informed`` is False and the nodes are a placeholder.
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
    shape = (len(_LOG_K), n_groups)
    log_mu, information, evidence = np.empty(shape), np.empty(shape), np.empty(shape)
    for j, k in enumerate(np.exp(_LOG_K)):
        log_mu[j], information[j], evidence[j] = _modes(c, x, g, n_groups, float(k), centre, spread)
    weight = _weights_of_k(evidence)
    return _merged(weight, log_mu, 1.0 / information, nodes)


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


def _weights_of_k(evidence: FloatArray) -> FloatArray:
    """Return posterior weights over the nodes of ``k``, shape (K, G), from their log evidence."""
    cv = np.exp(-0.5 * _LOG_K)
    base = cv / (1.0 + (cv / _CV_SCALE) ** 2)  # half-Cauchy on cv, as a density of log k
    base /= base.sum()
    likelihood = np.exp(evidence - evidence.max(axis=0))
    prior = np.repeat(base[:, None], evidence.shape[1], axis=1)
    for _ in range(8 if evidence.shape[1] > 1 else 1):
        posterior = prior * likelihood
        posterior /= posterior.sum(axis=0)
        others = posterior.sum(axis=1, keepdims=True) - posterior
        prior = 2.0 * base[:, None] + others  # the base counts as two groups
        prior /= prior.sum(axis=0)
    return np.asarray(posterior)


def _merged(weight: FloatArray, log_mu: FloatArray, variance: FloatArray, nodes: int) -> GroupPriors:
    """Return ``nodes`` bins of about equal weight per group from (K, G) fine nodes, each at its weighted mean."""
    n_groups = weight.shape[1]
    upper = np.cumsum(weight, axis=0)
    place = np.clip(((upper - 0.5 * weight) * nodes).astype(np.intp), 0, nodes - 1)
    columns = [np.zeros((nodes, n_groups)) for _ in range(4)]
    at = (place, np.broadcast_to(np.arange(n_groups), place.shape))
    for column, values in zip(columns, (np.ones(1), _LOG_K[:, None], log_mu, log_mu**2 + variance), strict=True):
        np.add.at(column, at, weight * values)
    mass = np.maximum(columns[0], 1e-300)
    filled = columns[0] > 0
    log_k, mean = (np.where(filled, c / mass, 0.0) for c in columns[1:3])
    sd = np.sqrt(np.maximum(np.where(filled, columns[3] / mass - mean**2, 0.0), 0.0))
    total = columns[0].sum(axis=0)
    return GroupPriors(
        k=np.exp(log_k.T), weight=(columns[0] / total).T, log_mu=mean.T, sd_log_mu=sd.T, informed=np.ones(n_groups, dtype=bool)
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
            variance = variance + (m * (1.0 - prior_rate / rate)) ** 2 * exposure_variance[:, None]
        mean += w * m
        second += w * (variance + m**2)
        borrowed += w * (weight * prior_rate / rate).sum(axis=1)
    spread = np.maximum(second - mean**2, 1e-12 * mean**2)
    return mean**2 / spread, mean / spread, weight, borrowed


def pearson_dispersion(
    count: FloatArray, expected: FloatArray, unit: IntArray, group: IntArray, n_groups: int, *, pseudo: float = 20.0
) -> FloatArray:
    """Return the over-dispersion of cell counts around their units' means, per group (Fletcher 2012), shrunk to 1.

    Args:
        count, expected: Per cell, shape (N,); cells with expected zero are left out.
        unit: Unit whose mean was fitted, per cell, shape (N,): one degree of freedom each.
        group: Group of each *unit*, shape (A,).
        n_groups: Number of groups G.
        pseudo: Degrees of freedom of the prior guess 1.

    Returns:
        Ratio of variance to mean, shape (G,), not yet cut off at 1.
    """
    used = expected > 0
    c, e, u = count[used], expected[used], unit[used]
    residual = (c - e) / e
    cell_group = np.asarray(group)[u]
    cells = np.bincount(cell_group, minlength=n_groups)
    present = np.bincount(u, minlength=len(group)) > 0
    freedom = np.maximum(cells - np.bincount(np.asarray(group)[present], minlength=n_groups), 0)
    squares = np.bincount(cell_group, residual**2 * e, n_groups)
    bias = np.bincount(cell_group, residual, n_groups) / np.maximum(cells, 1)
    ratio = squares / np.maximum(freedom, 1) / np.maximum(1.0 + bias, 0.1)
    return np.asarray((pseudo + freedom * ratio) / (pseudo + freedom))
