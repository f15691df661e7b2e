"""An estimate with its uncertainty: one `Interval`, or many as columns in `Intervals`.

Law of this file: there is no default interval, no bare float for an estimate, and never a NaN. Ignorance is an infinite end
point, said aloud. Sums and differences of estimates go through joint draws and never through adding end points, so no
arithmetic is defined here; only monotone maps are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import frame, number
from closedloop.errors import ConfigurationError, InvariantError

IntervalKind = Literal["credible", "predictive", "bootstrap", "conformal", "anytime", "identified"]
FloatArray = npt.NDArray[np.float64]
_KINDS = get_args(IntervalKind)


def _check_kind(kind: str, level: float) -> None:
    if kind not in _KINDS:
        raise ConfigurationError("unknown kind of interval", "kind", kind, None, _KINDS)
    if not 0.0 < level < 1.0:
        raise ConfigurationError("a level lies between 0 and 1", "level", level, "use 0.9 for a 90 % interval")


@attrs.frozen(kw_only=True)
class Interval:
    """An estimate between two ends, with the level it claims and the kind of claim.

    Args:
        low: Lower end; may be ``-inf``.
        estimate: The central estimate, ``low <= estimate <= high`` (for posteriors, the median).
        high: Upper end; may be ``inf`` where nothing bounds it.
        level: The share of cases in which the interval holds the truth, in (0, 1).
        kind: ``credible`` (posterior of a parameter), ``predictive`` (of future counts), ``bootstrap``, ``conformal``,
            ``anytime`` (valid at every look) or ``identified`` (outer set when data are missing in an unknown way).

    Raises:
        InvariantError: The ends are out of order, or something is NaN.
        ConfigurationError: The level or the kind is not valid.

    >>> Interval(low=0.01, estimate=0.02, high=0.04, level=0.9, kind="credible")
    0.02 [0.01, 0.04] (90 % credible)
    """

    low: float = attrs.field(converter=float)
    estimate: float = attrs.field(converter=float)
    high: float = attrs.field(converter=float)
    level: float
    kind: IntervalKind

    def __attrs_post_init__(self) -> None:
        _check_kind(self.kind, self.level)
        if not self.low <= self.estimate <= self.high:
            raise InvariantError("an interval needs low <= estimate <= high", "interval", (self.low, self.estimate, self.high))

    @property
    def width(self) -> float:
        """``high - low``; infinite when an end is."""
        return self.high - self.low if not math.isinf(self.high - self.low) else math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def map(self, monotone: Callable[[float], float]) -> Interval:
        """Return the interval of a monotone transform (increasing or decreasing) of the quantity.

        >>> Interval(low=0.01, estimate=0.02, high=0.04, level=0.9, kind="credible").map(lambda rate: 1 / rate)
        50 [25, 100] (90 % credible)
        """
        ends = sorted((monotone(self.low), monotone(self.high)))
        return attrs.evolve(self, low=ends[0], estimate=monotone(self.estimate), high=ends[1])

    def __str__(self) -> str:
        return f"{number(self.estimate)} [{number(self.low)}, {number(self.high)}]"

    def __repr__(self) -> str:
        return f"{self} ({number(100 * self.level)} % {self.kind})"

    @classmethod
    def of_draws(cls, draws: npt.ArrayLike, *, level: float, kind: IntervalKind = "credible") -> Interval:
        """Return the equal-tailed interval and the median of posterior ``draws`` (shape (D,))."""
        tail = (1.0 - level) / 2.0
        low, estimate, high = np.quantile(np.asarray(draws, dtype=float), [tail, 0.5, 1.0 - tail])
        return cls(low=low, estimate=estimate, high=high, level=level, kind=kind)


def _float_array(values: Any) -> FloatArray:
    return np.ascontiguousarray(values, dtype=np.float64)


@attrs.frozen(kw_only=True, eq=False)
class Intervals:
    """Many intervals of one level and kind, as columns; ``intervals[i]`` is an `Interval`.

    Args:
        low, estimate, high: Arrays of shape (A,), ordered element by element, without NaN.
        level: As in `Interval`.
        kind: As in `Interval`.
    """

    low: FloatArray = attrs.field(converter=_float_array)
    estimate: FloatArray = attrs.field(converter=_float_array)
    high: FloatArray = attrs.field(converter=_float_array)
    level: float
    kind: IntervalKind

    def __attrs_post_init__(self) -> None:
        _check_kind(self.kind, self.level)
        if not self.low.shape == self.estimate.shape == self.high.shape:
            raise InvariantError("the three columns of intervals differ in shape", "low", self.low.shape)
        wrong = np.flatnonzero(~((self.low <= self.estimate) & (self.estimate <= self.high)))
        if len(wrong):
            i = int(wrong[0])
            found = (float(self.low[i]), float(self.estimate[i]), float(self.high[i]))
            raise InvariantError(f"interval {i} needs low <= estimate <= high", "intervals", found)

    def __len__(self) -> int:
        return len(self.estimate)

    def __getitem__(self, index: int) -> Interval:
        return Interval(
            low=float(self.low[index]),
            estimate=float(self.estimate[index]),
            high=float(self.high[index]),
            level=self.level,
            kind=self.kind,
        )

    def __iter__(self) -> Iterator[Interval]:
        return (self[i] for i in range(len(self)))

    def take(self, index: npt.ArrayLike) -> Intervals:
        """Return the intervals at the given positions, in that order."""
        at = np.asarray(index)
        return attrs.evolve(self, low=self.low[at], estimate=self.estimate[at], high=self.high[at])

    def map(self, monotone: Callable[[FloatArray], FloatArray]) -> Intervals:
        """Return the intervals of a monotone (increasing or decreasing) transform, applied to whole columns."""
        one, other = monotone(self.low), monotone(self.high)
        return attrs.evolve(self, low=np.minimum(one, other), estimate=monotone(self.estimate), high=np.maximum(one, other))

    @classmethod
    def of_draws(cls, draws: npt.ArrayLike, *, level: float, kind: IntervalKind = "credible") -> Intervals:
        """Return equal-tailed intervals and medians of joint ``draws`` of shape (D, A)."""
        tail = (1.0 - level) / 2.0
        low, estimate, high = np.quantile(np.asarray(draws, dtype=float), [tail, 0.5, 1.0 - tail], axis=0)
        return cls(low=low, estimate=estimate, high=high, level=level, kind=kind)

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return columns low, estimate, high, level, kind as a frame."""
        n = len(self)
        columns = {"low": self.low, "estimate": self.estimate, "high": self.high, "level": [self.level] * n, "kind": [self.kind] * n}
        return frame(columns, library)
