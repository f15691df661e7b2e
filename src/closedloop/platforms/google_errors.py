"""What the refusals of the Google Ads API mean: whose move is next, and when.

Law of this file: a pure reading of one failed call or of one part of it. The SDK hands over three shapes: its own exception, a bare
gRPC one for RESOURCE_EXHAUSTED and INTERNAL (even when Google's failure is in the trailing metadata), and an OK answer whose
``partial_failure_error`` holds all errors in one packed message. All three are read into the same `Refusal`. Only what is surely
not applied is called so. Nothing leaves unredacted.

References:
    Google Ads API: errors, quotas and rate limits (read in November 2026); google-ads-python issues 172 and 738.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import attrs

from closedloop.platforms.redaction import redact
from closedloop.records.action import AttemptResult

Status = Literal["not_sent", "throttled", "rejected", "unknown"]
_FAILURE = re.compile(r"google\.ads\.googleads\.v\d+\.errors\.googleadsfailure-bin")
_DAILY, _SHORT, _CONCURRENT = 3600.0, 60.0, 5.0  # seconds to wait when Google does not say
_SEVERITY: Mapping[Status, int] = {"unknown": 3, "throttled": 2, "not_sent": 1, "rejected": 0}
_CREDENTIALS = re.compile(r"invalid_grant|RefreshError|Getting metadata from plugin failed")
_UNCONNECTED = re.compile(r"failed to connect to all addresses|Connection refused|DNS resolution failed|Name or service not known")
_WRONG_ACCOUNT = ("CUSTOMER_NOT_FOUND", "CLIENT_CUSTOMER_ID_INVALID", "NOT_ADS_USER")


@attrs.frozen(kw_only=True)
class Refusal:
    """One refused operation.

    Args:
        status: As in `AttemptResult`.
        code: Google's error code, such as ``CampaignBudgetError.BUDGET_BELOW_PER_DAY_MINIMUM``, or the gRPC status.
        message: Redacted words.
        retry_at: When it may be tried again, where that is known.
        request_id: Google's id of the request.
        authentication: Whether the credentials are at fault.
        index: The operation at fault in a request of several, None for all of them.
    """

    status: Status
    code: str
    message: str
    retry_at: datetime | None = None
    request_id: str = ""
    authentication: bool = False
    index: int | None = None

    def attempt(self, daily_scope: str = "") -> AttemptResult:
        """Return what the refusal says of a change; ``daily_scope`` is the declared quota of operations a day, if there is one."""
        return AttemptResult(
            status=self.status,
            code=self.code,
            message=self.message,
            retry_at=self.retry_at,
            request_id=self.request_id,
            scope=daily_scope if self.code == "QuotaError.RESOURCE_EXHAUSTED" else "",
        )


def raw(message: Any) -> Any:
    """Return the plain protobuf message of either kind that the client may be set to use."""
    return getattr(message, "_pb", message)


def enum_name(message: Any, field: str) -> str:
    """Return the name of an enum value of a plain protobuf message, ``UNKNOWN`` for a number that this version does not know."""
    value = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(getattr(message, field))
    return "UNKNOWN" if value is None else str(value.name)


def refusal_of(error: Exception, *, failure_type: Any, now: datetime, secrets: Sequence[str | None]) -> Refusal:
    """Return the meaning of an exception out of the SDK or of gRPC below it.

    Args:
        error: What was raised.
        failure_type: The plain protobuf class ``GoogleAdsFailure`` of the version in use.
        now: When (aware).
        secrets: Secrets of the client, to be taken out of the words.
    """
    request_id = getattr(error, "request_id", None)
    if getattr(error, "failure", None) is not None:
        return _worst(refusals_of(raw(error.failure), now=now, secrets=secrets, request_id=str(request_id or "")))  # type: ignore[attr-defined]
    call = getattr(error, "response", None) or error
    metadata = dict(call.trailing_metadata() or ()) if hasattr(call, "trailing_metadata") else {}
    request_id = str(request_id or metadata.get("request-id", ""))
    for key, value in metadata.items():
        if _FAILURE.fullmatch(key):
            found = refusals_of(failure_type.FromString(value), now=now, secrets=secrets, request_id=request_id)
            if found:
                return _worst(found)
    return _by_status(error, call, now, secrets, request_id)


def refusals_of(failure: Any, *, now: datetime, secrets: Sequence[str | None], request_id: str) -> list[Refusal]:
    """Return one refusal per error of a plain ``GoogleAdsFailure``, each with the index of its operation."""
    return [_one(error, now, secrets, request_id) for error in failure.errors]


def partial_refusals(status: Any, *, failure_type: Any, now: datetime, secrets: Sequence[str | None], request_id: str) -> list[Refusal]:
    """Return the refusals hidden in the ``partial_failure_error`` of an OK answer; one packed message holds them all."""
    found: list[Refusal] = []
    for packed in raw(status).details:
        failure = failure_type.FromString(packed.value)
        found.extend(refusals_of(failure, now=now, secrets=secrets, request_id=request_id))
    if not found and raw(status).code:
        words = redact(raw(status).message, secrets)
        return [Refusal(status="unknown", code=f"grpc {raw(status).code}", message=words, request_id=request_id)]
    return found


def _worst(refusals: Sequence[Refusal]) -> Refusal:
    """Return the refusal that leaves most open: for the caller a perhaps counts more than a no."""
    return max(refusals, key=lambda r: _SEVERITY[r.status])


def _one(error: Any, now: datetime, secrets: Sequence[str | None], request_id: str) -> Refusal:
    family = error.error_code.WhichOneof("error_code") or "unknown_error"
    name = enum_name(error.error_code, family) if family != "unknown_error" else "UNKNOWN"
    words = error.message
    retry_at: datetime | None = None
    status: Status = "rejected"
    authentication = False
    if family == "quota_error" and name != "ACCESS_PROHIBITED":
        details = error.details.quota_error_details
        seconds = details.retry_delay.seconds + details.retry_delay.nanos / 1e9 or (_DAILY if name == "RESOURCE_EXHAUSTED" else _SHORT)
        status, retry_at = "throttled", now + timedelta(seconds=seconds)
        if details.rate_name:
            words = f"{words} (quota {details.rate_name!r}, scope {enum_name(details, 'rate_scope')})"
    elif family == "database_error" and name == "CONCURRENT_MODIFICATION":
        status, retry_at = "not_sent", now + timedelta(seconds=_CONCURRENT)
    elif family == "authentication_error" and name not in _WRONG_ACCOUNT:
        status, authentication = "not_sent", True
    elif family == "internal_error":
        status = "unknown"
    elif family == "request_error" and name == "RPC_DEADLINE_TOO_SHORT":
        status = "not_sent"
    elif name == "BUDGET_BELOW_PER_DAY_MINIMUM":
        least = error.details.budget_per_day_minimum_error_details
        words = (
            f"{words} (at least {least.minimum_budget_amount_micros or least.budget_per_day_minimum_micros} micros {least.currency_code})"
        )
    where = error.location.field_path_elements
    index = where[0].index if where and where[0].HasField("index") else None
    title = "".join(part.capitalize() for part in family.split("_"))
    return Refusal(
        status=status,
        code=f"{title}.{name}",
        message=redact(words, secrets),
        retry_at=retry_at,
        request_id=request_id,
        authentication=authentication,
        index=index,
    )


def _by_status(error: Exception, call: Any, now: datetime, secrets: Sequence[str | None], request_id: str) -> Refusal:
    """Read a failure of gRPC itself, without a word of Google Ads in it."""
    status = call.code() if callable(getattr(call, "code", None)) else None
    name = getattr(status, "name", None) or type(error).__name__
    details = str(call.details() if callable(getattr(call, "details", None)) else error)
    words = redact(details or name, secrets)
    common: dict[str, Any] = {"code": name, "message": words, "request_id": request_id}
    if _CREDENTIALS.search(details) or name in ("UNAUTHENTICATED", "RefreshError"):
        return Refusal(status="not_sent", authentication=True, **common)
    if name == "RESOURCE_EXHAUSTED" and "larger than max" not in details:
        return Refusal(status="throttled", retry_at=now + timedelta(seconds=_SHORT), **common)
    if name == "UNAVAILABLE" and _UNCONNECTED.search(details):
        return Refusal(status="not_sent", **common)
    if name in ("INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNIMPLEMENTED", "FAILED_PRECONDITION", "OUT_OF_RANGE"):
        return Refusal(status="rejected", **common)
    return Refusal(status="unknown", **common)
