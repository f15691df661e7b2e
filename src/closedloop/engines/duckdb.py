"""Journeys from events in DuckDB: the same reduction out of core, under a memory limit.

Law of this file: it means what the numpy reduction means, boundaries and ties included. Users are put into partitions by a hash, one
partition is reduced after the other, and the path counts of the partitions add; so memory depends on the largest partition and on the
number of distinct paths, never on the number of events. Everything after the reduction is numpy.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError, InputError, MissingColumnError, MissingExtraError
from closedloop.records.window import AttributionWindow

COLUMNS = ("user_id", "kind", "at", "channel", "value", "tie")


@attrs.frozen(kw_only=True, eq=False)
class ReducedPaths:
    """Distinct journeys with their counts, sorted by path.

    Args:
        channels: Names, sorted, shape (C,).
        codes: Touches of all paths one after another, positions in ``channels``.
        lengths: Touches of each path, shape (P,).
        conversions, value, nulls: Sums of each path, shape (P,).
    """

    channels: npt.NDArray[np.object_]
    codes: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    conversions: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    nulls: npt.NDArray[np.float64]

    def paths(self) -> list[list[str]]:
        """Return each path as a list of channels."""
        ends = np.cumsum(self.lengths)
        return [list(self.channels[self.codes[e - n : e]]) for e, n in zip(ends, self.lengths, strict=True)]

    def by_touch(self) -> dict[str, Any]:
        """Return the arguments of ``PathCounts.of_touches``."""
        return {
            "journey": np.repeat(np.arange(len(self.lengths)), self.lengths),
            "channel": self.codes,
            "channels": list(self.channels),
            "n_journeys": len(self.lengths),
            "conversions": self.conversions,
            "value": self.value,
            "nulls": self.nulls,
        }


_PART = """
WITH e AS (SELECT * FROM events WHERE user_id IS NOT NULL AND hash(user_id) % {parts} = {part}),
t AS (SELECT e.user_id, moment, tie, code, CASE WHEN kind = 'click' THEN {click} ELSE {view} END AS window_us
      FROM e JOIN channels USING (channel)
      WHERE kind IN ('click', 'impression') AND CASE WHEN kind = 'click' THEN {click} ELSE {view} END >= 0),
c AS (SELECT row_number() OVER () AS journey, user_id, moment, value FROM e WHERE kind = 'conversion'),
pairs AS (SELECT c.journey, t.user_id, t.moment, t.tie, t.code FROM c JOIN t
          ON c.user_id = t.user_id AND t.moment <= c.moment AND c.moment - t.moment <= t.window_us),
answered AS (SELECT DISTINCT user_id, tie FROM pairs),
won AS (SELECT journey, string_agg(code, ',' ORDER BY moment, tie) AS path FROM pairs GROUP BY journey),
lost AS (SELECT *, lag(moment) OVER (PARTITION BY user_id ORDER BY moment, tie) AS before FROM t ANTI JOIN answered USING (user_id, tie)
         WHERE moment + {longest} < {until}),
begun AS (SELECT *, sum(CASE WHEN before IS NULL OR moment - before > {longest} THEN 1 ELSE 0 END)
                 OVER (PARTITION BY user_id ORDER BY moment, tie ROWS UNBOUNDED PRECEDING) AS number FROM lost),
null_paths AS (SELECT string_agg(code, ',' ORDER BY moment, tie) AS path FROM begun GROUP BY user_id, number),
all_paths AS (SELECT coalesce(path, '') AS path, 1 AS conversions, value, 0 AS nulls FROM c LEFT JOIN won USING (journey)
              UNION ALL SELECT path, 0, 0, 1 FROM null_paths)
INSERT INTO reduced SELECT path, sum(conversions), sum(value), sum(nulls) FROM all_paths GROUP BY path
"""


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
        temp_directory: Where DuckDB may spill.

    Raises:
        MissingExtraError: duckdb is not installed.
        MissingColumnError: A column is not there.
        ConfigurationError: The memory limit or the number of partitions is not valid.
    """
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtraError("duckdb is not installed", "engine", "duckdb", "pip install 'closedloop[duckdb]'") from error
    if partitions < 1:
        raise ConfigurationError("users go into at least one partition", "partitions", partitions)
    options: dict[str, str | bool | int | float | list[str]] = {"memory_limit": memory_limit}
    options |= {} if threads is None else {"threads": threads}
    options |= {} if temp_directory is None else {"temp_directory": temp_directory}
    try:
        connection = duckdb.connect(config=options)
    except duckdb.Error as error:
        raise ConfigurationError("DuckDB refuses its settings", "memory_limit", memory_limit, str(error)) from error
    with connection:
        _register(connection, source)
        limits = window.limits_us()
        touched = "SELECT DISTINCT channel FROM events WHERE kind IN ('click', 'impression') AND user_id IS NOT NULL"
        names = [row[0] for row in connection.execute(touched).fetchall()]
        if None in names:
            raise InputError("a touch has no channel", "channel", None, "name every channel, or leave the touch out")
        names = sorted(names)
        connection.execute("CREATE TABLE channels (channel VARCHAR, code INTEGER)")
        if names:
            connection.executemany("INSERT INTO channels VALUES (?, ?)", [[name, i] for i, name in enumerate(names)])
        if until is None:
            until = connection.execute("SELECT coalesce(max(moment), 0) FROM events").fetchall()[0][0]
        connection.execute("CREATE TABLE reduced (path VARCHAR, conversions DOUBLE, value DOUBLE, nulls DOUBLE)")
        numbers = {"click": int(limits[0]), "view": int(limits[1]), "longest": int(limits.max()), "until": int(until), "parts": partitions}
        for part in range(partitions):
            connection.execute(_PART.format(part=part, **numbers))
        bare = "SELECT '', count(*), sum(value), 0 FROM events WHERE kind = 'conversion' AND user_id IS NULL HAVING count(*) > 0"
        connection.execute(f"INSERT INTO reduced {bare}")
        found = connection.execute(
            "SELECT path, sum(conversions) AS c, sum(value) AS v, sum(nulls) AS n FROM reduced GROUP BY path ORDER BY path"
        ).fetchnumpy()
    return _flat(found, names)


def _register(connection: Any, source: Any) -> None:
    if isinstance(source, str):
        reader = "read_csv" if source.lower().endswith((".csv", ".csv.gz")) else "read_parquet"
        quoted = source.replace("'", "''")
        connection.execute(f"CREATE VIEW given AS SELECT * FROM {reader}('{quoted}')")
    else:
        connection.register("given", source)
    there = [r[0] for r in connection.execute("DESCRIBE given").fetchall()]
    missing = [c for c in COLUMNS if c not in there]
    if missing:
        raise MissingColumnError("a needed column is not in the events", missing[0], None, f"these are there: {', '.join(there)}", COLUMNS)
    connection.execute('CREATE VIEW events AS SELECT user_id, kind, "at" AS moment, channel, value, tie FROM given')


def _flat(found: Any, names: list[str]) -> ReducedPaths:
    paths = [str(p) for p in found["path"]]
    lengths = np.array([0 if not p else p.count(",") + 1 for p in paths], dtype=np.int64)
    joined = ",".join(p for p in paths if p)
    codes = np.array(joined.split(","), dtype=np.int32) if joined else np.empty(0, dtype=np.int32)
    sums = {ours: np.asarray(found[theirs], dtype=np.float64) for ours, theirs in (("conversions", "c"), ("value", "v"), ("nulls", "n"))}
    return ReducedPaths(channels=np.array(names, dtype=object), codes=codes, lengths=lengths, **sums)
