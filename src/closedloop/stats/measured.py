"""Lift tests as rows of counts, arm by arm, and their likelihood: what `closedloop.stats.background` learns from.

Law of this file: a test of one arm is one row. A test of several is shared by their exposures, and each part is trusted less, because the
backgrounds of arms differ.

Whom an arm meets without causing anything are users on their way to a conversion, so what it meets per exposure grows with how many of
them there are. A test read when the account had half of today's conversions saw half of today's background.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from scipy import special

from closedloop.records.arms import Arms
from closedloop.records.causes import CausalEvidence
from closedloop.records.interval import FloatArray
from closedloop.records.lift import LiftResult
from closedloop.records.outcomes import Outcomes
from closedloop.stats.level import Level, levels_of_late

IntArray = npt.NDArray[np.integer]

_APART = 0.5  # relative spread of the backgrounds of arms that one test covers together
_FARTHEST = 20.0  # levels further apart than this are no measurement of one background any more


@attrs.frozen(kw_only=True, eq=False)
class Measured:
    """What tests counted: M rows, each a test of one arm, or one arm's part of a test of several.

    Args:
        arm: Position of the arm, shape (M,).
        exposures: The treated group's exposures, times their maturity, shape (M,).
        control: Conversions of the held-out group.
        odds: Treated over held-out users.
        beyond: Conversions of the treated group that are not credited to the arm.
        effect, error: Caused conversions of the treated and their standard error, where no counts are known (NaN elsewhere).
        moved: Relative standard deviation of what the background does between the test and now, or between the arms of one test.
        level: Background per exposure during the test, relative to that of the credited rates, shape (M,).
        late: Share of what is caused that no test has seen when it is read.
    """

    arm: IntArray
    exposures: FloatArray
    control: FloatArray
    odds: FloatArray
    beyond: FloatArray
    effect: FloatArray
    error: FloatArray
    moved: FloatArray
    level: FloatArray
    late: float = 0.0

    @classmethod
    def nothing(cls) -> Measured:
        """Return that nothing was tested."""
        none = np.empty(0)
        return cls(
            arm=np.empty(0, dtype=np.int64), exposures=none, control=none, odds=none, beyond=none, effect=none, error=none, moved=none,
            level=none,
        )  # fmt: skip

    def log_likelihood(self, row: int, r: FloatArray, b: FloatArray, v: FloatArray) -> FloatArray:
        """Return the log likelihood of one row; the three are broadcast.

        The held-out group's count is negative binomial around ``(n (b - (v - 1) r) + beyond) / odds``: Poisson, the noise of what is not
        credited, and what the background does meanwhile.
        """
        n, v = self.exposures[row], v * (1.0 - self.late)
        if np.isfinite(self.error[row]):
            off = n * v * r - self.effect[row]
            variance = self.error[row] ** 2 + (self.moved[row] * n * v * r) ** 2
            return np.asarray(-0.5 * (off**2 / variance + np.log(variance)))
        b = self.level[row] * b
        mean = np.maximum(n * (b - (v - 1.0) * r) + self.beyond[row], 0.02 * n * (r + b)) / self.odds[row]
        more = (max(self.beyond[row], 0.0) + 1.0) / self.odds[row] ** 2 + (self.moved[row] * mean) ** 2
        k, c = mean**2 / more, self.control[row]
        return np.asarray(special.gammaln(c + k) - special.gammaln(k) - k * np.log1p(mean / k) + c * np.log(mean / (k + mean)))


def measured_by(
    known: CausalEvidence, outcomes: Outcomes, arms: Arms, exposures: FloatArray, rate: FloatArray, *, present: bool = False
) -> tuple[Measured, npt.NDArray[np.bool_]]:
    """Return what tests counted, arm by arm, and which arms they covered; a test of several arms is shared by exposure.

    Args:
        known: The tests.
        outcomes: Credit, participation where it is known, and the account's conversions by day.
        arms: The arms, in the order of the next two.
        exposures: Of the main kind, shape (A,).
        rate: Conversions taken part in (credited ones, where participation is not known) per exposure, shape (A,).
        present: The rates are those at the account's present level, and not at that of each arm's exposures of late.
    """
    covers = [(test, np.flatnonzero(test.covers(arms) & (exposures > 0))) for test in known.tests]
    covered = np.zeros(len(arms), dtype=np.bool_)
    if not any(len(at) for _, at in covers):
        return Measured.nothing(), covered
    place = {arm: i for i, arm in enumerate(outcomes.arms)}
    position = np.array([place[arm] for arm in arms], dtype=np.int64)
    joined = (outcomes.participation or outcomes).per_arm("credit")[position]
    credit = outcomes.per_arm("credit")[position]
    level_now = Level.of(outcomes) if present else None
    levels = levels_of_late(outcomes)[position] if level_now is None else np.full(len(arms), level_now.now)
    rows: list[tuple[float, ...]] = []
    for test, at in covers:
        if not len(at):
            continue
        covered[at] = True
        part = exposures[at] / exposures[at].sum()
        more = float(joined[at].sum() / credit[at].sum()) if credit[at].sum() > 0 else 1.0
        taken = test.participated if test.participated is not None else test.attributed * more
        total = test.exposures if test.exposures is not None else taken / float((part * rate[at]).sum())
        moved = float(np.hypot(known.moved, _APART if len(at) > 1 else 0.0))
        level = np.ones(len(at))
        if test.conversions_per_day is not None and (levels[at] > 0).all():
            level = (test.conversions_per_day / levels[at]).clip(1.0 / _FARTHEST, _FARTHEST)
        for a, p, then in zip(at, part, level, strict=True):
            rows.append((float(a), float(p) * total, *_counted(test, taken, float(p)), moved, float(then)))
    columns = np.array(rows).T
    fields = ("exposures", "control", "odds", "beyond", "effect", "error", "moved", "level")
    return Measured(arm=columns[0].astype(np.int64), late=known.late, **dict(zip(fields, columns[1:], strict=True))), covered


def _counted(test: LiftResult, taken: float, part: float) -> tuple[float, float, float, float, float]:
    """Return an arm's part of control, odds, conversions beyond those it took part in, effect and its error."""
    if test.treated is None or test.control is None or test.treated_users is None or test.control_users is None:
        effect, error = test.caused()
        return 0.0, 1.0, 0.0, effect * part, error * part**0.5
    odds = test.treated_users / test.control_users
    return test.control * part, odds, (test.treated - taken) * part, np.nan, np.nan
