"""From the credit of channels to the credit of arms, with the spread of both.

Law of this file: a channel's credit ``C`` reaches its arms as ``C / n`` for each of the ``n`` converting journeys that contain the channel,
split over its touches in that journey (STATISTICS section 10). A channel in no converting journey may have an effect (through the moves of
null journeys), yet has no touch that could be credited: its share goes to the others in proportion, so that sums stay exact.

A replicate of an arm's credit is a replicate of its channel's credit (bootstrap over journeys) times a draw of the arm's share among the
channel's arms (normalised Gamma draws of its unit credit, tempered as fractional credit is).
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv

from closedloop.attribute.global_credit import global_credits
from closedloop.attribute.paths import PathCounts
from closedloop.records.arms import IntArray
from closedloop.records.interval import FloatArray, Intervals
from closedloop.stats.bootstrap import percentile_ends


@attrs.frozen(kw_only=True, eq=False)
class ChannelCredit:
    """Credited conversions and revenue of C channels, and B replicates of the conversions."""

    conversions: FloatArray
    value: FloatArray
    draws: FloatArray


def channel_credit(
    paths: PathCounts, model: str, order: int, units: FloatArray, value_units: FloatArray, replicates: int, rng: np.random.Generator
) -> ChannelCredit:
    """Return the credit of each channel by a model of whole journeys.

    Args:
        paths: All journeys, over C channels.
        model: Its name.
        order: Of a Markov chain.
        units, value_units: Converting journeys that contain each channel, and their revenue, shape (C,).
        replicates: Bootstrap replicates.
        rng: Where chance comes from.
    """
    c = len(units)
    if not len(paths.codes):
        return ChannelCredit(conversions=np.zeros(c), value=np.zeros(c), draws=np.zeros((replicates, c)))
    points, draws = global_credits(paths, model, order, replicates, rng)
    return ChannelCredit(
        conversions=_creditable(points[0], units > 0, paths.conversions.sum()),
        value=_creditable(points[1], value_units > 0, paths.value.sum()),
        draws=_creditable(draws[0], units > 0, draws[0].sum(axis=-1, keepdims=True)),
    )


def _creditable(credit: FloatArray, possible: npt.NDArray[np.bool_], total: FloatArray | float) -> FloatArray:
    """Return the credit of the channels that can have any, scaled to the total."""
    kept = np.where(possible, credit, 0.0)
    sums = kept.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(kept, sums, out=np.zeros_like(kept), where=sums != 0) * total)


def arm_intervals(
    channel: IntArray,
    estimate: FloatArray,
    units: FloatArray,
    units_squared: FloatArray,
    credit: ChannelCredit,
    level: float,
    rng: np.random.Generator,
) -> Intervals:
    """Return the credit of A arms with the intervals of its replicates.

    An arm in no converting journey gets the upper end of a count of zero, worth as much as a journey of the others.

    Args:
        channel: Channel of each arm, shape (A,).
        estimate: Credit of each arm, shape (A,).
        units, units_squared: Unit credit of each arm and the sum of its squares, shape (A,).
        credit: Credit of the channels.
        level: Level of the intervals.
        rng: Where chance comes from.
    """
    b, c = credit.draws.shape
    some = np.flatnonzero(units > 0)
    phi = units_squared[some] / units[some]
    drawn = rng.gamma(units[some] / phi, phi, (b, len(some)))
    of = channel[some]
    many = np.bincount(of, minlength=c)[of] > 1
    sums = np.zeros((c, b))
    np.add.at(sums, of, drawn.T)
    share = np.where(many, np.divide(drawn, sums[of].T, out=np.zeros_like(drawn), where=sums[of].T > 0), 1.0)
    low, high = np.zeros(len(units)), np.zeros(len(units))
    if len(some):
        low[some], high[some] = percentile_ends(credit.draws[:, of] * share, level)
    worth = credit.conversions.sum() / units.sum() if len(some) else 1.0
    high[units <= 0] = worth * float(gammaincinv(0.5, (1.0 + level) / 2.0))
    return Intervals(low=np.minimum(low, estimate), estimate=estimate, high=np.maximum(high, estimate), level=level, kind="bootstrap")
