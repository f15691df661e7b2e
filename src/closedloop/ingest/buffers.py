"""Text columns of Arrow as machine words: which rows may share a text, and which do, faster than a hash table of strings.

Law of this file: a hash only proposes; equal texts are told by their bytes. Columns that could make the work grow faster than their
bytes (one text of megabytes among short ones, texts chosen so that their hashes collide) are left to the ordinary way (None).
A text is read eight bytes at a time, a *lane*, straight from Arrow's buffer; sorting a million 64-bit words takes a tenth of the time
that hashing a million strings does.

References: Arrow columnar format, "Variable-size binary layout"; the finaliser is splitmix64's (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.int32]

FEWEST_ROWS = 20_000  # below this a hash table of strings fits the cache and is as fast
_LONGEST = 512  # bytes of a text; a column with a longer one is left to the ordinary way
_SAMPLE = 1024
_BLOCK = 32_768  # rows
_CONTROLS_END = np.uint64(16 << 56)
_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(9)], dtype=np.uint64)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def text_array(column: Any) -> Any:
    """Return the one Arrow array of large strings behind a pandas Series, None where there is none."""
    if getattr(column.dtype, "storage", "") != "pyarrow":
        return None
    import pyarrow as pa

    array = pa.array(column.array)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if not (pa.types.is_large_string(array.type) or pa.types.is_string(array.type)):
        return None
    return array.cast(pa.large_string())


def mixed(h: UInt64) -> UInt64:
    """Finish a 64-bit hash, in its own place: every input bit reaches every output bit."""
    moved = np.empty_like(h)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        h ^= np.right_shift(h, np.uint64(shift), out=moved)
        h *= np.uint64(factor)
    return h


@attrs.frozen(eq=False)
class Words:
    """The texts of an Arrow array as lanes of eight bytes.

    Args:
        start, length: int64, shape (N,): where each text lies in the buffer; a null is a text of length 0.
        lanes: uint64: the eight bytes from each position of the buffer on.
        longest: Bytes of the longest text.
    """

    start: Int64
    length: Int64
    lanes: UInt64
    longest: int

    @classmethod
    def of(cls, array: Any) -> Words | None:
        """Return the lanes of an array of large strings; None where a text is too long for this way."""
        texts, place = array.buffers()[2], _places(array)
        length = np.diff(place)
        if array.null_count:
            length[np.asarray(array.is_null())] = 0
        longest = int(length.max(initial=0))
        if longest > _LONGEST:
            return None
        first, last = int(place[0]), int(place[-1])
        raw = np.zeros(last - first + 8, dtype=np.uint8)
        if texts is not None:
            raw[: last - first] = np.frombuffer(texts, dtype=np.uint8)[first:last]
        lanes: UInt64 = np.ndarray((last - first + 1,), dtype="<u8", buffer=raw.data, strides=(1,))
        return cls(place[:-1] - first if first else place[:-1], length, lanes, longest)

    def lane(self, k: int, at: Int64 | slice = slice(None)) -> UInt64:
        """Return the k-th eight bytes of the texts at ``at``, each longer than 8 k bytes; what lies behind a text's end is 0."""
        rest = self.length[at] - 8 * k if k else self.length[at]
        place = self.start[at] + 8 * k if k else self.start[at]
        return np.asarray(self.lanes[place] & _MASKS[np.minimum(rest, 8)])

    def _longer(self, block: slice) -> Iterator[tuple[int, Int64]]:
        """Yield each further lane and the rows of the block that have it."""
        at, k = block.start + np.flatnonzero(self.length[block] > 8), 1
        while len(at):
            yield k, at
            k += 1
            at = at[self.length[at] > 8 * k]

    def _blocks(self) -> Iterator[slice]:
        """Yield runs of rows whose words stay in the cache while they are worked on."""
        return (slice(start, min(start + _BLOCK, len(self.length))) for start in range(0, len(self.length), _BLOCK))

    def hashes(self) -> tuple[UInt64, bool]:
        """Return a 64-bit hash of each text and its length, and whether it tells all texts apart for certain.

        Seven bytes and the length are one word, and what mixes it can be undone. So can that of eight bytes whose last is no control
        character: no length is as large as that.
        """
        out = np.empty(len(self.length), dtype=np.uint64)
        certain = self.longest <= 8
        for block in self._blocks():
            length, h = self.length[block], self.lane(0, block)
            if certain and self.longest == 8:
                certain = not bool(((length == 8) & (h < _CONTROLS_END)).any())
            h ^= length.view(np.uint64) << np.uint64(56)
            for k, at in self._longer(block):
                rows = at - block.start
                part = (h[rows] + self.length[at].view(np.uint64)) * _MULTIPLIER
                h[rows] = (part ^ (part >> np.uint64(32))) ^ self.lane(k, at)
            out[block] = mixed(h)
        return out, certain

    def sorting(self, array: Any, at: Int64) -> Int64:
        """Return the order by code point of the texts at ``at``, all different, of the array that these words were made of.

        The first eight bytes in which not all agree are a number that mostly tells; texts that share it are compared as such.
        """
        import pyarrow.compute as pc

        start, length = self.start[at], self.length[at]
        shortest, shared = int(length.min(initial=0)), 0
        while shared < shortest:
            ahead = self.lanes[start + shared]
            differing = int(np.bitwise_or.reduce(ahead ^ ahead[0]))
            same = 8 if not differing else ((differing & -differing).bit_length() - 1) // 8
            shared = min(shared + same, shortest)
            if same < 8:
                break
        key = (self.lanes[start + shared] & _MASKS[np.minimum(length - shared, 8)]).byteswap()
        order = np.argsort(key, kind="stable")
        key = key[order]
        tied = np.append(False, key[1:] == key[:-1])
        tied[:-1] |= tied[1:]
        if tied.any():
            some = order[tied]
            order[tied] = some[np.asarray(pc.sort_indices(array.take(at[some])))]
        return order

    def equal(self, other: Int64) -> bool:
        """Return True when every text has the bytes of the text at ``other`` (int64 positions, shape (N,))."""
        for block in self._blocks():
            theirs = other[block]
            if not np.array_equal(self.length[block], self.length[theirs]) or not np.array_equal(self.lane(0, block), self.lane(0, theirs)):
                return False
            if not all(np.array_equal(self.lane(k, at), self.lane(k, other[at])) for k, at in self._longer(block)):
                return False
        return True


