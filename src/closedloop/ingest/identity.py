"""Who an event is: ids from content where the source gives none, and one version of each id.

Law of this file: arrays in, arrays out. An id made here depends on the event's content and on how many equal rows came before it,
never on its position, so that the same rows give the same ids in any order. Of several rows with one id the newest version
(by ``recorded_at``) is kept, and among equal versions the first that came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from closedloop.ingest.buffers import mixed, perhaps_repeated, text_array
from closedloop.records.batch import EventBatch

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Objects = npt.NDArray[np.object_]

_KEYS = ("closedloop-id-01", "closedloop-id-02")  # 16 characters each: two independent hashes make 128 bits
_SEEDS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)


def content_hash(
    numbers: Mapping[str, npt.NDArray[np.generic]], texts: Mapping[str, tuple[npt.NDArray[np.int32], Objects]]
) -> tuple[UInt64, UInt64]:
    """Return two 64-bit hashes per event over all its fields.

    Args:
        numbers: int64 columns of shape (N,) by field.
        texts: Codes of shape (N,), -1 where missing, and distinct texts, by field.
    """
    from pandas.util import hash_array

    lanes = []
    for key, seed in zip(_KEYS, _SEEDS, strict=True):
        n = len(next(iter(numbers.values())))
        h = np.full(n, seed, dtype=np.uint64)
        for values in numbers.values():
            h = mixed((h + np.uint64(seed)) ^ values.astype(np.int64).view(np.uint64))
        for codes, distinct in texts.values():
            table = np.zeros(len(distinct) + 1, dtype=np.uint64)
            if len(distinct):
                table[:-1] = hash_array(distinct, hash_key=key, categorize=False)
            h = mixed((h + np.uint64(seed)) ^ table[codes])
        lanes.append(h)
    return lanes[0], lanes[1]


def derived_ids(first: UInt64, second: UInt64) -> Objects:
    """Return an id for each event from its content: 32 hexadecimal digits, and "-k" for the k-th repetition of equal content.

    >>> lane = np.array([1, 2, 1], dtype=np.uint64)
    >>> [i[-4:] for i in derived_ids(lane, lane)]
    ['0001', '0002', '01-1']
    """
    n = len(first)
    out = np.empty(n, dtype=object)
    if not n:
        return out
    digits = np.stack([first, second], axis=1).astype(">u8").tobytes().hex()
    out[:] = [digits[i : i + 32] for i in range(0, 32 * n, 32)]
    order = np.lexsort((np.arange(n), second, first))
    a, b = first[order], second[order]
    starts = np.flatnonzero(np.append(True, (a[1:] != a[:-1]) | (b[1:] != b[:-1])))
    if len(starts) < n:
        repetition = np.empty(n, dtype=np.int64)
        repetition[order] = np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
        for i in np.flatnonzero(repetition):
            out[i] = f"{out[i]}-{repetition[i]}"
    return out


def repeated_content(batch: EventBatch) -> tuple[tuple[str, str], ...]:
    """Return pairs of ids whose events are equal in every other field: the same event sent under two ids, perhaps.

    Events with a user only: without one, two equal events are an ordinary thing. Nothing is dropped for it; whether two purchases of one
    amount at one microsecond are one is the source's to say.

    Returns:
        (id kept as it is, id that repeats it), in the order of the batch.
    """
    at = np.flatnonzero(batch.user_id.codes >= 0)
    columns = {"user_id": batch.user_id, **batch.tags, "conversion_type": batch.conversion_type}
    first, second = content_hash(
        {n: getattr(batch, n)[at] for n in ("kind", "occurred_at", "cost", "value", "quantity", "touch_kind", "touch_at")},
        {n: (c.codes[at], c.vocab) for n, c in columns.items()},
    )
    order = np.lexsort((at, second, first))
    a, b = first[order], second[order]
    new = np.append(True, (a[1:] != a[:-1]) | (b[1:] != b[:-1]))[: len(order)]
    leader = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))] if len(order) else order
    pairs = sorted(zip(at[leader[~new]].tolist(), at[order[~new]].tolist(), strict=True), key=lambda p: (p[1], p[0]))
    return tuple((str(batch.event_id[i]), str(batch.event_id[j])) for i, j in pairs)


def newest(event_id: Any, recorded_at: Int64, at: Int64) -> npt.NDArray[np.bool_]:
    """Return True for the one version of each id that is kept: the newest, among equals the first (shape (M,)).

    Args:
        event_id: An array or Series of texts, shape (N,).
        recorded_at: int64 microseconds, shape (N,).
        at: int64, ascending, shape (M,): the events that compete.

    >>> newest(np.array(["a", "b", "a"], dtype=object), np.array([1, 1, 2]), np.arange(3)).tolist()
    [False, True, True]
    """
    import pandas as pd

    keep = np.ones(len(at), dtype=bool)
    rows = None if isinstance(event_id, np.ndarray) else _perhaps_repeated(event_id)
    if rows is None:
        some = np.arange(len(at))
    else:
        is_candidate = np.zeros(len(event_id), dtype=bool)
        is_candidate[rows] = True
        some = np.flatnonzero(is_candidate[at])
    mine = at[some]
    codes, distinct = pd.factorize(event_id[mine] if isinstance(event_id, np.ndarray) else event_id.array.take(mine))
    if len(distinct) == len(codes):
        return keep
    place = np.flatnonzero(np.bincount(codes, minlength=len(distinct))[codes] > 1)
    repeated = some[place]
    order = np.lexsort((repeated, -recorded_at[at[repeated]], codes[place]))
    keep[repeated] = False
    ordered = codes[place][order]
    keep[repeated[order[np.append(True, ordered[1:] != ordered[:-1])]]] = True
    return keep


def _perhaps_repeated(event_id: Any) -> Int64 | None:
    array = text_array(event_id)
    return None if array is None else perhaps_repeated(array)
