"""What a hold says is missing, against the arithmetic of a Normal and a growing budget."""

from __future__ import annotations

import re

import pytest
from scipy.stats import norm

from closedloop.decide import BudgetDecider
from closedloop.records.decision import Constraints

STRICT = {"min_probability": 0.99, "gate": "evidence"}


def test_what_is_missing_until_a_difference_would_pass(signals_of):
    """A z-value grows with the root of the volume: from chance p to 0.99 it takes ``(z(0.99) / z(p))^2`` times the conversions."""
    signals = signals_of([20, 22], [100, 100], days=7)
    plan = BudgetDecider(Constraints(**STRICT), alike=1.0).decide(signals)
    holds = [h for h in plan.holds if h.reason == "thin_evidence"]
    assert len(holds) == 2
    for h in holds:
        i = list(signals.arms).index(h.arm)
        assert 0.55 < h.triggers["p_gain"] < 0.99
        times = (norm.ppf(0.99) / norm.ppf(h.triggers["p_gain"])) ** 2
        missing = (times - 1) * signals.effective_volume[i]
        assert h.triggers["conversions_missing"] == pytest.approx(missing)
        assert h.triggers["days_at_current_pace"] == pytest.approx(missing / [20, 22][i])


def test_a_difference_that_is_none_needs_an_unknown_amount(signals_of):
    """At even odds no number of conversions is named."""
    plan = BudgetDecider(Constraints(**STRICT), alike=1.0).decide(signals_of([20, 20], [100, 100], days=7))
    for h in plan.holds:
        assert h.reason in ("thin_evidence", "no_gain")
        if h.reason == "thin_evidence" and h.triggers["p_gain"] < norm.cdf(0.02):
            assert h.triggers["conversions_missing"] is None


@pytest.mark.parametrize(("total", "plans"), [(100, 3), (400, 3), (199, None), (241, 1)])
def test_how_many_plans_a_total_takes(signals_of, total, plans):
    """From 200 a day in steps of at most a fifth each plan reaches 0.8 (or 1.2) of what it had: counted by going there."""
    plan = BudgetDecider(Constraints(total=total, gate="evidence")).decide(signals_of([20, 22], [100, 100]))
    found = plan.provenance.get("total")
    if plans is None:
        assert found is None
        return
    after, n = 240.0 if total > 200 else 160.0, 0
    while (after < total) if total > 200 else (after > total):
        after, n = after * (1.2 if total > 200 else 0.8), n + 1
    assert found["plans_to_go"] == n == plans
    assert (found["asked"], found["reached"]) == (total, 240 if total > 200 else 160)


def test_amounts_are_in_the_currency(signals_of):
    """What a hold and a total say in words is what budgets are in: 100 and 160 of the currency, not steps or millionths."""
    signals = signals_of([20, 22], [100, 100], days=7)
    for h in BudgetDecider(Constraints(**STRICT), alike=1.0).decide(signals).holds:
        amount = float(re.search(r"moving it to ([\d.,]+) EUR", h.explanation)[1])
        assert 80 <= amount <= 120
    found = BudgetDecider(Constraints(total=100, gate="evidence")).decide(signals).provenance
    assert found["total"]["words"].startswith("100 EUR a day were asked for, 160 EUR is as near as")
    assert "ceilings" not in found["total"]["words"]
    assert (found["total_before"], found["total_after"]) == (200.0, 160.0)
