"""Platform adapters: doors to the outside."""

from closedloop.platforms.registry import available_platforms, load_platform
from closedloop.platforms.simulated import SimulatedPlatform

__all__ = ["SimulatedPlatform", "available_platforms", "load_platform"]
