"""Journeys as path counts: the one reduction that every path model reads.

Law of this file: path counts add. A journey is a sequence of channels with the conversions, the revenue and the unconverted journeys
(nulls) that took exactly this way; rows need not be distinct.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import InputError
from closedloop.records.arms import IntArray
from closedloop.records.interval import FloatArray

Codes = npt.NDArray[np.int32]


def _counts(values: Any, name: str, n: int) -> FloatArray:
    column = np.zeros(n) if values is None else np.array(values, dtype=np.float64)
    if column.shape != (n,):
        raise InputError(f"{name} needs one number for each path", name, column.shape, f"give {n} numbers")
    if column.min(initial=0.0) >= 0 and column.max(initial=0.0) < np.inf:  # NaN is neither
        return column
    wrong = int(np.flatnonzero(~np.isfinite(column) | (column < 0))[0])
    raise InputError(f"{name} of path {wrong} is no count", name, float(column[wrong]), "use finite numbers from 0 up")


def exact_sum(column: FloatArray) -> float:
    """Return the correctly rounded sum of counts from 0 up; whole numbers are summed fast, for no partial sum of theirs is ever rounded."""
    some = column[column != 0.0]
    total = float(some.sum())
    if total < 2.0**53 and bool((some == np.floor(some)).all()):
        return total
    return math.fsum(some)


@attrs.frozen(kw_only=True, eq=False)
class PathCounts:
    """P journeys over C channels, flattened.

    Args:
        channels: Names of the channels, sorted, shape (C,).
        codes: The touches of all journeys one after another, positions in ``channels``, shape (T,).
        starts: Where each journey begins in ``codes``, and the end; shape (P + 1,).
        conversions: Converted journeys of each row, shape (P,).
        value: Revenue of them, shape (P,).
        nulls: Journeys of each row whose window closed without a conversion, shape (P,).

    >>> paths = PathCounts.of(["search > email", "email"], conversions=[2, 1], nulls=[0, 3])
    >>> paths.channels.tolist(), paths.codes.tolist(), paths.starts.tolist()
    (['email', 'search'], [1, 0, 0], [0, 2, 3])
    """

    channels: npt.NDArray[np.object_]
    codes: Codes
    starts: IntArray
    conversions: FloatArray
    value: FloatArray
    nulls: FloatArray

    def __len__(self) -> int:
        return len(self.conversions)

    @property
    def lengths(self) -> IntArray:
        """Touches of each journey, shape (P,)."""
        return np.diff(self.starts)

    @property
    def journey(self) -> IntArray:
        """The journey of each touch, shape (T,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    @classmethod
    def of(
        cls,
        paths: Sequence[str] | Sequence[Sequence[str]],
        *,
        conversions: Any = None,
        value: Any = None,
        nulls: Any = None,
        separator: str = ">",
    ) -> PathCounts:
        """Return paths given as text ("a > b") or as sequences of channels.

        Args:
            paths: P journeys; an empty one is a journey without touches (direct).
            conversions: Converted journeys of each; one each when neither conversions nor nulls are given.
            value: Revenue of each.
            nulls: Unconverted journeys of each.
            separator: What stands between channels; blanks around it are dropped.

        Raises:
            InputError: A count is negative or no number, a path is no text, or lengths differ.
        """
        vocab: dict[str, int] = {}
        flat: list[int] = []
        lengths = np.zeros(len(paths), dtype=np.int64)
        for i, path in enumerate(paths):
            if isinstance(path, str):
                parts: Sequence[str] = [p.strip() for p in path.split(separator)] if path.strip() else []
            else:
                parts = path
            for part in parts:
                if not isinstance(part, str) or not part:
                    raise InputError(f"path {i} holds something that is no channel", "paths", part, "name every channel")
                flat.append(vocab.setdefault(part, len(vocab)))
            lengths[i] = len(parts)
        names = sorted(vocab)
        new = np.empty(len(vocab), dtype=np.int32)
        for position, name in enumerate(names):
            new[vocab[name]] = position
        codes = new[np.array(flat, dtype=np.int64)] if flat else np.empty(0, dtype=np.int32)
        ones = np.ones(len(paths)) if conversions is None and nulls is None else conversions
        return cls._checked(np.array(names, dtype=object), codes, lengths, ones, value, nulls)

    @classmethod
    def of_touches(
        cls,
        journey: npt.ArrayLike,
        channel: npt.ArrayLike,
        channels: Sequence[str],
        *,
        at: npt.ArrayLike | None = None,
        n_journeys: int | None = None,
        conversions: Any = None,
        value: Any = None,
        nulls: Any = None,
    ) -> PathCounts:
        """Return journeys from touch rows in any order.

        Args:
            journey: Journey of each touch, integers from 0 up, shape (T,).
            channel: Channel of each touch, positions in ``channels``, shape (T,).
            channels: Names of the channels.
            at: Time of each touch, integers; equal times keep the order given. The order given stands for time when None.
            n_journeys: Number of journeys; the largest ``journey`` plus one when None.
            conversions, value, nulls: By journey.

        Raises:
            InputError: A code lies outside the channels, or lengths differ.
        """
        ids, codes = np.asarray(journey, dtype=np.int64), np.asarray(channel)
        if ids.shape != codes.shape or ids.ndim != 1:
            raise InputError("journey and channel need one entry for each touch", "channel", codes.shape, "give two columns of one length")
        if len(codes) and (codes.min() < 0 or codes.max() >= len(channels) or ids.min() < 0):
            raise InputError("a touch names no channel or journey", "channel", int(codes.max()), f"use positions below {len(channels)}")
        n = int(ids.max(initial=-1)) + 1 if n_journeys is None else n_journeys
        lengths = np.bincount(ids, minlength=n)
        if len(lengths) > n:
            raise InputError("a touch belongs to no journey", "journey", int(ids.max()), f"use journeys below {n}")
        times = None if at is None else np.asarray(at, dtype=np.int64)
        if times is None or bool((times[1:] >= times[:-1]).all()):
            flat = _grouped(ids, codes.astype(np.int32), n)
        else:
            order = _order(ids, times)
            flat = codes.astype(np.int32) if order is None else codes[order].astype(np.int32)
        return cls._checked(np.array(channels, dtype=object), flat, lengths, conversions, value, nulls)

    @classmethod
    def _checked(cls, channels: Any, codes: Codes, lengths: IntArray, conversions: Any, value: Any, nulls: Any) -> PathCounts:
        n = len(lengths)
        starts = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        won, worth, lost = _counts(conversions, "conversions", n), _counts(value, "value", n), _counts(nulls, "nulls", n)
        return cls(channels=channels, codes=codes, starts=starts, conversions=won, value=worth, nulls=lost)

    @classmethod
    def add(cls, parts: Sequence[PathCounts]) -> PathCounts:
        """Return the journeys of all parts over one list of channels."""
        names = np.array(sorted({c for p in parts for c in p.channels}), dtype=object)
        codes = [np.searchsorted(names.astype(str), p.channels.astype(str)).astype(np.int32)[p.codes] for p in parts if len(p.channels)]
        flat = np.concatenate(codes) if codes else np.empty(0, dtype=np.int32)
        lengths = np.concatenate([p.lengths for p in parts])
        columns = [np.concatenate([getattr(p, c) for p in parts]) for c in ("conversions", "value", "nulls")]
        return cls._checked(names, flat, lengths, *columns)

    def collapsed(self) -> PathCounts:
        """Return the journeys with consecutive touches of one channel as one ("a > a > b > a" becomes "a > b > a")."""
        repeat = np.zeros(len(self.codes), dtype=np.bool_)
        repeat[1:] = self.codes[1:] == self.codes[:-1]
        repeat[self.starts[:-1][self.lengths > 0]] = False
        lengths = self.lengths - np.bincount(self.journey[repeat], minlength=len(self))
        return self._checked(self.channels, self.codes[~repeat], lengths, self.conversions, self.value, self.nulls)

    def keys(self) -> npt.NDArray[np.uint64]:
        """Return a 64-bit key of each journey's path, equal for equal paths, shape (P,)."""
        return path_keys(self)[0]

    def distinct(self) -> PathCounts:
        """Return each path once with its counts summed, in order of first appearance."""
        _, first, group = np.unique(self.keys(), return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.int64)
        by_first = np.argsort(first, kind="stable")
        rank[by_first] = np.arange(len(first))
        at, group = first[by_first], rank[group]
        lengths = self.lengths[at]
        ends = np.cumsum(lengths)
        within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        codes = self.codes[np.repeat(self.starts[at], lengths) + within]
        sums = [np.bincount(group, weights=w, minlength=len(at)) for w in (self.conversions, self.value, self.nulls)]
        return self._checked(self.channels, codes, lengths, *sums)

    def to_columns(self) -> Mapping[str, Any]:
        """Return path, conversions, value and nulls as columns."""
        names = self.channels[self.codes] if len(self.codes) else np.empty(0, dtype=object)
        text = [" > ".join(names[a:b]) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]
        return {"path": text, "conversions": self.conversions, "value": self.value, "nulls": self.nulls}


def _grouped(ids: IntArray, codes: Codes, n: int) -> Codes:
    """Return the codes grouped by id, in the order given within each."""
    if bool((ids[1:] >= ids[:-1]).all()):
        return codes
    rows, width = len(ids), int(codes.max()).bit_length()
    if n.bit_length() + rows.bit_length() + width < 63:  # one sort of values that carry their code is faster than any sort of positions
        step = 1 << width
        packed = ids * (rows << width)
        packed += np.arange(0, rows << width, step)
        packed += codes
        packed.sort()
        packed &= step - 1
        return packed.astype(np.int32)
    return codes[np.argsort(ids, kind="stable")]


def _order(ids: IntArray, at: IntArray) -> IntArray | None:
    """Return the order of touches by journey and time, None where they stand in it already."""
    same = ids[1:] == ids[:-1]
    if ((ids[1:] >= ids[:-1]) & (~same | (at[1:] >= at[:-1]))).all():
        return None
    low = int(at.min())
    span = int(at.max()) - low + 1
    if (int(ids.max()) + 1) * span < 2**62:
        return np.argsort(ids * span + (at - low), kind="stable")
    return np.lexsort((at, ids))


_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def path_keys(paths: PathCounts, names: npt.NDArray[np.uint64] | None = None) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return a key of each path, and of each path without each of its touches.

    The key is the polynomial ``sum_i mix(code_i) * m**i`` modulo 2**64, whose parts before and after a touch are known from running sums.

    Args:
        paths: P journeys with T touches.
        names: A key of each channel, for keys that do not depend on which other channels there are; its position when None.

    Returns:
        Shapes (P,) and (T,).
    """
    lengths = paths.lengths
    longest = int(lengths.max(initial=0))
    powers = np.full(longest + 1, 1, dtype=np.uint64)
    if longest:
        powers[1:] = np.multiply.accumulate(np.full(longest, _MULTIPLIER, dtype=np.uint64))
    inverse_of_m = np.uint64(pow(int(_MULTIPLIER), -1, 1 << 64))
    position = np.arange(len(paths.codes)) - np.repeat(paths.starts[:-1], lengths)
    identity = np.arange(1, len(paths.channels) + 1, dtype=np.uint64) if names is None else names
    terms = _mixed(identity * _MULTIPLIER)[paths.codes] * powers[position]
    running = np.zeros(len(terms) + 1, dtype=np.uint64)
    np.cumsum(terms, out=running[1:])
    whole = running[paths.starts[1:]] - running[paths.starts[:-1]]
    before = running[:-1] - np.repeat(running[paths.starts[:-1]], lengths)
    after = np.repeat(running[paths.starts[1:]], lengths) - running[1:]
    shorter = np.repeat(lengths - 1, lengths)
    return whole + _mixed(lengths.astype(np.uint64)), before + after * inverse_of_m + _mixed(shorter.astype(np.uint64))
