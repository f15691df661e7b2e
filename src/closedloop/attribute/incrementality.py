"""Attributed is not caused: lift tests enter as likelihoods on the caused share of credit, with their full uncertainty.

Law of this file. A holdout or lift test measures the *average* effect and enters `incremental`; the loop's own randomised budget changes
measure the *marginal* effect, another quantity, and are kept apart (`randomised_effect`). Where nothing was tested a prior by type of
audience stands, and it is said which. ``iota`` of `share_posterior` is incremental over attributed conversions, in [0, 1.5], for those who
compare one test with one credit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import frame, html_table, text_table
from closedloop.errors import InputError
from closedloop.records.arms import Arms
from closedloop.records.causes import CausalEvidence
from closedloop.records.interval import FloatArray, Intervals
from closedloop.records.lift import LiftResult
from closedloop.records.outcomes import Outcomes
from closedloop.stats.background import split
from closedloop.stats.measured import measured_by
from closedloop.stats.reading import Reading

MOST = 1.5  # largest share: some effects of advertising never pass through a touch
GRID = np.linspace(0.0, MOST, 601)
_K = 0.5  # concentration of the weak prior under which credit is read, before it is taken out again


@attrs.frozen(kw_only=True, eq=False)
class Incrementality:
    """Caused beside attributed conversions, per arm.

    Args:
        arms: The arms.
        attributed: Credited conversions.
        share: ``iota``, caused over attributed conversions; over those the arm took part in, where the outcomes say which.
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
    known: CausalEvidence | None = None,
    level: float = 0.9,
    draws: int = 2000,
    rng: np.random.Generator | None = None,
) -> Incrementality:
    """Return caused conversions with intervals beside attributed ones, over all kept days.

    What an arm took part in (what is credited to it, where the outcomes do not say) is caused conversions and a background per click
    (`closedloop.stats.background`), the same split that `BayesClassifier` makes of recent rates.

    Args:
        outcomes: Attributed outcomes.
        tests: Lift tests.
        known: Types of audience, priors, and tests made before; the stated defaults when None.
        level: Level of the intervals.
        draws: Joint draws, at least.
        rng: Where draws come from; seeded with 0 when None.

    Raises:
        ConfigurationError: A test names a tag that arms do not have.
    """
    known = known or CausalEvidence()
    known = attrs.evolve(known, tests=[*known.tests, *tests])
    source = outcomes.participation or outcomes
    arms, c = outcomes.arms, source.cohorts
    n, mature = len(arms), c.exposures * c.maturity
    clicks, views = (np.bincount(c.arm, mature * (c.kind == kind), n).astype(np.float64) for kind in (0, 1))
    exposures, credit = np.where(clicks > 0, clicks, views), np.bincount(c.arm, c.credit, n).astype(np.float64)
    k, mu = np.full(n, _K), np.full(n, (credit.sum() + _K) / max(exposures.sum(), 1.0))
    shape, rate = credit + k, exposures + k / mu
    measured, covered = measured_by(known, outcomes, arms, exposures, shape / rate)
    types, said = list(known.priors), known.types(arms)
    found = split(
        [Reading(shape=shape[:, None], rate=rate[:, None], weight=np.ones((n, 1)))], k=k, mu=mu,
        kind=np.array([types.index(t) for t in said], dtype=np.int64),
        priors=[known.priors[t] for t in types], view=known.view(participation=source is not outcomes), measured=measured, size=draws,
        platform=arms.column("platform").codes.astype(np.int64).clip(0) if "platform" in arms.columns else np.zeros(n, dtype=np.int64),
        rng=rng if rng is not None else np.random.default_rng(0),
    )[0]  # fmt: skip
    return Incrementality(
        arms=arms,
        attributed=outcomes.credits,
        share=Intervals.of_draws(found.caused / found.credited, level=level),
        caused=Intervals.of_draws(found.caused * exposures, level=level),
        source=tuple("test" if tested else f"prior: {t}" for tested, t in zip(covered, said, strict=True)),
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
