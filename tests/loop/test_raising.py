"""A room, a platform or a hook that raises: the loop holds, says what it was and where, loses nothing, and goes on in the next cycle."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

import closedloop as cl

WINDOW = cl.AttributionWindow(click="3d", view=None)
TAGS = cl.TagSchema(arm=("platform", "campaign"))
START = datetime(2026, 3, 2, tzinfo=UTC)
EVERY = {"one": 5, "two": 25}  # one click in so many converts
CONVERSIONS = 60 + 12
SECRET = "access_token=EAAB1234567890abcdef"


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


class Fuse:
    """Passes everything on to what it is put around, and raises instead where it is told to."""

    def __init__(self, inner: Any, verb: str) -> None:
        self._inner, self._verb, self.error = inner, verb, None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != self._verb or self.error is None:
            return found

        def raising(*words: Any, **named: Any) -> Any:
            raise self.error

        return raising


def loop_of(folder: Path, broken: str = "", **parts: Any) -> tuple[cl.ClosedLoop, Any]:
    """Return a loop on a ledger of the folder whose room ``broken`` is fused, and the fuse."""
    constraints = cl.Constraints(minimum_volume=20, min_probability=0.6)
    doors = {name: cl.SimulatedPlatform({"a": cl.Money.of(100, "EUR")}, name=name, path=folder / f"{name}.db") for name in EVERY}
    ledger = cl.SqliteLedger(folder / "loop.db")
    rooms: dict[str, Any] = {
        "ingestor": (cl.TableIngestor(tags=TAGS), "ingest"),
        "attribution": (cl.WindowedAttribution(WINDOW, tags=TAGS), "attribute"),
        "classifier": (cl.BayesClassifier(WINDOW), "classify"),
        "decider": (cl.BudgetDecider(constraints), "decide"),
        "executor": (cl.OutboxExecutor(ledger, doors), "execute"),
        "tick": (cl.OutboxExecutor(ledger, doors), "tick"),
    }
    fuse = None
    if broken in rooms:
        fuse = Fuse(*rooms[broken])
        parts = {"executor" if broken == "tick" else broken: fuse, **parts}
    loop = cl.ClosedLoop(window=WINDOW, ledger=ledger, platforms=doors, constraints=constraints, tags=TAGS, **parts)
    return loop, fuse


ROOMS = {"ingestor": "ingest", "attribution": "attribute", "classifier": "classify", "decider": "decide", "executor": "execute"}


@pytest.mark.parametrize("broken", list(ROOMS))
@pytest.mark.parametrize("again", [True, False], ids=["rows given again", "only new rows"])
def test_a_room_that_raises_holds_and_loses_nothing(tmp_path: Path, broken: str, again: bool) -> None:
    """The room, the class of the plug-in and of the error are named; nothing is sent; the next night both days are counted, once."""
    loop, fuse = loop_of(tmp_path, broken)
    for day in range(2):
        assert not loop.run_cycle(rows_of(day), now=now_of(day)).failures
    applied = sum(len(p.applied()) for p in loop.platforms.values())
    fuse.error = RuntimeError("no such thing")
    report = loop.run_cycle(rows_of(2), now=now_of(2))
    (failure,) = report.failures
    assert (failure.room, failure.made_by, failure.error, failure.message) == (ROOMS[broken], "Fuse", "RuntimeError", "no such thing")
    assert "raising" in failure.traceback
    assert sum(len(p.applied()) for p in loop.platforms.values()) == applied
    (entry,) = (r.entry for r in loop.ledger.entries(kind="failure"))
    assert {**entry.body} == {"cycle": 3, "room": ROOMS[broken], "made_by": "Fuse", "error": "RuntimeError", "message": "no such thing"}
    if broken == "executor":  # the plan was recorded before; the cycle is complete
        assert report.complete
    else:
        assert (report.complete, report.cycle, report.health.advice) == (False, 3, "hold")
        assert {h.arm for h in report.plan.holds} == {("one", "a"), ("two", "a")}
        assert all("RuntimeError: no such thing" in h.explanation for h in report.plan.holds)
        assert not report.plan.decisions
    fuse.error = None
    rows = [*rows_of(2), *rows_of(3)] if again else rows_of(3)
    after = loop.run_cycle(rows, now=now_of(3))
    assert after.complete
    assert (after.outcomes.n_conversions, after.health.advice) == (4 * CONVERSIONS, "run")
    loop.verify()


def test_a_ledger_opened_again_knows_what_was_learned_before_a_room_raised(tmp_path: Path) -> None:
    """What attribution had learned stands in the ledger although the cycle was not complete: a new process needs only the new rows."""
    loop, fuse = loop_of(tmp_path, "classifier")
    loop.run_cycle(rows_of(0), now=now_of(0))
    fuse.error = ZeroDivisionError("oh")
    assert not loop.run_cycle(rows_of(1), now=now_of(1)).complete
    loop.ledger.close()
    loop, _ = loop_of(tmp_path)
    report = loop.run_cycle(rows_of(2), now=now_of(2))
    assert (report.cycle, report.outcomes.n_conversions) == (2, 3 * CONVERSIONS)


def test_nights_that_fail_add_up(tmp_path: Path) -> None:
    """An ingestor that fails for three nights in a row loses none of them."""
    loop, fuse = loop_of(tmp_path, "ingestor")
    fuse.error = KeyError("column")
    for day in range(3):
        assert loop.run_cycle(rows_of(day), now=now_of(day)).failures[0].error == "KeyError"
    fuse.error = None
    report = loop.run_cycle(rows_of(3), now=now_of(3))
    assert (report.cycle, report.outcomes.n_conversions, report.ingested.n_rows) == (
        1,
        4 * CONVERSIONS,
        sum(len(rows_of(d)) for d in range(4)),
    )


def test_rows_that_can_be_read_once_do_not_wait(tmp_path: Path) -> None:
    """What yields its rows once is not kept half-read: the caller gives it again."""
    loop, fuse = loop_of(tmp_path, "ingestor")
    fuse.error = OSError("disk")
    loop.run_cycle(iter(rows_of(0)), now=now_of(0))
    fuse.error = None
    report = loop.run_cycle(rows_of(1), now=now_of(1))
    assert report.outcomes.n_conversions == CONVERSIONS


def test_an_executor_that_cannot_tick_holds_and_learning_goes_on(tmp_path: Path) -> None:
    """What was sent cannot be settled: the cycle is complete, holds every arm for it, and has learned from its rows."""
    loop, fuse = loop_of(tmp_path, "tick")
    for day in range(2):
        loop.run_cycle(rows_of(day), now=now_of(day))
    fuse.error = ConnectionError("gone")
    report = loop.run_cycle(rows_of(2), now=now_of(2))
    assert (report.complete, report.cycle, report.health.advice) == (True, 3, "hold")
    assert "execute (Fuse) raised ConnectionError: gone" in report.health.because
    assert report.outcomes.n_conversions == 3 * CONVERSIONS
    assert not report.plan.decisions
    fuse.error = None
    assert loop.run_cycle(rows_of(3), now=now_of(3)).health.advice == "run"


@pytest.mark.parametrize("room", ["ingest", "attribute", "classify", "health", "decide", "execute"])
def test_a_hook_that_raises_holds_and_is_named(tmp_path: Path, room: str) -> None:
    """A hook that fails after any room holds what is not sent yet, and is no fault of the room."""
    broken = [False]

    def hook(name: str, seconds: float, result: Any) -> None:
        if broken[0] and name == room and result is not None:
            raise ValueError("exporter is down")

    loop, _ = loop_of(tmp_path, hook=hook)
    for day in range(2):
        loop.run_cycle(rows_of(day), now=now_of(day))
    broken[0] = True
    report = loop.run_cycle(rows_of(2), now=now_of(2))
    assert [f.room for f in report.failures] == [f"hook after {room}"]
    assert room == "execute" or not report.plan.decisions
    broken[0] = False
    report = loop.run_cycle(rows_of(3), now=now_of(3))
    assert (report.failures, report.outcomes.n_conversions, report.health.advice) == ((), 4 * CONVERSIONS, "run")


@pytest.mark.parametrize("broken", ["enter", "leave"])
def test_a_context_around_a_room_that_raises_holds(tmp_path: Path, broken: str) -> None:
    """A tracer that fails before or after a room holds, and the room's work is not lost."""
    now_broken = [False]

    @contextmanager
    def around(room: str) -> Iterator[None]:
        if now_broken[0] and (broken, room) == ("enter", "classify"):
            raise RuntimeError("tracer")
        yield
        if now_broken[0] and (broken, room) == ("leave", "attribute"):
            raise RuntimeError("tracer")

    loop, _ = loop_of(tmp_path, around=around)
    loop.run_cycle(rows_of(0), now=now_of(0))
    now_broken[0] = True
    report = loop.run_cycle(rows_of(1), now=now_of(1))
    assert report.failures[0].message == "tracer"
    now_broken[0] = False
    assert loop.run_cycle(rows_of(2), now=now_of(2)).outcomes.n_conversions == 3 * CONVERSIONS


