"""Decide where the next unit of money goes, and when to leave it alone."""

from closedloop.decide.decider import BudgetDecider

__all__ = ["BudgetDecider"]
