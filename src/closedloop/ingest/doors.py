"""Doors: every kind of table becomes chunks of pandas columns, without a copy where none is needed.

Law of this file: a door knows how to walk through one kind of table, and nothing of events. What a row was before is kept reachable
(`Chunk.original`), so that a quarantined row is shown as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import InputError

Int64 = npt.NDArray[np.int64]
Originals = Callable[[Int64], list[dict[str, Any]]]
CHUNK_ROWS = 200_000  # rows held at once by doors that stream


@attrs.frozen(kw_only=True, eq=False)
class Chunk:
    """A part of a table.

    Args:
        columns: pandas Series by column name, all of ``n`` values.
        n: Number of rows.
        start: Position of the first row in its source, counted from 0.
        stem: Name of the source without folder and extensions, "" where it has none.
        take: Returns, for positions in the chunk, a function that gives the rows at places among them as they came; what it holds
            on to is no more than those rows.
        broken: Rows that are no rows at all (unparsable lines): position in the chunk to (text, reason); their columns are null.
    """

    columns: Mapping[str, Any]
    n: int
    start: int = 0
    stem: str = ""
    take: Callable[[npt.NDArray[np.int64]], Originals]
    broken: Mapping[int, tuple[str, str]] = attrs.field(factory=dict)


def frame_chunk(frame: Any, *, start: int = 0, stem: str = "", broken: Mapping[int, tuple[str, str]] | None = None) -> Chunk:
    """Return a pandas frame as one chunk; columns are shared, not copied."""
    names = [str(c) for c in frame.columns]
    if len(set(names)) != len(names):
        twice = sorted({c for c in names if names.count(c) > 1})
        raise InputError("two columns have the same name", twice[0], None, "rename one of them")
    lost = broken or {}

    def take(at: Int64) -> Originals:
        chosen = frame.iloc[at]
        lines = [lost[int(p)][0] if int(p) in lost else None for p in at] if lost else None

        def originals(places: Int64) -> list[dict[str, Any]]:
            records = chosen.iloc[places].to_dict("records")
            named: list[dict[str, Any]] = [{str(k): v for k, v in r.items()} for r in records]
            if lines is None:
                return named
            return [r if lines[p] is None else {"line": lines[p]} for p, r in zip(places.tolist(), named, strict=True)]

        return originals

    columns = {name: frame.iloc[:, i].reset_index(drop=True) for i, name in enumerate(names)}
    return Chunk(columns=columns, n=len(frame), start=start, stem=stem, take=take, broken=lost)


def _polars_frame(table: Any) -> Any:
    """Return a polars frame as pandas: through Arrow where pyarrow is installed, through numpy where not."""
    import importlib.util

    import pandas as pd

    if importlib.util.find_spec("pyarrow") is not None:
        return _arrow_frame(table.to_arrow())
    return pd.DataFrame({name: table[name].to_numpy() for name in table.columns})


def _columns_frame(columns: Mapping[Any, Any]) -> Any:
    """Return a mapping of columns, equally long lists or arrays, as a frame."""
    import pandas as pd

    lengths = {str(name): len(c) for name, c in columns.items() if hasattr(c, "__len__") and not isinstance(c, str | bytes)}
    if len(lengths) != len(columns) or len(set(lengths.values())) > 1:
        mend = "give a list of dictionaries, one per row, or a dictionary of equally long columns"
        raise InputError("one dictionary is no table", "rows", {str(n): lengths.get(str(n), "no column") for n in columns}, mend)
    # Lists stay objects, so that None stays "not given" and is not turned into NaN.
    as_series = {n: pd.Series(list(c), dtype=object) if isinstance(c, list | tuple) else pd.Series(c) for n, c in columns.items()}
    return pd.DataFrame(as_series)


def _arrow_frame(table: Any) -> Any:
    """Return an Arrow table as pandas with Arrow's own buffers (nulls stay nulls, NaN stays NaN)."""
    import pandas as pd

    return table.to_pandas(types_mapper=pd.ArrowDtype)


def _dict_chunks(rows: Iterable[Any], rows_at_once: int) -> Iterator[Chunk]:
    import pandas as pd

    iterator, start = iter(rows), 0
    while part := list(islice(iterator, rows_at_once)):
        names: dict[str, None] = {}
        broken: dict[int, tuple[str, str]] = {}
        for i, row in enumerate(part):
            if isinstance(row, Mapping):
                names.update(dict.fromkeys(row))
            else:
                broken[i] = (repr(row)[:1000], f"is {type(row).__name__}, not a row of names and values")
        columns = {}
        for name in names:
            values = np.empty(len(part), dtype=object)
            values[:] = [row.get(name) if isinstance(row, Mapping) else None for row in part]
            columns[str(name)] = pd.Series(values, dtype=object)

        yield Chunk(columns=columns, n=len(part), start=start, take=partial(_take_dicts, part, broken), broken=broken)
        start += len(part)


def _take_dicts(part: list[Any], broken: Mapping[int, tuple[str, str]], at: Int64) -> Originals:
    chosen = [{"line": broken[p][0]} if p in broken else {str(k): v for k, v in part[p].items()} for p in at.tolist()]
    return lambda places: [chosen[p] for p in places.tolist()]


def chunks(rows: Any, *, encoding: str = "utf-8", separator: str | None = None, rows_at_once: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """Yield a table of any known kind as chunks.

    Args:
        rows: A pandas, polars or pyarrow table, an iterable of dictionaries, a dictionary of columns, the path of a CSV,
            Parquet or NDJSON file (also gzipped), or a sequence of paths.
        encoding: Of text files.
        separator: Of CSV files; found from the header when None.
        rows_at_once: Rows per chunk where the door streams.

    Raises:
        InputError: The table is of no known kind, or a file cannot be read.
    """
    from closedloop.ingest import files

    if isinstance(rows, str | Path):
        yield from files.file_chunks(Path(rows), encoding=encoding, separator=separator, rows_at_once=rows_at_once)
        return
    if isinstance(rows, Sequence) and len(rows) and all(isinstance(r, str | Path) for r in rows):
        for path in rows:
            yield from files.file_chunks(Path(path), encoding=encoding, separator=separator, rows_at_once=rows_at_once)
        return
    family = type(rows).__module__.partition(".")[0]
    if family == "pandas" and hasattr(rows, "columns"):
        yield frame_chunk(rows)
    elif family == "polars" and type(rows).__name__ in ("DataFrame", "LazyFrame"):
        yield frame_chunk(_polars_frame(rows.collect() if type(rows).__name__ == "LazyFrame" else rows))
    elif family == "pyarrow" and hasattr(rows, "to_pandas") and hasattr(rows, "column_names"):
        yield frame_chunk(_arrow_frame(rows))
    elif family == "pyarrow" and hasattr(rows, "schema") and hasattr(rows, "read_next_batch"):
        yield from _arrow_batches(rows)
    elif isinstance(rows, Mapping):
        yield frame_chunk(_columns_frame(rows))
    elif isinstance(rows, Iterable) and not isinstance(rows, bytes | bytearray):
        yield from _dict_chunks(rows, rows_at_once)
    else:
        raise InputError(
            "no known kind of table",
            "rows",
            type(rows).__name__,
            None,
            ("pandas, polars or pyarrow table", "list of dictionaries", "path of a CSV, Parquet or NDJSON file"),
        )


def _arrow_batches(batches: Iterable[Any], *, start: int = 0, stem: str = "") -> Iterator[Chunk]:
    for batch in batches:
        yield frame_chunk(_arrow_frame(batch), start=start, stem=stem)
        start += batch.num_rows