def _places(array: Any) -> Int64:
    return np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]


def holds_nul(array: Any) -> bool:
    """Return whether any byte of the texts of an array of large strings is 0."""
    texts, place = array.buffers()[2], _places(array)
    return texts is not None and bool((np.frombuffer(texts, dtype=np.uint8)[place[0] : place[-1]] == 0).any())


def longest_bytes(array: Any) -> int:
    """Return the bytes of the longest text of an array of large strings: no text has more characters."""
    return int(np.diff(_places(array)).max(initial=0))


def perhaps_repeated(array: Any) -> Int64 | None:
    """Return positions among which are all texts that occur more than once; None where all may be.

    >>> import pyarrow as pa
    >>> texts = pa.array([str(i) for i in range(30_000)] + ["7"], pa.large_string())
    >>> sorted({7, 30_000} - set(perhaps_repeated(texts).tolist()))
    []
    """
    words = Words.of(array) if len(array) >= FEWEST_ROWS else None
    if words is None:
        return None
    h, _ = words.hashes()
    ordered = np.sort(h)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(again) > len(h) // 4:
        return None
    bits = max(16, len(h).bit_length() + 2)
    marked = np.zeros(1 << bits, dtype=bool)
    low = np.uint64((1 << bits) - 1)
    marked[again & low] = True
    return np.flatnonzero(marked[h & low])


def numbered(array: Any) -> tuple[Codes, Any] | None:
    """Return a number for each distinct text and the distinct texts, sorted, as Arrow's; None where the ordinary way is the better one.

    Nulls are -1.

    >>> import pyarrow as pa
    >>> codes, texts = numbered(pa.array([str(i % 15_000) for i in range(30_000)], pa.large_string()))
    >>> codes[[0, 15_000]].tolist(), len(texts), texts[:3].to_pylist()
    ([0, 0], 15000, ['0', '1', '10'])
    """
    n = len(array)
    if n < FEWEST_ROWS or not _many_distinct(array):
        return None
    given = None
    if array.null_count:
        given = np.flatnonzero(~np.asarray(array.is_null()))
        array = array.drop_null()
    words = Words.of(array)
    if words is None:
        return None
    h, is_certain = words.hashes()
    order, starts = _grouping_order(h)
    first = order[starts]
    sorting = words.sorting(array, first)
    rank = np.empty(len(starts), dtype=np.int32)
    rank[sorting] = np.arange(len(starts), dtype=np.int32)
    codes = np.empty(len(array), dtype=np.int32)
    codes[order] = np.repeat(rank, np.diff(np.append(starts, len(array))))
    if not is_certain and not words.equal(first[sorting][codes]):
        return None
    if given is not None:
        some, codes = codes, np.full(n, -1, dtype=np.int32)
        codes[given] = some
    return codes, array.take(first[sorting])


def _many_distinct(array: Any) -> bool:
    """Whether at least half of a sample of rows are distinct: with fewer, a small hash table is faster."""
    import pyarrow as pa

    sample = array.take(pa.array(np.linspace(0, len(array) - 1, _SAMPLE).astype(np.int64)))
    return len(sample.unique()) > _SAMPLE // 2


def _grouping_order(h: UInt64) -> tuple[Int64, Int64]:
    """Return positions that bring equal hashes together, each group in its own order, and where among them each group starts.

    The row number is written into the low bits of its hash: sorting plain words is several times faster than finding their order. Hashes
    that differ in the low bits only stand mixed then, and are put in order among themselves.
    """
    bits = np.uint64(max(1, len(h).bit_length()))
    low = (np.uint64(1) << bits) - np.uint64(1)
    packed = h & ~low
    for start in range(0, len(h), _BLOCK):  # new memory costs more than the work on it: little is taken, and what there is used again
        packed[start : start + _BLOCK] |= np.arange(start, min(start + _BLOCK, len(h)), dtype=np.uint64)
    packed.sort()
    order = (packed & low).view(np.int64)
    packed >>= bits
    same, grouped = packed[1:] == packed[:-1], np.take(h, order, out=packed, mode="clip")
    is_new = grouped[1:] != grouped[:-1]
    mixed_up = np.flatnonzero(same & is_new)
    if len(mixed_up):
        edges = np.concatenate([[0], np.flatnonzero(~same) + 1, [len(h)]])
        run = np.unique(np.searchsorted(edges, mixed_up, side="right")) - 1
        size = edges[run + 1] - edges[run]
        at = np.arange(size.sum()) + np.repeat(edges[run] - np.append(0, np.cumsum(size)[:-1]), size)
        rows = order[at]
        order[at] = rows[np.lexsort((rows, h[rows], np.repeat(run, size)))]
        grouped[at] = h[order[at]]
        is_new = grouped[1:] != grouped[:-1]
    return order, np.append(0, np.flatnonzero(is_new) + 1)
