"""What classification hands on: arms ranked by their posterior, each number with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import frame, html_table, number, text_table
from closedloop.errors import ConfigurationError
from closedloop.records.arms import Arm, Arms
from closedloop.records.interval import FloatArray, Interval, IntervalKind, Intervals
from closedloop.records.outcomes import Outcomes
from closedloop.records.posterior import GammaMixture, Untagged, correlated, coupled
from closedloop.records.window import AttributionWindow

__all__ = ["GammaMixture", "Signal", "Signals", "correlated"]


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
        p_best_range, expected_loss_range: What both can be whoever the untagged conversions (and spend) belong to, each to one arm at most;
            the numbers themselves are those if tags are lost at random. None where everything is tagged or that is assumed.
        untagged: What arms could own of the untagged evidence; None as above.
        shared: Correlation of each arm with K things that arms have in common, shape (A, K); None where arms are independent.
        caused_share: Caused over conversions that each arm took part in (over credited ones, where only credit is known), where
            rates, costs and ranks are of caused ones; None where credit is
            taken for cause.
        caused_by: Per arm, what the share rests on: ``test``, or the name of the prior.
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
    p_best_range: Intervals | None = None
    expected_loss_range: Intervals | None = None
    untagged: Untagged | None = None
    shared: FloatArray | None = None
    caused_share: Intervals | None = None
    caused_by: tuple[str, ...] = ()

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
        return total if self.shared is None else correlated(total, self.shared, rng)

    def total_per_day(self, *, size: int = 2000, seed: int = 0) -> Interval:
        """Return conversions a day of all these arms together at the recent exposure.

        Where tags are missing it is the identified set of the *joint* total: from none of the untagged conversions to all that these arms
        can own between them, each conversion counted once. Adding the arms' own intervals would count it once for every arm.
        """
        tail = (1.0 - self.rate.level) / 2.0
        ends = (tail, 0.5, 1.0 - tail)
        low, middle, high = np.quantile(self.draw_conversions_per_day(np.random.default_rng(seed), size).sum(axis=1), ends).tolist()
        kind: IntervalKind = "credible"
        if self.untagged is not None:
            u, kind = self.untagged, "identified"
            tagged, fullest = np.zeros((size, len(self))), np.zeros((size, len(self)))
            for name, exposures in u.exposures_per_day.items():
                tagged += self.posteriors[name].draws(np.random.default_rng(seed), size) * exposures
                fullest += u.fullest[name].draws(np.random.default_rng(seed), size) * exposures
            if self.shared is not None:
                tagged = correlated(tagged, self.shared, np.random.default_rng(seed))
            own, most = coupled(tagged, fullest)
            could = u.conversions.own
            worth = np.divide(most - own, could, out=np.zeros_like(own), where=could > 0)  # of one untagged conversion to each arm
            few, many = own.sum(axis=1), own.sum(axis=1) + u.conversions.most(worth)
            low, high = min(low, float(np.quantile(few, tail))), max(high, float(np.quantile(many, 1.0 - tail)))
        return Interval(low=low, estimate=middle, high=high, level=self.rate.level, kind=kind)

    def take(self, index: npt.ArrayLike) -> Signals:
        """Return the signals of some arms, in their order among themselves; P(best) stays that among all arms.

        Args:
            index: Positions of arms or a mask, such as ``signals.effective_volume > 20``.
        """
        at = np.arange(len(self))[np.asarray(index)]
        place = np.full(len(self), -1, dtype=np.int64)
        place[at] = np.arange(len(at))
        order = place[self.order]
        numbers: dict[str, Any] = {name: getattr(self, name)[at] for name in (*_NUMBERS, "spend_per_day", "value_per_conversion")}
        return attrs.evolve(
            self,
            arms=self.arms.take(at),
            order=order[order >= 0],
            rate=self.rate.take(at),
            cost_per_conversion=self.cost_per_conversion.take(at),
            roas=None if self.roas is None else self.roas.take(at),
            rank_interval=None if self.rank_interval is None else self.rank_interval.take(at),
            p_best_range=None if self.p_best_range is None else self.p_best_range.take(at),
            expected_loss_range=None if self.expected_loss_range is None else self.expected_loss_range.take(at),
            shared=None if self.shared is None else self.shared[at],
            caused_share=None if self.caused_share is None else self.caused_share.take(at),
            caused_by=tuple(self.caused_by[int(i)] for i in at) if self.caused_by else (),
            posteriors={k: p.take(at) for k, p in self.posteriors.items()},
            untagged=None if self.untagged is None else self.untagged.take(at),
            exposures_per_day={k: v[at] for k, v in self.exposures_per_day.items()},
            **numbers,
        )

    def filter(self, **tags: str) -> Signals:
        """Return the signals of the arms with the given tags, such as ``signals.filter(platform="google")``.

        Raises:
            ConfigurationError: The arms have no such tag.
        """
        keep = np.ones(len(self), dtype=bool)
        for name, tag in tags.items():
            column = self.arms.column(name)
            keep &= (column.vocab == tag)[column.codes] if len(column.vocab) else False
        return self.take(keep)

    def sort(self, by: str, *, descending: bool = True) -> Signals:
        """Return the same signals in another order: by an interval's estimate or by a number, ties as before.

        Raises:
            ConfigurationError: There is nothing of that name; the valid ones are listed.
        """
        if by in ("rate", "cost_per_conversion", "roas", "rank_interval") and getattr(self, by) is not None:
            values = getattr(self, by).estimate
        elif by in _NUMBERS:
            values = getattr(self, by)
        else:
            raise ConfigurationError("signals cannot be sorted by that", "by", by, None, ("rate", "cost_per_conversion", "roas", *_NUMBERS))
        values = values[self.order]
        return attrs.evolve(self, order=self.order[np.argsort(-values if descending else values, kind="stable")])

    def explain(self, arm: Arm) -> str:
        """Return in plain words what is known of an arm, how sure it is, and what the numbers rest on.

        Raises:
            ConfigurationError: There is no such arm.
        """
        i = self.arms.index(arm)
        s = self.at(i)
        level = f"{self.rate.level:.0%}"
        lines = [f"{self.arms.label(i)}: rank {s.rank} of {len(self)}."]
        if self.rank_interval is not None:
            r = self.rank_interval[i]
            lines[0] = f"{self.arms.label(i)}: rank {s.rank} of {len(self)} ({level} sure of {r.low:.0f} to {r.high:.0f})."
        counted = "Conversions" if self.caused_share is None else "Caused conversions"
        lines.append(f"{counted} per exposure: {s.rate} ({level} {self.rate.kind} interval).")
        if self.caused_share is None:
            lines.append("Credit is taken for cause: what would have been bought anyway is in these numbers.")
        else:
            counted = "that it took part in" if self.outcomes.participation is not None else "credited to it"
            lines.append(f"Of each conversion {counted} {self.caused_share[i]} were caused ({self.caused_by[i]}).")
        cost = s.cost_per_conversion
        money = self.outcomes.currency or "units"
        if np.isfinite(cost.estimate):
            lines.append(f"Cost per conversion: {cost} {money}.")
        else:
            lines.append("Cost per conversion: not known, because no spend or no conversions are recorded.")
        if s.roas is not None:
            lines.append(f"Revenue per unit of spend: {s.roas}.")
        lines += [
            f"Probability of being the best: {s.p_best:.1%}; expected loss if chosen: {s.expected_loss:.1%} of the best's return.",
            f"It rests on {number(s.effective_volume)} effective conversions, {number(s.evidence_age)} days old on average; "
            f"the recent pace is {number(s.weekly_conversions)} a week.",
            f"{s.maturity:.0%} of the conversions of its exposure are expected to be seen by now.",
            f"{s.borrowed_share:.0%} of the estimate is borrowed from its group.",
        ]
        if s.dispersion > 1.0:
            lines.append(f"Counts scatter {number(s.dispersion)} times as much as chance alone would; they count for that much less.")
        if s.tagged_share < 1.0:
            lines.append(f"Only {s.tagged_share:.0%} of the exposures that could be its own carry all tags; its interval is wider for it.")
        if self.p_best_range is not None:
            low, high = self.p_best_range.low[i], self.p_best_range.high[i]
            lines.append(f"Whoever the others belong to, its probability of being the best is {low:.1%} to {high:.1%}.")
        return "\n".join(lines)

    def to_columns(self) -> dict[str, Any]:
        """Return one row per arm, best first."""
        o = self.order
        columns: dict[str, Any] = {"rank": np.arange(1, len(o) + 1), **self.arms.take(o).to_columns()}
        for name in ("rate", "cost_per_conversion", "roas"):
            intervals: Intervals | None = getattr(self, name)
            if intervals is not None:
                columns[name] = intervals.estimate[o]
                columns[f"{name}_low"] = intervals.low[o]
                columns[f"{name}_high"] = intervals.high[o]
        for name in _NUMBERS:
            columns[name] = getattr(self, name)[o]
        if self.caused_share is not None:
            share = self.caused_share.take(o)
            columns |= {"caused_share": share.estimate, "caused_share_low": share.low, "caused_share_high": share.high}
        return columns

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the ranked arms as a frame, best first."""
        return frame(self.to_columns(), library)

    def plot(self, ax: Any = None, *, what: str | None = None, kind: Literal["forest", "ridge"] = "forest") -> Any:
        """Draw the best arms' intervals (a forest plot) or the posteriors of their rates (a ridge); return the Axes.

        Args:
            ax: The Axes to draw on.
            what: Of a forest ``rate``, ``cost_per_conversion``, ``roas`` or ``rank_interval``; None: the cost, or the rate without spend.
            kind: ``forest`` or ``ridge``.

        Raises:
            ConfigurationError: There is no such kind, or there are no intervals of that name.
        """
        from closedloop.display import plots

        if kind not in ("forest", "ridge"):
            raise ConfigurationError("there is no such kind of plot", "kind", kind, None, ("forest", "ridge"))
        if kind == "ridge":
            if what not in (None, "rate"):
                raise ConfigurationError("a ridge shows the posteriors of rates", "what", what, "leave it out", ("rate",))
            shown = self.order[:_RIDGES]
            x, density = self._densities(shown)
            title, unit = "Posteriors of the rates, best first", "conversions per exposure (each drawn to its own height)"
            return plots.densities(self.arms.take(self.order).labels(), x, density, title=title, unit=unit, limit=_RIDGES, ax=ax)
        if what is None:
            what = "cost_per_conversion" if np.isfinite(self.cost_per_conversion.estimate).any() else "rate"
        words = {
            "rate": "conversions per exposure",
            "cost_per_conversion": f"cost per conversion, {self.outcomes.currency or 'units'}",
            "roas": "revenue per unit of spend",
            "rank_interval": "rank",
        }
        column: Intervals | None = getattr(self, what) if what in words else None
        if column is None:
            valid = [name for name in words if getattr(self, name) is not None]
            raise ConfigurationError("there are no intervals of that name", "what", what, None, valid)
        ranked = column.take(self.order)
        unit = f"{words[what]} ({column.level:.0%} {column.kind})"
        labels = self.arms.take(self.order).labels()
        return plots.forest(labels, ranked.low, ranked.estimate, ranked.high, title="Arms, best first", unit=unit, ax=ax)

    def _densities(self, at: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """Return where, and how dense there, the posteriors of the main kind's rates are, shape (X,) and (M, X)."""
        from scipy import special

        high = self.rate.high[at]
        top = 1.25 * float(high[np.isfinite(high)].max(initial=0.0)) or 1.0
        x = np.linspace(0.0, top, 401)[1:]
        density = np.zeros((len(at), len(x)))
        open_ = np.ones(len(at), dtype=bool)
        for i, (name, p) in enumerate(self.posteriors.items()):
            mine = open_ & ((self.exposures_per_day[name][at] > 0) | (i == len(self.posteriors) - 1)) & np.isfinite(high)
            s, r, w = (column[at[mine]][:, :, None] for column in (p.shape, p.rate, p.weight))
            density[mine] = (w * np.exp(s * np.log(r) + (s - 1.0) * np.log(x) - r * x - special.gammaln(s))).sum(axis=1)
            open_ &= ~mine
        return x, density

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
_RIDGES = 20
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
