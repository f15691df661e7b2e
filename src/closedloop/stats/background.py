"""Credited counts split into caused and background, arm by arm, with everything that arms have in common integrated out.

Law of this file: arrays in, arrays out; no marketing word beyond the names of the two parts. Per exposure, *credited* = caused-and-seen
``r`` + background ``b``; *caused* = ``v r``, ``v`` shared by a platform. Arms of one type share where ``log r`` and ``log b`` lie and how
much they spread (Student-t of 4 and 12 degrees of freedom: an arm may be far out, and rather by what it causes). Those four numbers and
``v`` are integrated on a grid and never set to one value; so a few arms cannot claim to know the spread of all.

A holdout counts ``l b - (v - 1) r`` per exposure (what held-out users did, less what treated users did beyond the credit), ``l`` the
background's level then; a stated effect measures ``v r``.

References:
    STATISTICS.md section 8; Rue, Martino & Chopin (2009) for integrating hyper-parameters on nodes; Gelman et al. (2013), chapter 17, for
    Student-t populations.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt
from scipy import interpolate, special

from closedloop.records.causes import TypePrior
from closedloop.records.interval import FloatArray
from closedloop.stats.gamma_mixture import mixture_quantile
from closedloop.stats.measured import Measured
from closedloop.stats.reading import Reading, mean_rate

IntArray = npt.NDArray[np.integer]

_G, _Z = 17, 29  # nodes of an arm's credited rate, and of its background's share of it
_SHARE = np.append(np.linspace(-5.0, 6.0, _Z - 1), 9.2)  # logit of that share; the last node: next to nothing is caused, 1 in 10,000
_STEP = float(_SHARE[1] - _SHARE[0])
_PLACES = np.linspace(-2.8, 2.8, 9)  # nodes of a location, in standard deviations
_PASSES = 2  # times that the nodes of the locations are centred anew on what was found
_NU = (4, 12)  # degrees of freedom of caused and background: an arm far out more likely causes more than meets more
_UNIT = float(np.exp(special.gammaln(_NU[0] / 2 + 0.5) - special.gammaln(_NU[0] / 2)) / np.sqrt(_NU[0] * np.pi))  # left out by `_student`
_V = np.linspace(-2.4, 2.4, 17)  # nodes of log v, in standard deviations
_COMMON = np.linspace(-2.25, 2.25, 9)  # nodes of what platforms have in common of it, in standard deviations
_SWEEPS = 5
_MOST_ARMS = 128  # arms of one type from which the common numbers are learned; more would not change them visibly
_CELLS = 6_000_000  # hyper draws x arms x nodes worked on at once
_REACH = 5.0  # the credited rate's nodes reach at most so far down from the highest, in logs


@attrs.frozen(kw_only=True, eq=False)
class Causes:
    """Joint draws of what arms cause.

    Args:
        caused: Caused per exposure, shape (D, A).
        credited: Credited per exposure in the same draws, shape (D, A).
        shared: Correlation of each arm's normal scores with what arms have in common, shape (A, K).
    """

    caused: FloatArray
    credited: FloatArray
    shared: FloatArray


@attrs.frozen(kw_only=True, eq=False)
class _Cells:
    """Nodes of some arms: log credited rate (A, G), its log likelihood, (A, G, Z), or (A, G, 1) where it does not know of the shares."""

    log_g: FloatArray
    log_like: FloatArray

    @classmethod
    def of(cls, readings: Sequence[Reading], k: FloatArray, mu: FloatArray) -> _Cells:
        """From posteriors under a Gamma(k, k / mu) prior, which is taken out again."""
        n = len(k)
        evidence = np.stack([np.broadcast_to(r.evidence, (n,)) for r in readings])
        evidence = evidence - evidence.max(axis=0)
        shape, rate = (np.concatenate([getattr(r, f) for r in readings], axis=1) for f in ("shape", "rate"))
        weight = np.concatenate([r.weight * np.exp(e)[:, None] for r, e in zip(readings, evidence, strict=True)], axis=1)
        weight /= weight.sum(axis=1, keepdims=True)
        low, high = (np.log(mixture_quantile(level, shape, rate, weight)) for level in (0.0005, 0.9995))
        low = np.maximum(low, high - _REACH)
        log_g = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, _G)
        found = np.stack([r.log_density(log_g) + e[:, None] for r, e in zip(readings, evidence, strict=True)])  # (J, A, G)
        shares = {j: r.share for j, r in enumerate(readings) if r.share is not None}
        free = [j for j, r in enumerate(readings) if r.share is None]
        log = special.logsumexp(found[free], axis=0)[:, :, None] if free else np.full((n, _G, 1), -np.inf)
        if shares:
            known = interpolate.CubicSpline(list(shares.values()), found[list(shares)], axis=0)(special.expit(_SHARE))
            log = np.logaddexp(log, np.moveaxis(known, 0, 2))
        log += ((k / mu)[:, None] * np.exp(log_g) - k[:, None] * log_g)[:, :, None]
        return cls(log_g=log_g, log_like=log - log.max(axis=(1, 2), keepdims=True))

    def take(self, at: npt.NDArray[np.intp]) -> _Cells:
        return _Cells(log_g=self.log_g[at], log_like=self.log_like[at])

    @property
    def parts(self) -> tuple[FloatArray, FloatArray]:
        """Log caused-and-seen and log background, shape (A, G * Z) each."""
        n = len(self.log_g)
        caused = self.log_g[:, :, None] - np.logaddexp(0.0, _SHARE)
        background = self.log_g[:, :, None] - np.logaddexp(0.0, -_SHARE)
        return caused.reshape(n, -1), background.reshape(n, -1)

    def likelihood(self, measured: Measured, at: npt.NDArray[np.intp], log_v: FloatArray) -> FloatArray:
        """Log likelihood of counts and tests of the arms at positions ``at``, at nodes of ``log v`` (V,).

        Returns:
            Shape (A, V, G * Z), or (A, 1, G * Z) where none of the arms was tested: it does not depend on ``v`` then.
        """
        log = np.broadcast_to(self.log_like, (len(at), _G, _Z)).reshape(len(at), 1, -1)
        place = {int(a): i for i, a in enumerate(at)}
        rows = [m for m, a in enumerate(measured.arm.tolist()) if a in place]
        if rows:
            log = np.repeat(log, len(log_v), axis=1)
            log_r, log_b = self.parts
            v = np.exp(log_v)[:, None]
            for m in rows:
                i = place[int(measured.arm[m])]
                log[i] += measured.log_likelihood(m, np.exp(log_r[i]), np.exp(log_b[i]), v)
        return log


def _student(x: FloatArray, place: FloatArray, spread: FloatArray, nu: int) -> FloatArray:
    """Density of a Student-t around each node, without its constant; x (A, C), nodes (N,) -> (A, N, C)."""
    z = (x[:, None, :] - place[None, :, None]) / spread[None, :, None]
    z *= z
    z /= nu
    z += 1.0
    root, power = np.sqrt(z), int(nu) // 2  # to the power of (nu + 1) / 2, nu even: a product is faster than a power
    root *= spread[None, :, None]
    while power:
        if power % 2:
            root *= z
        power //= 2
        if power:
            z *= z
    return np.asarray(np.reciprocal(root, out=root))


def _caused(log_r: FloatArray, nodes: _Nodes, at: IntArray | slice = slice(None)) -> FloatArray:
    """Density of what arms cause around some nodes, (A, G * Z) -> (A, N, G * Z); the last of Z is the chance that it is next to nothing."""
    out = _student(log_r, nodes.places[0][at], nodes.spreads[0][at], _NU[0])
    out *= 1.0 - nodes.nothing
    out.reshape(*out.shape[:2], _G, _Z)[..., -1] = nodes.nothing / (_UNIT * _STEP)
    return out


@attrs.define(eq=False)
class _Nodes:
    """Nodes of one type's common numbers: locations and spreads of caused and background, with their log prior."""

    places: list[FloatArray]  # caused, background: location of every node
    spreads: list[FloatArray]
    priors: list[FloatArray]
    nothing: float  # chance that an arm causes next to nothing

    @classmethod
    def around(cls, prior: TypePrior, typical: float, centres: Sequence[tuple[float, float]] | None) -> _Nodes:
        """Return nodes around the prior, or around centres (location, standard deviation) found before."""
        given = [(prior.caused, prior.caused_spreads), (prior.background, prior.background_spreads)]
        out = cls([], [], [], prior.nothing)
        for j, ((median, sd), spreads) in enumerate(given):
            middle = np.log(median * typical)
            centre, width = (middle, sd) if centres is None else centres[j]
            place = centre + width * _PLACES
            out.places.append(np.repeat(place, len(spreads)))
            out.spreads.append(np.tile(np.array(spreads), len(place)))
            out.priors.append(-0.5 * ((out.places[-1] - middle) / sd) ** 2)
        return out

    def centres(self, posterior: FloatArray) -> list[tuple[float, float]]:
        """Return location and standard deviation of both locations under a posterior over nodes, shape (R, B)."""
        found = []
        for axis, place in enumerate(self.places):
            w = posterior.sum(axis=1 - axis)
            mean = float((w * place).sum())
            gap = float(np.diff(np.unique(place)).max())
            found.append((mean, float(np.sqrt((w * (place - mean) ** 2).sum() + gap**2 / 12.0))))
        return found


