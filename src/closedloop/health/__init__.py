"""Health: looks, never acts."""

from closedloop.health.assess import assess
from closedloop.health.comparisons import compare_reports, credit_against_tests
from closedloop.health.thresholds import Thresholds
from closedloop.health.trend import Trend, Trends, trends, trends_of
from closedloop.health.uptime import Uptime, Uptimes, uptimes, without_gaps

__all__ = [
    "Thresholds",
    "Trend",
    "Trends",
    "Uptime",
    "Uptimes",
    "assess",
    "compare_reports",
    "credit_against_tests",
    "trends",
    "trends_of",
    "uptimes",
    "without_gaps",
]
