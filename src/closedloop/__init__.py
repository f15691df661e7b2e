"""Closed-loop marketing optimisation with an honest uncertainty interval on every decision.

Ingest tagged events, attribute conversions inside one window, rank arms by probability, move budgets within limits, confirm every
change, and learn from what came back. See `ClosedLoop` for the whole, and the rooms for the parts.
"""

from closedloop.attribute import WindowedAttribution
from closedloop.classify import BayesClassifier
from closedloop.decide import BudgetDecider
from closedloop.errors import (
    AuthenticationError,
    ClosedLoopError,
    ConfigurationError,
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
from closedloop.execute import OutboxExecutor
from closedloop.health import Thresholds, assess
from closedloop.ingest import TableIngestor
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
)
from closedloop.ledger import MemoryLedger, SqliteLedger
from closedloop.loop import ClosedLoop, CycleReport, Replay, replay
from closedloop.platforms.simulated import SimulatedPlatform
from closedloop.records.action import AttemptResult, Change, Entry, Receipt, Receipts, Recorded, TargetState
from closedloop.records.arms import Arm, Arms
from closedloop.records.batch import EventBatch
from closedloop.records.decision import Constraints, Decision, Hold, Plan, Target
from closedloop.records.feedback import Finding, HealthReport
from closedloop.records.interval import Interval, Intervals
from closedloop.records.money import Money
from closedloop.records.outcomes import Outcomes
from closedloop.records.quarantine import Ingested, Quarantine, QuarantinedRow, TagReport
from closedloop.records.signal import Signal, Signals
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow
from closedloop.simulation import Market

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
    "Change",
    "Classifier",
    "ClosedLoop",
    "ClosedLoopError",
    "ConfigurationError",
    "Constraints",
    "CycleReport",
    "Decider",
    "Decision",
    "Entry",
    "EventBatch",
    "Executor",
    "Finding",
    "HealthReport",
    "Hold",
    "InfeasibleError",
    "Ingested",
    "Ingestor",
    "InputError",
    "Interval",
    "Intervals",
    "InvariantError",
    "Ledger",
    "LedgerError",
    "LimitsRequests",
    "Market",
    "MemoryLedger",
    "MissingColumnError",
    "MissingExtraError",
    "Money",
    "NotSentError",
    "OutboxExecutor",
    "OutcomeUnknownError",
    "Outcomes",
    "Plan",
    "PlatformError",
    "Quarantine",
    "QuarantinedRow",
    "ReadsState",
    "Receipt",
    "Receipts",
    "Recorded",
    "RejectedError",
    "Replay",
    "ReportsSpend",
    "Signal",
    "Signals",
    "SimulatedPlatform",
    "SqliteLedger",
    "TableIngestor",
    "TagReport",
    "TagSchema",
    "Target",
    "TargetState",
    "Thresholds",
    "UnknownPlatformError",
    "WindowMismatchError",
    "WindowedAttribution",
    "__version__",
    "assess",
    "replay",
]
