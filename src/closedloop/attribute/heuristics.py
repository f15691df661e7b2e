"""Rules that share one conversion among the touches of its own journey: first, last, linear, position, time-decay, Shapley.

Law of this file: a share depends on its journey alone, never on other journeys, so these models settle day by day. Weights are made here,
per touch; they are divided by their journey's sum elsewhere.

``shapley`` is the exact Shapley value of the game "conversions of journeys whose channels all lie in the coalition": each journey's
conversion is split evenly over its *distinct* channels (Zhao, Mahboobi & Bagheri 2018, closed form), and over the touches of each channel.
``ordered_shapley`` is their value by position: the same totals by channel, read along the journey.

References:
    Zhao, Mahboobi & Bagheri (2018), Shapley value methods for attribution modeling in online advertising. arXiv:1804.05327.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError, InputError
from closedloop.records.arms import IntArray
from closedloop.records.interval import FloatArray


@attrs.frozen(kw_only=True, eq=False)
class Touches:
    """The touches of journeys, one after another, in order of time: what a rule may look at.

    Args:
        journey: Journey of each touch, sorted, shape (T,).
        channel: Channel code of each touch.
        position: 0 for the first touch of its journey.
        length: Touches of its journey.
        age: Days between the touch and the conversion; touches until the conversion where no times are known.
    """

    journey: IntArray
    channel: IntArray
    position: IntArray
    length: IntArray
    age: FloatArray

    @classmethod
    def of(cls, journey: IntArray, channel: IntArray, age: FloatArray | None = None) -> Touches:
        """Return touches with their positions; ``journey`` is sorted."""
        new = np.ones(len(journey), dtype=np.bool_)
        new[1:] = journey[1:] != journey[:-1]
        lengths = np.diff(np.append(np.flatnonzero(new), len(journey)))
        return attrs.evolve(cls.of_lengths(lengths, channel, age), journey=journey)

    @classmethod
    def of_lengths(cls, lengths: IntArray, channel: IntArray, age: FloatArray | None = None) -> Touches:
        """Return the touches of journeys 0, 1, 2 and so on, of these lengths (from 1 up)."""
        ends = np.cumsum(lengths)
        length = np.repeat(lengths, lengths)
        position = np.arange(len(length)) - np.repeat(ends - lengths, lengths)
        ages = (length - 1 - position).astype(np.float64) if age is None else age
        journey = np.repeat(np.arange(len(lengths)), lengths)
        return cls(journey=journey, channel=np.asarray(channel, dtype=np.int64), position=position, length=length, age=ages)


Rule = Callable[[Touches], npt.ArrayLike]


def first(t: Touches) -> FloatArray:
    """Weigh the first touch only."""
    return np.asarray(t.position == 0, dtype=np.float64)


def last(t: Touches) -> FloatArray:
    """Weigh the last touch only."""
    return np.asarray(t.position == t.length - 1, dtype=np.float64)


def linear(t: Touches) -> FloatArray:
    """Weigh all touches alike."""
    return np.ones(len(t.journey))


def last_non_direct(direct: npt.NDArray[np.bool_]) -> Rule:
    """Weigh the last touch whose channel is not direct; the last touch where all are.

    Args:
        direct: Whether each channel code is direct, shape (C,).
    """

    def rule(t: Touches) -> FloatArray:
        if not len(t.journey):
            return np.zeros(0)
        place = np.arange(len(t.journey))
        start = place - t.position
        known = np.maximum.accumulate(np.where(direct[t.channel], -1, place))
        end = start + t.length - 1
        chosen = np.where(known[end] >= start, known[end], end)
        return np.asarray(place == chosen, dtype=np.float64)

    return rule


def position_based(ends: tuple[float, float] = (0.4, 0.4)) -> Rule:
    """Give fixed shares to the first and the last touch and the rest to those between; without any between, the ends share by their ratio.

    Raises:
        ConfigurationError: The shares are negative or sum to more than 1.
    """
    start, end = ends
    if not (start >= 0 and end >= 0 and 0 < start + end <= 1):
        raise ConfigurationError("shares of first and last touch lie in [0, 1] and sum to at most 1", "position", ends, "use (0.4, 0.4)")

    def rule(t: Touches) -> FloatArray:
        between = np.where(t.length > 2, (1.0 - start - end) / np.maximum(t.length - 2, 1), 0.0)
        w = np.where(t.position == 0, start, np.where(t.position == t.length - 1, end, between))
        return np.asarray(np.where(t.length == 1, 1.0, w))

    return rule


def time_decay(half_life: float) -> Rule:
    """Halve the weight for each ``half_life`` days between touch and conversion (touches, where no times are known).

    Raises:
        ConfigurationError: The half-life is not above 0.
    """
    if not (half_life > 0 and np.isfinite(half_life)):
        raise ConfigurationError("a half-life lies above 0", "half_life", half_life, "use 7 for a week")

    def rule(t: Touches) -> FloatArray:
        # Measured from the youngest touch of the journey: far older journeys would otherwise underflow to no weight at all.
        youngest = t.age[np.arange(len(t.journey)) - t.position + t.length - 1] if len(t.journey) else t.age
        return np.asarray(np.exp2(-(t.age - youngest) / half_life))

    return rule


def shapley(t: Touches) -> FloatArray:
    """Split evenly over the distinct channels of the journey, and over the touches of each (any total per journey)."""
    if not len(t.journey):
        return np.zeros(0)
    pair = t.journey * (int(t.channel.max()) + 1) + t.channel
    _, group, count = np.unique(pair, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / count[group])


def shares(t: Touches, rule: Rule) -> FloatArray:
    """Return the share of its journey's conversion that each touch gets under a rule; they sum to 1 in each journey.

    Raises:
        InputError: The rule gave a negative weight, none at all for a journey, or the wrong number of weights.
    """
    w = np.asarray(rule(t), dtype=np.float64)
    if w.shape != t.journey.shape:
        raise InputError("a rule gives one weight for each touch", "model", w.shape, f"give {len(t.journey)} weights")
    if not len(w):
        return w
    if not np.isfinite(w).all() or w.min() < 0:
        raise InputError("a rule gives weights from 0 up", "model", float(w[~np.isfinite(w) | (w < 0)][0]), "give finite weights")
    starts = np.flatnonzero(t.position == 0)
    total = np.add.reduceat(w, starts)
    if total.min() <= 0:
        raise InputError(
            "a rule gave a journey no weight", "model", int(t.journey[starts[int(total.argmin())]]), "weigh at least one touch"
        )
    return np.asarray(w / np.repeat(total, t.length[starts]))
