"""Accounts in several currencies in one loop: thought of in one, read and sent in each account's own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import closedloop as cl
from closedloop.loop import render

WINDOW = cl.AttributionWindow(click="3d", view=None)
TAGS = cl.TagSchema(arm=("platform", "campaign"))
START = datetime(2026, 3, 2, tzinfo=UTC)
ACCOUNTS = {"eu": "EUR", "us": "USD", "jp": "JPY"}
COST = {"EUR": 100.0, "USD": 125.0, "JPY": 16_000.0}  # all worth 100 EUR
RATES = {"USD": 0.8, "JPY": {"2026-01-01": 1 / 160, "2026-06-01": 1 / 200}}
EVERY = {"eu": 25, "us": 5, "jp": 10}  # one click in so many converts


def rows_of(day: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    at = START + timedelta(days=day)
    for platform, currency in ACCOUNTS.items():
        where = {"platform": platform, "campaign": "a", "currency": currency}
        rows.append({"event_id": f"s{day}{platform}", "kind": "spend", "occurred_at": at, "cost": COST[currency], **where})
        for i in range(250):
            user, moment = f"{day}-{platform}-{i}", at + timedelta(minutes=i)
            rows.append({"event_id": f"k{user}", "kind": "click", "occurred_at": moment, "user_id": user, **where})
            if i % EVERY[platform] == 0:
                rows.append({"event_id": f"c{user}", "kind": "conversion", "occurred_at": moment + timedelta(hours=3), "user_id": user})
    return rows


def platforms() -> dict[str, cl.SimulatedPlatform]:
    return {name: cl.SimulatedPlatform({"a": cl.Money.of(COST[c], c)}, name=name) for name, c in ACCOUNTS.items()}


def run(days: int = 3, **parts: Any) -> tuple[cl.ClosedLoop, cl.CycleReport]:
    constraints = cl.Constraints(minimum_volume=20, min_probability=0.6)
    given = {"platforms": platforms(), "constraints": constraints, "tags": TAGS, "currency": "EUR", "rates": RATES, **parts}
    loop = cl.ClosedLoop(window=WINDOW, **given)
    for day in range(days):
        report = loop.run_cycle(rows_of(day), now=START + timedelta(days=day + 1))
    return loop, report


def test_each_account_is_read_and_told_in_its_own_currency() -> None:
    """Money goes from the poor account in euros to the good one in dollars; each hears whole minor units of its own."""
    loop, _ = run()
    now = START + timedelta(days=4)
    stands = {name: p.budget_at("a", now) for name, p in loop.platforms.items()}
    assert {name: m.currency for name, m in stands.items()} == ACCOUNTS
    assert stands["us"].units > 125.0
    assert stands["eu"].units < 100.0
    assert stands["jp"].micros % 1_000_000 == 0
    assert {r.state for r in loop.receipts()} == {"confirmed"}


def test_the_total_holds_in_the_loops_currency_after_rounding() -> None:
    """Converted by the same table, the budgets never add up to more than before, and to less by no more than their minor units."""
    loop, _ = run(days=5)
    now = START + timedelta(days=6)
    stands = [p.budget_at("a", now) for p in loop.platforms.values()]
    worth = sum(m.units * {"EUR": 1.0, "USD": 0.8, "JPY": 1 / 160}[m.currency] for m in stands)
    assert 300.0 - 5 * (0.01 + 0.008 + 1 / 160) <= worth <= 300.0 + 1e-9


def test_spend_is_compared_in_one_currency() -> None:
    """The three accounts spent the same in the loop's currency, to the cent: 100 euros a day each, whatever they were billed in."""
    _, report = run(days=3, mode="shadow")
    spent = dict(zip(report.outcomes.arms.column("platform").decode(), report.outcomes.spend_per_arm(), strict=True))
    assert {p: round(float(v), 2) for p, v in spent.items() if p is not None} == {"eu": 300.0, "us": 300.0, "jp": 300.0}
    assert report.outcomes.currency == "EUR"
    assert [s.arm[0] for s in report.signals] == ["us", "jp", "eu"]


def test_a_decision_in_another_currency_says_so_and_is_replayed() -> None:
    """The plan names both amounts; made again from the ledger it is the same to the bit, whatever the table says today."""
    loop, report = run()
    told = {d.arm[0]: d for d in report.plan.decisions}
    assert told["us"].before.currency == told["us"].after.currency == "USD"
    assert "own currency" in told["us"].reason
    assert "own currency" not in told["eu"].reason
    loop.rates = {"USD": 0.5}
    assert cl.replay(loop).identical


def test_a_budget_without_a_rate_is_held_and_the_others_move() -> None:
    """No rate for yen: that account's rows are set aside, its arm is held with the mend, and the rest goes on."""
    rates = {"USD": 0.8}
    rows = [r for day in range(3) for r in rows_of(day)]
    for row in rows:
        if row.get("platform") == "jp":
            row["currency"] = "EUR"  # the data of the account are in euros already; only its budget is in yen
            row["cost"] = 100.0 if row["kind"] == "spend" else 0.0
    constraints = cl.Constraints(minimum_volume=20, min_probability=0.6)
    loop = cl.ClosedLoop(window=WINDOW, tags=TAGS, currency="EUR", rates=rates, platforms=platforms(), constraints=constraints)
    report = loop.run_cycle(rows, now=START + timedelta(days=3))
    (hold,) = (h for h in report.plan.holds if h.arm[0] == "jp")
    assert hold.reason == "integration"
    assert "rates={'JPY': ...}" in hold.explanation
    assert {d.arm[0] for d in report.plan.decisions} == {"eu", "us"}


@pytest.mark.parametrize(("currency", "rates"), [(None, {"USD": 0.8}), ("EUR", {"USD": -1.0}), ("EUR", {"USD": {"soon": 1.0}})])
def test_a_table_that_is_none_is_refused(currency: str | None, rates: Any) -> None:
    """No currency to lead to, a negative rate, a day that is none: named when the loop is made."""
    with pytest.raises(cl.ConfigurationError, match=r"currency|rate|date"):
        cl.ClosedLoop(window=WINDOW, currency=currency, rates=rates)


def test_the_report_of_several_currencies_compares_like_with_like() -> None:
    """Bars of different currencies are shares of what was before; no sum over currencies is shown, and one hold is one budget."""
    _, report = run()
    page = render(report)
    assert "% of before" in page
    assert "125.00 → <b>150.00 USD</b>" in page
    assert "All budgets" not in page
    if len(report.plan.holds) == 1:
        assert "1 budget stays as it is" in page
