"""What a plan is made from: signals, limits and curves as arrays over the same arms.

Law of this file: it puts numbers side by side and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.decide.limits import Limits
from closedloop.errors import InputError
from closedloop.records.arms import Arm
from closedloop.records.decision import Constraints
from closedloop.records.money import MICROS, Money
from closedloop.records.signal import Signals
from closedloop.stats.concave import Curves
from closedloop.stats.response import Response

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@attrs.frozen(kw_only=True, eq=False)
class Problem:
    """Everything a plan is made from, as arrays over the A arms of the signals; money in steps.

    ``uneven`` is what the recent days brought on average, relative to what their mean spend brings (a budget that moves within the week).
    ``doubt`` is the spread of the log of each arm's level beyond its posterior rate: scatter of recent exposures, and discrepancy.
    """

    signals: Signals
    constraints: Constraints
    limits: Limits
    known: BoolArray
    budgets: Int64
    currency: str
    response: Response
    curves: Curves
    value: FloatArray
    uneven: FloatArray
    doubt: FloatArray
    unit: str


def read_budgets(signals: Signals, current: Mapping[Arm, Money] | None) -> tuple[Int64, BoolArray, str]:
    """Return budgets in micros, where they are known, and their currency."""
    own = signals.outcomes.currency
    n = len(signals)
    if current is None:
        return np.rint(signals.spend_per_day * MICROS).astype(np.int64), signals.spend_per_day > 0.0, own or "XXX"
    currencies = sorted({m.currency for m in current.values()} | ({own} if own else set()))
    if len(currencies) > 1:
        raise InputError("budgets and data are in several currencies", "current_budgets", currencies, "convert with a stated rate first")
    budgets, given = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    for i, arm in enumerate(signals.arms):
        money = current.get(arm)
        if money is None:
            continue
        if money.micros < 0:
            raise InputError("a budget is negative", "current_budgets", (arm, money), "give zero or more")
        budgets[i], given[i] = money.micros, True
    return budgets, given, currencies[0] if currencies else "XXX"
