"""The loopback servers of the platforms' tests serve here too."""

import sys
from pathlib import Path

_SERVERS = str(Path(__file__).parents[1] / "platforms" / "servers")
if _SERVERS not in sys.path:
    sys.path.insert(0, _SERVERS)
