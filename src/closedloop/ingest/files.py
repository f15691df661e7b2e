"""Files: CSV, NDJSON and Parquet paths as chunks; text is never guessed at, a line that cannot be read is one broken row.

Law of this file: memory stays that of one chunk whatever the file's size, every failure to read is an `InputError`, and what a file
says stays text until a column is read as what its field is.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from closedloop.errors import InputError, MissingExtraError
from closedloop.ingest.doors import Chunk, _arrow_batches, frame_chunk

_SUFFIXES = (".csv", ".tsv", ".txt", ".ndjson", ".jsonl", ".json", ".parquet", ".pq")
_PACKED = (".gz", ".zst")
_EXTRA = "\0beyond the header"


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
    if not path.is_file():
        raise InputError("there is no such file", "rows", str(path), "check the path")
    if path.stat().st_size == 0:
        raise InputError("the file is empty", "rows", str(path), "export it again, with a header line")
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

    import pandas as pd

    with _opened(path) as stream, _text(stream, encoding) as text:
        header = text.readline(1_000_000)
        if not header.strip():
            raise InputError("the file has no header line", "rows", str(path), "the first line names the columns")
        sep = separator or _separator(header)
        names = [name.strip() for name in next(csv.reader([header], delimiter=sep))]
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InputError("two columns have the same name", twice, None, "rename one of them in the header")
        try:
            # One column beyond the header catches lines with a field too many; every cell stays the text that was written.
            reader = pd.read_csv(
                text,
                sep=sep,
                header=None,
                names=[*names, _EXTRA],
                dtype=str,
                keep_default_na=False,
                na_filter=True,
                na_values=[],
                index_col=False,
                chunksize=rows_at_once,
                skip_blank_lines=True,
            )
            start = 0
            for frame in reader:
                yield _checked(frame, names, start, stem_of(path))
                start += len(frame)
        except pd.errors.EmptyDataError:
            empty = pd.DataFrame({n: pd.Series([], dtype=str) for n in names})
            yield frame_chunk(empty, stem=stem_of(path))
        except pd.errors.ParserError as error:
            if isinstance(error.__cause__, UnicodeDecodeError):
                raise error.__cause__ from None
            raise InputError("the file is no table", "rows", str(path), f"mend the line: {error}") from error


def _checked(frame: Any, names: list[str], start: int, stem: str) -> Chunk:
    frame = frame.reset_index(drop=True)
    broken: dict[int, tuple[str, str]] = {}
    for i in np.flatnonzero((frame[_EXTRA].fillna("") != "").to_numpy(dtype=bool)):
        cells = [c for c in frame.iloc[i].tolist() if isinstance(c, str)]
        broken[int(i)] = (",".join(cells)[:1000], f"has more fields than the header's {len(names)}")
    return frame_chunk(frame[names], start=start, stem=stem, broken=broken)


def _ndjson(path: Path, encoding: str, rows_at_once: int) -> Iterator[Chunk]:
    from closedloop.ingest.doors import _dict_chunks

    class Line(str):
        """A line that is no JSON object."""

        def __repr__(self) -> str:
            return str(self)

    def rows() -> Iterator[Any]:
        with _opened(path) as stream, _text(stream, encoding) as text:
            for line in text:
                if not line.strip():
                    continue
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError):
                    yield Line(line.strip()[:1000])

    lines, start = rows(), 0
    while part := list(islice(lines, rows_at_once)):
        for chunk in _dict_chunks(part, rows_at_once):
            broken = {i: (text, "is no JSON object" if "Line" in why else why) for i, (text, why) in chunk.broken.items()}
            yield Chunk(columns=chunk.columns, n=chunk.n, start=start, stem=stem_of(path), take=chunk.take, broken=broken)
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
        with pq.ParquetFile(path) as file:
            yield from _arrow_batches(file.iter_batches(batch_size=rows_at_once), stem=stem_of(path))
            if file.metadata.num_rows == 0:
                yield frame_chunk(file.read().to_pandas(types_mapper=__import__("pandas").ArrowDtype), stem=stem_of(path))
    except pa.ArrowException as error:
        raise InputError("the file is no Parquet", "rows", str(path), f"it seems damaged: {error}") from error
