"""Entry of ``python -m closedloop``."""

from closedloop.cli.arguments import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
