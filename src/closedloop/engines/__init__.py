"""The reduction from events to counts on other engines."""
