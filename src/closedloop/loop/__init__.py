"""The loop: the only code that calls all five rooms."""

from closedloop.loop.control import HoldoutPlan, Switchback, VerifiedGain, plan_holdout
from closedloop.loop.counters import ReportComparison
from closedloop.loop.cycle import CycleReport, Mode
from closedloop.loop.failure import RoomFailure
from closedloop.loop.holdouts import Holdout, HoldoutPolicy
from closedloop.loop.loop import ClosedLoop
from closedloop.loop.replay import Replay, ReplayedCycle, replay
from closedloop.loop.report import render

__all__ = [
    "ClosedLoop",
    "CycleReport",
    "Holdout",
    "HoldoutPlan",
    "HoldoutPolicy",
    "Mode",
    "Replay",
    "ReplayedCycle",
    "ReportComparison",
    "RoomFailure",
    "Switchback",
    "VerifiedGain",
    "plan_holdout",
    "render",
    "replay",
]
