"""What the engines hand back: path counts and cohort counts as plain columns.

Law of this file: counts of two partitions of users add to the counts of the union. Nothing here knows an engine; everything after the
reduction is numpy, and the same for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import InputError


@attrs.frozen(kw_only=True, eq=False)
class ReducedPaths:
    """Distinct journeys with their counts, sorted by path.

    Args:
        channels: Names, sorted, shape (C,).
        codes: Touches of all paths one after another, positions in ``channels``.
        lengths: Touches of each path, shape (P,).
        conversions, value, nulls: Sums of each path, shape (P,).
    """

    channels: npt.NDArray[np.object_]
    codes: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    conversions: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    nulls: npt.NDArray[np.float64]

    @classmethod
    def of(cls, found: Mapping[str, Any], names: Sequence[str]) -> ReducedPaths:
        """Return the paths of a query's columns: path (codes joined by commas), conversions, value, nulls."""
        paths = [str(p) for p in found["path"]]
        lengths = np.array([0 if not p else p.count(",") + 1 for p in paths], dtype=np.int64)
        joined = ",".join(p for p in paths if p)
        codes = np.array(joined.split(","), dtype=np.int32) if joined else np.empty(0, dtype=np.int32)
        sums = {name: np.asarray(found[name], dtype=np.float64) for name in ("conversions", "value", "nulls")}
        return cls(channels=np.array(names, dtype=object), codes=codes, lengths=lengths, **sums)

    def paths(self) -> list[list[str]]:
        """Return each path as a list of channels."""
        ends = np.cumsum(self.lengths)
        return [list(self.channels[self.codes[e - n : e]]) for e, n in zip(ends, self.lengths, strict=True)]

    def by_touch(self) -> dict[str, Any]:
        """Return the arguments of ``PathCounts.of_touches``."""
        return {
            "journey": np.repeat(np.arange(len(self.lengths)), self.lengths),
            "channel": self.codes,
            "channels": list(self.channels),
            "n_journeys": len(self.lengths),
            "conversions": self.conversions,
            "value": self.value,
            "nulls": self.nulls,
        }


@attrs.frozen(kw_only=True, eq=False)
class ReducedCohorts:
    """Exposures and last-touch credit, one row per channel, touch day, kind of touch and delay, sorted by them.

    Args:
        channel: Name, shape (R,).
        day: Days since 1970-01-01 UTC of the touch.
        kind: 0 click, 1 view.
        delay: Calendar days from the touch to the record of the conversion; -1 in rows of exposures.
        exposures: Touches.
        credit: Conversions credited to the last touch; a click beats any view.
        value: Their revenue, in units.
    """

    channel: npt.NDArray[np.object_]
    day: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    delay: npt.NDArray[np.int64]
    exposures: npt.NDArray[np.float64]
    credit: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.channel)

    @classmethod
    def add(cls, parts: Sequence[Mapping[str, Any]]) -> ReducedCohorts:
        """Return the sums of a query's columns over partitions of users."""
        key, sums = ("channel", "day", "kind", "delay"), ("exposures", "credit", "value")
        columns = {name: np.concatenate([np.asarray(p[name]) for p in parts]) for name in (*key, *sums)}
        names, code = np.unique(columns["channel"].astype(str), return_inverse=True)
        rows = np.stack([code, *(columns[k].astype(np.int64) for k in key[1:])], axis=1)
        if not len(rows):
            integer, number = np.empty(0, dtype=np.int64), np.empty(0)
            return cls(channel=np.empty(0, dtype=object), day=integer, kind=integer, delay=integer, **dict.fromkeys(sums, number))
        distinct, group = np.unique(rows, axis=0, return_inverse=True)
        weights = [columns[s].astype(np.float64) for s in sums]
        counted = [np.bincount(group.ravel(), weights=w, minlength=len(distinct)).astype(np.float64) for w in weights]
        return cls(
            channel=names.astype(object)[distinct[:, 0]],
            day=distinct[:, 1],
            kind=distinct[:, 2],
            delay=distinct[:, 3],
            exposures=counted[0],
            credit=counted[1],
            value=counted[2],
        )


def named(names: Sequence[Any]) -> list[str]:
    """Return the channels' names, sorted.

    Raises:
        InputError: One has no name.
    """
    if None in names:
        raise InputError("a touch has no channel", "channel", None, "name every channel, or leave the touch out")
    return sorted(names)
