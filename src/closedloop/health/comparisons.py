"""Our credit held against what others say: holdouts, and platforms' own reports.

Law of this file: other counts are compared with ours, never added to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from closedloop.display import number
from closedloop.errors import ConfigurationError
from closedloop.health.thresholds import Thresholds
from closedloop.records.feedback import Finding, Severity
from closedloop.records.interval import Interval
from closedloop.records.lift import LiftResult
from closedloop.stats.rates import ratio_interval


def credit_against_tests(tests: Sequence[LiftResult], limits: Thresholds, *, draws: int = 20_000, seed: int = 0) -> list[Finding]:
    """Hold the credit of arms against what their holdouts say they caused.

    Caused conversions are ``treated - odds * control``, with independent Gamma posteriors of the two means (where a test gives an estimate,
    Normal around it). The finding says which share of the credit was caused; it is critical when that share is credibly under a half. With
    credit that is caused in full it fires in at most 5 % of tests at level 0.9 (one tail of the interval).
    """
    rng = np.random.default_rng(seed)
    found = []
    for test in tests:
        if test.treated is not None and test.control is not None and test.treated_users and test.control_users:
            odds = test.treated_users / test.control_users
            caused = rng.standard_gamma(test.treated + 0.5, draws) - odds * rng.standard_gamma(test.control + 0.5, draws)
        else:
            caused = rng.normal(*test.caused(), draws)
        measured = Interval.of_draws(caused / test.attributed, level=limits.level)
        if measured.high >= 1.0:
            continue
        name = " / ".join(test.where.values()) or "account"
        severity: Severity = "critical" if measured.high < 0.5 else "warning"
        found.append(
            Finding(
                name="wrong_attribution",
                severity=severity,
                scope=name,
                measured=measured,
                threshold=1.0,
                evidence=f"{number(test.attributed)} conversions are credited to {name}; by its holdout {measured} of each were caused",
                mend="credit it by its caused share, or hold its budget until the next test",
            )
        )
    return found


def compare_reports(
    ours: Mapping[str, float], theirs: Mapping[str, float], total: float, limits: Thresholds, *, windows: Mapping[str, str] | None = None
) -> list[Finding]:
    """Compare platforms' own reports with our credit over the same days: never added, only compared.

    Args:
        ours: Conversions credited to each platform.
        theirs: Conversions each platform claims.
        total: Conversions there were, whoever is credited.
        limits: Thresholds.
        windows: Each platform's reporting window in words.

    Returns:
        One finding for each platform whose claims differ credibly from our credit (a warning: other windows and other views are the usual
        causes), and one when the claims of all platforms together credibly exceed the conversions that there were.

    Raises:
        ConfigurationError: A count is negative.
    """
    for name, counts in (("ours", ours), ("theirs", theirs)):
        for platform, count in counts.items():
            if not count >= 0:
                raise ConfigurationError("a count is zero or more", name, f"{platform}: {count}")
    found = []
    for platform in sorted(theirs):
        low, middle, high = ratio_interval(theirs[platform], 1.0, ours.get(platform, 0.0), 1.0, level=limits.level)
        if low <= 1.0 <= high:
            continue
        window = (windows or {}).get(platform)
        claims = f"{platform} claims {number(theirs[platform])} conversions" + (f" in {window}" if window else "")
        found.append(
            Finding(
                name="report_differs",
                severity="warning",
                scope=platform,
                measured=Interval(low=low, estimate=middle, high=high, level=limits.level, kind="credible"),
                threshold=1.0,
                evidence=f"{claims}, we credit {number(ours.get(platform, 0.0))}",
                mend="set the same window there, and never add its report to your own conversions",
            )
        )
    claimed = float(sum(theirs.values()))
    if total > 0 and claimed > 0:
        low, middle, high = ratio_interval(claimed, 1.0, total, 1.0, level=limits.level)
        if low > 1.0:
            found.append(
                Finding(
                    name="double_claims",
                    severity="warning",
                    scope="account",
                    measured=Interval(low=low, estimate=middle, high=high, level=limits.level, kind="credible"),
                    threshold=1.0,
                    evidence=f"the platforms together claim {number(claimed)} of {number(total)} conversions",
                    mend="at most one platform can be credited with a conversion: use one attribution for all",
                )
            )
    return found
