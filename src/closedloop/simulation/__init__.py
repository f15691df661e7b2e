"""A market with known truth, to try a loop in before money does."""

from closedloop.simulation.export import export
from closedloop.simulation.market import COLUMNS, Market, Truth
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

__all__ = [
    "COLUMNS",
    "SCENARIOS",
    "Break",
    "Campaign",
    "Market",
    "Scenario",
    "Truth",
    "breaks",
    "export",
    "flaky",
    "healthy",
    "identical",
    "low_volume",
    "retargeting",
    "small",
]
