"""Record, send within limits, confirm."""

from closedloop.execute.delay import DelayReport, delay_report
from closedloop.execute.executor import OutboxExecutor
from closedloop.execute.lifecycle import FINAL, MOVES, diagram
from closedloop.execute.quota import QuotaGate
from closedloop.execute.reconcile import Difference, Reconciliation

__all__ = ["FINAL", "MOVES", "DelayReport", "Difference", "OutboxExecutor", "QuotaGate", "Reconciliation", "delay_report", "diagram"]
