"""Attributed is not caused: lift tests enter as likelihoods on the caused share of credit, with their full uncertainty.

Law of this file. ``iota`` is incremental over attributed conversions of an arm, in [0, 1.5]. A holdout or lift test measures the
*average* effect and enters here; the loop's own randomised budget changes measure the *marginal* effect, another quantity, and are kept
apart (`randomised_effect`). Where nothing was tested a prior by type of audience stands, and it is said which. Since the background of a
click (what would have been bought anyway) stays put when budgets move, the share holds for the mix of clicks that was tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import frame, html_table, text_table
from closedloop.errors import ConfigurationError, InputError
from closedloop.records.arms import Arms
from closedloop.records.interval import FloatArray, Intervals
from closedloop.records.lift import LiftResult
from closedloop.records.outcomes import Outcomes

MOST = 1.5  # largest share: some effects of advertising never pass through a touch
PRIORS: Mapping[str, tuple[float, float]] = {
    "retargeting": (0.4, 0.35),
    "brand": (0.4, 0.35),
    "prospecting": (0.9, 0.25),
    "other": (0.7, 0.4),
}
GRID = np.linspace(0.0, MOST, 601)


@attrs.frozen(kw_only=True, eq=False)
class Incrementality:
    """Caused beside attributed conversions, per arm.

    Args:
        arms: The arms.
        attributed: Credited conversions.
        share: ``iota``, caused over attributed.
        caused: Caused conversions.
        source: Per arm, ``test`` or the name of the prior.
    """

    arms: Arms
    attributed: Intervals
    share: Intervals
    caused: Intervals
    source: tuple[str, ...]

    def to_columns(self) -> dict[str, Any]:
        """Return one row per arm."""
        columns: dict[str, Any] = dict(self.arms.to_columns())
        for name in ("attributed", "share", "caused"):
            x: Intervals = getattr(self, name)
            columns |= {name: x.estimate, f"{name}_low": x.low, f"{name}_high": x.high}
        return {**columns, "source": list(self.source)}

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the table as a frame."""
        return frame(self.to_columns(), library)

    def __repr__(self) -> str:
        return text_table({k: list(v) for k, v in self.to_columns().items()}, title=f"Incrementality: {len(self.arms)} arms")

    def _repr_html_(self) -> str:
        return html_table({k: list(v) for k, v in self.to_columns().items()}, title=f"Incrementality: {len(self.arms)} arms")


def share_posterior(tests: Sequence[LiftResult], prior: tuple[float, float]) -> FloatArray:
    """Return the posterior weights of ``iota`` on a grid over [0, 1.5], shape (601,): a cut Normal prior times each test's likelihood.

    A test is Normal around ``iota * attributed`` with its own variance.
    """
    centre, spread = prior
    log = -0.5 * ((GRID - centre) / spread) ** 2
    for test in tests:
        estimate, error = test.caused()
        log = log - 0.5 * ((estimate - GRID * test.attributed) / error) ** 2
    weights = np.exp(log - log.max())
    return np.asarray(weights / weights.sum())


def incremental(
    outcomes: Outcomes,
    tests: Sequence[LiftResult] = (),
    *,
    audience_type: Mapping[str, str] | None = None,
    priors: Mapping[str, tuple[float, float]] = PRIORS,
    level: float = 0.9,
    draws: int = 4000,
    rng: np.random.Generator | None = None,
) -> Incrementality:
    """Return caused conversions with intervals beside attributed ones.

    Args:
        outcomes: Attributed outcomes.
        tests: Lift tests.
        audience_type: By audience tag: a key of ``priors``; others are ``other``.
        priors: Median and standard deviation of the share by type, a Normal cut to [0, 1.5].
        level: Level of the intervals.
        draws: Joint draws.
        rng: Where draws come from; seeded with 0 when None.

    Raises:
        ConfigurationError: An audience has a type without prior, or a test names a tag that arms do not have.
    """
    rng = rng if rng is not None else np.random.default_rng(0)
    arms, types = outcomes.arms, dict(audience_type or {})
    for name in types.values():
        if name not in priors:
            raise ConfigurationError("no prior for this type of audience", "audience_type", name, None, tuple(priors))
    audiences = arms.column("audience").decode() if "audience" in arms.columns else np.full(len(arms), None, dtype=object)
    kinds = [types.get(str(a), "other") if a is not None else "other" for a in audiences]
    covered = np.stack([t.covers(arms) for t in tests], axis=1) if tests else np.zeros((len(arms), 0), dtype=np.bool_)
    share = np.zeros((draws, len(arms)))
    known: dict[tuple[str, bytes], FloatArray] = {}
    for i, kind in enumerate(kinds):  # one draw for all arms under the same tests and prior: they share what was measured
        key = (kind, covered[i].tobytes())
        if key not in known:
            weights = share_posterior([t for t, c in zip(tests, covered[i], strict=True) if c], priors[kind])
            cell = rng.choice(len(GRID), draws, p=weights)
            known[key] = np.clip(GRID[cell] + (rng.random(draws) - 0.5) * (GRID[1] - GRID[0]), 0.0, MOST)
        share[:, i] = known[key]
    credit = outcomes.credits.estimate
    caused = share * rng.standard_gamma(credit + 0.5, (draws, len(arms)))
    source = tuple("test" if c.any() else f"prior: {k}" for c, k in zip(covered, kinds, strict=True))
    return Incrementality(
        arms=arms,
        attributed=outcomes.credits,
        share=Intervals.of_draws(share, level=level),
        caused=Intervals.of_draws(caused, level=level),
        source=source,
    )


@attrs.frozen(kw_only=True, eq=False)
class MarginalEffects:
    """Conversions caused by one more unit of assigned budget, per arm; ``detectable`` is the effect found with 80 % power at level 0.9."""

    effects: Intervals
    standard_error: FloatArray
    detectable: FloatArray


def randomised_effect(assigned: npt.ArrayLike, conversions: npt.ArrayLike, *, level: float = 0.9) -> MarginalEffects:
    """Return marginal effects from the loop's own randomised budget changes: conversions of all kinds regressed on what was assigned.

    Args:
        assigned: Randomised part of each arm's budget by period, shape (D, A), units of the currency.
        conversions: Total conversions by period, attributed or not, shape (D,).
        level: Level of the intervals.

    Raises:
        InputError: There are too few periods, or an arm's budget was never perturbed.
    """
    x, y = np.asarray(assigned, dtype=np.float64), np.asarray(conversions, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(y) or len(y) < x.shape[1] + 3:
        raise InputError("a regression needs more periods than arms, at least three more", "assigned", x.shape)
    design = np.column_stack([np.ones(len(y)), x])
    gram = design.T @ design
    if np.linalg.matrix_rank(gram) < len(gram):
        raise InputError("the perturbations do not tell the arms apart", "assigned", x.shape, "perturb each arm on its own")
    inverse = np.linalg.inv(gram)
    beta = inverse @ design.T @ y
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    residual = (y - design @ beta) / np.maximum(1.0 - leverage, 1e-9)
    error = np.sqrt(np.diag(inverse @ ((design * residual[:, None] ** 2).T @ design) @ inverse))[1:]  # HC3
    from scipy.special import stdtrit

    t = stdtrit(len(y) - x.shape[1] - 1, 0.5 + level / 2)
    effects = Intervals(low=beta[1:] - t * error, estimate=beta[1:], high=beta[1:] + t * error, level=level, kind="credible")
    return MarginalEffects(effects=effects, standard_error=error, detectable=(t + 0.8416) * error)
