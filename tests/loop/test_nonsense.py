"""What a plug-in or a platform may do to a loop: it holds, says why, and loses nothing."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

import closedloop as cl

WINDOW = cl.AttributionWindow(click="3d", view=None)
TAGS = cl.TagSchema(arm=("platform", "campaign"))
START = datetime(2026, 3, 2, tzinfo=UTC)
EVERY = {"one": 5, "two": 25}  # one click in so many converts
CONVERSIONS = 60 + 12


def rows_of(day: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    at = START + timedelta(days=day)
    for platform in EVERY:
        where = {"platform": platform, "campaign": "a"}
        rows.append({"event_id": f"s{day}{platform}", "kind": "spend", "occurred_at": at, "cost": 100.0, "currency": "EUR", **where})
        for i in range(300):
            user, moment = f"{day}-{platform}-{i}", at + timedelta(minutes=i)
            rows.append({"event_id": f"k{user}", "kind": "click", "occurred_at": moment, "user_id": user, **where})
            if i % EVERY[platform] == 0:
                rows.append({"event_id": f"c{user}", "kind": "conversion", "occurred_at": moment + timedelta(hours=3), "user_id": user})
    return rows


def now_of(day: int) -> datetime:
    return START + timedelta(days=day + 1)


def platforms(**settings: Any) -> dict[str, cl.SimulatedPlatform]:
    return {name: cl.SimulatedPlatform({"a": cl.Money.of(100, "EUR")}, name=name, **settings) for name in EVERY}


def loop_of(**parts: Any) -> cl.ClosedLoop:
    constraints = cl.Constraints(minimum_volume=20, min_probability=0.6)
    return cl.ClosedLoop(window=WINDOW, **{"platforms": platforms(), "constraints": constraints, "tags": TAGS, **parts})


class Plugin:
    """An attribution of somebody's own that may be told to spoil what it returns."""

    window = WINDOW

    def __init__(self) -> None:
        self.inner = cl.WindowedAttribution(WINDOW, tags=TAGS)
        self.spoil: Callable[[cl.Outcomes], Any] | None = None

    def load(self, data: bytes) -> Any:
        return self.inner.load(data)

    def attribute(self, batch: Any, receipts: Sequence[Any] = (), *, state: Any = None, now: datetime | None = None) -> Any:
        outcomes = self.inner.attribute(batch, receipts, state=state, now=now)
        return outcomes if self.spoil is None else self.spoil(outcomes)


def cohorts(**change: Callable[[Any], Any]) -> Callable[[cl.Outcomes], cl.Outcomes]:
    return lambda o: attrs.evolve(o, cohorts=attrs.evolve(o.cohorts, **{n: f(getattr(o.cohorts, n)) for n, f in change.items()}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda o: None, "no Outcomes"),
        (cohorts(credit=lambda c: c * np.nan), "'credit' has nan"),
        (cohorts(credit=lambda c: -c - 1.0), "'credit' has -"),
        (cohorts(credit=lambda c: c[:-1]), "column"),
        (cohorts(arm=lambda a: a + 1000), "'arm' has 1000"),
        (cohorts(maturity=lambda m: m + 7.0), "maturity above 1"),
        (lambda o: attrs.evolve(o, spend=attrs.evolve(o.spend, spend=o.spend.spend * np.inf)), "'spend' has inf"),
        (lambda o: attrs.evolve(o, window=cl.AttributionWindow(click="28d")), "click=28d"),
        (lambda o: attrs.evolve(o, state=None), "state"),
    ],
    ids=["none", "nan", "negative", "short", "arms", "maturity", "infinite spend", "window", "state"],
)
def test_nonsense_of_a_plugin_is_refused_and_nothing_is_lost(spoil: Callable[[cl.Outcomes], Any], said: str) -> None:
    """The plug-in, the field and the mend are named; nothing of it is believed or sent, and the next night counts both days."""
    plugin = Plugin()
    loop = loop_of(attribution=plugin)
    loop.run_cycle(rows_of(0), now=now_of(0))
    kept, applied = len(list(loop.ledger.entries())), len(loop.platforms["one"].applied())
    plugin.spoil = spoil
    report = loop.run_cycle(rows_of(1), now=now_of(1))
    (failure,) = report.failures
    assert failure.made_by == "Plugin"
    assert said in f"{failure.message}; {failure.mend}"
    assert (report.complete, report.health.advice, report.plan.decisions) == (False, "hold", ())
    entries = list(loop.ledger.entries())
    assert [r.entry.kind for r in entries[kept:]] == ["failure"]
    assert len(loop.platforms["one"].applied()) == applied
    plugin.spoil = None
    report = loop.run_cycle(rows_of(2), now=now_of(2))
    assert (report.cycle, report.outcomes.n_conversions) == (2, 3 * CONVERSIONS)


def test_more_credit_than_conversions_holds_the_loop() -> None:
    """A plug-in that credits every conversion twice is not believed: the loop holds, says so, and goes on learning."""
    plugin = Plugin()
    loop = loop_of(attribution=plugin)
    for day in range(3):
        loop.run_cycle(rows_of(day), now=now_of(day))
    plugin.spoil = cohorts(credit=lambda c: 2 * c, credit_squared=lambda c: 4 * c)
    report = loop.run_cycle(rows_of(3), now=now_of(3))
    assert report.health.advice == "hold"
    assert f"credits {2 * 4 * CONVERSIONS} conversions and has seen {4 * CONVERSIONS}" in report.health.because
    assert not report.plan.decisions
    plugin.spoil = None
    assert loop.run_cycle(rows_of(4), now=now_of(4)).health.advice == "run"


def test_a_platform_that_vanishes_is_held_and_settled_when_it_is_back(tmp_path: Path) -> None:
    """Between two nights a platform's adapter is gone, with a change under way: its arm is held, what was sent is settled later."""
    doors = platforms(latency=timedelta(hours=30))
    with loop_of(platforms=doors, ledger=tmp_path / "loop.db") as loop:
        for day in range(3):
            report = loop.run_cycle(rows_of(day), now=now_of(day))
            loop.tick(now_of(day) + timedelta(hours=1))
    open_before = [r for r in loop_receipts(tmp_path, doors) if r.change.target.platform == "two" and r.state == "accepted"]
    assert report.plan.decisions
    assert open_before
    with loop_of(platforms={"one": doors["one"]}, ledger=tmp_path / "loop.db") as loop:
        report = loop.run_cycle(rows_of(3), now=now_of(3))
    held = {h.arm[0]: h for h in report.plan.holds}
    assert held["two"].reason == "integration"
    assert "no adapter for platform 'two'" in held["two"].explanation
    assert report.outcomes.n_conversions == 4 * CONVERSIONS
    with loop_of(platforms=doors, ledger=tmp_path / "loop.db") as loop:
        loop.run_cycle(rows_of(4), now=now_of(4))
        loop.tick(now_of(6))
        last = {r.action_id: r.state for r in loop.receipts()}
    assert {last[r.action_id] for r in open_before} <= {"confirmed", "diverged"}


def loop_receipts(folder: Path, doors: dict[str, cl.SimulatedPlatform]) -> list[cl.Receipt]:
    with loop_of(platforms=doors, ledger=folder / "loop.db") as loop:
        return list(loop.receipts())