@pytest.mark.parametrize("verb", ["read", "check"])
def test_a_platform_that_raises_anything_holds_itself_alone(tmp_path: Path, verb: str) -> None:
    """An adapter with a mistake in it is named with what it raised, without its secret, and the other platform is steered."""

    class Broken(cl.SimulatedPlatform):
        pass

    def wrong(*words: Any, **named: Any) -> Any:
        raise KeyError(f"url?{SECRET}")

    loop, _ = loop_of(tmp_path)
    loop.run_cycle(rows_of(0), now=now_of(0))
    vars(loop.platforms["two"])[verb] = wrong
    loop._checked = False
    report = loop.run_cycle(rows_of(1), now=now_of(1))
    assert not report.failures
    assert report.health.campaigns == {"one / a": "run", "two / a": "hold"}
    told = [f.evidence for f in report.health.findings if f.scope == "two"]
    assert any("KeyError" in t for t in told)
    assert SECRET not in repr(report.health) + repr(report.plan)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_meant_to_stop_the_process_passes(tmp_path: Path, error: type[BaseException]) -> None:
    """Ctrl-C and an exit are no failure of a room: they pass, record nothing, and the same call goes on afterwards."""
    loop, fuse = loop_of(tmp_path, "classifier")
    loop.run_cycle(rows_of(0), now=now_of(0))
    fuse.error = error()
    with pytest.raises(error):
        loop.run_cycle(rows_of(1), now=now_of(1))
    assert list(loop.ledger.entries(kind="failure")) == []
    fuse.error = None
    assert loop.run_cycle(rows_of(1), now=now_of(1)).outcomes.n_conversions == 2 * CONVERSIONS


