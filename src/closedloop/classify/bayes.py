"""`BayesClassifier`: Gamma-Poisson rates with delay, recency, over-dispersion and pooling; STATISTICS sections 2-4 and 7.

Law of this file: outcomes in, signals out; the same evidence gives the same answer whatever the order of events, batches or
arms. Nothing loops over arms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.classify.assemble import assemble
from closedloop.classify.caused import SLICES, Incrementality, caused_rates, factors
from closedloop.classify.evidence import Evidence, Untagged, gather, now_microseconds
from closedloop.classify.rates import Learned, fit_rates, learn, rates_given
from closedloop.classify.state import RateState
from closedloop.errors import ConfigurationError, WindowMismatchError
from closedloop.records.causes import CausalEvidence
from closedloop.records.moments import parse_duration, to_us
from closedloop.records.outcomes import Outcomes
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow

_YEAR = 365.25
_COST_HALF_LIFE = 28.0  # days; what a click costs is averaged over recent weeks even where rates forget nothing


def _half_life(value: str | timedelta | None) -> timedelta | None:
    return None if value is None else parse_duration(value, "half_life")


def check_window(window: AttributionWindow, outcomes: Outcomes) -> None:
    """Refuse outcomes made under another window.

    Raises:
        WindowMismatchError: The windows differ; both are named.
    """
    if outcomes.window != window:
        problem = "the outcomes were attributed under another window"
        raise WindowMismatchError(problem, "window", repr(outcomes.window), f"attribute under {window!r}")


@attrs.frozen
class BayesClassifier:
    """Rank arms by posteriors whose intervals say how little is known.

    Args:
        window: The attribution window of the evidence; outcomes made under another one are refused.
        level: Level of every interval, in (0, 1).
        half_life: Age at which evidence counts half, such as ``"28d"``; None (the default) lets the data say how far back the
            present goes: calm, broken or drifting, each weighed by its evidence and by how common it is among the arms.
        breaks_per_year: Typical breaks of an arm's rate per year, for the default; 0 forgets nothing.
        missing: What is assumed of events without all tags. ``"unknown"`` (the default): nothing; intervals then hold whoever they
            belong to (``identified``), and so do ranks and P(best), jointly: an untagged conversion is one arm's at most.
            ``"at random"``: an arm owns as large a share of the untagged exposures that it fits as of the tagged ones, give or take
            ``missing_spread``.
        missing_spread: How far the log of what an arm owns of the untagged may be from that (a standard deviation), for ``"at random"``.
        groups: Tag columns whose combinations pool their arms; those that the arms lack are left out.
        seed: Seed of the draws behind P(best), the expected loss and sums over kinds of touch.
        incrementality: What turns credit into cause; rates, costs and ranks are then of caused conversions. `CausalEvidence` (lift tests
            and stated priors) takes a background per click out of the credit. Caused over attributed conversions by arm, each an
            `Interval` (or an object with ``arms`` and ``share``), multiply it. None ranks by attributed conversions, and `explain` says so.

    Raises:
        ConfigurationError: An argument is not valid.

    References:
        Gelman et al. (2013), chapters 2 and 5; Barry & Hartigan (1992) for breaks; Fletcher (2012) for sparse dispersion;
        Imbens & Manski (2004) for missing tags.
    """

    window: AttributionWindow
    level: float = attrs.field(default=0.9, kw_only=True)
    half_life: timedelta | None = attrs.field(default=None, converter=_half_life, kw_only=True)
    breaks_per_year: float = attrs.field(default=2.0, kw_only=True)
    missing: Literal["unknown", "at random"] = attrs.field(default="unknown", kw_only=True)
    missing_spread: float = attrs.field(default=0.2, kw_only=True)
    groups: tuple[str, ...] = attrs.field(default=("platform", "audience"), converter=tuple, kw_only=True)
    seed: int = attrs.field(default=0, kw_only=True)
    incrementality: Incrementality | None = attrs.field(default=None, kw_only=True, eq=False)

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise ConfigurationError("a level lies between 0 and 1", "level", self.level, "use 0.9 for a 90 % interval")
        if self.missing not in ("unknown", "at random"):
            raise ConfigurationError("untagged events are missing in no such way", "missing", self.missing, None, ("unknown", "at random"))
        if not (self.missing_spread >= 0.0 and math.isfinite(self.missing_spread)):
            raise ConfigurationError("a spread is zero or more and finite", "missing_spread", self.missing_spread)
        if self.half_life is not None and self.half_life <= timedelta(0):
            raise ConfigurationError("a half-life is longer than zero", "half_life", str(self.half_life))
        if not 0.0 <= self.breaks_per_year < _YEAR:
            raise ConfigurationError("breaks per year lie between 0 and one a day", "breaks_per_year", self.breaks_per_year)

    def classify(self, outcomes: Outcomes, *, now: datetime | None = None, learned: Mapping[str, Learned] | None = None) -> Signals:
        """Return the complete arms ranked, each number with its interval.

        Args:
            outcomes: As attribution gave them, made under the same window.
            now: When (aware); None takes the data watermark.
            learned: What `start` learned from all arms, by kind of touch, to keep it; None learns it anew.

        Raises:
            WindowMismatchError: The outcomes were made under another window.
            InputError: A cohort lies in the future, or a count is negative or not finite.
        """
        check_window(self.window, outcomes)
        now_us = None if now is None else to_us(now)
        told = isinstance(self.incrementality, CausalEvidence)
        source = outcomes.participation if told and outcomes.participation is not None else outcomes
        hazard, evidence, group, names = self._gathered(source, now_us)
        rates = {
            name: fit_rates(source, e, group, len(names), source.delay.get(name), hazard=hazard, seed=self.seed)
            if learned is None
            else rates_given(learned[name], source, e, group)
            for name, e in evidence.kinds.items()
        }
        title = f"BayesClassifier(level={self.level:g})"
        caused = None
        if isinstance(self.incrementality, CausalEvidence):
            caused = caused_rates(
                outcomes, source, evidence, rates, group, self.incrementality, hazard=hazard, level=self.level, seed=self.seed
            )  # fmt: skip
            evidence, rates = caused.evidence, caused.rates
            tests = len(self.incrementality.tests)
            title = f"BayesClassifier(level={self.level:g}, caused: {tests} tests, priors elsewhere)"
        elif self.incrementality is not None:
            mean, variance = factors(evidence, self.incrementality)
            rates = {name: r.scaled(mean, variance, SLICES) for name, r in rates.items()}
            title = f"BayesClassifier(level={self.level:g}, caused)"
        signals = assemble(
            outcomes,
            evidence,
            rates,
            level=self.level,
            seed=self.seed,
            now_us=now_microseconds(outcomes, now_us),
            classifier=title,
            caused=caused,
        )
        if source is outcomes:
            return signals
        credited = self._gathered(outcomes, now_us)[1]  # a pace of conversions counts each once
        weekly = np.sum([e.weekly for e in credited.kinds.values()], axis=0)[np.argsort(credited.canonical)]
        return attrs.evolve(signals, weekly_conversions=weekly)

    def _gathered(self, outcomes: Outcomes, now_us: int | None) -> tuple[float | None, Evidence, npt.NDArray[np.int32], list[str]]:
        """Return the hazard of a break, the evidence, and the group of each arm in canonical order with the groups' names."""
        days = None if self.half_life is None else self.half_life / timedelta(days=1)
        hazard = self.breaks_per_year / _YEAR if days is None else None
        untagged: Untagged = "bounded" if self.missing == "unknown" else float(self.missing_spread)
        cost_days = days or _COST_HALF_LIFE
        evidence = gather(outcomes, half_life_days=days, now_us=now_us, cost_half_life_days=cost_days, untagged=untagged)
        group, names = evidence.arms.take(evidence.canonical).groups(self.groups)
        return hazard, evidence, group, names

    def start(self, outcomes: Outcomes, *, now: datetime | None = None) -> dict[str, RateState]:
        """Return, by kind of touch, posteriors that can be updated with restated cohorts, merged and saved.

        What is learned from all arms together (priors, dispersion, how common breaks and drift are, the delay curve) stays as it is found
        here, in ``state.learned``; with it, `classify` of the restated outcomes gives the same posteriors. Arms are numbered as in the
        signals. Untagged cohorts take no part.

        Raises:
            WindowMismatchError: The outcomes were made under another window.
            InputError: A cohort lies in the future, or a count is negative or not finite.
        """
        check_window(self.window, outcomes)
        hazard, evidence, group, names = self._gathered(outcomes, None if now is None else to_us(now))
        back = np.argsort(evidence.canonical)
        c, states = outcomes.cohorts, {}
        for name, e in evidence.kinds.items():
            learned, _ = learn(outcomes, e, group, len(names), outcomes.delay.get(name), hazard=hazard, seed=self.seed)
            arm = evidence.canonical[e.unit]
            credit, squared, mature = (column[e.rows] for column in (c.credit, c.credit_squared, c.exposures * c.maturity))
            state = RateState.start(learned, group[back], e.mark[back], half_life_days=e.half_life_days)
            states[name] = state.update(arm, c.day[e.rows], credit, mature, squared=squared, revision=outcomes.revision)
        return states
