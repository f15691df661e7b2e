"""Arms: the tuples of tags that decisions are about, as a coded matrix with its vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError

Arm = tuple[str | None, ...]
IntArray = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Texts = npt.NDArray[np.object_]

TAG_COLUMNS: tuple[str, ...] = ("platform", "campaign", "audience", "creative", "placement")


@attrs.frozen(kw_only=True, eq=False)
class Coded:
    """A column of strings as codes into a vocabulary; code -1 is a missing value.

    Args:
        codes: Shape (N,), int32, each in [-1, len(vocab)).
        vocab: The distinct strings, an object array.
    """

    codes: Codes
    vocab: Texts

    def __len__(self) -> int:
        return len(self.codes)

    def decode(self) -> Texts:
        """Return the strings themselves, None where missing (shape (N,))."""
        table = np.empty(len(self.vocab) + 1, dtype=object)  # the last entry, None, serves code -1
        table[:-1] = self.vocab
        return np.asarray(table[self.codes], dtype=object)

    def take(self, index: npt.ArrayLike) -> Coded:
        """Return the rows at ``index`` (positions or mask) over the same vocabulary."""
        return attrs.evolve(self, codes=self.codes[np.asarray(index)])

    @classmethod
    def missing(cls, n: int) -> Coded:
        """Return a column of ``n`` missing values."""
        return cls(codes=np.full(n, -1, dtype=np.int32), vocab=np.empty(0, dtype=object))

    @classmethod
    def of(cls, values: Sequence[str | None] | Texts) -> Coded:
        """Encode strings (None is missing); the vocabulary is sorted, so equal contents give equal codes.

        >>> Coded.of(["b", None, "a", "b"]).codes.tolist()
        [1, -1, 0, 1]
        """
        vocab = sorted({v for v in values if v is not None})
        position = {v: i for i, v in enumerate(vocab)}
        codes = np.fromiter((-1 if v is None else position[v] for v in values), dtype=np.int32, count=len(values))
        return cls(codes=codes, vocab=np.array(vocab, dtype=object))

    @classmethod
    def concat(cls, parts: Sequence[Coded]) -> Coded:
        """Return the parts one after another over one sorted vocabulary."""
        vocab = np.array(sorted({v for part in parts for v in part.vocab}), dtype=object)
        position = {v: i for i, v in enumerate(vocab)}
        codes = []
        for part in parts:
            table = np.array([position[v] for v in part.vocab] + [-1], dtype=np.int32)  # the last entry serves code -1
            codes.append(table[part.codes])
        return cls(codes=np.concatenate(codes) if codes else np.empty(0, dtype=np.int32), vocab=vocab)


@attrs.frozen(kw_only=True, eq=False)
class Arms:
    """Distinct arms, sorted by their tags, as a coded matrix.

    Args:
        columns: The tag columns that make an arm, K names.
        codes: Shape (A, K), int32; -1 where the tag is missing (such an arm is not *complete* and never ranked).
        vocabs: K object arrays, each sorted.

    >>> arms = Arms.of(("platform", "campaign"), [("google", "spring"), ("meta", "spring")])
    >>> arms[1], arms.index(("google", "spring"))
    (('meta', 'spring'), 0)
    """

    columns: tuple[str, ...]
    codes: Codes
    vocabs: tuple[Texts, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> Arm:
        return tuple(None if c < 0 else v[c] for c, v in zip(self.codes[index], self.vocabs, strict=True))

    def __iter__(self) -> Iterator[Arm]:
        if not self.columns:
            return iter([()] * len(self))
        missing = np.array([None], dtype=object)  # at the end, where code -1 finds it
        tags = (np.concatenate([v, missing])[self.codes[:, k]].tolist() for k, v in enumerate(self.vocabs))
        return iter(zip(*tags, strict=True))

    @classmethod
    def of(cls, columns: Sequence[str], arms: Sequence[Arm]) -> Arms:
        """Return the given arms, in the given order."""
        coded = [Coded.of([arm[k] for arm in arms]) for k in range(len(columns))]
        codes = np.stack([c.codes for c in coded], axis=1) if coded else np.empty((len(arms), 0), dtype=np.int32)
        return cls(columns=tuple(columns), codes=codes, vocabs=tuple(c.vocab for c in coded))

    @classmethod
    def distinct(cls, columns: Sequence[str], rows: Sequence[Coded]) -> tuple[Arms, Codes]:
        """Return the distinct arms of coded rows, sorted by their tags (missing first), and each row's arm.

        Args:
            columns: K column names.
            rows: K coded columns of N rows, each over a *sorted* vocabulary.

        Returns:
            The arms and an int32 array of shape (N,).
        """
        n = len(rows[0]) if rows else 0
        packed = np.zeros(n, dtype=np.int64)
        distinct = np.zeros(1, dtype=np.int64)
        for column in rows:  # re-number after each column: the product of vocabulary sizes can pass 2**63
            packed = packed * (len(column.vocab) + 1) + (column.codes.astype(np.int64) + 1)
            distinct, packed = np.unique(packed, return_inverse=True)
        first = np.full(len(distinct) if n else 0, n, dtype=np.int64)
        np.minimum.at(first, packed, np.arange(n))
        codes = np.stack([c.codes[first] for c in rows], axis=1) if rows else np.empty((0, 0), dtype=np.int32)
        return cls(columns=tuple(columns), codes=codes, vocabs=tuple(c.vocab for c in rows)), packed.astype(np.int32)

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """True where every tag is known (shape (A,))."""
        return np.asarray((self.codes >= 0).all(axis=1))

    def column(self, name: str) -> Coded:
        """Return one tag column of the arms.

        Raises:
            ConfigurationError: The arms have no such column.
        """
        if name not in self.columns:
            raise ConfigurationError("arms have no such tag", "column", name, None, self.columns)
        k = self.columns.index(name)
        return Coded(codes=self.codes[:, k], vocab=self.vocabs[k])

    def label(self, index: int) -> str:
        """Return one arm as text, tags joined by " / "."""
        return " / ".join("?" if tag is None else tag for tag in self[index])

    def labels(self) -> list[str]:
        """Return every arm as text."""
        return [self.label(i) for i in range(len(self))]

    def index(self, arm: Sequence[str | None]) -> int:
        """Return the position of an arm.

        Raises:
            ConfigurationError: There is no such arm; near ones are listed.
        """
        wanted = tuple(arm)
        if len(wanted) == len(self.columns):
            code = np.full(len(wanted), -2, dtype=np.int64)
            for k, (tag, vocab) in enumerate(zip(wanted, self.vocabs, strict=True)):
                if tag is None:
                    code[k] = -1
                else:
                    at = np.flatnonzero(vocab == tag)
                    code[k] = at[0] if len(at) else -2
            found = np.flatnonzero((self.codes == code).all(axis=1))
            if len(found):
                return int(found[0])
        raise ConfigurationError("no such arm", "arm", wanted, None, self.labels()[:20])

    def take(self, index: npt.ArrayLike) -> Arms:
        """Return the arms at ``index`` (positions or mask)."""
        return attrs.evolve(self, codes=self.codes[np.asarray(index)])

    def groups(self, by: Sequence[str]) -> tuple[Codes, list[str]]:
        """Return the group of each arm by the tags in ``by`` that the arms have, and the groups' names."""
        names = [b for b in by if b in self.columns]
        if not names:
            return np.zeros(len(self), dtype=np.int32), ["all"]
        group_arms, code = Arms.distinct(names, [self.column(b) for b in names])
        return code, group_arms.labels()

    def to_columns(self) -> dict[str, Any]:
        """Return one list of tags per column, for frames and tables."""
        return {name: list(Coded(codes=self.codes[:, k], vocab=self.vocabs[k]).decode()) for k, name in enumerate(self.columns)}
