"""Health: looks, never acts."""
