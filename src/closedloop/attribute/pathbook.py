"""Path counts by day, and which path each key stands for: what models of whole journeys remember of settled days.

Law of this file: books add. A path is known by a 64-bit key of its channels' names, which does not depend on what else is in the book; so
books of two partitions are united by key, and their counts summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.attribute.paths import PathCounts, path_keys
from closedloop.attribute.rows import keys_of
from closedloop.attribute.tables import PATH_KEYS, PATH_SUMS, Table, empty
from closedloop.records.arms import IntArray
from closedloop.records.money import MICROS


@attrs.frozen(kw_only=True, eq=False)
class DatedPaths:
    """Whole journeys, one row of ``paths`` each (revenue in millionths), and the day on which each is booked, shape (P,)."""

    paths: PathCounts
    day: IntArray


@attrs.frozen(kw_only=True, eq=False)
class PathBook:
    """Settled journeys.

    Args:
        channels: Names of the channels, sorted.
        key: Key of each path, sorted, int64, shape (P,).
        lengths: Touches of each path, shape (P,).
        codes: Their channels, one path after another, positions in ``channels``.
        counts: Converted journeys, their revenue in millionths, and null journeys, by day and path key.
    """

    channels: tuple[str, ...]
    key: IntArray
    lengths: IntArray
    codes: npt.NDArray[np.int32]
    counts: Table

    @classmethod
    def empty(cls) -> PathBook:
        """Return the book without journeys."""
        none = np.empty(0, dtype=np.int64)
        return cls(channels=(), key=none, lengths=none, codes=np.empty(0, dtype=np.int32), counts=empty(PATH_KEYS, PATH_SUMS))

    @classmethod
    def of(cls, dated: DatedPaths) -> PathBook:
        """Return the book of some journeys."""
        paths = dated.paths
        key = path_keys(paths, keys_of(paths.channels))[0].view(np.int64)
        distinct, first = np.unique(key, return_index=True)
        columns = {"won": paths.conversions, "value": paths.value, "lost": paths.nulls}
        counts = Table.of({"day": dated.day, "path": key}, {n: np.rint(c).astype(np.int64) for n, c in columns.items()})
        lengths = paths.lengths
        return cls(
            channels=tuple(paths.channels), key=distinct, lengths=lengths[first], codes=_pick(paths.codes, lengths, first), counts=counts
        )

    def __len__(self) -> int:
        return len(self.key)

    def over(self, channels: tuple[str, ...]) -> PathBook:
        """Return the book over other channels, among them all that its paths use; sorted."""
        if channels == self.channels:
            return self
        new = {name: i for i, name in enumerate(channels)}
        position = np.array([new.get(name, -1) for name in self.channels], dtype=np.int32)
        return attrs.evolve(self, channels=channels, codes=position[self.codes] if len(self.codes) else self.codes)

    @classmethod
    def add(cls, parts: Sequence[PathBook]) -> PathBook:
        """Return the journeys of all parts."""
        parts = [p for p in parts if len(p)]
        if len(parts) < 2:
            return parts[0] if parts else cls.empty()
        channels = tuple(sorted({c for p in parts for c in p.channels}))
        parts = [p.over(channels) for p in parts]
        key, first = np.unique(np.concatenate([p.key for p in parts]), return_index=True)
        lengths = np.concatenate([p.lengths for p in parts])
        codes = _pick(np.concatenate([p.codes for p in parts]), lengths, first)
        return cls(channels=channels, key=key, lengths=lengths[first], codes=codes, counts=Table.add([p.counts for p in parts]))

    def take(self, mask: npt.ArrayLike) -> PathBook:
        """Return the book with the counts at ``mask``, without paths and channels that nothing uses any more."""
        counts = self.counts.take(mask)
        at = np.searchsorted(self.key, np.unique(counts.keys["path"]))
        codes = _pick(self.codes, self.lengths, at)
        used = np.unique(codes)
        position = np.full(len(self.channels), -1, dtype=np.int32)
        position[used] = np.arange(len(used), dtype=np.int32)
        channels = tuple(self.channels[i] for i in used)
        return PathBook(channels=channels, key=self.key[at], lengths=self.lengths[at], codes=position[codes], counts=counts)

    def paths(self) -> PathCounts:
        """Return the journeys of all days as path counts, one row a path, in order of key."""
        at = np.searchsorted(self.key, self.counts.keys["path"])
        won, value, lost = (np.bincount(at, weights=self.counts.sums[n], minlength=len(self)).astype(np.float64) for n in PATH_SUMS)
        starts = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
        names = np.array(self.channels, dtype=object)
        return PathCounts(channels=names, codes=self.codes, starts=starts, conversions=won, value=value / MICROS, nulls=lost)


def _pick(codes: npt.NDArray[np.int32], lengths: IntArray, at: IntArray) -> npt.NDArray[np.int32]:
    """Return the codes of the paths at ``at``, one after another."""
    starts, chosen = np.cumsum(lengths) - lengths, lengths[at]
    within = np.arange(int(chosen.sum())) - np.repeat(np.cumsum(chosen) - chosen, chosen)
    return codes[np.repeat(starts[at], chosen) + within]
