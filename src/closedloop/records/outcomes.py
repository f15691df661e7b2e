"""What attribution hands on: credited outcomes by arm and cohort, restated rather than incremented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import frame, html_table, text_table
from closedloop.records.arms import Arms
from closedloop.records.interval import FloatArray, Intervals
from closedloop.records.moments import from_us
from closedloop.records.window import AttributionWindow

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@attrs.frozen(kw_only=True, eq=False)
class DelayCurve:
    """How a cohort of one kind of touch matures: Beta posteriors of the reverse hazards of the delay.

    ``F[j] = prod_{l > j} (1 - g[l])`` is the share of a cohort's conversions seen by the end of delay bin ``j``
    (reverse hazards: Lagakos, Barraj & De Gruttola 1988; STATISTICS section 2).

    Args:
        observed: ``N[j]``, conversions seen with delay bin exactly ``j``, shape (J,).
        at_risk: ``R[j]``, conversions with delay ``<= j`` among cohorts old enough to have shown bin ``j``, shape (J,).
        shape_a, shape_b: Parameters of the Beta posterior of each reverse hazard ``g[j]``, shape (J,); ``g[0]`` is not used.
        share_seen: ``F[j]`` at the posterior means, shape (J,); the last is 1.
    """

    observed: FloatArray
    at_risk: FloatArray
    shape_a: FloatArray
    shape_b: FloatArray
    share_seen: FloatArray

    def band(self, level: float = 0.9) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the pointwise credible band of the share seen, from the posteriors of the reverse hazards.

        The share is a product of independent Beta variables; its quantiles have no closed form and are taken from draws with a
        fixed seed, so that the same curve always has the same band.
        """
        rng = np.random.default_rng(0)
        hazard = rng.beta(np.maximum(self.shape_a, 1e-9), np.maximum(self.shape_b, 1e-9), (4000, len(self.share_seen)))
        later = np.cumprod(1.0 - hazard[:, ::-1], axis=1)[:, ::-1]  # product over l >= j
        seen = np.concatenate([later[:, 1:], np.ones((len(later), 1))], axis=1)
        low, high = np.quantile(seen, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return np.minimum(low, self.share_seen), np.maximum(high, self.share_seen)


@attrs.frozen(kw_only=True, eq=False)
class Cohorts:
    """One row per arm x touch day x kind of touch, sorted by (arm, day, kind).

    Args:
        arm: Position in ``Outcomes.arms``, shape (R,).
        day: Days since 1970-01-01 UTC of the touch.
        kind: 0 click, 1 view (positions in ``TOUCH_KINDS``).
        exposures: Touches of this kind on this day.
        credit: Conversions credited so far (fractional for multi-touch models).
        credit_squared: Sum of squared credits, for the variance of fractional credit.
        value: Revenue credited so far, in units of the currency.
        value_squared: Sum over conversions of squared credited revenue.
        maturity: Share of the cohort's conversions expected to be seen by now, in [0, 1].
        age: Whole delay bins elapsed up to the source's data watermark.
    """

    arm: Int32
    day: Int32
    kind: npt.NDArray[np.int8]
    exposures: FloatArray
    credit: FloatArray
    credit_squared: FloatArray
    value: FloatArray
    value_squared: FloatArray
    maturity: FloatArray
    age: Int32

    def __len__(self) -> int:
        return len(self.arm)


@attrs.frozen(kw_only=True, eq=False)
class SpendDays:
    """One row per arm x day with spend, sorted by (arm, day). ``spend`` is in units of the currency."""

    arm: Int32
    day: Int32
    spend: FloatArray

    def __len__(self) -> int:
        return len(self.arm)


@attrs.frozen(kw_only=True, eq=False)
class ConversionDays:
    """One row per day with conversions, sorted: all conversions of the type on that day (UTC), and those among them without a touch.

    ``missing`` holds the days whose conversions were lost on their way here: they are neither rows nor days without conversions.
    """

    day: Int32
    conversions: FloatArray
    uncredited: FloatArray
    missing: Int32 = attrs.field(factory=lambda: np.empty(0, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.day)

    @classmethod
    def of(cls, day: npt.NDArray[Any], conversions: npt.NDArray[Any], uncredited: npt.NDArray[Any]) -> ConversionDays:
        """Return the days that had conversions."""
        some = conversions > 0
        counts, bare = conversions[some].astype(np.float64), uncredited[some].astype(np.float64)
        return cls(day=day[some].astype(np.int32), conversions=counts, uncredited=bare)

    @classmethod
    def none(cls) -> ConversionDays:
        """Return that nothing is known."""
        nothing = np.empty(0)
        return cls(day=nothing.astype(np.int32), conversions=nothing, uncredited=nothing)

    def per_day(self, first: int, last: int) -> float | None:
        """Return the conversions a day from one day to another (both inside, without lost ones), None where the table has none there."""
        inside = (self.day >= first) & (self.day <= last)
        lost = int(((self.missing >= first) & (self.missing <= last)).sum())
        return float(self.conversions[inside].sum()) / (last - first + 1 - lost) if inside.any() else None


@attrs.frozen(kw_only=True, eq=False)
class Outcomes:
    """Credited outcomes of one conversion type under one window.

    Args:
        window: The attribution window they were made under.
        arms: Every arm seen, complete or not (incomplete ones carry the untagged share).
        cohorts: Arm x day x kind of touch.
        spend: Arm x day.
        delay: A `DelayCurve` per kind of touch in use.
        credits: Credited conversions per arm over all kept days, each with its interval (shape (A,)).
        conversion_type: The optimised type, None when all conversions count.
        model: Name of the attribution model.
        currency: ISO code, None without money.
        watermark: Per platform, microseconds UTC up to which its data are complete.
        revision: Raised by one at each restatement.
        n_conversions: Conversions of the type seen (credited or not), quantities summed.
        n_uncredited: Those without a touch inside the window (organic, direct or lost).
        n_too_late: Events refused because their days were closed already.
        state: What attribution must be given back with the next batch (an opaque value with ``to_bytes``).
        participation: The same outcomes with every conversion counted whole for every arm in its journey, whoever is credited (arms, days
            and exposures are the same; it sums to more than the conversions). What an arm causes is a part of it. None where the
            attribution does not say.
        daily: Conversions by day, credited or not; empty where the attribution does not say.
        missing: Per platform ("account" where arms have none), the days on which it was out; they have no rows and are not zero.
        blind: Days of touches whose conversions were lost: their exposures and spend stand, with maturity 0 and no credit.
        delay_by_group: Per kind of touch, the curve of each group of arms (by its tags, joined by " / "), shrunk to the pooled one; the
            maturity of cohorts follows these. Empty where arms have no groups, or one.
    """

    window: AttributionWindow
    arms: Arms
    cohorts: Cohorts
    spend: SpendDays
    delay: Mapping[str, DelayCurve]
    credits: Intervals
    conversion_type: str | None
    model: str
    currency: str | None
    watermark: Mapping[str, int]
    revision: int
    n_conversions: int
    n_uncredited: int
    n_too_late: int = 0
    state: Any = None
    delay_by_group: Mapping[str, Mapping[str, DelayCurve]] = attrs.field(factory=dict)
    daily: ConversionDays = attrs.field(factory=ConversionDays.none)
    missing: Mapping[str, Int32] = attrs.field(factory=dict)
    blind: Int32 = attrs.field(factory=lambda: np.empty(0, dtype=np.int32))
    participation: Outcomes | None = None

    def per_arm(self, what: Literal["exposures", "credit", "value"], kind: int | None = None) -> FloatArray:
        """Return the sum of a cohort column per arm, over one kind of touch or all (shape (A,))."""
        c = self.cohorts
        values = getattr(c, what)
        if kind is not None:
            values = np.where(c.kind == kind, values, 0.0)
        return np.bincount(c.arm, weights=values, minlength=len(self.arms)).astype(np.float64)

    def spend_per_arm(self) -> FloatArray:
        """Return the spend per arm in units of the currency (shape (A,))."""
        return np.bincount(self.spend.arm, weights=self.spend.spend, minlength=len(self.arms)).astype(np.float64)

    def to_columns(self) -> dict[str, Any]:
        """Return one row per arm: tags, exposures by kind, spend, credited conversions with their interval, revenue, participation."""
        joined = {} if self.participation is None else {"participation": self.participation.per_arm("credit")}
        return {
            **self.arms.to_columns(),
            "clicks": self.per_arm("exposures", 0),
            "views": self.per_arm("exposures", 1),
            "spend": self.spend_per_arm(),
            "credit": self.credits.estimate,
            "credit_low": self.credits.low,
            "credit_high": self.credits.high,
            "value": self.per_arm("value"),
            **joined,
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the outcomes per arm as a frame."""
        return frame(self.to_columns(), library)

    def plot(self, ax: Any = None) -> Any:
        """Draw how cohorts mature: the share of conversions seen by day after the touch, by kind of touch; return the Axes."""
        from closedloop.display import plots

        bands = {kind: curve.band() for kind, curve in self.delay.items()}
        return plots.delay_curve(
            {kind: curve.share_seen for kind, curve in self.delay.items()},
            {kind: band[0] for kind, band in bands.items()},
            {kind: band[1] for kind, band in bands.items()},
            title="How cohorts mature (90% credible)",
            ax=ax,
        )

    def _title(self) -> str:
        until = from_us(max(self.watermark.values())).isoformat(timespec="minutes") if self.watermark else "no data"
        return (
            f"Outcomes: {self.model} under {self.window}, {self.n_conversions:,} conversions, "
            f"{self.n_uncredited:,} uncredited, data until {until}, revision {self.revision}"
        )

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=self._title())
