"""What the daily cohorts and spend in the signals say: the response curve of every arm, and which arms certainly differ.

Law of this file: two stages where clicks are reported (spend -> clicks here, clicks -> conversions in the classification's posterior), one
stage on credited conversions elsewhere. Arms that neither informs keep the prior.

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
from closedloop.stats.response import Response, ResponsePrior
from closedloop.stats.response_fit import DailyCounts, choose_response
from closedloop.stats.sequences_share import certain

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_DAYS = 180  # older days say little of today's curve
_CELLS = 5_000_000  # days x arms that the evidence valid at every look is computed for


def learn(signals: Signals, at: FloatArray, prior: ResponsePrior, observed_weight: float) -> Response:
    """Return the posterior curves of the arms of the signals.

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
    response = Response.from_prior(prior, at)
    for data, mine in ((clicks, with_clicks), (conversions, ~with_clicks)):
        rows = mine[data.arm] & (data.day < today) & (data.day >= today - _DAYS)  # today is not over: its spend and clicks are a part
        if rows.any():
            part = DailyCounts(**{f.name: getattr(data, f.name)[rows] for f in attrs.fields(DailyCounts)})
            found = choose_response(part, at, prior, today=int(today), observed_weight=observed_weight).response
            response = _where(mine, found, response)
    return response


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
    arms = signals.outcomes.arms
    position = np.full(len(arms), -1, dtype=np.int64)
    where = {arm: i for i, arm in enumerate(signals.arms)}
    for i, arm in enumerate(arms):
        position[i] = where.get(arm, -1)
    return position


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