def split(
    readings: Sequence[Reading],
    *,
    k: FloatArray,
    mu: FloatArray,
    kind: IntArray,
    priors: Sequence[TypePrior],
    platform: IntArray,
    view: tuple[float, float, float],
    measured: Measured,
    rng: np.random.Generator,
    size: int,
    typical: float | None = None,
    bounds: Sequence[Sequence[Reading]] = (),
) -> list[Causes]:
    """Return joint draws of caused counts per exposure.

    Args:
        readings: Posterior of the credited rate per arm under each assumption of what its past says.
        k, mu: Parameters of the Gamma(k, k / mu) prior of those, shape (A,); it is taken out, and the one below put in its place.
        kind: Type of each arm, shape (A,).
        priors: Prior of each type.
        platform: Platform of each arm, shape (A,); arms of one platform share ``v``.
        view: Median of ``v``, standard deviation of its log over accounts, and over the platforms of one.
        measured: What tests measured.
        rng: Source of randomness.
        size: Draws D, at least.
        typical: The account's typical credited rate, which the priors are relative to; the geometric mean over arms when None.
        bounds: Other readings of the same arms, such as the ends of an identified set, split by the same common numbers.

    Returns:
        `Causes` of the arms, then of each of the bounds.
    """
    n = len(k)
    cells = _Cells.of(readings, k, mu)
    if typical is None:
        typical = float(np.exp(np.mean(np.log(mean_rate(readings))))) if n else 1.0
    n_platforms = int(platform.max(initial=-1)) + 1
    spread = float(np.hypot(view[1], view[2]))
    log_v = np.log(view[0]) + spread * _V
    hyper_draws = int(np.clip(_CELLS // max(1, n * _G * _Z), 12, 80))
    each = -(-size // hyper_draws)
    sample = [_thinned(np.flatnonzero(kind == t), measured) for t in range(len(priors))]
    nodes = [_Nodes.around(prior, typical, None) for prior in priors]
    tables: list[dict[int, FloatArray]] = []
    for turn in range(_PASSES):
        last = turn + 1 == _PASSES
        v_nodes = log_v if last else log_v[len(log_v) // 2 :][:1]  # to find the centres, the median of v will do
        tables = [_tables(cells, measured, v_nodes, at, platform, x) for at, x in zip(sample, nodes, strict=True)]
        if not last:
            nodes = [
                _Nodes.around(prior, typical, x.centres(_softmax(_at_median(t, x)))) if len(at) else x
                for prior, x, t, at in zip(priors, nodes, tables, sample, strict=True)
            ]
    v_at, r_at, b_at = _common_draws(tables, nodes, log_v, view, n_platforms, hyper_draws, rng)
    factors = _factors(nodes, v_at, b_at, n_platforms)
    answers = []
    for own in (cells, *(_Cells.of(bound, k, mu) for bound in bounds)):
        answers.append(_arm_draws(own, measured, log_v, kind, platform, nodes, v_at, r_at, b_at, factors, each, rng))
    return answers


def _thinned(at: npt.NDArray[np.intp], measured: Measured) -> npt.NDArray[np.intp]:
    """Return at most `_MOST_ARMS` of the positions, tested arms first, the others evenly."""
    if len(at) <= _MOST_ARMS:
        return at
    known = np.isin(at, measured.arm)
    tested, rest = at[known][:_MOST_ARMS], at[~known]
    left = _MOST_ARMS - len(tested)
    chosen = rest[np.linspace(0, len(rest) - 1, left).astype(np.intp)] if left else rest[:0]
    return np.sort(np.concatenate([tested, chosen]))


def _tables(
    cells: _Cells, measured: Measured, log_v: FloatArray, at: npt.NDArray[np.intp], platform: IntArray, nodes: _Nodes
) -> dict[int, FloatArray]:
    """Return by platform the log marginal likelihood of its arms at every node of ``v`` and of the common numbers, shape (V, R, B)."""
    out: dict[int, FloatArray] = {}
    v_nodes, r_nodes, b_nodes = len(log_v), len(nodes.places[0]), len(nodes.places[1])
    rows = max(1, _CELLS // (_G * _Z * (r_nodes + b_nodes)))
    for start in range(0, len(at), rows):
        part = at[start : start + rows]
        own = cells.take(part)
        log_r, log_b = own.parts
        of_r, of_b = _caused(log_r, nodes), _student(log_b, nodes.places[1], nodes.spreads[1], _NU[1])
        like = own.likelihood(measured, part, log_v)
        top = like.max(axis=(1, 2), keepdims=True)
        like = np.exp(like - top)
        tested = np.isin(part, measured.arm)
        for v in range(v_nodes):  # the credit of arms that were never tested says nothing of v
            mine = tested | (v == 0)
            if not mine.any():
                break
            found = np.log(np.maximum((of_r[mine] * like[mine, v, None, :]) @ of_b[mine].transpose(0, 2, 1), 1e-290))
            for p in np.unique(platform[part]):
                table = out.setdefault(int(p), np.zeros((v_nodes, r_nodes, b_nodes)))
                own_platform = platform[part][mine] == p
                table[v] += found[own_platform & tested[mine]].sum(axis=0)
                if v == 0:
                    table += found[own_platform & ~tested[mine]].sum(axis=0)
    return out


def _softmax(log: FloatArray) -> FloatArray:
    weight = np.exp(log - log.max())
    return np.asarray(weight / weight.sum())


def _at_median(tables: dict[int, FloatArray], nodes: _Nodes) -> FloatArray:
    """Return the log posterior of a type's common numbers with ``v`` at its median, shape (R, B)."""
    total = nodes.priors[0][:, None] + nodes.priors[1][None, :]
    return np.asarray(total + sum(t[len(t) // 2] for t in tables.values()))


def _pick(log: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Draw one node from each row of log weights."""
    weight = np.exp(log - log.max(axis=1, keepdims=True))
    upto = np.cumsum(weight, axis=1)
    return np.asarray((upto < rng.random((len(log), 1)) * upto[:, -1:]).sum(axis=1))


def _common_draws(
    tables: list[dict[int, FloatArray]], nodes: list[_Nodes], log_v: FloatArray, view: tuple[float, float, float], n_platforms: int,
    size: int, rng: np.random.Generator,
) -> tuple[IntArray, IntArray, IntArray]:  # fmt: skip
    """Return draws of the nodes of ``v`` (size, P) and of the common numbers (size, T) each: alternating draws, exact for each."""
    common = np.log(view[0]) + view[1] * _COMMON
    prior_v = -0.5 * ((log_v[None, :] - common[:, None]) / view[2]) ** 2  # of a platform given the account, (C, V)
    prior_v -= special.logsumexp(prior_v, axis=1, keepdims=True)
    prior_c = -0.5 * _COMMON**2
    at_c = _pick(np.tile(prior_c, (size, 1)), rng)
    v_at = np.stack([_pick(prior_v[at_c], rng) for _ in range(max(n_platforms, 1))], axis=1)
    both = np.zeros((2, size, len(nodes)), dtype=np.intp)
    for sweep in range(_SWEEPS):
        for t, (by_platform, x) in enumerate(zip(tables, nodes, strict=True)):
            if sweep and not by_platform:
                continue  # a type without arms: its prior was drawn from already
            prior = (x.priors[0][:, None] + x.priors[1][None, :]).ravel()
            log = np.broadcast_to(prior, (size, len(prior)))
            for p, table in by_platform.items():
                log = log + table.reshape(len(_V), -1)[v_at[:, p]]
            both[0, :, t], both[1, :, t] = np.divmod(_pick(log, rng), len(x.places[1]))
        for p in range(n_platforms):
            log = prior_v[at_c]
            for t, by_platform in enumerate(tables):
                if p in by_platform:
                    log = log + by_platform[p][:, both[0, :, t], both[1, :, t]].T
            v_at[:, p] = _pick(log, rng)
        at_c = _pick(prior_c + sum(prior_v[:, v_at[:, p]].T for p in range(n_platforms)), rng)
    return v_at, both[0], both[1]


def _factors(nodes: list[_Nodes], v_at: IntArray, b_at: IntArray, n_platforms: int) -> FloatArray:
    """Return what arms share in each common draw, shape (H, K): ``v`` of every platform, then the background of every type."""
    columns = [_V[v_at[:, p]] for p in range(n_platforms)] + [x.places[1][b_at[:, t]] for t, x in enumerate(nodes)]
    return np.stack(columns, axis=1)


def _arm_draws(
    cells: _Cells, measured: Measured, log_v: FloatArray, kind: IntArray, platform: IntArray, nodes: list[_Nodes],
    v_at: IntArray, r_at: IntArray, b_at: IntArray, factors: FloatArray, each: int, rng: np.random.Generator,
) -> Causes:  # fmt: skip
    """Return draws of each arm given every draw of what they have in common."""
    n, size = len(kind), len(v_at)
    caused, credited = np.empty((size * each, n)), np.empty((size * each, n))
    rows = max(1, _CELLS // (_G * _Z * size))
    jitter = rng.random((v_at.shape[1], size)) - 0.5  # inside the node of v, one for a platform
    for t, x in enumerate(nodes):
        mine = np.flatnonzero(kind == t)
        mine = mine[np.argsort(~np.isin(mine, measured.arm), kind="stable")]  # tested arms first: the others' blocks are simpler
        for start in range(0, len(mine), rows):
            at = mine[start : start + rows]
            own = cells.take(at)
            log_r, log_b = own.parts
            v_node = v_at[:, platform[at]].T  # (a, H)
            used_r, place_r = np.unique(r_at[:, t], return_inverse=True)
            used_b, place_b = np.unique(b_at[:, t], return_inverse=True)
            like = own.likelihood(measured, at, log_v)
            like = np.exp(like - like.max(axis=2, keepdims=True))
            of_b = _student(log_b, x.places[1][used_b], x.spreads[1][used_b], _NU[1])
            of_r = _caused(log_r, x, used_r)
            weight = of_r[:, place_r.ravel()]
            weight *= of_b[:, place_b.ravel()]
            weight *= like if like.shape[1] == 1 else like[np.arange(len(at))[:, None], v_node]
            upto = np.cumsum(weight, axis=2).reshape(len(at) * size, -1)
            upto = upto / np.maximum(upto[:, -1:], 1e-300) + np.arange(len(upto))[:, None]
            u = rng.random((len(upto), each)) + np.arange(len(upto))[:, None]
            cell = np.searchsorted(upto.ravel(), u.ravel()).reshape(u.shape) - upto.shape[1] * np.arange(len(upto))[:, None]
            i, j = np.divmod(np.clip(cell, 0, _G * _Z - 1), _Z)
            i, j = i.reshape(len(at), -1), j.reshape(len(at), -1)
            step = (own.log_g[:, -1] - own.log_g[:, 0]) / (_G - 1)
            g = np.take_along_axis(own.log_g, i, axis=1) + step[:, None] * (rng.random(i.shape) - 0.5)
            z = _SHARE[j] + _STEP * (rng.random(j.shape) - 0.5)
            spread = float(log_v[1] - log_v[0]) * jitter[platform[at]]
            caused[:, at] = np.exp(g - np.logaddexp(0.0, z) + np.repeat(log_v[v_node] + spread, each, axis=1)).T
            credited[:, at] = np.exp(g).T
    return Causes(caused=caused, credited=credited, shared=_loadings(caused, np.repeat(factors, each, axis=0)))


def _loadings(draws: FloatArray, factors: FloatArray) -> FloatArray:
    """Return the correlation of each arm's normal scores with each common factor, shape (A, K), of sum of squares under 1."""
    d = len(draws)
    rank = np.empty(draws.shape)
    np.put_along_axis(rank, np.argsort(draws, axis=0), np.arange(1.0, d + 1.0)[:, None] * np.ones(draws.shape[1]), axis=0)
    score = special.ndtri((rank - 0.5) / d)
    spread = factors.std(axis=0)
    found = score.T @ (factors / np.where(spread > 0, spread, np.inf)) / d  # scores have no mean, so factors need none taken out
    total = (found**2).sum(axis=1, keepdims=True)
    return np.asarray(found * np.minimum(1.0, np.sqrt(0.98 / np.maximum(total, 1e-12))))
