"""Decisions: where the next unit of money goes, and when to leave it alone."""
