"""Health: looks, never acts."""

from closedloop.health.assess import assess
from closedloop.health.comparisons import LiftTest, compare_reports, credit_against_tests
from closedloop.health.thresholds import Thresholds

__all__ = ["LiftTest", "Thresholds", "assess", "compare_reports", "credit_against_tests"]
