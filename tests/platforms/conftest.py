"""Loopback servers that speak the platforms' real protocols, and the real clients pointed at them."""

import sys
from pathlib import Path

collect_ignore = ["servers"]
_SERVERS = str(Path(__file__).parent / "servers")
if _SERVERS not in sys.path:
    sys.path.insert(0, _SERVERS)
