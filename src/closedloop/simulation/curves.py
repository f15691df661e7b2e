"""The market's truth: Hill response of exponent 1, its slope, and the best split of a total.

Law of this file: pure functions of arrays over arms; no randomness. ``clicks = (h / cpc) s / (h + s)``, so conversions are
``v s h / (h + s)`` with ``v`` conversions per unit of spend at the first unit, and the slope is ``v h^2 / (h + s)^2``.
"""

from __future__ import annotations

import attrs
import numpy as np

from closedloop.records.interval import FloatArray


@attrs.frozen(kw_only=True, eq=False)
class Truth:
    """What advertising really does on a day, by arm (shape (A,), in the order of ``Market.arms``).

    Args:
        conversions: Expected incremental conversions caused by a day's spend, whenever they come.
        marginal: Conversions that one more unit of spend would cause.
        spend: The budgets they belong to.
    """

    conversions: FloatArray
    marginal: FloatArray
    spend: FloatArray

    @property
    def total(self) -> float:
        """Expected incremental conversions of all arms."""
        return float(self.conversions.sum())

    @property
    def cost_per_incremental(self) -> float:
        """Units of currency per incremental conversion, infinite when there are none."""
        return float(self.spend.sum() / self.total) if self.total > 0 else float("inf")


def conversions_at(spend: FloatArray, value: FloatArray, half: FloatArray) -> FloatArray:
    """Return conversions a day for a spend a day (all shape (A,)).

    Args:
        spend: Units of currency a day.
        value: Conversions per unit of spend at the first unit.
        half: Half-saturation spend.
    """
    return np.asarray(value * spend * half / (half + spend))


def slope_at(spend: FloatArray, value: FloatArray, half: FloatArray) -> FloatArray:
    """Return conversions that the next unit of spend brings (shape (A,))."""
    return np.asarray(value * (half / (half + spend)) ** 2)


def best_split(total: float, value: FloatArray, half: FloatArray) -> FloatArray:
    """Return the spends of sum ``total`` with the most conversions: equal slopes where spent, a lower slope at zero elsewhere.

    With arms sorted by ``value``, the first ``k`` are funded at ``s = h (sqrt(v / price) - 1)``, and the price of a unit follows from the
    total in closed form.

    >>> best_split(30.0, np.array([4.0, 1.0]), np.array([10.0, 10.0])).round(2)
    array([23.33,  6.67])
    """
    order = np.argsort(-value, kind="stable")
    v, h = value[order], half[order]
    root_price = np.cumsum(h * np.sqrt(v)) / (total + np.cumsum(h))
    funded = np.sqrt(v) > root_price  # each arm is worth its first unit at the price that includes it; holds for a first stretch only
    k = int(np.argmin(funded)) if not funded.all() else len(v)
    best = np.zeros(len(v))
    if k and total > 0:
        best[:k] = h[:k] * (np.sqrt(v[:k]) / root_price[k - 1] - 1.0)
    spend = np.zeros(len(v))
    spend[order] = best
    return spend
