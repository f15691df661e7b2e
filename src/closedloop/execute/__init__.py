"""Execution: recorded, sent within limits, confirmed."""
