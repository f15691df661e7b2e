"""Past decisions come out of the ledger bit for bit, and corrected data show what would have differed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import numpy as np
import pytest

import closedloop as cl
from closedloop.loop.evidence import pack, unpack
from closedloop.simulation import MissingTags, Simulator, small

WINDOW = cl.AttributionWindow(click="7d", view="1d")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of three simulated weeks, a pause among them."""
    path = tmp_path_factory.mktemp("replay") / "loop.db"
    sim = Simulator(small(), seed=3)
    with loop_on(path, platforms=sim.platforms) as loop:
        sim.run(loop, days=10)
        loop.pause("holiday", by="Ada", now=datetime(2026, 1, 15, 12, tzinfo=UTC))
        sim.run(loop, days=2)
        loop.resume(by="Ada", now=datetime(2026, 1, 17, 12, tzinfo=UTC))
        sim.run(loop, days=8)
    return path


def loop_on(path: Path, **parts: object) -> cl.ClosedLoop:
    constraints = cl.Constraints(minimum_volume=20, min_probability=0.6)
    return cl.ClosedLoop(window=WINDOW, ledger=path, constraints=constraints, **parts)  # type: ignore[arg-type]


def test_every_past_plan_is_proved_bit_for_bit(ledger: Path) -> None:
    """Another process with the same rooms makes all twenty plans again, moves, holds, intervals and ids."""
    with loop_on(ledger) as loop:
        replayed = cl.replay(loop)
    assert len(replayed.cycles) == 20
    assert replayed.identical
    assert sum(len(c.recorded.decisions) for c in replayed.cycles) > 5
    assert sum((c.recorded.provenance["override"]["hold"] or [""])[0] == "paused" for c in replayed.cycles) == 2


def test_another_decider_is_noticed(ledger: Path) -> None:
    """With other constraints the plans differ, and the differing budgets are named."""
    with loop_on(ledger) as loop:
        loop.decider = cl.BudgetDecider(cl.Constraints(minimum_volume=20, min_probability=0.6, max_step=0.05))
        replayed = cl.replay(loop)
    assert not replayed.identical
    assert any(c.differences() for c in replayed.cycles)


def test_corrected_credit_shows_which_decisions_would_have_differed(ledger: Path) -> None:
    """Taking back four fifths of retargeting's credit would have sent its money elsewhere."""

    def corrected(cycle: int, outcomes: cl.Outcomes) -> cl.Outcomes:
        retargeting = np.array([arm[1] == "reminder" for arm in outcomes.arms])[outcomes.cohorts.arm]
        credit = np.where(retargeting, 0.2 * outcomes.cohorts.credit, outcomes.cohorts.credit)
        return attrs.evolve(outcomes, cohorts=attrs.evolve(outcomes.cohorts, credit=credit))

    with loop_on(ledger) as loop:
        replayed = cl.replay(loop, corrected=corrected)
        untouched = cl.replay(loop, corrected=lambda _, outcomes: outcomes)
    arms = {arm[1] for c in replayed.cycles for arm, _, _ in c.differences()}
    assert "reminder" in arms
    assert untouched.identical
    assert len(replayed.to_frame()) >= 20


def test_a_cycle_without_evidence_is_named(ledger: Path) -> None:
    """Asking for a cycle that is not there lists those that are."""
    with loop_on(ledger) as loop, pytest.raises(cl.ConfigurationError, match="valid: 1, 2, 3"):
        cl.replay(loop, cycles=[99])


def test_evidence_is_the_same_after_packing(ledger: Path) -> None:
    """Unpacked evidence packs to the same bytes; damaged bytes are a ledger error."""
    with loop_on(ledger) as loop:
        data = loop.ledger.state("evidence:20")
    assert data is not None
    assert pack(*unpack(data)) == data
    for wrong in (data[:-40], b"", b"PK" + data[5:]):
        with pytest.raises(cl.LedgerError):
            unpack(wrong)


def test_last_days_are_in_time(ledger: Path) -> None:
    """The recorded plans carry their own time, so a replay needs no clock."""
    with loop_on(ledger) as loop:
        made = [c.recorded.made_at for c in cl.replay(loop, cycles=[19, 20]).cycles]
    assert made[1] - made[0] == timedelta(days=1)


def test_evidence_with_untagged_events_can_be_kept_and_replayed(tmp_path: Path) -> None:
    """Signals that say what arms could own of untagged events are kept with the plan, and the plan is made again from them."""
    simulator = Simulator(small(), 4, faults=[MissingTags(0.2)])
    limits = cl.Constraints(total=simulator.market.scenario.total, gate="evidence")
    loop = cl.ClosedLoop(window=WINDOW, platforms=simulator.platforms, constraints=limits, ledger=tmp_path / "loop.db", on_error="raise")
    days = simulator.run(loop, 5).days
    assert days[-1].report.signals.tagged_share.max() < 1.0
    again = cl.replay(loop)
    assert all(c.identical for c in again.cycles)
    data = loop.ledger.state("evidence:5")
    assert data is not None
    assert pack(*unpack(data)) == data
