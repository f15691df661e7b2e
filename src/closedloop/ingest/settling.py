"""Several batches as one: the newest version of each event, in an order that does not depend on how they came.

Law of this file: `settle` is idempotent, and blind to the order and the splitting of its batches, as long as versions of one event
differ in ``recorded_at`` or not at all. A tagged version replaces an untagged one: that is what mending a row does.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from closedloop.ingest import identity
from closedloop.records.batch import EventBatch


def settle(batches: Sequence[EventBatch]) -> EventBatch:
    """Return the events of several batches, one version of each id, sorted by time and id.

    Raises:
        InputError: The batches have different currencies.
    """
    joined = EventBatch.concat(list(batches))
    tagged = _one_version(attrs.evolve(joined, untagged=None))
    if joined.untagged is None or not len(joined.untagged):
        return tagged
    waiting = _one_version(joined.untagged)
    mended = np.isin(waiting.event_id.astype(str), tagged.event_id.astype(str)) if len(tagged) else np.zeros(len(waiting), dtype=bool)
    rest = waiting.take(np.flatnonzero(~mended))
    return attrs.evolve(tagged, untagged=rest if len(rest) else None)


def _one_version(batch: EventBatch) -> EventBatch:
    if not len(batch):
        return batch
    keep = np.flatnonzero(identity.newest(batch.event_id, batch.recorded_at, np.arange(len(batch))))
    ids = batch.event_id[keep].tolist()
    at = batch.occurred_at[keep].tolist()
    order = sorted(range(len(keep)), key=lambda i: (at[i], ids[i]))
    return batch.take(keep[np.array(order, dtype=np.int64)])
