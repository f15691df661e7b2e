"""Files: CSV, NDJSON and Parquet paths as chunks; text is never guessed at, a line that cannot be read is one broken row.

Law of this file: memory stays that of one chunk whatever the file's size, every failure to read is an `InputError`, and what a file
says stays text until a column is read as what its field is.
"""

from __future__ import annotations

import glob
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import attrs

from closedloop.errors import ConfigurationError, InputError, MissingExtraError
from closedloop.ingest.doors import Chunk, arrow_chunks, dict_chunks, frame_chunk
from closedloop.ingest.lines import Broken, json_rows, separated_rows

_ARCHIVES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx, .ods and .zip; .xls
_SUFFIXES = (".csv", ".tsv", ".txt", ".ndjson", ".jsonl", ".json", ".parquet", ".pq")
_PACKED = (".gz", ".zst")


def stem_of(path: Path) -> str:
    """Return the file's name without its known extensions.

    >>> stem_of(Path("exports/random_all.csv.gz"))
    'random_all'
    """
    name = path.name
    for suffix in (*_PACKED, *_SUFFIXES):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) and len(name) > len(suffix) else name
    return name


def file_chunks(path: Path, *, encoding: str, separator: str | None, rows_at_once: int) -> Iterator[Chunk]:
    """Yield a file as chunks, by its extension.

    Raises:
        InputError: It is absent, empty, of no known kind, wrongly encoded or damaged.
    """
    if path.is_dir():
        raise InputError("that is a folder", "rows", str(path), "name the files in it by a pattern: folder/*.parquet")
    if not path.is_file():
        raise InputError("there is no such file", "rows", str(path), "check the path")
    if path.stat().st_size == 0:
        raise InputError("the file is empty", "rows", str(path), "export it again, with a header line")
    with path.open("rb") as file:
        if file.read(4) in _ARCHIVES:
            raise InputError("the file is a spreadsheet or a zip archive", "rows", str(path), "save the sheet as CSV (UTF-8), or unpack it")
    name = path.name.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    kind = Path(name).suffix
    try:
        if kind in (".parquet", ".pq"):
            yield from _parquet(path, rows_at_once)
        elif kind in (".ndjson", ".jsonl", ".json"):
            yield from _ndjson(path, encoding, rows_at_once)
        elif kind in (".csv", ".tsv", ".txt"):
            yield from _csv(path, encoding, separator, rows_at_once)
        else:
            raise InputError("no known kind of file", "rows", str(path), None, _SUFFIXES)
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x}"
        mend = "say which encoding it is in: encoding='latin-1', 'utf-16' or other (--encoding)"
        raise InputError(f"the file is not {encoding} text", "encoding", found, mend) from None
    except LookupError as error:
        raise InputError("no such encoding", "encoding", encoding, "use a name such as utf-8 or latin-1") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
        raise InputError("the file cannot be read", "rows", str(path), f"it seems damaged or cut short: {error}") from error


def _opened(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.name.lower().endswith(".zst"):
        try:
            import pyarrow as pa
        except ImportError as error:
            raise MissingExtraError("pyarrow is not installed", "rows", path.name, "pip install 'closedloop[arrow]'") from error
        return pa.input_stream(str(path), compression="zstd")  # type: ignore[no-any-return]
    return path.open("rb")


def _text(stream: IO[bytes], encoding: str) -> io.TextIOWrapper:
    # utf-8-sig reads a byte order mark away, and plain UTF-8 as it is.
    return io.TextIOWrapper(
        stream, encoding="utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding, newline=""
    )


def _separator(header: str) -> str:
    return max((",", ";", "\t", "|"), key=header.count)


def _csv(path: Path, encoding: str, separator: str | None, rows_at_once: int) -> Iterator[Chunk]:
    import csv

    if separator is not None and len(separator) != 1:
        raise ConfigurationError("a separator is one character", "separator", separator)
    with _opened(path) as stream, _text(stream, encoding) as text:
        header = text.readline(1_000_000)
        if not header.strip():
            raise InputError("the file has no header line", "rows", str(path), "the first line names the columns")
        sep = separator or _separator(header)
        try:
            names = [name.strip() for name in next(csv.reader([header.rstrip("\r\n")], delimiter=sep))]
        except csv.Error as error:
            raise InputError("the header line is none", "rows", str(path), f"mend it: {error}") from error
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InputError("two columns have the same name", twice, None, "rename one of them in the header")
        rows, start = separated_rows(text, sep, len(names)), 0
        while part := list(islice(rows, rows_at_once)):
            yield _cell_chunk(part, names, start, stem_of(path))
            start += len(part)
        if not start:
            yield _cell_chunk([], names, 0, stem_of(path))


def _cell_chunk(part: list[list[str] | Broken], names: list[str], start: int, stem: str) -> Chunk:
    import pandas as pd

    broken = {i: (str(row), row.reason) for i, row in enumerate(part) if isinstance(row, Broken)}
    nothing = [""] * len(names)
    columns = zip(*(nothing if isinstance(row, Broken) else row for row in part), strict=True) if part else ([] for _ in names)

    def series(cells: Sequence[str]) -> Any:
        try:
            return pd.Series(list(cells), dtype="str")
        except UnicodeEncodeError:  # lone surrogates, which some encodings let through: the schema will say so
            return pd.Series(list(cells), dtype=object)

    frame = pd.DataFrame({name: series(cells) for name, cells in zip(names, columns, strict=True)})
    return frame_chunk(frame, start=start, stem=stem, broken=broken)


def _ndjson(path: Path, encoding: str, rows_at_once: int) -> Iterator[Chunk]:
    with _opened(path) as stream, _text(stream, encoding) as text:
        rows, start = json_rows(text), 0
        while part := list(islice(rows, rows_at_once)):
            for chunk in dict_chunks(part, rows_at_once):
                broken = {i: (str(part[i]), part[i].reason) for i in chunk.broken}
                yield attrs.evolve(chunk, start=start, stem=stem_of(path), broken=broken)
            start += len(part)
    if start == 0:
        raise InputError("the file holds no line", "rows", str(path), "one JSON object per line")


def _parquet(path: Path, rows_at_once: int) -> Iterator[Chunk]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow is not installed", "rows", path.name, "pip install 'closedloop[arrow]'") from error
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # with it, all that was read stays in memory until the end
            # Batches end where row groups end: these are put together or cut, whatever size the writer chose.
            batches = file.iter_batches(batch_size=min(rows_at_once, 65_536)) if file.metadata.num_rows else [_no_rows(file)]
            yield from arrow_chunks(batches, rows_at_once, stem=stem_of(path))
    except pa.ArrowException as error:
        raise InputError("the file is no Parquet", "rows", str(path), f"it seems damaged: {error}") from error


def _no_rows(file: Any) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([], schema=file.schema_arrow)


def matching(path: Path) -> list[Path]:
    """Return the files a path with ``*``, ``?`` or ``[`` stands for, sorted; the path itself where there is none of these.

    Raises:
        InputError: Nothing matches.
    """
    text = str(path)
    if path.exists() or not any(c in text for c in "*?["):
        return [path]
    found = sorted(Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file())
    if not found:
        raise InputError("no file matches", "rows", text, "check the pattern")
    return found
