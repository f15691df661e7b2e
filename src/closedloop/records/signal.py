"""What classification hands on: arms ranked by their posterior, each number with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import frame, html_table, text_table
from closedloop.records.arms import Arm, Arms
from closedloop.records.interval import FloatArray, Interval, Intervals
from closedloop.records.outcomes import Outcomes
from closedloop.records.window import AttributionWindow


@attrs.frozen(kw_only=True, eq=False)
class GammaMixture:
    """Posterior of one rate per arm: a mixture of Gamma densities (one component when nothing is forgotten).

    Args:
        shape, rate: Gamma parameters, shape (A, R); mean ``shape / rate`` conversions per exposure.
        weight: Mixture weights, shape (A, R), rows sum to 1.
    """

    shape: FloatArray
    rate: FloatArray
    weight: FloatArray

    @property
    def mean(self) -> FloatArray:
        """Posterior mean per arm, shape (A,)."""
        return np.asarray((self.weight * self.shape / self.rate).sum(axis=1))

    def draws(self, rng: np.random.Generator, size: int) -> FloatArray:
        """Return joint draws (independent over arms given the hyper-parameters), shape (size, A)."""
        arms, components = self.shape.shape
        if components == 1:
            return rng.standard_gamma(self.shape[:, 0], (size, arms)) / self.rate[:, 0]
        upper = np.cumsum(self.weight, axis=1)
        pick = (rng.random((size, arms, 1)) > upper[None, :, :-1]).sum(axis=2)
        row = np.arange(arms)[None, :]
        return np.asarray(rng.standard_gamma(self.shape[row, pick]) / self.rate[row, pick])


@attrs.frozen(kw_only=True)
class Signal:
    """One arm's evidence: what was found, how sure, and what drove it. See `Signals` for units."""

    arm: Arm
    rank: int
    rate: Interval
    cost_per_conversion: Interval
    roas: Interval | None
    p_best: float
    expected_loss: float
    effective_volume: float
    weekly_conversions: float
    evidence_age: float
    dispersion: float
    maturity: float
    borrowed_share: float
    tagged_share: float

    def __repr__(self) -> str:
        name = " / ".join("?" if t is None else t for t in self.arm)
        return f"Signal #{self.rank} {name}: rate {self.rate!r}, cost per conversion {self.cost_per_conversion}, P(best) {self.p_best:.2f}"


