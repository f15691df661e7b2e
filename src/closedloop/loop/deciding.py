"""What the loop knows and the decider cannot: budgets that stand, platforms that do not answer, health, and a pause.

Law of this file: an *override* is plain content that is recorded with the plan, so that a replay makes the same plan from it. An arm that
is held is told to the decider, which keeps the rest of the plan in balance; only what holds everything is laid over a finished plan.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs
import numpy as np

from closedloop.decide import default_target
from closedloop.errors import ConfigurationError, PlatformError
from closedloop.execute import Reconciliation
from closedloop.interfaces import Classifier, Decider, ReadsState
from closedloop.loop.currencies import exchanged, in_own_currency
from closedloop.loop.holds import explained, hold_all
from closedloop.platforms.redaction import redact
from closedloop.records.arms import Arm
from closedloop.records.causes import CausalEvidence
from closedloop.records.decision import Plan, Target
from closedloop.records.feedback import Finding, HealthReport, Severity
from closedloop.records.interval import Interval
from closedloop.records.money import Money
from closedloop.records.signal import Signals

Override = Mapping[str, Any]


def read_budgets(
    platforms: Mapping[str, Any],
    targets: Mapping[Arm, Target] | None,
    signals: Signals,
    now: datetime,
    currency: str | None,
    rates: Mapping[str, float],
) -> tuple[dict[Arm, Money] | None, dict[Arm, str]]:
    """Return the budget a day of every arm whose platform says it, and why the others have none (None: there are no platforms).

    Budgets are in each account's own currency; one that is neither ``currency`` nor has a rate cannot be compared with the others.
    """
    if not platforms:
        return None, {}
    budgets: dict[Arm, Money] = {}
    unreadable: dict[Arm, str] = {}
    for arm in signals.arms:
        target = default_target(signals.arms.columns, arm) if targets is None else targets.get(arm)
        platform = None if target is None else platforms.get(target.platform)
        if target is None or not isinstance(platform, ReadsState):
            name = "no target" if target is None else f"no adapter for platform {target.platform!r}"
            unreadable[arm] = f"{name}; known: {', '.join(platforms)}"
            continue
        try:
            found = platform.read(target, now=now)
        except PlatformError as error:
            unreadable[arm] = str(error)
            continue
        except Exception as error:  # noqa: BLE001 (a broken adapter must not stop the other platforms; what it raised is told)
            unreadable[arm] = f"its adapter failed with {type(error).__name__}: {redact(error)}"
            continue
        if found.budget is None:
            continue
        own = found.budget.currency
        if currency is not None and own != currency and own not in rates:
            unreadable[arm] = f"it is in {own}, the data are in {currency}, and there is no rate: ClosedLoop(rates={{{own!r}: ...}})"
            continue
        budgets[arm] = found.budget
    return budgets, unreadable


def check_platforms(platforms: Mapping[str, Any], now: datetime) -> list[Finding]:
    """Ask every adapter that can check itself (credentials, versions and their sunset) and return what is wrong with it.

    A warning stays one; an adapter that refuses is critical for its own platform, whose arms are then held while the others go on.
    """
    found: list[Finding] = []
    for name, platform in platforms.items():
        check = getattr(platform, "check", None)
        if check is None:
            continue
        try:
            problems: list[tuple[Severity, str, str]] = [("warning", text, "plan the upgrade") for text in check(now=now)]
        except (PlatformError, ConfigurationError) as error:
            problems = [("critical", error.problem, error.mend or "mend the platform connection")]
        except Exception as error:  # noqa: BLE001 (as in read_budgets)
            problems = [("critical", f"its check failed with {type(error).__name__}: {redact(error)}", "mend the adapter")]
        for severity, evidence, mend in problems:
            passed = Interval(low=0.0, estimate=0.0, high=0.0, level=0.9, kind="credible")  # of the adapter's own checks, as a share
            found.append(
                Finding(name="adapter", severity=severity, scope=name, measured=passed, threshold=1.0, evidence=evidence, mend=mend)
            )
    return found


def unreachable(signals: Signals, unreadable: Mapping[Arm, str], platforms: Mapping[str, Any], level: float) -> list[Finding]:
    """Return a critical finding for every platform of which no budget could be read: its arms are held while the others go on."""
    if "platform" not in signals.arms.columns:
        return []
    at = signals.arms.columns.index("platform")
    by_platform: dict[str, list[Arm]] = {}
    for arm in signals.arms:
        by_platform.setdefault(str(arm[at]), []).append(arm)
    return [
        Finding(
            name="integrations",
            severity="critical",
            scope=name,
            measured=Interval(low=0.0, estimate=0.0, high=0.0, level=level, kind="credible"),  # counted: the share that was read
            threshold=1.0,
            evidence=f"none of the {len(arms)} budgets of {name} could be read: {unreadable[arms[0]]}",
            mend="mend the connection; its budgets stand as they are, and are read again in the next cycle",
        )
        for name, arms in by_platform.items()
        if name in platforms and all(arm in unreadable for arm in arms)
    ]


def differences(found: Reconciliation) -> list[Finding]:
    """Return a warning for every target at which something else stands than intended; the next plan starts from what stands."""
    agreeing = len(found) - len(found.differing)
    share = agreeing / len(found) if len(found) else 1.0
    measured = Interval(low=share, estimate=share, high=share, level=0.9, kind="credible")  # counted, not estimated
    return [
        Finding(
            name="reconciliation",
            severity="warning",
            scope=str(row.target),
            measured=measured,
            threshold=1.0,
            evidence=f"{row.verdict}: {row.because}",
            mend=row.mend,
        )
        for row in found.differing
    ]


def informed(classifier: Classifier, known: CausalEvidence) -> Classifier:
    """Return the classifier told what is known of the cause of its credit: lift tests, and stated priors where there are none.

    A classifier that cannot be told stays as it is while there are no tests. What it was given itself stands: its own tests and priors
    get the loop's tests added, shares of another kind stand until there are tests.

    Raises:
        ConfigurationError: There are tests, and this classifier cannot be told.
    """
    kind = type(classifier)
    if not attrs.has(kind) or "incrementality" not in attrs.fields_dict(kind):
        if not known.tests:
            return classifier
        mend = "use BayesClassifier, or a frozen attrs class with a field incrementality"
        raise ConfigurationError("this classifier cannot take lift tests", "classifier", kind.__name__, mend)
    own = getattr(classifier, "incrementality", None)
    if isinstance(own, CausalEvidence):
        known = attrs.evolve(own, tests=(*own.tests, *known.tests))
    elif own is not None and not known.tests:
        return classifier
    own_kind: Any = classifier  # an attrs class with that field, as was just seen
    told: Classifier = attrs.evolve(own_kind, incrementality=known)
    return told


def campaign_holds(signals: Signals, health: HealthReport) -> dict[Arm, tuple[str, str]]:
    """Return the arms whose campaign or platform has a critical finding, with evidence and mend; volume is the decider's own gate."""
    critical = {f.scope: f for f in health.findings if f.severity == "critical" and f.scope != "account" and f.name != "volume"}
    if not critical:
        return {}
    named = [c for c in ("platform", "campaign") if c in signals.arms.columns]
    at = [signals.arms.columns.index(c) for c in named]
    held: dict[Arm, tuple[str, str]] = {}
    for arm in signals.arms:
        tags = [str(arm[i]) for i in at]
        for scope in (" / ".join(tags), *tags[:1]):
            if scope in critical:
                held[arm] = (critical[scope].evidence, critical[scope].mend)
                break
    return held


