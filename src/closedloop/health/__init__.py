"""Health: looks, never acts."""

from closedloop.health.assess import assess
from closedloop.health.comparisons import compare_reports, credit_against_tests
from closedloop.health.thresholds import Thresholds
from closedloop.health.trend import Trend, Trends, trends

__all__ = ["Thresholds", "Trend", "Trends", "assess", "compare_reports", "credit_against_tests", "trends"]
