"""Whose the delay was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import pytest

from closedloop.execute import OutboxExecutor, delay_report
from closedloop.ledger import MemoryLedger
from closedloop.platforms import SimulatedPlatform
from closedloop.records.decision import Plan
from closedloop.records.money import Money

Make = Callable[..., Plan]
MINUTE = timedelta(minutes=1)


def run_out(executor: OutboxExecutor, now: datetime) -> None:
    due = executor.tick(now)
    while due is not None:
        due = executor.tick(due)


def test_each_owner_gets_his_seconds(make_plan: Make, start: datetime) -> None:
    """Ten minutes of ours, a wait for quota and twenty minutes of the platform come out as that, and add up to the total."""
    ledger = MemoryLedger()
    platform = SimulatedPlatform({"a": Money.of(100, "EUR"), "b": Money.of(100, "EUR")}, latency=20 * MINUTE, quota=(4, 7200))
    executor = OutboxExecutor(ledger, {"simulated": platform}, poll_interval=20 * MINUTE, confirm_within=60 * MINUTE, headroom=1.0)
    executor.execute(make_plan("p", {"a": (100, 120, 2.0), "b": (100, 120, 1.0)}), now=start + 10 * MINUTE)
    run_out(executor, start + 11 * MINUTE)
    report = delay_report(ledger)
    assert len(report) == 2
    first, second = report.seconds[np.argsort(report.total)]
    assert first[:2].tolist() == [600.0, 0.0]
    assert 1200 <= first[2] <= 1260
    assert second[0] == 600.0
    assert 7000 < second[1] < 7400, "the second change waited until the first one's requests left the window of two hours"
    for receipt, total in zip(executor.receipts("p"), sorted(report.total), strict=True):
        assert receipt.settled_at is not None
        assert (receipt.settled_at - receipt.decided_at).total_seconds() == pytest.approx(total, abs=1e-6)
    assert report.owner == "quota"
    assert report.quantiles()["total"].tolist() == np.quantile(report.total, [0.5, 0.9, 0.99]).tolist()


@pytest.mark.parametrize(("stops", "away", "ours"), [(0, 0, 0), (1, 0, 0), (3, 0, 0), (1, 180, 60)])
def test_a_restart_keeps_the_quotas_seconds(make_plan: Make, start: datetime, stops: int, away: int, ours: int) -> None:
    """The wait for a quota is the quota's although the process stops in it; minutes in which it would have been free are ours.

    Two hours' window, two changes: the second waits about 120 minutes. Away for 180 minutes of it, the quota would have let it through
    after 120; the last 60 (less the time before it stopped) nobody was there.
    """
    ledger = MemoryLedger()
    platform = SimulatedPlatform({"a": Money.of(100, "EUR"), "b": Money.of(100, "EUR")}, quota=(3, 7200))

    def begin() -> OutboxExecutor:
        return OutboxExecutor(ledger, {"simulated": platform}, headroom=1.0)

    executor = begin()
    executor.execute(make_plan("p", {"a": (100, 120, 2.0), "b": (100, 120, 1.0)}), now=start)
    for i in range(stops):
        executor = begin()
        executor.tick(start + (i + 1) * 10 * MINUTE)
    executor = begin() if stops else executor
    run_out(executor, start + max(30, away) * MINUTE)
    report = delay_report(ledger)
    assert len(report) == 2
    second = report.seconds[np.argsort(report.total)][1]
    assert report.total.max() == pytest.approx(max(120, away) * 60, abs=90)
    assert second[0] == pytest.approx(ours * 60, abs=90)
    assert second[1] == pytest.approx(120 * 60, abs=90)


def test_a_queue_is_noted_once_not_for_every_action(make_plan: Make, start: datetime) -> None:
    """A hundred actions that wait for one quota leave one record of its queue's beginning, and one of its end."""
    ledger = MemoryLedger()
    platform = SimulatedPlatform({f"r{i}": Money.of(100, "EUR") for i in range(100)}, quota=(60, 60))
    executor = OutboxExecutor(ledger, {"simulated": platform}, headroom=1.0)
    executor.execute(make_plan("p", {f"r{i}": (100, 120) for i in range(100)}), now=start)
    run_out(executor, start)
    assert [(r.entry.is_open, r.entry.body["since"] is None) for r in ledger.entries(kind="wait")] == [(True, False), (False, True)]
    assert len(delay_report(ledger)) == 100


def test_open_and_ended_actions_are_counted_not_hidden(make_plan: Make, start: datetime) -> None:
    """Quantiles are of confirmed actions; the others are said."""
    ledger = MemoryLedger()
    platform = SimulatedPlatform({r: Money.of(100, "EUR") for r in "abc"})
    platform.fault("refuse", resource="b")
    platform.fault("lose_reply", resource="c")
    executor = OutboxExecutor(ledger, {"simulated": platform})
    executor.execute(make_plan("p", {"a": (100, 120), "b": (100, 120), "c": (100, 120)}), now=start)
    report = delay_report(ledger)
    assert (len(report), report.n_open, report.n_ended) == (1, 1, 1)
    assert "1 open" in repr(report)
    assert "<table" in report._repr_html_()
    assert list(report.to_frame()["owner"]) == ["ours", "quota", "platform", "total"]
    assert len(delay_report(ledger, since=start + MINUTE)) == 0


def test_nothing_to_report() -> None:
    """An empty ledger gives an empty report, not an error."""
    report = delay_report(MemoryLedger())
    assert (len(report), report.owner, report.quantiles()) == (0, "", {})
    assert "0 confirmed" in repr(report)


def test_plot_has_one_bar_a_platform(make_plan: Make, start: datetime) -> None:
    """The picture stacks the three owners."""
    pytest.importorskip("matplotlib").use("Agg")
    ledger = MemoryLedger()
    executor = OutboxExecutor(ledger, {"simulated": SimulatedPlatform({"a": Money.of(100, "EUR")})})
    executor.execute(make_plan("p", {"a": (100, 120)}), now=start + MINUTE)
    axes = delay_report(ledger).plot()
    assert "delay" in axes.get_title(loc="left").lower() + axes.get_title().lower()
