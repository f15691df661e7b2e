"""One event enters each room once, in order, and what crosses each door is the record the next room takes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import closedloop as cl

WINDOW = cl.AttributionWindow(click="7d", view="1d")
TAGS = cl.TagSchema(arm=("platform", "campaign"))
NOW = datetime(2026, 3, 4, tzinfo=UTC)
ROWS = [
    {"event_id": "k1", "kind": "click", "occurred_at": NOW - timedelta(hours=30), "user_id": "u1", "platform": "sim", "campaign": "a"},
    {"event_id": "c1", "kind": "conversion", "occurred_at": NOW - timedelta(hours=20), "user_id": "u1", "value": 30.0, "currency": "EUR"},
    {
        "event_id": "s1",
        "kind": "spend",
        "occurred_at": NOW - timedelta(hours=30),
        "platform": "sim",
        "campaign": "a",
        "cost": 5.0,
        "currency": "EUR",
    },
]


class Told:
    """A room that writes down what it was given and what it gave."""

    def __init__(self, room: Any, verb: str, diary: list[tuple[str, tuple[Any, ...], Any]]) -> None:
        self._room, self._verb, self._diary = room, verb, diary

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._room, name)
        if name != self._verb:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            self._diary.append((name, args, result))
            return result

        return call


def test_each_room_is_entered_once_and_in_order() -> None:
    """ingest, attribute, classify, decide: once each, handing on exactly what the one before gave; execute follows when there is a move."""
    diary: list[tuple[str, tuple[Any, ...], Any]] = []
    platform = cl.SimulatedPlatform({"a": cl.Money.of(50, "EUR")}, name="sim")
    constraints = cl.Constraints(total=60, minimum_volume=0, min_probability=0, min_maturity=0, floor=1)
    ledger = cl.MemoryLedger()
    loop = cl.ClosedLoop(
        window=WINDOW,
        platforms={"sim": platform},
        ledger=ledger,
        tags=TAGS,
        ingestor=Told(cl.TableIngestor(tags=TAGS), "ingest", diary),
        attribution=Told(cl.WindowedAttribution(WINDOW, tags=TAGS), "attribute", diary),
        classifier=Told(cl.BayesClassifier(WINDOW), "classify", diary),
        decider=Told(cl.BudgetDecider(constraints), "decide", diary),
        executor=Told(cl.OutboxExecutor(ledger, {"sim": platform}), "execute", diary),
        thresholds=cl.Thresholds(minimum_volume=0),
    )
    report = loop.run_cycle(ROWS, now=NOW)
    verbs = [verb for verb, _, _ in diary]
    assert verbs[:4] == ["ingest", "attribute", "classify", "decide"]
    assert verbs[4:] == (["execute"] if report.plan.decisions else [])
    (_, given, ingested), (_, batch, outcomes), (_, taken, signals), (_, ranked, _) = diary[:4]
    assert given[0] is ROWS
    assert batch[0] is ingested.batch
    assert taken[0] is outcomes
    assert ranked[0] is signals
    assert (report.ingested, report.outcomes, report.signals) == (ingested, outcomes, signals)
    assert outcomes.per_arm("credit").tolist() == [1.0]
    assert outcomes.per_arm("value").tolist() == [30.0]
    assert np.all(signals.rate.low <= 1.0)


def test_the_same_rows_again_change_nothing() -> None:
    """A batch delivered twice leaves the same outcomes and the same remembered state."""
    loop = cl.ClosedLoop(window=WINDOW, tags=TAGS, mode="shadow")
    first = loop.run_cycle(ROWS, now=NOW)
    remembered = loop.ledger.state("attribution")
    second = loop.run_cycle(ROWS, now=NOW + timedelta(minutes=1))
    assert loop.ledger.state("attribution") == remembered
    assert second.outcomes.per_arm("credit").tolist() == first.outcomes.per_arm("credit").tolist()


@pytest.mark.parametrize("layer", ["attribution", "classifier"])
def test_layers_with_another_window_are_refused(layer: str) -> None:
    """One window in all layers, or no loop: both windows are named."""
    other = cl.AttributionWindow(click="28d", view="1d")
    rooms = {"attribution": cl.WindowedAttribution(other, tags=TAGS), "classifier": cl.BayesClassifier(other)}
    with pytest.raises(cl.WindowMismatchError, match=r"click=7d.*click=28d"):
        cl.ClosedLoop(window=WINDOW, **{layer: rooms[layer]})
