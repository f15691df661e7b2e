"""Attribution feedback: credit with a window and an interval."""

from closedloop.attribute.attribution import MODELS, WindowedAttribution
from closedloop.attribute.audit import PlatformReport, audit
from closedloop.attribute.chains import event_paths
from closedloop.attribute.coalitions import shapley_values
from closedloop.attribute.heuristics import Touches
from closedloop.attribute.incrementality import Incrementality, incremental, randomised_effect
from closedloop.attribute.intervals import credit_intervals
from closedloop.attribute.path_credit import PathCredits, attribute_paths
from closedloop.attribute.paths import PathCounts
from closedloop.attribute.state import AttributionState
from closedloop.records.lift import LiftResult

__all__ = [
    "MODELS",
    "AttributionState",
    "Incrementality",
    "LiftResult",
    "PathCounts",
    "PathCredits",
    "PlatformReport",
    "Touches",
    "WindowedAttribution",
    "attribute_paths",
    "audit",
    "credit_intervals",
    "event_paths",
    "incremental",
    "randomised_effect",
    "shapley_values",
]
