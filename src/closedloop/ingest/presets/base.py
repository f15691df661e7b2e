"""What a preset is: the public schema of one export, mapped to the event table.

Law of this file: a preset names columns and says what they mean; it checks nothing and drops nothing. One file per export, each
citing the schema it was written from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.ingest.doors import Chunk
from closedloop.ingest.schema import Failure
from closedloop.records.tags import TagSchema

Int64 = npt.NDArray[np.int64]


@attrs.frozen(kw_only=True, eq=False)
class Events:
    """Columns of the event table, not yet checked.

    Args:
        columns: pandas Series by field of the event table, M values each.
        source: The column of the input that each field came from, for messages.
        rows: int64 shape (M,): the row of the chunk each event came from; None when event i is row i. A row without any event
            (a page view that is neither touch nor conversion) is accepted and says nothing.
        failures: What only the preset can see is wrong, by event.
    """

    columns: Mapping[str, Any]
    source: Mapping[str, str]
    rows: Int64 | None = None
    failures: Sequence[Failure] = ()


@attrs.frozen(kw_only=True, eq=False)
class Draft:
    """Events of one kind that some rows become.

    Args:
        rows: int64: positions in the chunk.
        fields: By field, a pandas Series over *all* rows of the chunk, or one value for all events.
    """

    rows: Int64
    fields: dict[str, Any]


@attrs.frozen(kw_only=True, eq=False)
class Preset:
    """An export whose columns are known.

    Args:
        name: Its name in ``TableIngestor(preset=...)``.
        tags: The tags its rows carry.
        needs: Columns without which it is another table.
        events: Returns the events of one chunk.
        zone: The zone of its naive times.
        time_unit: What its whole-number times count.
        separator: Of its CSV files, None for any.
        reference: Where its schema is published.
    """

    name: str
    tags: TagSchema
    needs: tuple[str, ...]
    events: Callable[[Chunk], Events]
    zone: str | None = None
    time_unit: str | None = None
    separator: str | None = None
    reference: str = ""


def assembled(drafts: Sequence[Draft], source: Mapping[str, str], failures: Sequence[Failure] = ()) -> Events:
    """Return the drafts one after another as one set of columns; a field that a draft does not have is missing there."""
    import pandas as pd

    rows = np.concatenate([d.rows for d in drafts]) if drafts else np.empty(0, dtype=np.int64)
    columns = {}
    for field in dict.fromkeys(f for d in drafts for f in d.fields):
        parts = []
        for draft in drafts:
            value = draft.fields.get(field)
            if isinstance(value, pd.Series):
                parts.append(value.iloc[draft.rows])
            else:
                filled = np.empty(len(draft.rows), dtype=object)
                filled[:] = value
                parts.append(pd.Series(filled, dtype=object))
        columns[field] = _stacked(parts)
    return Events(columns=columns, source=dict(source), rows=rows, failures=failures)


def _stacked(parts: Sequence[Any]) -> Any:
    """Parts of one type stay that type; a mixture becomes objects, with NaN of a float column kept for what it is: not given."""
    import pandas as pd

    full = [p for p in parts if len(p)]
    if len({str(p.dtype) for p in full}) <= 1:
        return pd.concat(full or list(parts[:1]), ignore_index=True)
    out = np.empty(sum(len(p) for p in full), dtype=object)
    start = 0
    for part in full:
        values = part.astype(object).where(part.notna(), None) if part.dtype.kind in "fM" else part.astype(object)
        out[start : start + len(part)] = values.to_numpy(dtype=object)
        start += len(part)
    return pd.Series(out, dtype=object)


def picked(chunk: Chunk, path: str) -> Any:
    """Return a column by dotted path: the column of that very name, or the value inside nested records (absent: None).

    Names inside records are found in snake_case and in camelCase, as both are used in exports of one API.
    """
    import pandas as pd

    if path in chunk.columns:
        return chunk.columns[path]
    head, *rest = path.split(".")
    out = np.empty(chunk.n, dtype=object)
    column = chunk.columns.get(head, chunk.columns.get(_camel(head)))
    if column is not None and rest:
        values = column.tolist()
        for name in rest:
            values = [_inside(v, name) for v in values]
        out[:] = values
    elif column is not None:
        return column
    return pd.Series(out, dtype=object)


def _inside(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        return None
    return value.get(name, value.get(_camel(name)))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def first_given(*columns: Any) -> Any:
    """Return, row by row, the first value that is given and not blank, as an object Series."""
    import pandas as pd

    out = np.empty(len(columns[0]), dtype=object)
    open_ = np.ones(len(out), dtype=bool)
    for column in columns:
        values = column.to_numpy(dtype=object)
        given = (
            open_
            & column.notna().to_numpy(dtype=bool)
            & np.fromiter((not (isinstance(v, str) and v == "") for v in values), dtype=bool, count=len(values))
        )
        out[given] = values[given]
        open_ &= ~given
    return pd.Series(out, dtype=object)


def joined_ids(prefix: str, *columns: Any) -> Any:
    """Return ids made of texts, such as ``google_ads:2026-01-31:123:click`` (missing parts are empty)."""
    import pandas as pd

    from closedloop.ingest.columns import decoded, encode_texts

    parts = [decoded(*encode_texts(c)).fillna("").to_numpy(dtype=object) for c in columns]
    out = np.full(len(columns[0]), prefix, dtype=object)
    for part in parts:
        out = out + ":" + part
    return pd.Series(out, dtype=object)