def reason_to_hold(paused: str | None, health: HealthReport) -> tuple[list[str] | None, str]:
    """Return reason, explanation and mend where the loop as a whole must hold, and the note for the report."""
    if paused is not None:
        return ["paused", f"The loop is paused: {paused}.", "Call resume()."], "paused"
    if health.advice != "run":
        mend = "; ".join(f.mend for f in (*health.conditions, *health.findings) if f.severity == "critical" and f.mend)
        return ["health", f"Health says {health.advice}: {health.because}.", mend], f"health: {health.advice}"
    return None, ""


def decide(
    decider: Decider,
    signals: Signals,
    budgets: Mapping[Arm, Money] | None,
    *,
    horizon: float,
    now: datetime,
    cycle: int,
    added: Mapping[str, Any],
) -> Plan:
    """Return the plan of a cycle as the loop hands it on.

    Args:
        decider: Decides; one whose ``decide`` takes ``held`` is told which arms are held, so that the rest stays in balance.
        signals, budgets, horizon, now: As for the decider.
        cycle: Number of the cycle; with the seed it gives the random draws.
        added: What the loop adds to the plan's provenance: ``seed``, ``mode`` and ``override``. That has ``unreadable`` and ``held``
            (lists of [arm, words...]) and ``hold`` ([reason, explanation, what would lift it], None to let the plan stand), and ``rates``
            where budgets stand in other currencies than the data: units of the data's currency for one unit of theirs.
    """
    override: Override = added["override"]
    rng = np.random.default_rng([int(added["seed"]), cycle])
    held = {tuple(arm): (evidence, mend) for arm, evidence, mend in override["held"]}
    more: dict[str, Any] = {}
    everything = override["hold"]
    if held and "held" in inspect.signature(decider.decide).parameters:
        more["held"] = dict.fromkeys(held, "health")
    elif held and everything is None:  # a plan made without knowing of the held arms would not balance without them
        everything = ["health", "Some campaigns must be held and this decider cannot be told: " + next(iter(held.values()))[0], ""]
    rates, own = override.get("rates") or {}, signals.outcomes.currency
    known = budgets if not rates or budgets is None or own is None else exchanged(budgets, own, rates)
    plan = decider.decide(signals, known, horizon=horizon, now=now, rng=rng, **more)
    plan = attrs.evolve(plan, provenance={**plan.provenance, **added})
    if rates and budgets is not None:
        plan = in_own_currency(plan, budgets, rates)
    unreadable = {tuple(arm): why for arm, why in override["unreadable"]}
    plan = explained(plan, unreadable, held)
    return plan if everything is None else hold_all(plan, *everything)
