"""What a randomised holdout or lift test found."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import InputError
from closedloop.records.arms import Arms


@attrs.frozen(kw_only=True)
class LiftResult:
    """What a randomised test found.

    Give the counts of both groups, or ``estimate`` and ``standard_error`` of the caused conversions among the treated.

    Args:
        where: Tags of the arms tested, such as ``{"platform": "meta", "audience": "retargeting"}``; an empty one means all.
        attributed: Conversions credited to those arms among the treated, under the attribution's own window.
        treated, control: Conversions in each group, credited or not.
        treated_users, control_users: Sizes of the groups.
        estimate, standard_error: Caused conversions among the treated, where counts are not given.
        participated: Conversions among the treated that those arms took part in, whoever is credited. Where it is not known it follows from
            ``attributed`` and what the arms took part in otherwise.
        conversions_per_day: All conversions of the account, credited or not, a day while it ran. What an arm meets without causing it grows
            with them; where they are not known they are taken to be what they are now.
        exposures: Clicks of the treated on those arms during the test (views of arms without clicks), each counted with the share of its
            conversions seen by the end of it. Where it is not known it follows from ``attributed`` and the arms' credited rate.
    """

    where: Mapping[str, str] = attrs.field(factory=dict)
    attributed: float
    treated: float | None = None
    control: float | None = None
    treated_users: float | None = None
    control_users: float | None = None
    estimate: float | None = None
    standard_error: float | None = None
    exposures: float | None = None
    participated: float | None = None
    conversions_per_day: float | None = None

    def __attrs_post_init__(self) -> None:
        counts = (self.treated, self.control, self.treated_users, self.control_users)
        given = [x for x in (*counts, self.estimate, self.standard_error, self.attributed) if x is not None]
        least = 0.0 if self.exposures is None else -1e-300  # nothing credited says something where exposures are known
        if not np.isfinite(given).all() or self.attributed <= least or any(x is not None and x < 0 for x in counts):
            raise InputError("a lift test needs finite counts from 0 up, and attributed conversions", "attributed", self.attributed)
        if all(x is not None for x in counts) == (self.estimate is not None):
            raise InputError(
                "give either all four counts or an estimate", "treated", counts, "the four counts are treated, control and users"
            )
        if self.estimate is not None and not (self.standard_error is not None and self.standard_error > 0):
            raise InputError("an estimate needs a standard error above 0", "standard_error", self.standard_error)
        if self.exposures is not None and not 0 < self.exposures < np.inf:
            raise InputError("exposures are above zero", "exposures", self.exposures, "leave them out where they are not known")
        for name in ("participated", "conversions_per_day"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < np.inf:
                raise InputError("a count is finite and not negative", name, value, "leave it out where it is not known")
        if self.control_users is not None and (self.control_users <= 0 or not self.treated_users):
            raise InputError("both groups need users", "control_users", self.control_users)

    def caused(self) -> tuple[float, float]:
        """Return the caused conversions among the treated and their standard error.

        >>> LiftResult(attributed=80, treated=150, control=50, treated_users=9000, control_users=4500).caused()
        (50.0, 18.734993995195193)
        """
        if self.estimate is not None and self.standard_error is not None:
            return self.estimate, self.standard_error
        treated, control, users, others = (float(x or 0.0) for x in (self.treated, self.control, self.treated_users, self.control_users))
        odds = users / others
        return treated - control * odds, float(np.sqrt(treated + control * odds**2 + 1.0))  # 1: no test without any conversion is certain

    def covers(self, arms: Arms) -> npt.NDArray[np.bool_]:
        """Return which arms were tested, shape (A,).

        Raises:
            ConfigurationError: ``where`` names a tag that the arms do not have.
        """
        out = np.ones(len(arms), dtype=np.bool_)
        for name, tag in self.where.items():
            out &= np.asarray(arms.column(name).decode() == tag, dtype=np.bool_)
        return out
