"""Take secrets out of text before it is shown, raised or recorded.

Law of this file: whatever a platform or its client says passes through here on its way to an error, a log or the ledger. A
message is redacted first and cut afterwards, so that no half of a secret is left. It knows shapes of secrets, not platforms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
_SHORTEST_SECRET = 6  # below this, replacing it everywhere would destroy the message and protect nothing
_NAMES = (
    r"access[-_]?token|refresh[-_]?token|id[-_]?token|input[-_]?token|appsecret[-_]?proof|app[-_]?secret|client[-_]?secret|"
    r"developer[-_]?token|api[-_]?key|private[-_]?key|auth[-_]?code|authorization|password|secret"
)
# name=value, name: value, "name": "value", ('name', 'value'), also percent-encoded; the value ends where no token goes on
_LINK = r"(?:\\?[\"'])?\s*(?:=|:|%3D|%3A)\s*(?:b?\\?[\"'])?|\\?[\"']\s*,\s*b?\\?[\"']"
_VALUE = r"(?!\[redacted)((?:bearer|basic|oauth)\s+)?[^\s&\"'\\,;)}\]>]+"
_START = r"(?:(?<![a-z])|(?<=%[0-9a-f]{2}))"  # not within a word, or after a percent-encoded character
_NAMED = re.compile(rf"(?i){_START}({_NAMES})({_LINK}){_VALUE}")
_TOKEN = re.compile(rf"(?i){_START}(token)({_LINK})(?=\S*\d|\S{{20}}){_VALUE}")  # "token: Session has expired" keeps its words
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{4,}")
_USER_INFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@\"']+@")
_SHAPES = re.compile(r"\b(?:EAA[A-Za-z0-9]{12,}|ya29\.[A-Za-z0-9._-]{8,}|1//[A-Za-z0-9._-]{12,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9._-]{8,})")


def _spellings(secret: str) -> set[str]:
    """Return the ways in which a secret may stand in a text: plain, percent-encoded, inside JSON and inside a Python literal."""
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]}


def redact(text: object, secrets: Iterable[str | None] = (), *, limit: int = 500) -> str:
    """Return ``text`` without secrets, on one line and at most ``limit`` characters long.

    Args:
        text: Any message, exception or value.
        secrets: Secrets known to the caller, taken out in every spelling (those under six characters are left to the patterns).
        limit: Greatest length in characters.

    >>> redact("GET https://host/v1/me?access_token=EAAB1234567890abc&fields=id failed")
    'GET https://host/v1/me?access_token=[redacted]&fields=id failed'
    >>> redact("the key 0123456789 is bad", ["0123456789"])
    'the key [redacted] is bad'
    """
    found = str(text)
    spellings = {s for secret in secrets if secret and len(secret) >= _SHORTEST_SECRET for s in _spellings(secret)}
    for spelling in sorted(spellings, key=len, reverse=True):
        found = found.replace(spelling, REDACTED)
    found = _USER_INFO.sub(rf"\1{REDACTED}@", found)
    for pattern in (_NAMED, _TOKEN):
        found = pattern.sub(lambda m: f"{m[1]}{m[2]}{m[3] or ''}{REDACTED}", found)
    found = _BEARER.sub(rf"\1\2{REDACTED}", found)
    found = " ".join(_SHAPES.sub(REDACTED, found).split())
    return found if len(found) <= limit else f"{found[: limit - 3]}..."
