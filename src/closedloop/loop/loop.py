"""The loop: the only code that calls all five rooms, once per cycle and in order.

Law of this file: one verb per room, each room entered once per cycle; a decision is durable before the first byte goes out;
everything else is appended at the end of the cycle in one transaction with the new state, so a killed cycle is replayed and
not half-kept. Time and randomness are arguments: ``now`` from the caller, one generator per cycle from the loop's seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from closedloop.attribute import WindowedAttribution
from closedloop.classify import BayesClassifier
from closedloop.decide import BudgetDecider
from closedloop.errors import ConfigurationError, InputError, LedgerError, WindowMismatchError
from closedloop.execute import OutboxExecutor, Reconciliation
from closedloop.health import Thresholds, assess
from closedloop.ingest import TableIngestor
from closedloop.ingest.exchange import Rate, check_rates, rates_on
from closedloop.interfaces import AttributionFeedback, Classifier, Decider, Executor, Ingestor, Ledger
from closedloop.ledger import MemoryLedger, SqliteLedger, decode, encode
from closedloop.loop.checks import over_credit, refuse_nonsense
from closedloop.loop.cycle import CycleReport, Mode
from closedloop.loop.deciding import (
    campaign_holds,
    check_platforms,
    decide,
    differences,
    informed,
    read_budgets,
    reason_to_hold,
    unreachable,
)
from closedloop.loop.evidence import pack
from closedloop.loop.holdouts import Holdout, HoldoutPolicy, Holdouts
from closedloop.loop.recording import approval_entry, cycle_entry, identity_entry, lift_entry, mode_entry, plan_entry, revert_entry
from closedloop.loop.replay import EVIDENCE
from closedloop.records.action import Receipts
from closedloop.records.arms import Arm
from closedloop.records.causes import CausalEvidence
from closedloop.records.decision import Constraints, Plan, Target
from closedloop.records.feedback import Finding, HealthReport
from closedloop.records.lift import LiftResult
from closedloop.records.moments import to_us
from closedloop.records.money import Money
from closedloop.records.quarantine import Ingested
from closedloop.records.signal import Signals
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

_STATE = "attribution"
_HEALTH_SPAN = timedelta(days=7)
RoomHook = Callable[[str, float, Any], None]


class ClosedLoop:
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
    ) -> None:
        if mode not in ("shadow", "approve", "auto"):
            raise ConfigurationError("unknown mode", "mode", mode, None, ("shadow", "approve", "auto"))
        tags = tags or TagSchema()
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
        self._checked = False
        self._check_windows(executor)
        if ledger is None or isinstance(ledger, str | Path):
            self.ledger: Ledger = MemoryLedger() if ledger is None else SqliteLedger(ledger)
            self._owns_ledger = True
        else:
            self.ledger, self._owns_ledger = ledger, False
        self.executor = executor or OutboxExecutor(self.ledger, self.platforms)
        self._holdouts = None if holdouts is None else Holdouts(holdouts, self.ledger, self.platforms, self.targets)
        self._mine = {"name": name, "window": encode(window), "arm": list(tags.arm)}
        self._check_identity()

    # ---------------------------------------------------------------- set-up

    def _check_windows(self, executor: Executor | None) -> None:
        for layer, room in (
            ("ingestor", self.ingestor),
            ("attribution", self.attribution),
            ("classifier", self.classifier),
            ("decider", self.decider),
            ("executor", executor),
        ):
            found = getattr(room, "window", self.window)
            if found is not None and found != self.window:
                problem = f"the loop has {self.window} and its {layer} has {found}"
                raise WindowMismatchError(problem, layer, None, "give every layer the same AttributionWindow")

    def _check_identity(self) -> None:
        mine = self._mine
        known = self.ledger.newest("identity", subject="loop")
        if not known:
            return
        theirs = known[0].entry.body
        for field, what in (("name", "account"), ("window", "attribution window"), ("arm", "arm columns")):
            if theirs[field] != mine[field]:
                error = WindowMismatchError if field == "window" else ConfigurationError
                found = decode(theirs[field]) if field == "window" else theirs[field]
                raise error(
                    f"this ledger was made for another {what}: {found}", field, mine[field], "open it with that, or start a new ledger"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the ledger if the loop opened it."""
        if self._owns_ledger and isinstance(self.ledger, SqliteLedger):
            self.ledger.close()

    # ---------------------------------------------------------------- one cycle

    @property
    def cycles(self) -> int:
        """How many cycles the ledger holds as complete."""
        done = self.ledger.newest("cycle", subject="loop")
        return int(done[0].entry.body["cycle"]) if done else 0

    def run_cycle(self, rows: Any, *, now: datetime, findings: Sequence[Finding] = ()) -> CycleReport:
        """Run one cycle on new rows and return everything that crossed a door.

        When it returns, the rows are remembered and the decisions recorded. When it does not (an exception, a kill), call it
        again with the same or more rows: nothing is counted or sent twice, and a plan already recorded for this cycle stands.

        Args:
            rows: Any table of raw rows since the last complete cycle (more does no harm), or an `Ingested` made earlier.
            now: The time of the cycle (aware). Not before the last cycle's.
            findings: What you found yourself, such as ``VerifiedGain.finding()`` or an audit's; a critical one holds the loop.

        Raises:
            InputError: ``now`` has no zone or lies before the last cycle; the table cannot be read at all.
            ConfigurationError: Your own attribution returned what cannot be meant.
            LedgerError: The ledger cannot be trusted or written.
        """
        self._check_clock(now)
        cycle = self.cycles + 1
        timings: dict[str, float] = {}

        with self._room("execute", timings) as out:
            self.tick(now)  # what earlier cycles sent is settled before anything is learned from it
            out.append(None)
        with self._room("ingest", timings) as out:
            out.append(rows if isinstance(rows, Ingested) else self.ingestor.ingest(rows))
            ingested: Ingested = out[0]
        recent = self.receipts(since=now - _HEALTH_SPAN)
        saved = self.ledger.state(_STATE)
        with self._room("attribute", timings) as out:
            state = None if saved is None else self.attribution.load(saved)
            out.append(self.attribution.attribute(ingested.batch, recent.rows, state=state, now=now))
            outcomes = out[0]
            refuse_nonsense(outcomes, self.window, type(self.attribution).__name__)
        with self._room("classify", timings) as out:
            out.append(informed(self.classifier, self.causes()).classify(outcomes, now=now))
            signals: Signals = out[0]
        with self._room("health", timings) as out:
            if not self._checked:
                troubles = [*check_platforms(self.platforms, now), *self._reconciled(now)]
                self._checked = not any(f.severity == "critical" for f in troubles)  # asked again until it is mended
                findings = (*findings, *troubles)
            rates = rates_on(self.rates, to_us(now))
            budgets, unreadable = read_budgets(self.platforms, self.targets, signals, now, outcomes.currency, rates)
            level = self.thresholds.level
            findings = (*findings, *over_credit(outcomes, level), *unreachable(signals, unreadable, self.platforms, level))
            out.append(self._assess(ingested, signals, recent, findings, now))
            health: HealthReport = out[0]
        with self._room("decide", timings) as out:
            foreign = {m.currency: rates[m.currency] for m in (budgets or {}).values() if m.currency in rates}
            plan, note, evidence = self._plan(cycle, signals, health, now, budgets, unreadable, foreign)
            out.append(plan)
        receipts = Receipts()
        recorded = plan_entry(cycle, plan, self.mode, now)
        kept = {} if evidence is None else {f"{EVIDENCE}{cycle}": evidence}
        if self.mode == "auto" and plan.decisions:
            with self._room("execute", timings) as out:
                self.ledger.append([recorded], states=kept)  # recorded before sent, with the signals that triggered it
                self._let_send()
                out.append(self.executor.execute(plan, now=now))
                receipts = out[0]

        if self._holdouts is not None:
            with self._room("holdouts", timings) as out:
                tests = len(self.lift_tests())
                begin = self.paused is None and health.advice == "run" and self._may_test()
                self._holdouts.step(cycle, outcomes, signals, tests, begin=begin, seed=self.seed, now=now)
                out.append(self.holdouts())

        versions = {name: dict(platform.versions) for name, platform in self.platforms.items() if hasattr(platform, "versions")}
        entries = [identity_entry(self._mine, now)] if cycle == 1 else []
        entries += [recorded, cycle_entry(cycle, plan, self.mode, ingested, health, versions, now)]
        self.ledger.append(entries, states={**kept, _STATE: outcomes.state.to_bytes()})
        return CycleReport(
            cycle=cycle,
            now=now,
            mode=self.mode,
            ingested=ingested,
            outcomes=outcomes,
            signals=signals,
            plan=plan,
            receipts=receipts,
            health=health,
            timings=timings,
            note=note,
        )

    def _reconciled(self, now: datetime) -> list[Finding]:
        """On start: what stands elsewhere than intended, as findings."""
        return differences(self.reconcile(now=now)) if isinstance(self.executor, OutboxExecutor) and self.cycles else []

    def _check_clock(self, now: datetime) -> None:
        to_us(now)
        done = self.ledger.newest("cycle", subject="loop")
        if done and now < done[0].entry.at:
            last = done[0].entry.at.isoformat()
            raise InputError(f"the clock went back: the last cycle ran at {last}", "now", now.isoformat(), "pass a later time")

    @contextmanager
    def _room(self, room: str, timings: dict[str, float]) -> Iterator[list[Any]]:
        started = time.perf_counter()  # measures the room; no room reads a clock
        result: list[Any] = []
        with self._around(room):
            yield result
        seconds = time.perf_counter() - started
        timings[room] = timings.get(room, 0.0) + seconds
        if self._hook is not None:
            self._hook(room, seconds, result[0] if result else None)

    def _assess(self, ingested: Ingested, signals: Signals, recent: Receipts, findings: Sequence[Finding], now: datetime) -> HealthReport:
        windows = {"loop": self.window, "attribution": self.attribution.window, "classifier": self.classifier.window}
        for name, platform in self.platforms.items():
            reporting = getattr(platform, "reporting_window", None)
            if reporting is not None:
                windows[f"platform {name}"] = reporting
        return assess(
            windows=windows,
            ingested=ingested,
            signals=signals,
            receipts=recent,
            findings=tuple(findings),
            now=now,
            thresholds=self.thresholds,
        )

    # ---------------------------------------------------------------- deciding

    def _plan(
        self,
        cycle: int,
        signals: Signals,
        health: HealthReport,
        now: datetime,
        budgets: Mapping[Arm, Money] | None,
        unreadable: Mapping[Arm, str],
        rates: Mapping[str, float],
    ) -> tuple[Plan, str, bytes | None]:
        recorded = self.ledger.newest("plan", subject=f"cycle {cycle}")
        if recorded:
            return decode(recorded[0].entry.body["plan"]), "resumed: the plan recorded before the interruption stands", None
        hold, note = reason_to_hold(self.paused, health)
        override = {
            "unreadable": [[list(arm), why] for arm, why in unreadable.items()],
            "held": [[list(arm), *words] for arm, words in campaign_holds(signals, health).items()],
            "hold": hold,
            **({"rates": dict(rates)} if rates else {}),
        }
        added = {"cycle": cycle, "seed": self.seed, "mode": self.mode, "override": override}
        plan = decide(self.decider, signals, budgets, horizon=self.horizon, now=now, cycle=cycle, added=added)
        return plan, note, pack(signals, budgets)

    # ---------------------------------------------------------------- control by people

    @property
    def paused(self) -> str | None:
        """Why the loop is paused, None when it is not."""
        found = self.ledger.newest("mode", subject="loop")
        body = found[0].entry.body if found else {}
        return str(body["reason"]) if body.get("paused") else None

    def _set_paused(self, paused: bool, reason: str, by: str, now: datetime) -> None:
        number = sum(1 for _ in self.ledger.entries(kind="mode", subject="loop")) + 1
        self.ledger.append([mode_entry(number, paused=paused, reason=reason, by=by, now=now)])

    def pause(self, reason: str, *, by: str, now: datetime) -> None:
        """Send nothing more and hold every arm, and record who said so and why; learning and looking go on."""
        self._set_paused(True, reason, by, now)

    def resume(self, *, by: str, now: datetime) -> None:
        """Let the loop act again, and record who said so."""
        self._set_paused(False, "", by, now)

    def awaiting_approval(self) -> Sequence[Plan]:
        """Return the plans that wait for a person, oldest first."""
        return [decode(r.entry.body["plan"]) for r in self.ledger.newest("plan", only_open=True)]

    def approve(self, plan_id: str, *, by: str, now: datetime) -> Receipts:
        """Send a plan that waits, and record who approved it.

        Raises:
            ConfigurationError: No such plan waits; those that do are listed.
        """
        for found in self.ledger.newest("plan", only_open=True):
            entry = found.entry
            if entry.body["plan_id"] == plan_id:
                closed = attrs.evolve(entry, at=now, key=f"{entry.key}:approved", is_open=False)
                self.ledger.append([approval_entry(plan_id, by, now), closed])
                self._let_send()
                return self.executor.execute(decode(entry.body["plan"]), now=now)
        waiting = tuple(p.plan_id for p in self.awaiting_approval())
        raise ConfigurationError("no such plan waits for approval", "plan_id", plan_id, None, waiting)

    def receipts(self, *, since: datetime | None = None) -> Receipts:
        """Return the receipts of every plan made since a time (by default of all plans), oldest first."""
        plans = [r.entry.body["plan_id"] for r in self.ledger.entries(kind="plan", since=since)]
        return Receipts.of([receipt for plan_id in dict.fromkeys(plans) for receipt in self.executor.receipts(plan_id)])

    def reconcile(self, *, now: datetime) -> Reconciliation:
        """Compare what was intended with what stands at every target; explain each difference and propose the mend, change nothing.

        Raises:
            ConfigurationError: The executor is your own and cannot reconcile.
        """
        return self._own_executor("reconcile").reconcile(now=now)

    def revert(self, plan_id: str, *, by: str, now: datetime) -> Plan:
        """Restore what stood before a plan, within the constraints, as a plan like any other: sent in ``auto``, else waiting for `approve`.

        Raises:
            ConfigurationError: No such plan was executed, or the executor is your own and cannot revert.
        """
        limits = getattr(self.decider, "constraints", None)
        plan = self._own_executor("revert").revert(plan_id, now=now, constraints=limits)
        plan = attrs.evolve(plan, provenance={**plan.provenance, "reverts": plan_id, "by": by})
        self.ledger.append([revert_entry(plan, self.mode, now)])
        if self.mode == "auto":
            self._let_send()
            self.executor.execute(plan, now=now)
        return plan

    def _own_executor(self, verb: str) -> OutboxExecutor:
        if isinstance(self.executor, OutboxExecutor):
            return self.executor
        raise ConfigurationError(f"this executor cannot {verb}", "executor", type(self.executor).__name__, "use OutboxExecutor")

    def add_lift_test(self, test: LiftResult, *, by: str, now: datetime) -> None:
        """Remember a lift test: from the next cycle on arms are ranked and moved by caused conversions, as far as tests and priors know."""
        self.ledger.append([lift_entry(len(self.lift_tests()) + 1, test, by, now)])

    def lift_tests(self) -> Sequence[LiftResult]:
        """Return the lift tests that the ledger holds, oldest first."""
        return [decode(r.entry.body["test"]) for r in self.ledger.entries(kind="lift")]

    def _may_test(self) -> bool:
        return self.mode == "auto" or (self.mode == "shadow" and self._holdouts is not None and self._holdouts.policy.in_shadow)

    def holdouts(self) -> Sequence[Holdout]:
        """Return the holdouts that the loop asked for, oldest first, with what each was expected to cost."""
        return [] if self._holdouts is None else self._holdouts.all()

    def causes(self) -> CausalEvidence:
        """Return what is known and assumed of the cause of credit: the priors, and every test that the ledger holds."""
        return attrs.evolve(self._assumed, tests=(*self._assumed.tests, *self.lift_tests()))

    def tick(self, now: datetime) -> datetime | None:
        """Let the executor do what is due; return when to call again, None when nothing is open.

        While the loop is paused nothing is sent: what is in flight is looked at, what is queued stays recorded until it expires.
        """
        self._let_send()
        return self.executor.tick(now)

    def _let_send(self) -> None:
        if hasattr(self.executor, "sending"):
            self.executor.sending = self.paused is None

    def verify(self) -> None:
        """Check the ledger's own evidence, where the ledger offers it.

        Raises:
            LedgerError: A record was edited, removed or reordered.
        """
        check = getattr(self.ledger, "verify", None)
        if check is None:
            raise LedgerError("this ledger cannot verify itself", "ledger", type(self.ledger).__name__)
        check()

    def __repr__(self) -> str:
        return f"ClosedLoop({self.name!r}, {self.window}, mode={self.mode}, {self.cycles} cycles, platforms={sorted(self.platforms)})"
