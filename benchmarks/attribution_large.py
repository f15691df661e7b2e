"""A hundred million touch rows to path counts and Markov credit in DuckDB, with one gigabyte of memory and users partitioned by a hash.

Run: ``python benchmarks/attribution_large.py [touch rows]``. The events are made in a temporary folder first (1.3 GB for a hundred
million rows; not timed): four touches a user in the mean over thirty days, 12 channels, one user in twenty converting.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from closedloop.attribute import PathCounts, attribute_paths
from closedloop.engines.duckdb import reduce_paths
from closedloop.records.moments import US_PER_DAY
from closedloop.records.window import AttributionWindow

MAKE = """
COPY (
  SELECT 'user ' || (hash(i) % {users}) AS user_id,
         CASE WHEN hash(i + 7) % 4 = 0 THEN 'impression' ELSE 'click' END AS kind,
         20000 * {day} + (hash(i * 3 + 1) % (30 * {day}))::BIGINT AS at,
         'channel ' || lpad((floor(12 * pow((hash(i * 5 + 2) % 1000000) / 1e6, 2)))::INT::VARCHAR, 2, '0') AS channel,
         NULL::DOUBLE AS value,
         i AS tie
  FROM range({touches}) t(i)
  UNION ALL
  SELECT 'user ' || (i * 20) AS user_id, 'conversion', 20000 * {day} + (hash(i * 11 + 5) % (30 * {day}))::BIGINT, NULL, 50.0, {touches} + i
  FROM range({users} // 20) t(i)
) TO '{file}' (FORMAT parquet, COMPRESSION zstd)
"""


def main(touches: int) -> None:
    import duckdb

    users = touches // 4
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.parquet"
        with duckdb.connect(config={"memory_limit": "1GB", "temp_directory": folder, "preserve_insertion_order": False}) as connection:
            connection.execute(MAKE.format(users=users, touches=touches, day=US_PER_DAY, file=file))
        print(f"{touches:,} touch rows, {users:,} users, {file.stat().st_size / 1e9:.2f} GB of Parquet", flush=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        reduced = reduce_paths(
            str(file),
            AttributionWindow(click="7d", view="1d"),
            memory_limit="1GB",
            partitions=max(1, touches // 3_000_000),
            temp_directory=folder,
        )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{wall:9.0f}  seconds ({cpu:.0f} CPU) from events to {len(reduced.lengths):,} distinct paths")
    print(f"{peak / 1e3:9.0f}  MB peak of the whole process ({before / 1e3:.0f} MB before)")
    start = time.process_time()
    credits = attribute_paths(PathCounts.of_touches(**reduced.by_touch()), "markov", replicates=20)
    print(f"{time.process_time() - start:9.1f}  CPU seconds for exact Markov credit with 20 replicates on them")
    print(credits)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000_000)
