"""Where health is going: the slope of each measured value over the cycles.

Law of this file: reports in, slopes with intervals out. Measured values of successive cycles share data (a week's volume moves by a
seventh a day), so residuals are correlated and the usual least-squares interval would be too short: it is widened by the lag-1
correlation.

References:
    Santer et al. (2000), Statistical significance of trends and trend differences, J. Geophysical Research 105: effective sample size
    ``n (1 - r) / (1 + r)`` with the lag-1 correlation ``r`` of the residuals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
from scipy.special import stdtrit

from closedloop.display import frame, html_table, text_table
from closedloop.errors import ConfigurationError
from closedloop.records.feedback import HealthReport
from closedloop.records.interval import Interval

_LEAST = 5


@attrs.frozen(kw_only=True)
class Trend:
    """The slope of one measured value.

    Args:
        name, scope: Of the finding.
        latest: The newest estimate.
        slope: Change of the estimate per cycle; unbounded with fewer than five cycles.
        n_cycles: Cycles it was measured in.
    """

    name: str
    scope: str
    latest: float
    slope: Interval
    n_cycles: int

    @property
    def direction(self) -> Literal["rising", "falling", "unclear"]:
        """``rising`` or ``falling`` when the interval of the slope says so."""
        return "rising" if self.slope.low > 0 else "falling" if self.slope.high < 0 else "unclear"


@attrs.frozen(kw_only=True)
class Trends:
    """Trends of the conditions and of what else was measured in every cycle."""

    rows: tuple[Trend, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Trend:
        return self.rows[index]

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per measured value."""
        return {
            "check": [t.name for t in self.rows],
            "scope": [t.scope for t in self.rows],
            "latest": [t.latest for t in self.rows],
            "change a cycle": [str(t.slope) for t in self.rows],
            "direction": [t.direction for t in self.rows],
            "cycles": [t.n_cycles for t in self.rows],
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the trends as a frame."""
        return frame(self.to_columns(), library)

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title="Health trends")

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title="Health trends")


def trends(reports: Sequence[HealthReport], *, level: float = 0.9) -> Trends:
    """Return the slope of every condition over the reports, and of every finding that stands in all of them.

    Args:
        reports: Health reports of successive cycles, oldest first.
        level: Level of the intervals.

    Raises:
        ConfigurationError: The level is not in (0, 1).
    """
    return trends_of([{(f.name, f.scope): f.measured.estimate for f in (*r.conditions, *r.findings)} for r in reports], level=level)


def trends_of(measured: Sequence[Mapping[tuple[str, str], float]], *, level: float = 0.9) -> Trends:
    """Return the slope of every value that was measured in all of the cycles.

    Args:
        measured: Measured values of successive cycles by name and scope, oldest first.
        level: Level of the intervals.

    Raises:
        ConfigurationError: The level is not in (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ConfigurationError("a level lies between 0 and 1", "level", level, "use 0.9 for a 90 % interval")
    series: dict[tuple[str, str], list[float]] = {}
    for cycle in measured:
        for key, value in cycle.items():
            series.setdefault(key, []).append(value)
    rows = [
        Trend(name=name, scope=scope, latest=values[-1], slope=_slope(values, level), n_cycles=len(values))
        for (name, scope), values in series.items()
        if len(values) == len(measured)
    ]
    return Trends(rows=tuple(rows))


def _slope(values: Sequence[float], level: float) -> Interval:
    y = np.asarray(values, dtype=float)
    n = len(y)
    if n < _LEAST or not np.isfinite(y).all():
        return Interval(low=-math.inf, estimate=0.0, high=math.inf, level=level, kind="credible")
    x = np.arange(n) - (n - 1) / 2
    spread = float((x**2).sum())
    slope = float((x * y).sum() / spread)
    rest = y - y.mean() - slope * x
    total = float((rest**2).sum())
    r = max(float((rest[1:] * rest[:-1]).sum()) / total, 0.0) if total > 0 else 0.0
    effective = max(n * (1 - r) / (1 + r), 3.0)
    error = math.sqrt(total / (effective - 2) / spread)
    reach = float(stdtrit(effective - 2, 0.5 + level / 2)) * error
    return Interval(low=slope - reach, estimate=slope, high=slope + reach, level=level, kind="credible")
