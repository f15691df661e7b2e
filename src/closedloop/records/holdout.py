"""What a platform says of a randomised holdout that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from closedloop.errors import InputError
from closedloop.records.lift import LiftResult


@attrs.frozen(kw_only=True)
class HoldoutCounts:
    """Both groups of a holdout, so far.

    Args:
        holdout_id: The id it was begun with.
        treated, control: Conversions in each group since it began, credited or not, of users whom the ads reached, or would have reached.
        treated_users, control_users: Sizes of the groups; their ratio says how likely a user was to be in one.
        since: When it came into force (aware UTC).
        until: When it ended, None while it runs.
    """

    holdout_id: str
    treated: float
    control: float
    treated_users: float = attrs.field()
    control_users: float = attrs.field()
    since: datetime
    until: datetime | None = None

    @treated_users.validator
    @control_users.validator
    def _check_users(self, attribute: attrs.Attribute[float], users: float) -> None:
        if not users > 0:
            raise InputError("both groups of a holdout need users", attribute.name, users)

    def lift(
        self,
        attributed: float,
        where: Mapping[str, str],
        *,
        participated: float | None = None,
        conversions_per_day: float | None = None,
    ) -> LiftResult:
        """Return it as a lift test.

        Args:
            attributed: Conversions credited to the tested arms while it ran, under the attribution's own window.
            where: Tags of the tested arms.
            participated, conversions_per_day: As in `LiftResult`.

        Raises:
            InputError: Nothing was credited, so that there is nothing to correct.

        >>> from datetime import UTC
        >>> begun = datetime(2026, 1, 1, tzinfo=UTC)
        >>> counts = HoldoutCounts(holdout_id="h", treated=150, control=50, treated_users=9000, control_users=4500, since=begun)
        >>> counts.lift(80.0, {"campaign": "spring"}).caused()[0]
        50.0
        """
        return LiftResult(
            where=dict(where),
            attributed=attributed,
            treated=self.treated,
            control=self.control,
            treated_users=self.treated_users,
            control_users=self.control_users,
            participated=participated,
            conversions_per_day=conversions_per_day,
        )
