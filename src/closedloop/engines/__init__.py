"""The reduction from events to counts on other engines: DuckDB out of core, Spark on a cluster.

Law of this file: it chooses, and loads an engine only when it is asked for. The reference is numpy: ``closedloop.attribute.event_paths``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from closedloop.engines.reduced import ReducedCohorts, ReducedPaths
from closedloop.errors import ConfigurationError
from closedloop.records.window import AttributionWindow

ENGINES = ("duckdb", "spark")


def reduce_paths(source: Any, window: AttributionWindow, *, engine: str = "duckdb", **settings: Any) -> ReducedPaths:
    """Return the journeys of events as distinct path counts.

    Args:
        source: Events, as the engine's own ``reduce_paths`` takes them.
        window: The attribution window.
        engine: "duckdb" or "spark".
        settings: Further settings of the engine's own ``reduce_paths``.

    Raises:
        ConfigurationError: There is no such engine.
    """
    found: ReducedPaths = _engine(engine).reduce_paths(source, window, **settings)
    return found


def reduce_cohorts(source: Any, window: AttributionWindow, *, engine: str = "duckdb", **settings: Any) -> ReducedCohorts:
    """Return exposures and last-touch credit by channel, touch day, kind of touch and delay.

    Args:
        source: Events, as the engine's own ``reduce_cohorts`` takes them.
        window: The attribution window.
        engine: "duckdb" or "spark".
        settings: Further settings of the engine's own ``reduce_cohorts``.

    Raises:
        ConfigurationError: There is no such engine.
    """
    found: ReducedCohorts = _engine(engine).reduce_cohorts(source, window, **settings)
    return found


def _engine(name: str) -> Any:
    if name not in ENGINES:
        raise ConfigurationError("unknown engine", "engine", name, "in memory use closedloop.attribute.event_paths", ENGINES)
    return import_module(f"closedloop.engines.{name}")


__all__ = ["ENGINES", "ReducedCohorts", "ReducedPaths", "reduce_cohorts", "reduce_paths"]
