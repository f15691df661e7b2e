"""Events to counts in DuckDB: the same reduction out of core, under a memory limit.

Law of this file: it means what the numpy reduction means, boundaries and ties included. Users are put into partitions by a hash: the
events are read once and written out by partition, one partition is reduced after the other, and the counts of the partitions add; so
memory depends on the largest partition and on the number of distinct paths, never on the number of events. Everything after the reduction
is numpy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from closedloop.engines.reduced import ReducedCohorts, ReducedPaths, named
from closedloop.engines.sql import COHORT_COLUMNS, DUCKDB, PATH_COLUMNS, bare_query, cohorts_query, paths_query, total_query
from closedloop.errors import ConfigurationError, MissingColumnError, MissingExtraError
from closedloop.records.window import AttributionWindow

_USERS = "SELECT * FROM events WHERE user_id IS NOT NULL"


def reduce_paths(
    source: Any,
    window: AttributionWindow,
    *,
    until: int | None = None,
    memory_limit: str = "1GB",
    partitions: int = 1,
    threads: int | None = None,
    temp_directory: str | None = None,
) -> ReducedPaths:
    """Return the journeys of events as distinct path counts.

    Args:
        source: A path or glob of Parquet or CSV files, an Arrow table, a pandas or polars frame, with columns ``user_id`` (text), ``kind``
            (impression, click or conversion), ``at`` (microseconds UTC), ``channel`` (text; of touches), ``value`` (units; of conversions)
            and ``tie`` (distinct; orders touches of one microsecond).
        window: The attribution window.
        until: Microseconds UTC up to which the data are complete; the newest event when None. Later windows are not yet null.
        memory_limit: Handed to DuckDB.
        partitions: Into how many parts users are put.
        threads: Threads of DuckDB, its own default when None.
        temp_directory: Where partitions are written and DuckDB may spill: room for the events once more.

    Raises:
        MissingExtraError: duckdb is not installed.
        MissingColumnError: A column is not there.
        ConfigurationError: The memory limit or the number of partitions is not valid.
        InputError: A touch has no channel.
    """
    with _opened(source, PATH_COLUMNS, memory_limit, partitions, threads, temp_directory) as connection:
        names = _channels(connection, "AND user_id IS NOT NULL")
        connection.execute("CREATE TABLE channels (channel VARCHAR, code INTEGER)")
        if names:
            connection.executemany("INSERT INTO channels VALUES (?, ?)", [[name, i] for i, name in enumerate(names)])
        if until is None:
            until = connection.execute("SELECT coalesce(max(moment), 0) FROM events").fetchall()[0][0]
        connection.execute("CREATE TABLE reduced (path VARCHAR, conversions DOUBLE, value DOUBLE, nulls DOUBLE)")
        with _by_user(connection, partitions, temp_directory) as parts:
            for part in parts:
                connection.execute(f"INSERT INTO reduced {paths_query(window, int(until), DUCKDB, events=part, channels='channels')}")
        connection.execute(f"INSERT INTO reduced {bare_query('events')}")
        found = connection.execute(total_query("reduced")).fetchnumpy()
    return ReducedPaths.of(found, names)


def reduce_cohorts(
    source: Any,
    window: AttributionWindow,
    *,
    memory_limit: str = "1GB",
    partitions: int = 1,
    threads: int | None = None,
    temp_directory: str | None = None,
) -> ReducedCohorts:
    """Return exposures and last-touch credit by channel, touch day, kind of touch and delay.

    Args:
        source: As for `reduce_paths`, and with ``recorded_at`` (microseconds UTC, when the row was written down).
        window: The attribution window.
        memory_limit: Handed to DuckDB.
        partitions: Into how many parts users are put.
        threads: Threads of DuckDB, its own default when None.
        temp_directory: Where partitions are written and DuckDB may spill: room for the events once more.

    Raises:
        MissingExtraError: duckdb is not installed.
        MissingColumnError: A column is not there.
        ConfigurationError: The memory limit or the number of partitions is not valid.
        InputError: A touch has no channel.
    """
    with _opened(source, COHORT_COLUMNS, memory_limit, partitions, threads, temp_directory) as connection:
        _channels(connection, "")
        nobody = "(SELECT * FROM events WHERE user_id IS NULL)"  # touches without a user are exposures, and nothing more
        with _by_user(connection, partitions, temp_directory) as parts:
            queries = [cohorts_query(window, DUCKDB, events=part) for part in [*parts, nobody]]
            return ReducedCohorts.add([connection.execute(query).fetchnumpy() for query in queries])


@contextmanager
def _opened(
    source: Any, columns: tuple[str, ...], memory_limit: str, partitions: int, threads: int | None, temp_directory: str | None
) -> Iterator[Any]:
    """Yield a connection with the view ``events``."""
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtraError("duckdb is not installed", "engine", "duckdb", "pip install 'closedloop[duckdb]'") from error
    if partitions < 1:
        raise ConfigurationError("users go into at least one partition", "partitions", partitions)
    # Rows are ordered where it matters, by tie; keeping the source's order as well would cost memory.
    options: dict[str, str | bool | int | float | list[str]] = {"memory_limit": memory_limit, "preserve_insertion_order": False}
    options |= {} if threads is None else {"threads": threads}
    options |= {} if temp_directory is None else {"temp_directory": temp_directory}
    try:
        connection = duckdb.connect(config=options)
    except duckdb.Error as error:
        raise ConfigurationError("DuckDB refuses its settings", "memory_limit", memory_limit, str(error)) from error
    with connection:
        _register(connection, source, columns)
        yield connection


@contextmanager
def _by_user(connection: Any, partitions: int, temp_directory: str | None) -> Iterator[list[str]]:
    """Yield a table expression for every partition of the events with a user; several are written out in one pass over the source."""
    if partitions == 1:
        yield [f"({_USERS})"]
        return
    with tempfile.TemporaryDirectory(dir=temp_directory) as folder:
        place = folder.replace("'", "''")
        kept = _USERS.replace("*", f"*, hash(user_id) % {partitions} AS part", 1)
        connection.execute(f"COPY ({kept}) TO '{place}' (FORMAT parquet, PARTITION_BY (part), OVERWRITE_OR_IGNORE)")
        found = sorted(path.as_posix().replace("'", "''") for path in Path(folder).glob("part=*"))
        yield [f"(SELECT * FROM read_parquet('{path}/*.parquet', hive_partitioning = false))" for path in found]


def _channels(connection: Any, which: str) -> list[str]:
    touched = f"SELECT DISTINCT channel FROM events WHERE kind IN ('click', 'impression') {which}"
    return named([row[0] for row in connection.execute(touched).fetchall()])


def _register(connection: Any, source: Any, columns: tuple[str, ...]) -> None:
    if isinstance(source, str):
        reader = "read_csv" if source.lower().endswith((".csv", ".csv.gz")) else "read_parquet"
        quoted = source.replace("'", "''")
        connection.execute(f"CREATE VIEW given AS SELECT * FROM {reader}('{quoted}')")
    else:
        connection.register("given", source)
    there = [r[0] for r in connection.execute("DESCRIBE given").fetchall()]
    missing = [c for c in columns if c not in there]
    if missing:
        raise MissingColumnError("a needed column is not in the events", missing[0], None, f"these are there: {', '.join(there)}", columns)
    recorded = ", recorded_at AS recorded" if "recorded_at" in columns else ""
    connection.execute(f'CREATE VIEW events AS SELECT user_id, kind, "at" AS moment, channel, value, tie{recorded} FROM given')


__all__ = ["ReducedCohorts", "ReducedPaths", "reduce_cohorts", "reduce_paths"]