def test_a_ledger_that_cannot_be_trusted_is_no_failure_of_a_room(tmp_path: Path) -> None:
    """A ledger's own error is raised: on what cannot be written nothing can be held."""
    loop, fuse = loop_of(tmp_path, "decider")
    loop.run_cycle(rows_of(0), now=now_of(0))
    fuse.error = cl.LedgerError("disk is full")
    with pytest.raises(cl.LedgerError, match="disk is full"):
        loop.run_cycle(rows_of(1), now=now_of(1))


def test_a_table_that_cannot_be_read_is_the_callers(tmp_path: Path) -> None:
    """An unreadable table is raised as before, and does not wait."""
    loop, _ = loop_of(tmp_path)
    with pytest.raises(cl.InputError):
        loop.run_cycle(42, now=now_of(0))
    assert loop.run_cycle(rows_of(0), now=now_of(0)).outcomes.n_conversions == CONVERSIONS


@pytest.mark.parametrize("broken", list(ROOMS))
def test_mistakes_can_be_raised(tmp_path: Path, broken: str) -> None:
    """With on_error="raise" what a room raises comes out as it is, and nothing of the cycle is recorded as failed."""
    loop, fuse = loop_of(tmp_path, broken, on_error="raise")
    for day in range(2):
        loop.run_cycle(rows_of(day), now=now_of(day))
    fuse.error = AttributeError("typo")
    with pytest.raises(AttributeError, match="typo"):
        loop.run_cycle(rows_of(2), now=now_of(2))
    assert not list(loop.ledger.entries(kind="failure"))
    fuse.error = None
    assert loop.run_cycle(rows_of(2), now=now_of(2)).outcomes.n_conversions == 3 * CONVERSIONS


