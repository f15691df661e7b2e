"""Conformance suites for anyone's implementations."""
