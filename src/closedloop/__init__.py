"""Closed-loop marketing optimisation with an honest uncertainty interval on every decision."""

__version__ = "0.1.0"
