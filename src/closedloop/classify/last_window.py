"""`LastWindowClassifier`: the raw ratios of the last days, as most teams compute them; for comparison.

Law of this file: it corrects nothing on purpose (no maturity, no pooling, no dispersion), and its name in the title says so.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import attrs
import numpy as np

from closedloop.classify.assemble import assemble
from closedloop.classify.bayes import check_window
from closedloop.classify.evidence import gather, now_microseconds
from closedloop.classify.rates import Rates, independent
from closedloop.errors import ConfigurationError
from closedloop.records.interval import Intervals
from closedloop.records.moments import parse_duration, to_us
from closedloop.records.outcomes import Outcomes
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow


def _days(value: str | timedelta) -> timedelta:
    return parse_duration(value, "last")


@attrs.frozen
class LastWindowClassifier:
    """Rank arms by raw conversions per exposure of the last days, each arm on its own.

    Immature days count as if they were complete, so fresh arms look poor; small arms look very good or very bad. The interval is the
    Jeffreys interval of the raw counts, which is all that such a ratio can claim.

    Args:
        window: The attribution window of the evidence.
        last: How far back, such as ``"7d"``.
        level: Level of the intervals.
        seed: Seed of the draws behind P(best).

    References:
        Brown, Cai & DasGupta (2003), "Interval estimation in exponential families", for the Jeffreys interval.
    """

    window: AttributionWindow
    last: timedelta = attrs.field(default=timedelta(days=7), converter=_days, kw_only=True)
    level: float = attrs.field(default=0.9, kw_only=True)
    seed: int = attrs.field(default=0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise ConfigurationError("a level lies between 0 and 1", "level", self.level, "use 0.9 for a 90 % interval")
        if self.last < timedelta(days=1):
            raise ConfigurationError("the last days are at least one", "last", str(self.last), "use 7d")

    def classify(self, outcomes: Outcomes, *, now: datetime | None = None) -> Signals:
        """Return the complete arms ranked by raw ratios.

        Raises:
            WindowMismatchError: The outcomes were made under another window.
            InputError: A cohort lies in the future, or a count is negative or not finite.
        """
        check_window(self.window, outcomes)
        now_us = None if now is None else to_us(now)
        evidence = gather(outcomes, half_life_days=None, now_us=now_us, last_days=self.last / timedelta(days=1))
        n = len(evidence.arms)
        rates: dict[str, Rates] = {}
        estimate = np.zeros(n)
        done = np.zeros(n, dtype=bool)
        for name, e in evidence.kinds.items():
            exposure = e.full_exposure
            rates[name] = independent(e.count + 0.5, exposure, volume=e.count)
            mine = ~done & (exposure > 0)
            estimate[mine] = e.count[mine] / exposure[mine]
            done |= mine
        name = f"LastWindowClassifier (raw ratios of {self.last.days} days, not matured, not pooled)"
        signals = assemble(
            outcomes, evidence, rates, level=self.level, seed=self.seed, now_us=now_microseconds(outcomes, now_us), classifier=name
        )
        raw = estimate[np.argsort(evidence.canonical)]
        rate = Intervals(
            low=np.minimum(signals.rate.low, raw), estimate=raw, high=np.maximum(signals.rate.high, raw), level=self.level, kind="credible"
        )
        return attrs.evolve(signals, rate=rate)
