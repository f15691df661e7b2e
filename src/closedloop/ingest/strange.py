"""Columns that Arrow and polars can hold and pandas cannot: brought into a form that it can, so that a row is judged and not the table.

Law of this file: values stay what they are; what has no form of its own stays an object, and is set aside where a field needs another.
"""

from __future__ import annotations

from typing import Any


def from_polars(frame: Any) -> Any:
    """Return a polars frame as an Arrow table; whole numbers of 128 bits, which Arrow has not, as texts."""
    wide = [name for name, kind in frame.schema.items() if str(kind) in ("Int128", "UInt128")]
    return frame.with_columns(frame[name].cast(str) for name in wide).to_arrow() if wide else frame.to_arrow()


def plain_columns(table: Any) -> tuple[Any, dict[int, list[Any]]]:
    """Return an Arrow table whose columns pandas can take rows of, and by position the values of those for which it has no type at all."""
    import pyarrow as pa

    strange: dict[int, list[Any]] = {}
    for i, field in enumerate(table.schema):
        column = _plain(table.column(i))
        if pa.types.is_interval(column.type):
            strange[i] = column.to_pylist()
            column = pa.nulls(len(column))
        if column.type != field.type:
            table = table.set_column(i, field.name, column)
    return table, strange


def _plain(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_run_end_encoded(kind):
        return _plain(pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], type=kind.value_type))
    if pa.types.is_binary_view(kind):
        return column.cast(pa.large_binary())
    if pa.types.is_dictionary(kind) and any(_ambiguous(chunk.dictionary) for chunk in column.chunks):
        return column.cast(kind.value_type)
    if pa.types.is_timestamp(kind) and kind.tz is not None and not _known_zone(kind.tz):
        return column.cast(pa.timestamp(kind.unit, "UTC"))  # the moments are in UTC whatever zone they are shown in
    return column


def _ambiguous(dictionary: Any) -> bool:
    """Whether two codes stand for one value, or a code for none."""
    return bool(dictionary.null_count) or len(dictionary.unique()) < len(dictionary)


def _known_zone(name: str) -> bool:
    import pyarrow as pa

    try:
        pa.lib.string_to_tzinfo(name)
    except (ValueError, KeyError):  # pyarrow's own errors are ValueErrors
        return False
    return True


def as_records(frame: Any) -> list[dict[Any, Any]]:
    """Return the rows of a pandas frame; moments before year 1 or after 9999, which Python has not, as their count of units."""
    try:
        return list(frame.to_dict("records"))
    except (OverflowError, ValueError):
        cells = [[_cell(column, row) for row in range(len(frame))] for _, column in frame.items()]
        return [dict(zip(frame.columns, row, strict=True)) for row in zip(*cells, strict=True)]


def _cell(column: Any, row: int) -> Any:
    try:
        return column.iloc[row]
    except (OverflowError, ValueError):
        import pyarrow as pa

        return pa.array(column.array)[row].value
