"""Find platforms by name, through entry points.

Law of this file: an adapter is imported when it is asked for, and not before; anyone's installed package may offer one under the
entry point group ``closedloop.platforms``.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from closedloop.errors import MissingExtraError, UnknownPlatformError

GROUP = "closedloop.platforms"


def _found() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def available_platforms() -> tuple[str, ...]:
    """Return the names of the platforms that installed packages offer, sorted; nothing is imported."""
    return tuple(sorted(_found()))


def load_platform(name: str) -> Any:
    """Return what is registered under ``name``: usually a class, to be called with the platform's own settings.

    Raises:
        UnknownPlatformError: Nothing is registered under this name; what is, is listed.
        MissingExtraError: Its package needs another one that is not installed.
    """
    points = _found()
    if name not in points:
        raise UnknownPlatformError("no such platform", "platform", name, "install the package that offers it", available_platforms())
    try:
        return points[name].load()
    except ImportError as error:
        raise MissingExtraError(f"platform {name} needs a package: {error}", "platform", name, "install its extra") from error