def test_an_unknown_answer_is_refused() -> None:
    """The two answers are named."""
    with pytest.raises(cl.ConfigurationError, match="hold, raise"):
        cl.ClosedLoop(window=WINDOW, on_error="ignore")  # type: ignore[arg-type]


def test_secrets_stay_out_of_report_log_and_ledger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A message that quotes a token is told without it, everywhere; the log has the traceback."""
    loop, fuse = loop_of(tmp_path, "decider")
    loop.run_cycle(rows_of(0), now=now_of(0))
    fuse.error = RuntimeError(f"GET https://host/v1?{SECRET} failed")
    with caplog.at_level(logging.ERROR, logger="closedloop.loop"):
        report = loop.run_cycle(rows_of(1), now=now_of(1))
    assert "test_raising.py" in caplog.text
    page = report.save_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "decide (Fuse) raised RuntimeError: GET https://host/v1?access_token=[redacted] failed" in report.note
    assert "RuntimeError" in page
    for text in (caplog.text, repr(report), page, report.failures[0].traceback, str([r.entry for r in loop.ledger.entries()])):
        assert "EAAB1234567890abcdef" not in text


def test_a_first_cycle_that_fails_is_told_like_any_other(tmp_path: Path) -> None:
    """Before anything is known there is no arm to hold; the report can be shown, and the ledger knows whose it is."""
    loop, fuse = loop_of(tmp_path, "attribution")
    fuse.error = RuntimeError("first night")
    report = loop.run_cycle(rows_of(0), now=now_of(0))
    assert (len(report.signals), report.plan.holds, report.complete) == (0, (), False)
    assert "first night" in repr(report) + report._repr_html_()
    assert report.save_html(tmp_path / "r.html").exists()
    loop.ledger.close()
    with pytest.raises(cl.ConfigurationError, match="account"):
        cl.ClosedLoop(window=WINDOW, ledger=tmp_path / "loop.db", tags=TAGS, name="other")


@attrs.frozen
class Lessons:
    """A classifier of somebody's own that fails on every other night."""

    window: cl.AttributionWindow
    nights: list[int] = attrs.field(factory=list)

    def classify(self, outcomes: cl.Outcomes, *, now: datetime | None = None) -> cl.Signals:
        self.nights.append(1)
        if len(self.nights) % 2 == 0:
            raise ArithmeticError("singular")
        return cl.BayesClassifier(self.window).classify(outcomes, now=now)


def test_the_next_cycle_goes_on(tmp_path: Path) -> None:
    """A room that fails every other night steers on the others, on all the data."""
    loop, _ = loop_of(tmp_path, classifier=Lessons(WINDOW))
    reports: Sequence[cl.CycleReport] = [loop.run_cycle(rows_of(day), now=now_of(day)) for day in range(6)]
    assert [r.complete for r in reports] == [True, False] * 3
    assert [r.outcomes.n_conversions for r in reports] == [(d + 1) * CONVERSIONS for d in range(6)]
    assert [r.cycle for r in reports] == [1, 2, 2, 3, 3, 4]
    assert any(r.plan.decisions for r in reports[2:])
