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

from closedloop.errors import InputError, MissingExtraError
from closedloop.ingest.strange import as_records, from_polars, plain_columns

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
            records = as_records(chosen.iloc[places])
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
        return _arrow_frame(from_polars(table))
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
    import pyarrow as pa

    table, strange = plain_columns(table)
    # From pandas 3 on, plain text columns are Arrow's; before, they would become objects.
    text = pd.Series([], dtype="str").dtype

    def mapped(kind: Any) -> Any:
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        return text if is_text and isinstance(text, pd.StringDtype) else pd.ArrowDtype(kind)

    frame = table.to_pandas(types_mapper=mapped)
    for i, values in strange.items():
        frame.isetitem(i, pd.Series(values, dtype=object))
    return frame


def dict_chunks(rows: Iterable[Any], rows_at_once: int) -> Iterator[Chunk]:
    """Yield dictionaries as chunks of object columns; what is no dictionary is a broken row."""
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


def chunks(
    rows: Any, *, encoding: str = "utf-8", separator: str | None = None, rows_at_once: int = CHUNK_ROWS, split: bool = False
) -> Iterator[Chunk]:
    """Yield a table of any known kind as chunks.

    Args:
        rows: A pandas or polars frame (lazy too), a pyarrow table, dataset or record-batch reader, a DuckDB relation, anything else that
            streams Arrow, an iterable of dictionaries, a dictionary of columns, the path of a CSV, Parquet or NDJSON file (gzip or zstd
            too; ``*`` and ``?`` stand for several files), or a sequence of paths.
        encoding: Of text files.
        separator: Of CSV files; found from the header when None.
        rows_at_once: Rows per chunk where the door streams.
        split: Walk through tables in memory in chunks too.

    Raises:
        InputError: The table is of no known kind, or a file cannot be read.
    """
    from closedloop.ingest import files

    several = isinstance(rows, Sequence) and len(rows) > 0 and all(isinstance(r, str | Path) for r in rows)
    if isinstance(rows, str | Path) or several:
        for given in [rows] if isinstance(rows, str | Path) else rows:
            for path in files.matching(Path(given)):
                yield from files.file_chunks(path, encoding=encoding, separator=separator, rows_at_once=rows_at_once)
        return
    family, name = type(rows).__module__.partition(".")[0], type(rows).__name__
    if family == "pandas" and name == "DataFrame":
        yield from _slices(rows, rows_at_once if split else len(rows))
    elif family == "polars" and name == "LazyFrame":
        if split:
            yield from arrow_chunks(_polars_batches(rows, rows_at_once), rows_at_once)
        else:
            yield frame_chunk(_polars_frame(rows.collect()))
    elif family == "polars" and name == "DataFrame":
        if split:
            yield from _numbered(frame_chunk(_polars_frame(part)) for part in rows.iter_slices(rows_at_once))
        else:
            yield frame_chunk(_polars_frame(rows))
    elif family == "pyarrow" and name in ("Table", "RecordBatch"):
        yield from (
            arrow_chunks(rows.to_batches(max_chunksize=rows_at_once) if name == "Table" else [rows], rows_at_once)
            if split
            else [frame_chunk(_arrow_frame(rows))]
        )
    elif family == "pyarrow" and hasattr(rows, "to_batches"):  # a dataset or a scanner
        yield from arrow_chunks(rows.to_batches(**_frugal(rows)), rows_at_once)
    elif family == "pyarrow" and hasattr(rows, "read_next_batch"):
        yield from arrow_chunks(rows, rows_at_once)
    elif hasattr(rows, "__arrow_c_stream__"):  # a DuckDB relation, and whatever else speaks Arrow's stream interface
        yield from arrow_chunks(_reader(rows), rows_at_once)
    elif isinstance(rows, Mapping):
        yield frame_chunk(_columns_frame(rows))
    elif isinstance(rows, Iterable) and not isinstance(rows, bytes | bytearray):
        yield from dict_chunks(rows, rows_at_once)
    else:
        raise _no_table(rows)


def _no_table(rows: Any) -> InputError:
    known = ("pandas, polars or pyarrow table", "list of dictionaries", "path of a CSV, Parquet or NDJSON file")
    return InputError("no known kind of table", "rows", type(rows).__name__, None, known)


def completed(chunk: Chunk, seen: dict[str, None]) -> Chunk:
    """Return a later chunk of a source with the columns that earlier ones had, null where no row of its own has them.

    Args:
        chunk: The chunk; one that starts a source forgets the columns of the source before.
        seen: Columns seen so far, kept up to date here.
    """
    import pandas as pd

    if chunk.start == 0:
        seen.clear()
    lacking = [name for name in seen if name not in chunk.columns]
    seen.update(dict.fromkeys(chunk.columns))
    if not lacking:
        return chunk
    nothing = pd.Series(np.full(chunk.n, None, dtype=object), dtype=object)
    return attrs.evolve(chunk, columns={**chunk.columns, **dict.fromkeys(lacking, nothing)})


def _frugal(source: Any) -> dict[str, Any]:
    """How a dataset is read in bounded memory: little ahead, and nothing of a Parquet file kept until its end."""
    if not hasattr(source, "get_fragments"):
        return {}  # a scanner was told how to read when it was made
    options: dict[str, Any] = {"batch_readahead": 0, "fragment_readahead": 1}
    if getattr(getattr(source, "format", None), "default_extname", "") == "parquet":
        import pyarrow.dataset as ds

        options["fragment_scan_options"] = ds.ParquetFragmentScanOptions(pre_buffer=False)
    return options


def _slices(frame: Any, size: int) -> Iterator[Chunk]:
    if size >= len(frame):
        yield frame_chunk(frame)
        return
    for start in range(0, len(frame), size):
        yield frame_chunk(frame.iloc[start : start + size], start=start)


def _numbered(parts: Iterable[Chunk]) -> Iterator[Chunk]:
    start = 0
    for part in parts:
        yield attrs.evolve(part, start=start)
        start += part.n


def _polars_batches(lazy: Any, size: int) -> Iterator[Any]:
    for part in lazy.collect_batches(chunk_size=size, maintain_order=True):
        yield from from_polars(part).to_batches()


def _reader(rows: Any) -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError("pyarrow is not installed", "rows", type(rows).__name__, "pip install 'closedloop[arrow]'") from error
    try:
        return pa.RecordBatchReader.from_stream(rows)
    except pa.ArrowInvalid as error:  # one column, or another thing that streams and is no table
        raise _no_table(rows) from error


def arrow_chunks(batches: Iterable[Any], size: int, *, stem: str = "") -> Iterator[Chunk]:
    """Record batches as chunks of about ``size`` rows: many small ones are put together, so that a chunk is worth its overhead."""
    import pyarrow as pa

    start, waiting, held = 0, [], 0
    for batch in (piece for whole in batches for piece in _pieces(whole, size)):
        waiting.append(batch)
        held += batch.num_rows
        if held >= size:
            yield frame_chunk(_arrow_frame(pa.Table.from_batches(waiting)), start=start, stem=stem)
            start, waiting, held = start + held, [], 0
    if waiting:
        yield frame_chunk(_arrow_frame(pa.Table.from_batches(waiting)), start=start, stem=stem)


def _pieces(batch: Any, size: int) -> Iterator[Any]:
    return (batch.slice(at, size) for at in range(0, batch.num_rows, size)) if batch.num_rows > size else iter([batch])
