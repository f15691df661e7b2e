"""The limits that health is held against."""

from __future__ import annotations

import attrs

from closedloop.errors import ConfigurationError


@attrs.frozen(kw_only=True)
class Thresholds:
    """Limits of the health checks.

    Args:
        minimum_volume: Conversions a week that a campaign needs (the field's rule of thumb).
        tagged_warning: Share of touch and spend events with all tags under which a warning is given.
        tagged_critical: The share under which signals are blended and nothing new is decided, once the interval lies below it.
        settled_warning: Share of actions confirmed in time under which a warning is given.
        settled_critical: The share of actions done, late or not, under which a platform is broken, once the interval lies below it.
        settled_days: Only actions that ended within these last days can say that a platform is broken; after that it is tried again.
        settle_within_hours: Hours after recording within which an action should be confirmed; a daily cycle looks again a day later.
        lost_after_hours: Hours after which an action that is still open counts as not done.
        stale_warning_days, stale_critical_days: Age of a platform's newest data.
        double_counted: Share of conversions counted by a second counter above which nothing new is decided.
        accepted_day: Day (since 1970-01-01 UTC) from which on tags and tracker are as meant; what changed before it is no finding.
        gap_share: A platform's day under this share of what was expected, and credibly so, is a gap; 0 looks for none.
        level: Level of all intervals.

    >>> Thresholds().minimum_volume
    50.0
    """

    minimum_volume: float = 50.0
    tagged_warning: float = 0.95
    tagged_critical: float = 0.7
    settled_warning: float = 0.9
    settled_critical: float = 0.7
    settled_days: float = 3.0
    settle_within_hours: float = 30.0
    lost_after_hours: float = 60.0
    stale_warning_days: float = 1.5
    stale_critical_days: float = 3.0
    double_counted: float = 0.05
    accepted_day: int | None = None
    gap_share: float = 0.5
    level: float = 0.9

    @classmethod
    def off(cls) -> Thresholds:
        """Return limits under which nothing ever holds: to see what the checks are worth, in a simulation.

        >>> Thresholds.off().tagged_critical
        0.0
        """
        return cls(
            minimum_volume=0.0,
            tagged_critical=0.0,
            settled_critical=0.0,
            stale_warning_days=1e9,
            stale_critical_days=1e9,
            double_counted=1.0,
            accepted_day=2**31,
            gap_share=0.0,
        )

    def __attrs_post_init__(self) -> None:
        for name in ("tagged_warning", "tagged_critical", "settled_warning", "settled_critical", "double_counted", "gap_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigurationError("a share lies between 0 and 1", name, getattr(self, name))
        for low, high in (
            ("tagged_critical", "tagged_warning"),
            ("settled_critical", "settled_warning"),
            ("stale_warning_days", "stale_critical_days"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ConfigurationError(f"{low} is at most {high}", low, getattr(self, low), f"choose at most {getattr(self, high)}")
        for name in ("minimum_volume", "settled_days", "settle_within_hours", "lost_after_hours", "stale_warning_days"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError("the limit is zero or more", name, getattr(self, name))
        if not 0.0 < self.level < 1.0:
            raise ConfigurationError("a level lies between 0 and 1", "level", self.level, "use 0.9 for a 90 % interval")
