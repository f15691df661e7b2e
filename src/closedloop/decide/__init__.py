"""Decide where the next unit of money goes, and when to leave it alone."""

from closedloop.decide.decider import BudgetDecider, default_target
from closedloop.decide.excite import Excitation
from closedloop.decide.guardrails import Guardrails

__all__ = ["BudgetDecider", "Excitation", "Guardrails", "default_target"]
