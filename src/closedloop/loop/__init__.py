"""The loop: the only code that calls all five rooms."""
