"""Two counters of the same purchases: ours count, the platforms' are compared arm by arm, and no decision changes because of them."""

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import closedloop as cl
from closedloop.health import Thresholds
from closedloop.simulation import Simulator, WindowMismatch, small
from closedloop.stats.rates import ratio_interval, ratio_intervals

WINDOW = cl.AttributionWindow(click="7d", view="1d")
BUSY = small(touched={"prospecting": 0.01, "retargeting": 0.03, "brand": 0.01}, organic=60.0)
DAYS = 8


def loop_in(simulator: Simulator, **parts: Any) -> cl.ClosedLoop:
    limits = cl.Constraints(total=simulator.market.scenario.total, gate="evidence", max_step=0.3)
    return cl.ClosedLoop(
        window=WINDOW, platforms=simulator.platforms, constraints=limits, **{"thresholds": Thresholds(minimum_volume=0.0), **parts}
    )


def run(days: int, *faults: Any, **parts: Any) -> list[Any]:
    simulator = Simulator(BUSY, 3, faults=faults)
    loop = loop_in(simulator, **parts)
    return list(simulator.run(loop, days, keep_reports=True).days)


@cache
def mixed_days() -> list[Any]:
    """Return the days of a loop whose rows hold the platforms' 28-day claims."""
    return run(DAYS, WindowMismatch("28d"))


def test_platforms_that_report_under_another_window_change_no_decision() -> None:
    """With a platform's 28-day claims in the rows, every signal and every move is to the last bit what it is without them."""
    clean, mixed = run(DAYS), mixed_days()
    for a, b in zip(clean, mixed, strict=True):
        np.testing.assert_array_equal(a.report.signals.rate.estimate, b.report.signals.rate.estimate)
        assert [(d.arm, d.after) for d in a.report.plan.decisions] == [(d.arm, d.after) for d in b.report.plan.decisions]
        assert a.report.health.advice == b.report.health.advice
    assert sum(d.moves for d in clean) > 0


def test_the_mismatch_is_found_and_its_size_told_arm_by_arm() -> None:
    """From the first day health warns, and the report says what each arm's platform claims beside our credit."""
    days = mixed_days()
    again = Simulator(BUSY, 3, faults=[WindowMismatch("28d")])
    claimed: dict[Any, float] = dict.fromkeys(again.market.arms, 0.0)
    for d in days:
        again.rows(d.day, d.budgets)
        assert again.market.claims is not None
        for k in again.market.claims.arm.tolist():
            claimed[again.market.arms[k]] += 1.0
    report = days[-1].report
    table = report.reports
    found = {tuple(arm): n for *arm, n in zip(*table.arms.values(), table.claimed.tolist(), strict=True)}
    assert found == {arm: n for arm, n in claimed.items() if n or arm in found}
    assert (table.ratio.low <= table.ratio.high).all()
    named = {f.name: f for f in report.health.findings}
    assert named["attribution_mismatch"].severity == "warning"
    assert "only those with a user count" in named["attribution_mismatch"].evidence
    assert " / " in named["attribution_mismatch"].evidence
    assert all(any(f.name == "attribution_mismatch" for f in d.report.health.findings) for d in days)
    assert {f.name for f in report.health.conditions if f.severity == "warning"} >= {"one_window"}
    assert "claimed" in repr(table)
    assert "claimed" in table._repr_html_()
    assert len(table.to_frame()) == len(table)


def test_claims_beyond_our_credit_are_named_by_platform() -> None:
    """A platform that claims credibly more than we credit is named, with the window it says it has."""
    differing = [f for f in mixed_days()[-1].report.health.findings if f.name in ("report_differs", "double_claims")]
    assert differing
    assert all(f.severity == "warning" for f in differing)
    assert any("28d" in f.evidence for f in differing if f.name == "report_differs")


def test_a_batch_of_claims_alone_is_set_aside_too(tmp_path: Path) -> None:
    """Once two counters were seen the ledger remembers it: after a restart a batch that brings only claims adds no conversion."""
    simulator = Simulator(BUSY, 3, faults=[WindowMismatch("28d")])
    market = simulator.market
    with loop_in(simulator, ledger=tmp_path / "loop.db") as loop:
        before = loop.run_cycle(simulator.rows(0, market.equal_split()), now=market.day_start(1))
    rows = simulator.rows(1, market.equal_split())
    claims = {name: column[rows["touch_at"] != None] for name, column in rows.items()}  # noqa: E711 (an array of objects)
    assert len(claims["kind"]) > 5
    with loop_in(simulator, ledger=tmp_path / "loop.db") as loop:
        after = loop.run_cycle(claims, now=market.day_start(2))
    assert after.outcomes.n_conversions == before.outcomes.n_conversions
    assert after.reports.claimed.sum() == before.reports.claimed.sum() + len(claims["kind"])


def test_claims_delivered_twice_are_compared_once() -> None:
    """The comparison does not grow with a re-delivery."""
    simulator = Simulator(BUSY, 3, faults=[WindowMismatch("28d")])
    market = simulator.market
    loop = loop_in(simulator)
    rows = simulator.rows(0, market.equal_split())
    first = loop.run_cycle(rows, now=market.day_start(1))
    again = loop.run_cycle(rows, now=market.day_start(1) + timedelta(hours=1))
    assert first.reports.claimed.sum() == again.reports.claimed.sum() > 0


def test_one_counter_is_left_alone() -> None:
    """Conversions that only their source credits count, as the users of such exports expect; nothing is compared."""
    simulator = Simulator(BUSY, 3, faults=[WindowMismatch("28d")])
    market = simulator.market
    rows = simulator.rows(0, market.equal_split())
    own = (rows["kind"] == "conversion") & (rows["touch_at"] == None)  # noqa: E711 (an array of objects)
    loop = loop_in(simulator)
    report = loop.run_cycle({name: column[~own] for name, column in rows.items()}, now=market.day_start(1))
    assert report.reports is None
    assert report.outcomes.n_conversions == int((rows["kind"] == "conversion").sum() - own.sum()) > 0


def test_without_the_check_both_are_counted() -> None:
    """What the check is worth can be seen: with the limits off, claims are added as before."""
    off = run(3, WindowMismatch("28d"), thresholds=Thresholds.off())
    assert off[-1].report.outcomes.n_conversions > 1.3 * mixed_days()[2].report.outcomes.n_conversions


def test_many_ratios_are_the_single_ones() -> None:
    """The intervals of many ratios are those of one at a time."""
    counts, base = np.array([0.0, 3.0, 120.0, 0.0, 7.5]), np.array([4.0, 0.0, 100.0, 0.0, 2.5])
    many = np.stack(ratio_intervals(counts, base, level=0.9), axis=1)
    for line, a, b in zip(many, counts, base, strict=True):
        assert tuple(line) == pytest.approx(ratio_interval(float(a), 1.0, float(b), 1.0, level=0.9))


def test_the_report_shows_the_comparison(tmp_path: Path) -> None:
    """Both counts of every arm stand on the page, beside the words that nothing rests on them."""
    report = mixed_days()[-1].report
    page = report.save_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Compared, never added" in page
    assert page.count("search / lookalike / video / results") >= 1
    for n in report.reports.claimed:
        assert f">{n:.0f}<" in page
