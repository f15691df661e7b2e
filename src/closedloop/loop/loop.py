"""The loop: the only code that calls all five rooms, once per cycle and in order.

Law of this file: one verb per room, each room entered once per cycle; a decision is durable before the first byte goes out;
everything else is appended at the end of the cycle in one transaction with the new state, so a killed cycle is replayed and
not half-kept. Time and randomness are arguments: ``now`` from the caller, one generator per cycle from the loop's seed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import attrs

from closedloop.attribute import WindowedAttribution
from closedloop.classify import BayesClassifier
from closedloop.decide import BudgetDecider
from closedloop.errors import ConfigurationError, InputError, LedgerError
from closedloop.execute import OutboxExecutor
from closedloop.health import Thresholds, assess
from closedloop.ingest import TableIngestor
from closedloop.ingest.exchange import Rate, check_rates, rates_on
from closedloop.interfaces import AttributionFeedback, Classifier, Decider, Executor, Ingestor, Ledger
from closedloop.ledger import MemoryLedger, SqliteLedger, decode, encode
from closedloop.loop.checks import over_credit, refuse_nonsense, refuse_other_account, refuse_other_windows, reporting
from closedloop.loop.counters import REPORTS, TYPES, Counters
from closedloop.loop.cycle import CycleReport, Mode
from closedloop.loop.deciding import (
    campaign_holds,
    check_platforms,
    decide,
    informed,
    read_budgets,
    reason_to_hold,
    unreachable,
)
from closedloop.loop.desk import Desk
from closedloop.loop.evidence import pack
from closedloop.loop.failure import RoomFailure, can_be_read_again, together
from closedloop.loop.gaps import as_delivered
from closedloop.loop.holdouts import HoldoutPolicy, Holdouts
from closedloop.loop.made import Made
from closedloop.loop.recording import cycle_entry, identity_entry, plan_entry
from closedloop.loop.replay import EVIDENCE
from closedloop.records.arms import Arm
from closedloop.records.causes import CausalEvidence
from closedloop.records.decision import Constraints, Plan, Target
from closedloop.records.feedback import Finding
from closedloop.records.moments import to_us
from closedloop.records.quarantine import Ingested
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

_STATE = "attribution"
_HEALTH_SPAN = timedelta(days=7)
_LOG = logging.getLogger("closedloop.loop")
RoomHook = Callable[[str, float, Any], None]


class ClosedLoop(Desk):
    """Ingest, attribute, classify, decide and execute, cycle after cycle, from one ledger.

    Args:
        window: The one attribution window; every layer must have been made with it.
        platforms: Adapters by the name that stands in the platform tag. Without an adapter an arm is analysed and held.
        ledger: A ledger, the path of an SQLite ledger, or None for one in memory.
        constraints: What plans must respect.
        tags: The tag columns of an arm.
        targets: The budget target of each arm; by default platform and the other tags joined.
        mode: ``shadow`` decides and sends nothing, ``approve`` sends what a named person approved, ``auto`` sends.
        name: The account; a ledger made for another account, window or arm is refused.
        seed: Seed of every random draw; cycle ``n`` draws from ``default_rng([seed, n])``.
        horizon: Days a plan is meant for.
        thresholds: Limits of the health checks.
        conversion_type: The optimised conversion type, None for all.
        causes: What is assumed of the share of credit that was caused: types of audience, priors, tests made before. The loop ranks and
            moves by caused conversions, with priors alone where nothing was tested.
        holdouts: How the loop tests by itself whether credit was caused, on platforms that can hold users out; None tests nothing.
        currency: The one currency to think in; None takes the one the rows have.
        rates: Units of ``currency`` for one unit of another, ``{"USD": 0.9}``, or by day, ``{"USD": {"2026-01-01": 0.9}}``: rows are
            converted, and budgets are read and sent in each account's own currency. An ingestor of your own needs its own table.
        ingestor, attribution, classifier, decider, executor: Your own rooms in place of the default ones.
        hook: Called as ``hook(room, seconds, result)`` after each room.
        on_error: What a cycle does when a room, a platform or a hook raises: ``hold`` every arm and say so in the report, the log
            ``closedloop.loop`` and the ledger, or ``raise`` it, to find a mistake in a room of your own. Ctrl-C always passes.
        around: Called as ``around(room)``; the context manager that it returns is entered before the room and left after it, also
            when the room raises. For spans of a tracer.

    Raises:
        WindowMismatchError: Two layers have different windows.
        ConfigurationError: The mode is unknown, a rate is no rate, or the ledger belongs to another account.

    >>> import closedloop as cl
    >>> window = cl.AttributionWindow(click="7d", view="1d")
    >>> cl.ClosedLoop(window=window, classifier=cl.BayesClassifier(cl.AttributionWindow(click="28d")))
    Traceback (most recent call last):
    ...
    closedloop.errors.WindowMismatchError: the loop has AttributionWindow(click=7d, view=1d) and its classifier has
    AttributionWindow(click=28d, view=1d); field 'classifier'; give every layer the same AttributionWindow
    """

    def __init__(
        self,
        *,
        window: AttributionWindow,
        platforms: Mapping[str, Any] | None = None,
        ledger: Ledger | str | Path | None = None,
        constraints: Constraints | None = None,
        tags: TagSchema | None = None,
        targets: Mapping[Arm, Target] | None = None,
        mode: Mode = "auto",
        name: str = "default",
        seed: int = 0,
        horizon: float = 7.0,
        thresholds: Thresholds | None = None,
        conversion_type: str | None = None,
        currency: str | None = None,
        rates: Mapping[str, Rate] | None = None,
        causes: CausalEvidence | None = None,
        holdouts: HoldoutPolicy | None = None,
        ingestor: Ingestor | None = None,
        attribution: AttributionFeedback | None = None,
        classifier: Classifier | None = None,
        decider: Decider | None = None,
        executor: Executor | None = None,
        hook: RoomHook | None = None,
        around: Callable[[str], AbstractContextManager[Any]] | None = None,
        on_error: Literal["hold", "raise"] = "hold",
    ) -> None:
        if mode not in ("shadow", "approve", "auto"):
            raise ConfigurationError("unknown mode", "mode", mode, None, ("shadow", "approve", "auto"))
        if on_error not in ("hold", "raise"):
            raise ConfigurationError("unknown answer to an error", "on_error", on_error, None, ("hold", "raise"))
        self._tags = tags = tags or TagSchema()
        self.window = window
        self.mode: Mode = mode
        self.name = name
        self.seed = seed
        self.horizon = horizon
        self.platforms = dict(platforms or {})
        self._assumed = causes or CausalEvidence()
        self.targets = dict(targets) if targets is not None else None
        check_rates(rates or {}, currency)
        self.rates = dict(rates or {})
        self.ingestor = ingestor or TableIngestor(tags=tags, currency=currency, rates=self.rates)
        self.attribution = attribution or WindowedAttribution(window, tags=tags, conversion_type=conversion_type, participation=True)
        self.classifier = classifier or BayesClassifier(window, seed=seed)
        self.decider = decider or BudgetDecider(constraints or Constraints(), targets=targets, seed=seed)
        limits = getattr(self.decider, "constraints", None) or Constraints()
        by_volume = getattr(limits, "gate", "volume") == "volume"
        self.thresholds = thresholds or Thresholds(minimum_volume=limits.minimum_volume if by_volume else 0.0)
        self._hook, self._around = hook, around or nullcontext
        self._checked, self.on_error = False, on_error
        self._waiting: list[Any] = []  # rows, or their ingestion, that no cycle could learn from yet
        self._counters = Counters(window, tags, conversion_type, self.thresholds)
        rooms = {"ingest": self.ingestor, "attribute": self.attribution, "classify": self.classifier, "decide": self.decider}
        self._rooms: dict[str, Any] = {**rooms, "execute": executor}
        refuse_other_windows(window, self._rooms)
        if ledger is None or isinstance(ledger, str | Path):
            self.ledger: Ledger = MemoryLedger() if ledger is None else SqliteLedger(ledger)
            self._owns_ledger = True
        else:
            self.ledger, self._owns_ledger = ledger, False
        self._rooms["execute"] = self.executor = executor or OutboxExecutor(self.ledger, self.platforms)
        self._holdouts = None if holdouts is None else Holdouts(holdouts, self.ledger, self.platforms, self.targets)
        self._mine = {"name": name, "window": encode(window), "arm": list(tags.arm)}
        refuse_other_account(self.ledger, self._mine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the ledger if the loop opened it."""
        if self._owns_ledger and isinstance(self.ledger, SqliteLedger):
            self.ledger.close()

    # ---------------------------------------------------------------- one cycle

    def run_cycle(self, rows: Any, *, now: datetime, findings: Sequence[Finding] = ()) -> CycleReport:
        """Run one cycle on new rows and return everything that crossed a door.

        When it returns, the rows are remembered and the decisions recorded. When it does not (an exception, a kill), call it
        again with the same or more rows: nothing is counted or sent twice, and a plan already recorded for this cycle stands.

        A room, a platform or a hook that raises holds the loop: the report's ``failures`` say what it was, the ledger keeps it, every arm
        is held, and the next call goes on. What had been learned by then is remembered; rows that had not reached the ledger wait in this
        loop for the next call (``complete`` is then False: whoever starts a new process passes them again). With ``on_error="raise"``
        it is raised instead.

        Args:
            rows: Any table of raw rows since the last complete cycle (more does no harm), or an `Ingested` made earlier.
            now: The time of the cycle (aware). Not before the last cycle's.
            findings: What you found yourself, such as ``VerifiedGain.finding()`` or an audit's; a critical one holds the loop.

        Raises:
            InputError: ``now`` has no zone or lies before the last cycle; the table cannot be read at all.
            LedgerError: The ledger cannot be trusted or written.
        """
        self._check_clock(now)
        made = Made(cycle=self.cycles + 1, now=now, findings=[*findings])
        try:
            self._settle(made)
            self._learn(rows, made)
            self._judge(made)
            self._decide(made)
        except Exception as error:
            if isinstance(error, LedgerError) or (isinstance(error, InputError) and made.is_reading):
                raise
            self._failed(error, made)
            return self._stopped(rows, made)
        if made.n_told < len(made.failures):  # a hook failed after health had spoken: nothing was recorded or sent
            return self._stopped(rows, made)
        try:
            self._act(made)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 (as above; the plan is recorded, and what was sent is settled by the next ticks)
            self._failed(error, made)
        return self._closed(made)

    def _settle(self, made: Made) -> None:
        """What earlier cycles sent is settled before anything is learned from it; a failure of this holds, and learning goes on."""
        try:
            with self._room("execute", made):
                self.tick(made.now)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 (as in run_cycle)
            self._failed(error, made)

    def _learn(self, rows: Any, made: Made) -> None:
        with self._room("ingest", made) as out:
            earlier = [self._read(waiting) for waiting in self._waiting]
            made.is_reading = True
            out.append(together([*earlier, self._read(rows)]))
            made.is_reading = False
            made.read = made.ingested = out[0]
        made.recent = self.receipts(since=made.now - _HEALTH_SPAN)
        saved = self.ledger.state(_STATE)
        with self._room("attribute", made) as out:
            ours, theirs, two = self._counters.part(made.ingested.batch, self.ledger.state(TYPES))
            state = None if saved is None else self.attribution.load(saved)
            out.append(self.attribution.attribute(ours, made.recent.rows, state=state, now=made.now))
            outcomes = out[0]
            refuse_nonsense(outcomes, self.window, type(self.attribution).__name__)
            made.reports, kept = self._counters.compare(theirs, outcomes, self.ledger.state(REPORTS), reporting(self.platforms), made.now)
            states = {_STATE: outcomes.state.to_bytes(), TYPES: two, REPORTS: kept}
            made.ingested, made.outcomes = attrs.evolve(made.ingested, batch=ours), outcomes
            made.states = {name: data for name, data in states.items() if data is not None}
        with self._room("classify", made) as out:
            delivered, lost = as_delivered(outcomes, self.thresholds, made.now.date())
            made.findings += lost
            out.append(informed(self.classifier, self.causes()).classify(delivered, now=made.now))
            made.signals = out[0]

    def _judge(self, made: Made) -> None:
        outcomes, signals, now, level = made.outcomes, made.signals, made.now, self.thresholds.level
        with self._room("health", made) as out:
            found = made.findings
            if not self._checked:
                troubles = [*check_platforms(self.platforms, now), *self._reconciled(now)]
                self._checked = not any(f.severity == "critical" for f in troubles)  # asked again until it is mended
                found += troubles
            made.rates = rates_on(self.rates, to_us(now))
            made.budgets, made.unreadable = read_budgets(self.platforms, self.targets, signals, now, outcomes.currency, made.rates)
            found += [*over_credit(outcomes, level), *unreachable(signals, made.unreadable, self.platforms, level)]
            found += [] if made.reports is None else made.reports.findings
            found += [failure.finding(level) for failure in made.failures]
            made.n_told = len(made.failures)
            windows = {"loop": self.window, "attribution": self.attribution.window, "classifier": self.classifier.window}
            windows |= {f"platform {name}": window for name, window in reporting(self.platforms).items()}
            made.health = assess(
                windows=windows,
                ingested=made.ingested,
                signals=signals,
                receipts=made.recent,
                findings=tuple(found),
                now=now,
                thresholds=self.thresholds,
                outcomes=outcomes,
            )
            out.append(made.health)

    def _decide(self, made: Made) -> None:
        with self._room("decide", made) as out:
            made.plan, made.note, evidence = self._plan(made)
            out.append(made.plan)
        made.evidence = {} if evidence is None else {f"{EVIDENCE}{made.cycle}": evidence}

    def _act(self, made: Made) -> None:
        if self.mode == "auto" and made.plan.decisions:
            with self._room("execute", made) as out:
                recorded = plan_entry(made.cycle, made.plan, self.mode, made.now)
                self.ledger.append([recorded], states=made.evidence)  # recorded before sent, with the signals that triggered it
                self._let_send()
                out.append(self.executor.execute(made.plan, now=made.now))
                made.receipts = out[0]
        if self._holdouts is not None:
            with self._room("holdouts", made) as out:
                tests = len(self.lift_tests())
                begin = self.paused is None and made.health.advice == "run" and self._may_test()
                self._holdouts.step(made.cycle, made.outcomes, made.signals, tests, begin=begin, seed=self.seed, now=made.now)
                out.append(self.holdouts())

    def _closed(self, made: Made) -> CycleReport:
        """Record the cycle as complete, in one transaction with the new state."""
        versions = {name: dict(platform.versions) for name, platform in self.platforms.items() if hasattr(platform, "versions")}
        entries = [identity_entry(self._mine, made.now)] if made.cycle == 1 else []
        entries += [
            plan_entry(made.cycle, made.plan, self.mode, made.now),
            cycle_entry(made.cycle, made.plan, self.mode, made.ingested, made.health, versions, made.now),
            *(failure.entry(made.cycle, made.now) for failure in made.failures),
        ]
        self.ledger.append(entries, states={**made.evidence, **made.states})
        self._waiting.clear()
        return made.report(self.mode)

    # ---------------------------------------------------------------- when something raises

    def _failed(self, error: Exception, made: Made, room: str | None = None) -> None:
        if self.on_error == "raise":
            raise error
        name = room or made.room
        failure = RoomFailure.of(name, self._rooms.get(name), error)
        made.failures.append(failure)
        _LOG.error("cycle %d: %s\n%s", made.cycle, failure, failure.traceback)

    def _stopped(self, rows: Any, made: Made) -> CycleReport:
        """Return the report of a cycle that could not decide: record why, keep what was learned, and let the rows wait otherwise."""
        entries = [identity_entry(self._mine, made.now)] if made.cycle == 1 else []
        self.ledger.append([*entries, *(f.entry(made.cycle, made.now) for f in made.failures)], states=made.states)
        if made.states:
            self._waiting.clear()
        elif made.read is not None:
            self._waiting = [made.read]
        elif can_be_read_again(rows):
            self._waiting.append(rows)
        newest = self.ledger.newest("plan", subject=f"cycle {made.cycle - 1}")
        before = decode(newest[0].entry.body["plan"]) if newest else None
        return made.stopped(self.mode, before, self.window, self._tags, self.horizon)

    def _read(self, rows: Any) -> Ingested:
        return rows if isinstance(rows, Ingested) else self.ingestor.ingest(rows)

    def _check_clock(self, now: datetime) -> None:
        to_us(now)
        done = self.ledger.newest("cycle", subject="loop")
        if done and now < done[0].entry.at:
            last = done[0].entry.at.isoformat()
            raise InputError(f"the clock went back: the last cycle ran at {last}", "now", now.isoformat(), "pass a later time")

    @contextmanager
    def _room(self, room: str, made: Made) -> Iterator[list[Any]]:
        made.room = room
        started = time.perf_counter()  # measures the room; no room reads a clock
        result: list[Any] = []
        with self._around(room):
            yield result
        seconds = time.perf_counter() - started
        made.timings[room] = made.timings.get(room, 0.0) + seconds
        if self._hook is not None:
            try:
                self._hook(room, seconds, result[0] if result else None)
            except Exception as error:  # noqa: BLE001 (as in run_cycle; the room itself has done its work)
                self._failed(error, made, f"hook after {room}")

    def _plan(self, made: Made) -> tuple[Plan, str, bytes | None]:
        cycle, signals, health, now, budgets = made.cycle, made.signals, made.health, made.now, made.budgets
        rates = {m.currency: made.rates[m.currency] for m in (budgets or {}).values() if m.currency in made.rates}
        recorded = self.ledger.newest("plan", subject=f"cycle {cycle}")
        if recorded:
            return decode(recorded[0].entry.body["plan"]), "resumed: the plan recorded before the interruption stands", None
        hold, note = reason_to_hold(self.paused, health)
        override = {
            "unreadable": [[list(arm), why] for arm, why in made.unreadable.items()],
            "held": [[list(arm), *words] for arm, words in campaign_holds(signals, health).items()],
            "hold": hold,
            **({"rates": rates} if rates else {}),
        }
        added = {"cycle": cycle, "seed": self.seed, "mode": self.mode, "override": override}
        plan = decide(self.decider, signals, budgets, horizon=self.horizon, now=now, cycle=cycle, added=added)
        return plan, note, pack(signals, budgets)

    def __repr__(self) -> str:
        return f"ClosedLoop({self.name!r}, {self.window}, mode={self.mode}, {self.cycles} cycles, platforms={sorted(self.platforms)})"
