"""Mistakes that a type checker must find: one error on each line that is marked, and on no other."""

from typing import TYPE_CHECKING

import closedloop as cl

if TYPE_CHECKING:  # never runs
    window = cl.AttributionWindow(click=7)  # error
    cl.Constraints(total="much")  # error
    cl.TableIngestor(tag=cl.TagSchema())  # error
    cl.ClosedLoop(window=window, mode="automatic")  # error
    cl.ClosedLoop()  # error
    cl.Money("10", 5)  # error
    cl.BayesClassifier(window).classify(window)  # error
    cl.BudgetDecider(cl.Constraints()).decide(None)  # error
    cl.AttemptResult(status="maybe")  # error
    broken: cl.AppliesChanges = cl.MemoryLedger()  # error
