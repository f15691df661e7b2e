"""Health: looks, never acts."""

from closedloop.health.assess import assess
from closedloop.health.thresholds import Thresholds

__all__ = ["Thresholds", "assess"]
