"""Quarantine on disk: NDJSON or Parquet, to be mended by hand or by program and ingested again.

Law of this file: a row goes out as JSON and comes back as JSON can say it: times as ISO 8601 text, exact decimals as text, what JSON has
no word for as its ``repr``. Nothing is executed on reading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from closedloop.errors import InputError, MissingExtraError, shorten
from closedloop.records.quarantine import Quarantine, QuarantinedRow

_FIELDS = ("position", "field", "value", "reason", "mend")


def plain_json(value: Any) -> Any:
    """Return a value as JSON can say it.

    >>> plain_json({"at": datetime(2026, 1, 31), "by": Decimal("0.10")})
    {'at': '2026-01-31T00:00:00', 'by': '0.10'}
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, np.generic):
        return plain_json(value.item())
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray):
        return [plain_json(v) for v in value]
    return None if type(value).__name__ in ("NAType", "NaTType") else shorten(value, 1000)


def save_quarantine(quarantine: Quarantine, path: str | Path) -> Path:
    """Write a quarantine as ``.ndjson`` (one JSON object per row) or ``.parquet`` (the row as JSON text) and return the path.

    Raises:
        InputError: The extension is another.
        MissingExtraError: Parquet was asked for and pyarrow is not installed.
    """
    path = Path(path)
    records = [{**{n: plain_json(getattr(r, n)) for n in _FIELDS}, "row": plain_json(r.row)} for r in quarantine.rows]
    if path.suffix in (".ndjson", ".jsonl"):
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    elif path.suffix == ".parquet":
        pa, pq = _parquet()
        columns = {n: [r[n] for r in records] for n in _FIELDS}
        types = {n: pa.int64() if n == "position" else pa.string() for n in _FIELDS}
        arrays = {n: pa.array(columns[n], type=types[n]) for n in _FIELDS}
        pq.write_table(pa.table({**arrays, "row": pa.array([json.dumps(r["row"]) for r in records], type=pa.string())}), path)
    else:
        raise InputError("a quarantine is written as NDJSON or Parquet", "path", str(path), None, (".ndjson", ".parquet"))
    return path


def load_quarantine(path: str | Path) -> Quarantine:
    """Return a quarantine as `save_quarantine` wrote it.

    Raises:
        InputError: The file is none.
    """
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            _, pq = _parquet()
            records = [{**r, "row": json.loads(r["row"])} for r in pq.read_table(path).to_pylist()]
        else:
            with path.open(encoding="utf-8") as file:
                records = [json.loads(line) for line in file if line.strip()]
        return Quarantine(rows=tuple(QuarantinedRow(**{n: r[n] for n in (*_FIELDS, "row")}) for r in records))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("the file holds no quarantine", "path", str(path), "give a file that save_quarantine wrote") from error


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow is not installed", "path", None, "pip install 'closedloop[arrow]'") from error
    return pa, pq
