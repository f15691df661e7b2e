"""Lift tests as rows of counts, arm by arm: what `closedloop.stats.background` learns from.

Law of this file: a test of one arm is one row. A test of several is shared by their exposures, and each part is trusted less, because the
backgrounds of arms differ.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from closedloop.records.arms import Arms
from closedloop.records.causes import CausalEvidence
from closedloop.records.interval import FloatArray
from closedloop.records.lift import LiftResult
from closedloop.stats.background import Measured

_APART = 0.5  # relative spread of the backgrounds of arms that one test covers together


def measured_by(known: CausalEvidence, arms: Arms, exposures: FloatArray, credited: FloatArray) -> tuple[Measured, npt.NDArray[np.bool_]]:
    """Return what tests counted, arm by arm, and which arms they covered; a test of several arms is shared by exposure.

    Args:
        known: The tests.
        arms: The arms.
        exposures: Of the main kind, shape (A,).
        credited: Credited conversions per exposure, shape (A,).
    """
    rows: list[tuple[float, ...]] = []
    covered = np.zeros(len(arms), dtype=np.bool_)
    for test in known.tests:
        at = np.flatnonzero(test.covers(arms) & (exposures > 0))
        if not len(at):
            continue
        covered[at] = True
        part = exposures[at] / exposures[at].sum()
        total = test.exposures if test.exposures is not None else test.attributed / float((part * credited[at]).sum())
        moved = float(np.hypot(known.moved, _APART if len(at) > 1 else 0.0))
        rows += [(float(a), float(p) * total, *_counted(test, float(p)), moved) for a, p in zip(at, part, strict=True)]
    if not rows:
        return Measured.nothing(), covered
    columns = np.array(rows).T
    fields = ("exposures", "control", "odds", "beyond", "effect", "error", "moved")
    return Measured(arm=columns[0].astype(np.int64), late=known.late, **dict(zip(fields, columns[1:], strict=True))), covered


def _counted(test: LiftResult, part: float) -> tuple[float, float, float, float, float]:
    """Return an arm's part of control, odds, conversions beyond the credit, effect and its error."""
    if test.treated is None or test.control is None or test.treated_users is None or test.control_users is None:
        effect, error = test.caused()
        return 0.0, 1.0, 0.0, effect * part, error * part**0.5
    odds = test.treated_users / test.control_users
    return test.control * part, odds, (test.treated - test.attributed) * part, np.nan, np.nan
