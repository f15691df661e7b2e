"""Append-only memory."""
