"""Closed-loop marketing optimisation with an honest uncertainty interval on every decision.

Ingest tagged events, attribute conversions inside one window, rank arms by probability, move budgets within limits, confirm every
change, and learn from what came back. See `ClosedLoop` for the whole, and the rooms for the parts.
"""

from closedloop.attribute import (
    Incrementality,
    LiftResult,
    PathCounts,
    PathCredits,
    WindowedAttribution,
    attribute_paths,
    audit,
    event_paths,
    incremental,
)
from closedloop.classify import BayesClassifier, LastWindowClassifier, ModelClassifier, SequenceClassifier
from closedloop.decide import BudgetDecider, Guardrails
from closedloop.errors import (
    AuthenticationError,
    ClosedLoopError,
    ConfigurationError,
    ConflictError,
    InfeasibleError,
    InputError,
    InvariantError,
    LedgerError,
    MissingColumnError,
    MissingExtraError,
    NotSentError,
    OutcomeUnknownError,
    PlatformError,
    RejectedError,
    UnknownPlatformError,
    WindowMismatchError,
)
from closedloop.execute import DelayReport, OutboxExecutor, Reconciliation, delay_report
from closedloop.health import Thresholds, assess, compare_reports, trends
from closedloop.ingest import EventRecorder, Privacy, TableIngestor, TagRegistry
from closedloop.interfaces import (
    AppliesChanges,
    AttributionFeedback,
    Classifier,
    Decider,
    Executor,
    Ingestor,
    Ledger,
    LimitsRequests,
    ReadsState,
    ReportsSpend,
    RunsHoldouts,
    WeighsRequests,
)
from closedloop.ledger import MemoryLedger, PostgresLedger, SqliteLedger
from closedloop.loop import ClosedLoop, CycleReport, HoldoutPlan, HoldoutPolicy, Replay, Switchback, VerifiedGain, plan_holdout, replay
from closedloop.platforms.simulated import SimulatedPlatform
from closedloop.records.action import AttemptResult, Change, Entry, Receipt, Receipts, Recorded, TargetState
from closedloop.records.arms import Arm, Arms
from closedloop.records.batch import EventBatch
from closedloop.records.causes import CausalEvidence, TypePrior
from closedloop.records.decision import Constraints, Decision, GroupLimit, Hold, Plan, Target
from closedloop.records.feedback import Finding, HealthReport
from closedloop.records.holdout import HoldoutCounts
from closedloop.records.interval import Interval, Intervals
from closedloop.records.money import Money
from closedloop.records.outcomes import Outcomes
from closedloop.records.quarantine import Ingested, Quarantine, QuarantinedRow, TagReport
from closedloop.records.signal import Signal, Signals
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow
from closedloop.simulation import Market, Simulator

__version__ = "0.1.0"

__all__ = [
    "AppliesChanges",
    "Arm",
    "Arms",
    "AttemptResult",
    "AttributionFeedback",
    "AttributionWindow",
    "AuthenticationError",
    "BayesClassifier",
    "BudgetDecider",
    "CausalEvidence",
    "Change",
    "Classifier",
    "ClosedLoop",
    "ClosedLoopError",
    "ConfigurationError",
    "ConflictError",
    "Constraints",
    "CycleReport",
    "Decider",
    "Decision",
    "DelayReport",
    "Entry",
    "EventBatch",
    "EventRecorder",
    "Executor",
    "Finding",
    "GroupLimit",
    "Guardrails",
    "HealthReport",
    "Hold",
    "HoldoutCounts",
    "HoldoutPlan",
    "HoldoutPolicy",
    "Incrementality",
    "InfeasibleError",
    "Ingested",
    "Ingestor",
    "InputError",
    "Interval",
    "Intervals",
    "InvariantError",
    "LastWindowClassifier",
    "Ledger",
    "LedgerError",
    "LiftResult",
    "LimitsRequests",
    "Market",
    "MemoryLedger",
    "MissingColumnError",
    "MissingExtraError",
    "ModelClassifier",
    "Money",
    "NotSentError",
    "OutboxExecutor",
    "OutcomeUnknownError",
    "Outcomes",
    "PathCounts",
    "PathCredits",
    "Plan",
    "PlatformError",
    "PostgresLedger",
    "Privacy",
    "Quarantine",
    "QuarantinedRow",
    "ReadsState",
    "Receipt",
    "Receipts",
    "Reconciliation",
    "Recorded",
    "RejectedError",
    "Replay",
    "ReportsSpend",
    "RunsHoldouts",
    "SequenceClassifier",
    "Signal",
    "Signals",
    "SimulatedPlatform",
    "Simulator",
    "SqliteLedger",
    "Switchback",
    "TableIngestor",
    "TagRegistry",
    "TagReport",
    "TagSchema",
    "Target",
    "TargetState",
    "Thresholds",
    "TypePrior",
    "UnknownPlatformError",
    "VerifiedGain",
    "WeighsRequests",
    "WindowMismatchError",
    "WindowedAttribution",
    "__version__",
    "assess",
    "attribute_paths",
    "audit",
    "compare_reports",
    "delay_report",
    "event_paths",
    "incremental",
    "plan_holdout",
    "replay",
    "trends",
]
