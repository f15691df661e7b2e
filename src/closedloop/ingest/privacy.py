"""Privacy: user ids keyed-hashed before anything is kept, contact details noticed, a person forgotten.

Law of this file: a key is never shown (no ``repr``, no error, no log, no stored record holds it), and what was hashed once is not
hashed again, so that a quarantined row can be mended and ingested as it is. Without the key a hash cannot be undone by trying all
e-mail addresses, which is what a plain SHA-256 allows.

References: RFC 2104 (HMAC), FIPS 180-4 (SHA-256).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError
from closedloop.records.batch import EventBatch
from closedloop.records.quarantine import Quarantine

Contacts = Literal["refuse", "hash", "keep"]
Objects = npt.NDArray[np.object_]
_HASHED = re.compile(r"hmac-[0-9a-f]{64}", re.ASCII)
_EMAIL = re.compile(r"[^\s@<>()\[\],;:\"]{1,64}@[^\s@<>()\[\],;:\"]{1,190}\.[^\s@.,;:\"<>()\[\]]{2,24}")
# A telephone number as people and forms write it: + or 00, then 8 to 15 digits; bare digits are ids.
_PHONE = re.compile(r"(?<![\w+])(?:\+|00)[1-9](?:[ ().\-/]{0,2}\d){7,14}(?!\d)", re.ASCII)
WITHHELD = "(contact detail withheld)"
LINE_WITHHELD = "(line withheld: it may hold a user id; look it up in the source by its position)"
_LOOKED_AT = 2000  # characters of one text that are searched


def contact_in(text: str) -> bool:
    """Return True when a text holds an e-mail address or a telephone number with its prefix.

    >>> contact_in("Mail to ann@example.org"), contact_in("+49 (170) 123-4567"), contact_in("20260131123456"), contact_in("spring@home")
    (True, True, False, False)
    """
    head = text[:_LOOKED_AT]
    return ("@" in head and _EMAIL.search(head) is not None) or (("+" in head or "00" in head) and _PHONE.search(head) is not None)


def _key(value: bytes | None) -> bytes | None:
    if value is not None and not isinstance(value, bytes):
        raise ConfigurationError("a key is bytes", "key", None, "read it from a secret store, for example 32 random bytes")
    if value is not None and len(value) < 16:
        raise ConfigurationError("the key is too short", "key", None, "use at least 16 random bytes: secrets.token_bytes(32)")
    return value


@attrs.frozen(kw_only=True)
class Privacy:
    """What happens to personal data at the door.

    Args:
        key: Key of HMAC-SHA-256; with it every user id is hashed. Keep it where the raw ids may be known, and only there.
        contacts: E-mail addresses and telephone numbers in ids and tags: ``refuse`` quarantines the row with the detail withheld,
            ``hash`` puts the keyed hash in its place, ``keep`` leaves them.

    >>> privacy = Privacy(key=b"0123456789abcdef")
    >>> privacy
    Privacy(contacts='refuse')
    >>> privacy.hashed("u1")[:13], privacy.hashed(privacy.hashed("u1")) == privacy.hashed("u1")
    ('hmac-5162bddb', True)
    """

    key: bytes | None = attrs.field(default=None, converter=_key, repr=False)
    contacts: Contacts = attrs.field(default="refuse", validator=attrs.validators.in_(("refuse", "hash", "keep")))

    def __attrs_post_init__(self) -> None:
        if self.contacts == "hash" and self.key is None:
            raise ConfigurationError("hashing needs a key", "key", None, "give key=, or contacts='refuse'")

    def hashed(self, text: str) -> str:
        """Return the keyed hash of a text, ``hmac-`` and 64 hexadecimal digits; what is hashed already stays.

        Raises:
            ConfigurationError: There is no key.
        """
        if self.key is None:
            raise ConfigurationError("hashing needs a key", "key", None, "give key=")
        if _HASHED.fullmatch(text):
            return text
        return "hmac-" + hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def user(self, text: str) -> str:
        """Return a user id as it may be kept."""
        return text if self.key is None else self.hashed(text)

    def detail(self, text: str) -> str:
        """Return a text without contact details."""
        if self.contacts == "keep" or not contact_in(text):
            return text
        return self.hashed(text) if self.contacts == "hash" else WITHHELD

    def texts(self, distinct: Objects, *, user: bool) -> tuple[Objects, npt.NDArray[np.bool_]]:
        """Return distinct texts as they may be kept, and which of them are refused.

        Args:
            distinct: Object array of texts.
            user: They are user ids.
        """
        texts = distinct.tolist()
        out = np.empty(len(texts), dtype=object)
        refused = np.zeros(len(texts), dtype=bool)
        if user and self.key is not None:
            out[:] = [self.hashed(t) for t in texts]
            return out, refused
        found = contacts_among(texts) if self.contacts != "keep" else refused
        out[:] = [self.detail(t) if f else t for t, f in zip(texts, found.tolist(), strict=True)]
        return out, found if self.contacts == "refuse" else refused

    def without(self, text: str, user: str) -> str:
        """Return a text in which a user's raw id, standing as a word of its own, is replaced by what may be kept of it.

        Ids of events often hold one: ``order-ann-17``.
        """
        if self.key is None or not user or user not in text:
            return text
        kept = self.hashed(user)
        return re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", lambda _: kept, text)

    def row(self, row: Mapping[str, Any], user_column: str) -> dict[str, Any]:
        """Return an original row as it may be kept in quarantine."""
        if self.key is not None and row.keys() == {"line"}:  # what is no record does not say where in it the user stands
            return {"line": LINE_WITHHELD}
        user = row.get(user_column)
        raw = "" if user is None or self.key is None else user if isinstance(user, str) else str(user)
        return {n: self.hashed(raw) if n == user_column and raw else self.plain(value, raw) for n, value in row.items()}

    def plain(self, value: Any, user: str = "") -> Any:
        """Return a value of any shape without contact details, and without one user's raw id."""
        if isinstance(value, str):
            return self.detail(self.without(value, user))
        if isinstance(value, Mapping):
            return {k: self.plain(v, user) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(v, user) for v in value]
        return value


