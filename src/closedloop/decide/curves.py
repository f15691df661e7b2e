"""What the daily cohorts and spend in the signals say: the response curve of every arm, and which arms certainly differ.

Law of this file: two stages where clicks are reported (spend -> clicks here, clicks -> conversions in the classification's posterior), one
stage on credited conversions elsewhere. Arms that neither informs keep the prior. Clicks saturate: a Hill curve unless another shape
predicts clearly better; conversions follow a power law unless another does.

References:
    STATISTICS.md section 5.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.moments import US_PER_DAY
from closedloop.records.outcomes import Outcomes
from closedloop.records.signal import Signals
from closedloop.stats.response import HILL, POWER, Response, ResponsePrior
from closedloop.stats.response_fit import DailyCounts, choose_response
from closedloop.stats.sequences_share import certain

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_RECENT_DAYS = 7  # over which signals measure exposures and spend a day
_DAYS = 180  # older days say little of today's curve
_CELLS = 5_000_000  # days x arms that the evidence valid at every look is computed for


@attrs.frozen(kw_only=True, eq=False)
class Learned:
    """What daily spend and counts say of each arm.

    Args:
        response: The posterior curves.
        scatter: Spread of the log of the recent exposures a day around what the same spend brings on average: the days of a week
            scatter, and a level that is read off them is not exact. Shape (A,).
        uneven: What the recent days brought on average, relative to what their mean spend brings: under 1 where a budget moved within
            the week and returns diminish. Shape (A,).
    """

    response: Response
    scatter: FloatArray
    uneven: FloatArray

    @classmethod
    def nothing(cls, prior: ResponsePrior, at: FloatArray) -> Learned:
        """Return what is known before any data."""
        return cls(response=Response.from_prior(prior, at), scatter=np.zeros(len(at)), uneven=np.ones(len(at)))


def learn(signals: Signals, at: FloatArray, prior: ResponsePrior, observed_weight: float) -> Learned:
    """Return the posterior curves of the arms of the signals, and how far the recent week's exposures scatter.

    Args:
        signals: With the outcomes they were made from.
        at: Reference spend a day, above zero, shape (A,).
        prior: Prior of the curves.
        observed_weight: Weight of spend that was not randomised, in (0, 1].
    """
    position = _positions(signals)
    clicks, conversions = daily_counts(signals.outcomes, position)
    today = max(signals.outcomes.watermark.values(), default=signals.now_us) // US_PER_DAY
    with_clicks = np.bincount(clicks.arm, weights=clicks.count, minlength=len(at)) > 0.0
    learned = Learned.nothing(prior, at)
    response, scatter, uneven = learned.response, learned.scatter, learned.uneven
    for data, mine, usual in ((clicks, with_clicks, HILL), (conversions, ~with_clicks, POWER)):
        rows = mine[data.arm] & (data.day < today) & (data.day >= today - _DAYS)  # today is not over: its spend and clicks are a part
        if rows.any():
            part = DailyCounts(**{f.name: getattr(data, f.name)[rows] for f in attrs.fields(DailyCounts)})
            found = choose_response(part, at, prior, today=int(today), default=usual, observed_weight=observed_weight)
            response = _where(mine, found.response, response)
            recent = part.day >= today - _RECENT_DAYS
            arm, count, spend = part.arm[recent], part.count[recent], part.spend[recent]
            days, seen = np.bincount(arm, minlength=len(at)), np.bincount(arm, weights=count, minlength=len(at))
            if data is clicks:
                scatter = np.where(mine & (seen > 0.0), np.sqrt(found.dispersion / np.maximum(seen, 1.0)), scatter)
            curve = response.take(arm)
            relative = np.bincount(arm, weights=curve.ratio(spend, curve.location[None])[0], minlength=len(at)) / np.maximum(days, 1)
            mean = np.bincount(arm, weights=spend, minlength=len(at)) / np.maximum(days, 1)
            steady = mine & (days > 0) & (np.abs(mean / at - 1.0) < 0.01)  # signals speak of the same days
            uneven = np.where(steady, np.maximum(relative, 0.1), uneven)
    return Learned(response=response, scatter=scatter, uneven=uneven)


def certain_moves(signals: Signals, arms: IntArray, rises: npt.NDArray[np.bool_], alpha: float) -> list[bool | None]:
    """Return for each move whether it is certain: its arm earns more (less) than the others by evidence valid at every look.

    Only closed cohorts enter (their counts no longer change), and only whole counts: fractional credit has no such guarantee (None). The
    chance that *any* move is ever called certain while all arms are alike is at most ``alpha``. STATISTICS.md section 9.

    Args:
        signals: The evidence.
        arms: Positions of the m arms that move.
        rises: Whether each gets more money, shape (m,).
        alpha: Level of false answers.
    """
    outcomes = signals.outcomes
    whole = np.array_equal(outcomes.cohorts.credit, np.rint(outcomes.cohorts.credit))
    if not len(arms) or not whole or not np.array_equal(outcomes.cohorts.credit, outcomes.cohorts.credit_squared):
        return [None] * len(arms)
    data = daily_counts(outcomes, _positions(signals))[1]
    last = min(outcomes.watermark.values(), default=0) // US_PER_DAY - outcomes.window.longest_days - 1
    rows = data.day <= last
    days, place = np.unique(data.day[rows], return_inverse=True)
    if not len(days) or len(days) * len(signals) > _CELLS:
        return [None] * len(arms)
    count, spend = np.zeros((len(days), len(signals))), np.zeros((len(days), len(signals)))
    np.add.at(count, (place, data.arm[rows]), data.count[rows])
    np.add.at(spend, (place, data.arm[rows]), data.spend[rows])
    better, worse = certain(count, spend, alpha=alpha, streams=arms)
    return [bool(b if up else w) for b, w, up in zip(better, worse, rises, strict=True)]


def _where(mine: npt.NDArray[np.bool_], one: Response, other: Response) -> Response:
    return Response(**{f.name: np.where(mine, getattr(one, f.name), getattr(other, f.name)) for f in attrs.fields(Response)})


def _positions(signals: Signals) -> IntArray:
    """Return the position in the signals of each arm of the outcomes, -1 where it is not ranked."""
    where = {arm: i for i, arm in enumerate(signals.arms)}
    return np.array([where.get(arm, -1) for arm in signals.outcomes.arms], dtype=np.int64)


def daily_counts(outcomes: Outcomes, position: IntArray) -> tuple[DailyCounts, DailyCounts]:
    """Return clicks, and credited conversions of all touch kinds, by arm and day with spend.

    Args:
        outcomes: Cohorts and spend.
        position: Where each of its arms goes, -1 to leave it out.
    """
    cohorts, spend = outcomes.cohorts, outcomes.spend
    keep = position[spend.arm] >= 0
    arm, day, amount = spend.arm[keep].astype(np.int64), spend.day[keep].astype(np.int64), spend.spend[keep]
    key = arm * (1 << 32) + day  # sorted, as the rows of spend are
    place = np.searchsorted(key, cohorts.arm.astype(np.int64) * (1 << 32) + cohorts.day)
    place = np.minimum(place, max(len(key) - 1, 0))
    found = (key[place] == cohorts.arm.astype(np.int64) * (1 << 32) + cohorts.day) if len(key) else np.zeros(len(cohorts), dtype=bool)

    def total(values: FloatArray, rows: npt.NDArray[np.bool_]) -> FloatArray:
        return np.bincount(place[rows], weights=values[rows], minlength=len(key)).astype(np.float64)

    clicked = found & (cohorts.kind == 0)
    exposures = total(cohorts.exposures, found)
    mature = total(cohorts.exposures * cohorts.maturity, found) / np.maximum(exposures, 1e-300)
    here = position[arm]
    clicks = DailyCounts(arm=here, day=day, spend=amount, count=total(cohorts.exposures, clicked), maturity=np.ones(len(key)))
    credit = np.maximum(total(cohorts.credit, found), 0.0)
    return clicks, DailyCounts(arm=here, day=day, spend=amount, count=credit, maturity=mature)
