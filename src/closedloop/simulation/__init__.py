"""A market with known truth, to try a loop in before money does."""

from closedloop.simulation.curves import Truth
from closedloop.simulation.export import export
from closedloop.simulation.faults import (
    AlteredBudgets,
    Duplicates,
    Fault,
    IgnoredChanges,
    LateEvents,
    LostReplies,
    MissingTags,
    Outage,
    SilentPlatform,
    SlowChanges,
    WindowMismatch,
    WrongAttribution,
)
from closedloop.simulation.market import COLUMNS, Market
from closedloop.simulation.pool import Tally
from closedloop.simulation.scenarios import (
    SCENARIOS,
    Break,
    Campaign,
    Scenario,
    breaks,
    flaky,
    healthy,
    identical,
    low_volume,
    retargeting,
    small,
)
from closedloop.simulation.simulator import Day, Simulation, Simulator

__all__ = [
    "COLUMNS",
    "SCENARIOS",
    "AlteredBudgets",
    "Break",
    "Campaign",
    "Day",
    "Duplicates",
    "Fault",
    "IgnoredChanges",
    "LateEvents",
    "LostReplies",
    "Market",
    "MissingTags",
    "Outage",
    "Scenario",
    "SilentPlatform",
    "Simulation",
    "Simulator",
    "SlowChanges",
    "Tally",
    "Truth",
    "WindowMismatch",
    "WrongAttribution",
    "breaks",
    "export",
    "flaky",
    "healthy",
    "identical",
    "low_volume",
    "retargeting",
    "small",
]