def contacts_among(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which texts hold a contact detail; one look at all of them together when none does."""
    whole = "\n".join(texts)
    if "@" not in whole and "+" not in whole and "\n00" not in whole and not whole.startswith("00") and " 00" not in whole:
        return np.zeros(len(texts), dtype=bool)
    return np.fromiter((contact_in(t) for t in texts), dtype=bool, count=len(texts))


def guarded(
    originals: Callable[[npt.NDArray[np.int64]], Sequence[Mapping[str, Any]]], n: int, privacy: Privacy, user_column: str
) -> Callable[[npt.NDArray[np.int64]], Sequence[Mapping[str, Any]]]:
    """Return the original rows as they may be kept; with contact details to be taken out, none of the raw ones is held on to."""
    if privacy.key is None and privacy.contacts == "keep":
        return originals
    kept = [privacy.row(row, user_column) for row in originals(np.arange(n))]
    return lambda at: [kept[i] for i in at.tolist()]


def forget_user(batch: EventBatch, user_id: str, privacy: Privacy | None = None) -> EventBatch:
    """Return a batch without the events of one person, untagged ones too; decisions and totals already made stay as they are.

    Args:
        batch: The events.
        user_id: The raw id, or its hash.
        privacy: With which the batch was ingested.
    """
    names = {user_id} if privacy is None else {user_id, privacy.user(user_id)}

    def without(part: EventBatch) -> EventBatch:
        theirs = np.array([t in names for t in part.user_id.vocab.tolist()] + [False], dtype=bool)[part.user_id.codes]
        kept = part.take(np.flatnonzero(~theirs))
        vocab = part.user_id.vocab  # the id must not stay behind in the vocabulary either
        from closedloop.ingest.columns import sort_vocabulary

        codes, vocab = sort_vocabulary(kept.user_id.codes, vocab)
        return attrs.evolve(kept, user_id=attrs.evolve(kept.user_id, codes=codes, vocab=vocab))

    untagged = None if batch.untagged is None else without(batch.untagged)
    return attrs.evolve(without(batch), untagged=untagged if untagged is not None and len(untagged) else None)


def forget_quarantined(quarantine: Quarantine, user_id: str, privacy: Privacy | None = None) -> Quarantine:
    """Return a quarantine without the rows that name one person anywhere, also as a word in a longer text."""
    names = {user_id} if privacy is None else {user_id, privacy.user(user_id)}
    word = re.compile("|".join(rf"(?<!\w){re.escape(n)}(?!\w)" for n in sorted(names)))

    def named(value: Any) -> bool:
        if isinstance(value, Mapping):
            return any(map(named, value.values()))
        if isinstance(value, list | tuple):
            return any(map(named, value))
        return value is not None and word.search(str(value)) is not None

    return Quarantine(rows=tuple(r for r in quarantine.rows if not named(r.row)))
