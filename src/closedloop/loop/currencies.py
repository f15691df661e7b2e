"""Budgets in the currency of each account, in a loop that thinks in one.

Law of this file: a budget is read and sent in the account's own currency, and only in between is it worth so much of the loop's. Rates are
the user's, those of the day of the cycle, and recorded with the plan. What stands is never recomputed: the amount that a decision saw
before it is the amount that was read. A new budget is rounded down to its own minor unit, so that rounding never spends more than was
decided.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from closedloop.records.arms import Arm
from closedloop.records.decision import Decision, Hold, Plan
from closedloop.records.money import MICROS, Money


def exchanged(budgets: Mapping[Arm, Money], currency: str, rates: Mapping[str, float]) -> dict[Arm, Money]:
    """Return the budgets in one currency, to its minor unit.

    Args:
        budgets: As they stand.
        currency: The one to have.
        rates: Its units for one unit of each other currency.

    >>> exchanged({("ads",): Money.of(100, "USD")}, "EUR", {"USD": 0.9})
    {('ads',): 90.00 EUR}
    """
    return {
        arm: money if money.currency == currency else Money(round(money.micros * rates[money.currency]), currency).rounded()
        for arm, money in budgets.items()
    }


def in_own_currency(plan: Plan, standing: Mapping[Arm, Money], rates: Mapping[str, float]) -> Plan:
    """Return the plan with the budgets of each arm in the currency in which its account has them.

    Args:
        plan: Made in one currency.
        standing: Budgets as they were read.
        rates: Units of the plan's currency for one unit of each other.
    """

    def moved(decision: Decision) -> Decision:
        stands = standing.get(decision.arm, decision.before)
        if stands.currency == decision.after.currency:
            return decision
        step = MICROS // Money.of(1, stands.currency).minor_units
        micros = int(decision.after.micros / rates[stands.currency]) // step * step
        after = Money(micros, stands.currency)
        words = f"{decision.reason.rstrip('.')}; in the account's own currency {stands} to {after}, at {rates[stands.currency]:g}"
        return attrs.evolve(decision, before=stands, after=after, reason=words)

    def left(hold: Hold) -> Hold:
        return attrs.evolve(hold, budget=standing[hold.arm]) if hold.budget is not None and hold.arm in standing else hold

    moves = [moved(d) for d in plan.decisions]
    return attrs.evolve(plan, decisions=tuple(moves), holds=tuple(left(h) for h in plan.holds))
