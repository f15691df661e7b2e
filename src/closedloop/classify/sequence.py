"""`SequenceClassifier`: rates with intervals that hold at every look at once, from closed cohorts only.

Law of this file: no estimate enters the counts. Cohorts whose window has not closed are left out, credit must be whole, and nothing
is pooled, tempered or forgotten: otherwise the guarantee would be void (STATISTICS section 9).
"""

from __future__ import annotations

from datetime import datetime

import attrs
import numpy as np

from closedloop.classify.assemble import assemble
from closedloop.classify.bayes import check_window
from closedloop.classify.evidence import gather, now_microseconds
from closedloop.classify.rates import Rates, independent
from closedloop.errors import ConfigurationError, InputError
from closedloop.records.moments import to_us
from closedloop.records.outcomes import Outcomes
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow
from closedloop.stats.gamma_poisson import totals
from closedloop.stats.sequences import poisson_rate_sequence


@attrs.frozen
class SequenceClassifier:
    """Rank arms on closed cohorts, with confidence sequences: they may be looked at daily and acted on at any time.

    Args:
        window: The attribution window of the evidence.
        level: The share of whole histories in which an interval never misses, in (0, 1).
        expected_rate: Conversions per exposure around which intervals are tightest; choose it before the data.
        all_arms: True to hold for all arms at once (each at level ``1 - (1 - level) / A``).
        seed: Seed of the draws behind P(best).
    """

    window: AttributionWindow
    level: float = attrs.field(default=0.9, kw_only=True)
    expected_rate: float = attrs.field(default=0.01, kw_only=True)
    all_arms: bool = attrs.field(default=False, kw_only=True)
    seed: int = attrs.field(default=0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise ConfigurationError("a level lies between 0 and 1", "level", self.level, "use 0.9 for a 90 % interval")
        if not 0.0 < self.expected_rate < np.inf:
            raise ConfigurationError("a rate is above zero", "expected_rate", self.expected_rate, "use a typical rate such as 0.01")

    def classify(self, outcomes: Outcomes, *, now: datetime | None = None) -> Signals:
        """Return the complete arms ranked, with anytime-valid intervals.

        Raises:
            WindowMismatchError: The outcomes were made under another window.
            InputError: Credit is fractional, a cohort lies in the future, or a count is negative or not finite.
        """
        check_window(self.window, outcomes)
        now_us = None if now is None else to_us(now)
        c = outcomes.cohorts
        broken = np.flatnonzero(c.credit != np.round(c.credit))
        if len(broken):
            mend = "attribute with model='last' or 'first', whose credits are whole"
            raise InputError("a confidence sequence needs whole counts", "credit", float(c.credit[broken[0]]), mend)
        evidence = gather(outcomes, half_life_days=None, now_us=now_us)
        n = len(evidence.arms)
        level = 1.0 - (1.0 - self.level) / max(n, 1) if self.all_arms else self.level
        rates: dict[str, Rates] = {}
        for name, e in evidence.kinds.items():
            closed = c.maturity[e.rows] >= 1.0
            count = totals(e.unit[closed], c.credit[e.rows][closed], n)
            exposure = totals(e.unit[closed], c.exposures[e.rows][closed], n)
            low, high = poisson_rate_sequence(count, exposure, level=level, expected_rate=self.expected_rate)
            mixture = independent(count + 1.0, exposure + 1.0 / self.expected_rate, volume=count)
            rates[name] = attrs.evolve(mixture, fixed=(low, high))
        name = "SequenceClassifier (closed cohorts, valid at every look)"
        now_ = now_microseconds(outcomes, now_us)
        return assemble(outcomes, evidence, rates, level=self.level, seed=self.seed, now_us=now_, classifier=name, kind="anytime")