@attrs.frozen(kw_only=True, eq=False)
class Signals:
    """Arms ranked by the probability of being the better decision (A arms, best first in `order`).

    Args:
        window: The attribution window of the evidence.
        arms: The complete arms (every tag known).
        order: Positions of arms, best first, shape (A,).
        rate: Conversions per exposure of the arm's main kind of touch (clicks where there are any, else views).
        cost_per_conversion: Units of currency per conversion of any touch kind; unbounded without spend.
        roas: Revenue per unit of spend, None without revenue.
        posteriors: Per kind of touch in use, the posterior of conversions per exposure.
        exposures_per_day: Per kind of touch, exposures a day over the recent days (shape (A,)).
        spend_per_day: Units of currency a day over the recent days (shape (A,)).
        value_per_conversion: Units of currency, shape (A,); 1 where no value is given.
        p_best: Probability that the arm is the best per unit of spend (per exposure without spend), shape (A,), sums to 1.
        expected_loss: Expected loss of choosing the arm, as a share of the best's return, shape (A,).
        effective_volume: Effective number of conversions behind the estimate after recency and dispersion, shape (A,).
        weekly_conversions: Mature conversions per week of the arm, shape (A,).
        evidence_age: Mean age of the evidence in days, weighted as used, shape (A,).
        dispersion: Over-dispersion factor ``phi >= 1`` applied, shape (A,).
        maturity: Exposure-weighted share of conversions expected to be seen by now, in [0, 1], shape (A,).
        borrowed_share: Share of the estimate that comes from the group, in [0, 1], shape (A,).
        tagged_share: Share of compatible exposures that carry all tags, in [0, 1], shape (A,).
        classifier: Name and version of what made it.
        outcomes: The evidence itself.
        now_us: When it was made, microseconds UTC.
        rank_interval: Rank of each arm (1 is best), None where the classifier gives none.
    """

    window: AttributionWindow
    arms: Arms
    order: npt.NDArray[np.int64]
    rate: Intervals
    cost_per_conversion: Intervals
    roas: Intervals | None
    posteriors: Mapping[str, GammaMixture]
    exposures_per_day: Mapping[str, FloatArray]
    spend_per_day: FloatArray
    value_per_conversion: FloatArray
    p_best: FloatArray
    expected_loss: FloatArray
    effective_volume: FloatArray
    weekly_conversions: FloatArray
    evidence_age: FloatArray
    dispersion: FloatArray
    maturity: FloatArray
    borrowed_share: FloatArray
    tagged_share: FloatArray
    classifier: str
    outcomes: Outcomes
    now_us: int
    rank_interval: Intervals | None = None

    def __len__(self) -> int:
        return len(self.arms)

    def at(self, position: int) -> Signal:
        """Return the signal of the arm at a position in `arms`."""
        i = position
        return Signal(
            arm=self.arms[i],
            rank=int(np.flatnonzero(self.order == i)[0]) + 1,
            rate=self.rate[i],
            cost_per_conversion=self.cost_per_conversion[i],
            roas=None if self.roas is None else self.roas[i],
            **{name: float(getattr(self, name)[i]) for name in _NUMBERS},
        )

    def __getitem__(self, rank: int) -> Signal:
        """Return the signal at a rank, 0 for the best."""
        return self.at(int(self.order[rank]))

    def __iter__(self) -> Iterator[Signal]:
        return (self.at(int(i)) for i in self.order)

    def draw_conversions_per_day(self, rng: np.random.Generator, size: int) -> FloatArray:
        """Return joint posterior draws of conversions a day at the recent exposure, all touch kinds summed, shape (size, A)."""
        total = np.zeros((size, len(self)))
        for kind, posterior in self.posteriors.items():
            total += posterior.draws(rng, size) * self.exposures_per_day[kind]
        return total

    def to_columns(self) -> dict[str, Any]:
        """Return one row per arm, best first."""
        o = self.order
        columns: dict[str, Any] = {"rank": np.arange(1, len(o) + 1), **self.arms.take(o).to_columns()}
        for name, intervals in (("rate", self.rate), ("cost_per_conversion", self.cost_per_conversion), ("roas", self.roas)):
            if intervals is not None:
                columns[name] = intervals.estimate[o]
                columns[f"{name}_low"] = intervals.low[o]
                columns[f"{name}_high"] = intervals.high[o]
        for name in _NUMBERS:
            columns[name] = getattr(self, name)[o]
        return columns

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the ranked arms as a frame, best first."""
        return frame(self.to_columns(), library)

    def plot(self, ax: Any = None) -> Any:
        """Draw the best arms' cost per conversion (their rate where no spend was seen) as a forest plot; return the Axes."""
        from closedloop.display import plots

        costs = bool(np.isfinite(self.cost_per_conversion.estimate).any())
        column = self.cost_per_conversion if costs else self.rate
        ranked = column.take(self.order)
        what = f"cost per conversion, {self.outcomes.currency or 'units'}" if costs else "conversions per exposure"
        unit = f"{what} ({column.level:.0%} {column.kind})"
        labels = self.arms.take(self.order).labels()
        return plots.forest(labels, ranked.low, ranked.estimate, ranked.high, title="Arms, best first", unit=unit, ax=ax)

    def _table(self, limit: int) -> dict[str, list[Any]]:
        rows = [self.at(int(i)) for i in self.order[:limit]]
        money = self.outcomes.currency or ""
        return {
            "rank": [s.rank for s in rows],
            "arm": [" / ".join(str(t) for t in s.arm) for s in rows],
            "conversions per exposure": [str(s.rate) for s in rows],
            f"cost per conversion {money}".rstrip(): [str(s.cost_per_conversion) for s in rows],
            "P(best)": [round(s.p_best, 3) for s in rows],
            "volume": [round(s.effective_volume, 1) for s in rows],
            "a week": [round(s.weekly_conversions, 1) for s in rows],
            "mature": [round(s.maturity, 2) for s in rows],
            "borrowed": [round(s.borrowed_share, 2) for s in rows],
        }

    def _title(self) -> str:
        more = f", best {_SHOWN} shown" if len(self) > _SHOWN else ""
        return f"Signals: {len(self):,} arms by {self.classifier}, {self.rate.level:.0%} {self.rate.kind} intervals, {self.window}{more}"

    def __repr__(self) -> str:
        return text_table(self._table(_SHOWN), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(self._table(_SHOWN), title=self._title())


_SHOWN = 30
_NUMBERS = (
    "p_best",
    "expected_loss",
    "effective_volume",
    "weekly_conversions",
    "evidence_age",
    "dispersion",
    "maturity",
    "borrowed_share",
    "tagged_share",
)
