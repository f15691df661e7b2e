"""What a preset is: the public schema of one export, mapped to the event table.

Law of this file: a preset names columns and says what they mean; it checks nothing and drops nothing. One file per export, each
citing the schema it was written from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.ingest.doors import Chunk
from closedloop.records.tags import TagSchema


@attrs.frozen(kw_only=True, eq=False)
class Events:
    """Columns of the event table, not yet checked.

    Args:
        columns: pandas Series by field of the event table, M values each.
        source: The column of the input that each field came from, for messages.
        rows: int64 shape (M,): the row of the chunk each event came from; None when event i is row i.
    """

    columns: Mapping[str, Any]
    source: Mapping[str, str]
    rows: npt.NDArray[np.int64] | None = None


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
