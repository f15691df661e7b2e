"""Record, send within limits, confirm."""

from closedloop.execute.executor import OutboxExecutor
from closedloop.execute.lifecycle import FINAL, MOVES, diagram
from closedloop.execute.quota import QuotaGate

__all__ = ["FINAL", "MOVES", "OutboxExecutor", "QuotaGate", "diagram"]
