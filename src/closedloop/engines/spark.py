"""Events to counts in Spark: the same reduction on a cluster, in the session that the events live in.

Law of this file: it means what the numpy reduction means, boundaries and ties included. It starts no session and stops none, changes no
setting and leaves no view behind; what comes back to the driver are distinct paths, or cohorts, never events. Everything after the
reduction is numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from closedloop.engines.reduced import ReducedCohorts, ReducedPaths, named
from closedloop.engines.sql import COHORT_COLUMNS, PATH_COLUMNS, SPARK, bare_query, cohorts_query, paths_query, total_query
from closedloop.errors import InputError, MissingColumnError
from closedloop.records.window import AttributionWindow


def reduce_paths(source: Any, window: AttributionWindow, *, until: int | None = None) -> ReducedPaths:
    """Return the journeys of events as distinct path counts.

    Args:
        source: A Spark frame with columns ``user_id`` (text), ``kind`` (impression, click or conversion), ``at`` (microseconds UTC),
            ``channel`` (text; of touches), ``value`` (units; of conversions) and ``tie`` (distinct, sortable; orders touches of one
            microsecond). Its session does the work.
        window: The attribution window.
        until: Microseconds UTC up to which the data are complete; the newest event when None. Later windows are not yet null.

    Raises:
        InputError: This is no Spark frame, or a touch has no channel.
        MissingColumnError: A column is not there.
    """
    events = _events(source, PATH_COLUMNS)
    session = source.sparkSession
    names = _channels(session, events, "AND user_id IS NOT NULL")
    if until is None:
        until = session.sql("SELECT coalesce(max(moment), 0) AS until FROM {events}", events=events).collect()[0].until
    channels = session.createDataFrame([(name, i) for i, name in enumerate(names)], "channel string, code int")
    query = paths_query(window, int(until), SPARK, events="{events}", channels="{channels}")
    paths = session.sql(query, events=events, channels=channels)
    bare = session.sql(bare_query("{events}"), events=events)
    return ReducedPaths.of(_columns(session.sql(total_query("{found}"), found=paths.unionAll(bare))), names)


def reduce_cohorts(source: Any, window: AttributionWindow) -> ReducedCohorts:
    """Return exposures and last-touch credit by channel, touch day, kind of touch and delay.

    Args:
        source: As for `reduce_paths`, and with ``recorded_at`` (microseconds UTC, when the row was written down).
        window: The attribution window.

    Raises:
        InputError: This is no Spark frame, or a touch has no channel.
        MissingColumnError: A column is not there.
    """
    events = _events(source, COHORT_COLUMNS)
    session = source.sparkSession
    _channels(session, events, "")
    return ReducedCohorts.add([_columns(session.sql(cohorts_query(window, SPARK, events="{events}"), events=events))])


def _events(source: Any, columns: Sequence[str]) -> Any:
    if not hasattr(source, "sparkSession"):
        raise InputError("this is no Spark frame", "source", type(source).__name__, "read it with your session: spark.read.parquet(...)")
    missing = [c for c in columns if c not in source.columns]
    if missing:
        mend = f"these are there: {', '.join(source.columns)}"
        raise MissingColumnError("a needed column is not in the events", missing[0], None, mend, tuple(columns))
    return source.select(*columns).withColumnsRenamed({"at": "moment", "recorded_at": "recorded"})


def _channels(session: Any, events: Any, which: str) -> list[str]:
    touched = f"SELECT DISTINCT channel FROM {{events}} WHERE kind IN ('click', 'impression') {which}"
    return named([row.channel for row in session.sql(touched, events=events).collect()])


def _columns(found: Any) -> dict[str, list[Any]]:
    rows = found.collect()
    return {name: [row[i] for row in rows] for i, name in enumerate(found.columns)}


__all__ = ["reduce_cohorts", "reduce_paths"]
