"""Simulated events to a file that the command line reads: CSV, NDJSON or Parquet, the first two also gzipped.

Law of this file: one row an event, times with their zone, missing values empty; what is written reads back as the same events.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from closedloop.errors import ConfigurationError, MissingExtraError
from closedloop.simulation.market import COLUMNS

_FORMATS = (".csv", ".ndjson", ".jsonl", ".parquet", ".csv.gz", ".ndjson.gz", ".jsonl.gz")


def export(days: Iterable[Mapping[str, Any]], path: str | Path) -> int:
    """Write the rows of several days to one file and return how many there are.

    Args:
        days: What `Market.day` returned, day after day (also a generator: CSV and NDJSON are written as they come).
        path: The file; its ending says the format.

    Raises:
        ConfigurationError: The ending is no known format.
        MissingExtraError: Parquet was asked for and pyarrow is not installed.
    """
    path = Path(path)
    name = path.name.lower()
    if not name.endswith(_FORMATS):
        raise ConfigurationError("unknown format of an events file", "path", path.name, None, _FORMATS)
    if name.endswith(".parquet"):
        return _parquet(days, path)
    rows = 0
    with (
        gzip.open(path, "wt", encoding="utf-8", newline="")
        if name.endswith(".gz")
        else path.open("w", encoding="utf-8", newline="") as file
    ):
        as_csv = ".csv" in name
        if as_csv:
            csv.writer(file).writerow(COLUMNS)
        for day in days:
            rows += _write(day, file, as_csv=as_csv)
    return rows


def _write(day: Mapping[str, Any], file: TextIO, *, as_csv: bool) -> int:
    columns = [day[name].tolist() for name in COLUMNS]
    if as_csv:
        csv.writer(file).writerows(zip(*columns, strict=True))
    else:
        file.writelines(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in zip(*columns, strict=True))
    return len(columns[0])


def _parquet(days: Iterable[Mapping[str, Any]], path: Path) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow is not installed", "path", path.name, "pip install 'closedloop[arrow]', or write CSV") from error
    kinds = {"cost": pa.float64(), "value": pa.float64(), "quantity": pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    rows = 0
    with pq.ParquetWriter(path, schema) as writer:
        for day in days:
            table = pa.table({name: pa.array(day[name].tolist(), kinds.get(name, pa.string())) for name in COLUMNS}, schema=schema)
            writer.write_table(table)
            rows += table.num_rows
    return rows
