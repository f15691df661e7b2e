"""What TikTok's refusals mean: whose move is next, and when.

Law of this file: a pure reading of one failed call. TikTok answers almost everything with HTTP 200 and a code in the body, which the
SDK turns into an exception whose text alone carries code, words and request id. Only what is surely not applied is called so.

References:
    The table of codes in the official SDK (``tiktok_code``); TikTok's rate limits as told by third parties (40100 without a wait).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import attrs

from closedloop.platforms.redaction import redact
from closedloop.records.action import AttemptResult

Status = Literal["not_sent", "throttled", "rejected", "unknown"]
_TEXT = re.compile(r"Error Code: (\d+), message: (.*), request_id: (\S*)", re.DOTALL)
_FREQUENT = frozenset((40100, 40132, 61000))
_CREDENTIALS = frozenset((40102, 40103, 40104, 40105, 40106, 40107, 40110, 40115, 40309))
_CONFLICT = 40202
# said of this very request before anything was done: parameters, rights, absent objects, ended versions and interfaces
_NO = frozenset(
    (*range(40000, 40004), *range(40006, 40012), 40013, 40014, 40016, 40051, 40061, 40101, 40113, 40117, 40118, 40119, 40130, 41001, 41002)
) | frozenset((40300, 40301, 40302, 40400, 41000))
_WAIT, _CONFLICT_WAIT = 300.0, 5.0  # seconds: over the quota of a minute TikTok wants five minutes


@attrs.frozen(kw_only=True)
class Refusal:
    """One failed call; the fields are those of `AttemptResult`, and whether the credentials are at fault."""

    status: Status
    code: str
    message: str
    retry_at: datetime | None = None
    request_id: str = ""
    authentication: bool = False

    def attempt(self) -> AttemptResult:
        """Return what the refusal says of a change."""
        return AttemptResult(status=self.status, code=self.code, message=self.message, retry_at=self.retry_at, request_id=self.request_id)


def refusal_of(error: Exception, *, now: datetime, secrets: Sequence[str | None]) -> Refusal:
    """Return the meaning of an exception out of the SDK or of urllib3 below it.

    Args:
        error: What was raised.
        now: When (aware).
        secrets: Secrets of the client, to be taken out of the words.
    """
    found = _TEXT.fullmatch(str(error))
    if found is not None:
        return _coded(int(found[1]), redact(found[2], secrets), found[3], now)
    http = getattr(error, "status", None)
    words = redact(f"{type(error).__name__}: {error}", secrets)
    if http == 429:
        return Refusal(status="throttled", code="http 429", message=words, retry_at=now + timedelta(seconds=_WAIT))
    code = f"http {http}" if http else type(error).__name__
    return Refusal(status="not_sent" if _never_connected(error) else "unknown", code=code, message=words)


def _coded(code: int, words: str, request_id: str, now: datetime) -> Refusal:
    if code in _FREQUENT:
        retry_at = now + timedelta(seconds=_WAIT)
        return Refusal(status="throttled", code=str(code), message=words, retry_at=retry_at, request_id=request_id)
    if code == _CONFLICT:
        retry_at = now + timedelta(seconds=_CONFLICT_WAIT)
        return Refusal(status="not_sent", code=str(code), message=words, retry_at=retry_at, request_id=request_id)
    if code in _CREDENTIALS:
        return Refusal(status="not_sent", code=str(code), message=words, request_id=request_id, authentication=True)
    status: Status = "rejected" if code in _NO else "unknown"
    return Refusal(status=status, code=str(code), message=words, request_id=request_id)


def _never_connected(error: Exception) -> bool:
    """Whether not one byte of the request can have left."""
    from business_api_client.rest import urllib3  # the very one that the SDK uses

    never = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return isinstance(getattr(error, "reason", error), never)
