"""What Meta's refusals mean: whose move is next, and when.

Law of this file: a pure reading of one failed call. Only what is surely not applied is called so; a server's failure, a broken
answer or a lost one is ``unknown``. Nothing leaves unredacted.

References:
    Meta, Marketing API: error codes; rate limiting (read in November 2026). Codes of the real-time and ad-set limits beyond
    those pages (613 with subcodes 5044001, 1487742 and 1487632) are as users report them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import attrs

from closedloop.platforms.redaction import redact
from closedloop.records.action import AttemptResult, Change

_RATE = {4: 3600, 17: 300, 32: 300, 613: 300, **dict.fromkeys(range(80000, 80015), 300)}  # code: seconds when no header tells
_QUOTA_OF = {2446079: "score", 1487742: "score", 5044001: "changes", 80004: "calls"}  # subcode or code: which declared quota
_RATE_SUBCODE = {2446079: 300, 1487742: 60, 1487632: 3600, 5044001: 2}
_AD_SET_BLOCK = 3600  # four budget changes an hour, then blocked for one
_AUTHENTICATION = frozenset((102, 104, 190, 2500))
_FORBIDDEN = frozenset((3, 10, 294, *range(200, 300)))
_SERVER = frozenset((1, 2))
_ENDED = 2635


@attrs.frozen(kw_only=True)
class Refusal:
    """One failed call.

    Args:
        status: As in `AttemptResult`.
        code: Meta's code and subcode, or the kind of failure below HTTP.
        message: Redacted words.
        retry_at: When it may be tried again, where that is known.
        request_id: Meta's id of the request.
        usage: Share of quotas used, by scope.
        authentication: Whether the credentials are at fault.
        quota: Code, subcode and time when a quota refused it.
        scope: The declared quota that refused it, "" when Meta does not say.
    """

    status: Literal["not_sent", "throttled", "rejected", "unknown"]
    code: str
    message: str
    retry_at: datetime | None = None
    request_id: str = ""
    usage: Mapping[str, float] = attrs.field(factory=dict)
    authentication: bool = False
    quota: tuple[int, int | None, datetime] | None = None
    scope: str = ""

    def attempt(self, change: Change, budget_scope: str | None) -> AttemptResult:
        """Return what the refusal says of a change.

        Args:
            change: What was sent.
            budget_scope: The quota of budget changes of its ad set, None where there is none.
        """
        retry_at, scope = self.retry_at, self.scope
        if budget_scope and change.kind == "set_budget" and self.quota and self.quota[:2] in ((17, None), (613, 1487632)):
            # four changes of an ad set's budget an hour, then blocked for one; the documents call it by a bare 17
            retry_at = max(retry_at or self.quota[2], self.quota[2] + timedelta(seconds=_AD_SET_BLOCK))
            scope = budget_scope
        return AttemptResult(
            status=self.status,
            code=self.code,
            message=self.message,
            retry_at=retry_at,
            request_id=self.request_id,
            scope=scope,
            usage=self.usage,
        )


def refusal_of(error: Exception, *, now: datetime, secrets: Sequence[str | None], account: str) -> Refusal:
    """Return the meaning of an exception out of the SDK or of the HTTP client below it.

    Args:
        error: What was raised.
        now: When (aware).
        secrets: Secrets of the session, to be taken out of the words.
        account: Scope under which usage is told.
    """
    from facebook_business.exceptions import FacebookRequestError

    if isinstance(error, FacebookRequestError):
        return _answered(error, now, secrets, account)
    words = redact(f"{type(error).__name__}: {error}", secrets)
    return Refusal(status="not_sent" if _never_connected(error) else "unknown", code=type(error).__name__, message=words)


def _never_connected(error: Exception) -> bool:
    """Whether not one byte of the request can have left: no address, no connection, no connection in time."""
    from facebook_business.session import requests  # the very one that the SDK uses

    refused = requests.packages.urllib3.exceptions.NewConnectionError
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    return isinstance(getattr(cause, "reason", None), refused)


def _answered(error: Any, now: datetime, secrets: Sequence[str | None], account: str) -> Refusal:
    http, headers, body = int(error.http_status()), error.http_headers() or {}, error.body()
    found = body.get("error") if isinstance(body, Mapping) else None
    details: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    code, subcode = _whole(details.get("code")), _whole(details.get("error_subcode"))
    said = [str(details[k]) for k in ("message", "error_user_title", "error_user_msg") if details.get(k)]
    words = redact(". ".join(said) or f"HTTP {http} without an error object: {body}", secrets)
    request_id = str(headers.get("x-fb-request-id") or details.get("fbtrace_id") or "")
    name = f"http {http}" if code is None else str(code) + (f"/{subcode}" if subcode else "")
    common: dict[str, Any] = {
        "code": name, "message": words, "request_id": redact(request_id, secrets), "usage": usage_of(headers, account),
    }  # fmt: skip
    if code in _RATE or http == 429:
        seconds = _wait_of(headers) or _RATE_SUBCODE.get(subcode or 0) or _RATE.get(code or 0, 300)
        quota = (code, subcode, now) if code is not None else None
        which = _QUOTA_OF.get(subcode or 0) or _QUOTA_OF.get(code or 0)
        scope = f"{account}/{which}" if which else ""
        return Refusal(status="throttled", retry_at=now + timedelta(seconds=seconds), quota=quota, scope=scope, **common)
    if code in _AUTHENTICATION:
        return Refusal(status="not_sent", authentication=True, **common)
    if code in _FORBIDDEN or code == _ENDED:
        return Refusal(status="rejected", **common)
    if code is None or code in _SERVER or http >= 500 or details.get("is_transient") is True:
        return Refusal(status="unknown", **common)
    return Refusal(status="rejected", **common)


def _whole(value: Any) -> int | None:
    """Return a code of Meta's, None for what is none: a broken answer must not decide anything."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _json_header(headers: Mapping[str, str], name: str) -> Any:
    try:
        return json.loads(headers[name])
    except (KeyError, ValueError, TypeError):
        return None  # absent, or not what Meta documents: usage is advice, its absence changes nothing


def _uses(headers: Mapping[str, str]) -> list[Mapping[str, Any]]:
    found = _json_header(headers, "x-business-use-case-usage")
    groups = found.values() if isinstance(found, Mapping) else ()
    return [use for group in groups if isinstance(group, list) for use in group if isinstance(use, Mapping)]


def _wait_of(headers: Mapping[str, str]) -> float:
    """Return the seconds that Meta says to wait, 0 when it does not say; its own unit is minutes."""
    waits = [use.get("estimated_time_to_regain_access", 0) for use in _uses(headers)]
    return 60.0 * max((w for w in waits if isinstance(w, int | float)), default=0)


def usage_of(headers: Mapping[str, str], account: str) -> dict[str, float]:
    """Return the share of each quota used, by scope, from the usage headers of an answer (Meta tells percent)."""
    used: dict[str, float] = {}
    for use in _uses(headers):
        if use.get("type") == "ads_management":
            parts = [use.get(k, 0) for k in ("call_count", "total_cputime", "total_time")]
            used[f"{account}/calls"] = max(float(p) for p in parts if isinstance(p, int | float)) / 100.0
    score = _json_header(headers, "x-ad-account-usage")
    if isinstance(score, Mapping) and isinstance(score.get("acc_id_util_pct"), int | float):
        used[f"{account}/score"] = float(score["acc_id_util_pct"]) / 100.0
    return used
