"""The Google Ads API behind the platform Protocols, over the official client (extra ``google``).

Law of this file: the caller hands over a ready ``GoogleAdsClient``; nothing here reads credentials. One call is one request with a
deadline. A budget belongs to a campaign only when no other campaign shares it: that is looked up before each change of it. Money
is micros end to end. An answer without an error is accepted, not confirmed: only a read confirms.

References:
    Google Ads API: mutate and partial failure, campaign budgets, quotas and access levels, sunset dates (read in November 2026).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import attrs

from closedloop.errors import AuthenticationError, ConfigurationError, MissingExtraError, NotSentError, PlatformError, RejectedError
from closedloop.platforms.google_errors import Refusal, enum_name, partial_refusals, raw, refusal_of
from closedloop.platforms.google_report import report_rows
from closedloop.platforms.google_targets import BUDGET, CAMPAIGN, Looked, operation_of, seen
from closedloop.platforms.rows import account_days, zone
from closedloop.platforms.sunset import SunsetWarning, sunset_notice
from closedloop.records.action import AttemptResult, Change, TargetState
from closedloop.records.decision import Target
from closedloop.records.window import AttributionWindow

Access = Literal["explorer", "test", "basic", "standard"]
_OPERATIONS: Mapping[str, float] = {"explorer": 2_880.0, "test": 15_000.0, "basic": 15_000.0}  # a rolling day; standard has no limit
_CUSTOMER = "SELECT customer.currency_code, customer.time_zone, customer.status FROM customer"
_MOST_OPERATIONS = 10_000


class _Innermost(list):  # type: ignore[type-arg]
    """Interceptors that stay nearest to the wire: the client puts its own behind those given, and they hide trailing metadata."""

    def __add__(self, others: Any) -> Any:
        return [*others, *self]


def _digits(customer: str) -> str:
    return str(customer).replace("-", "")


@attrs.define(eq=False, kw_only=True)
class GoogleAdsPlatform:
    """Set budgets, pause, resume, read and report on one Google Ads account.

    Args:
        client: A ready ``google.ads.googleads.client.GoogleAdsClient``; either message style will do.
        customer: The account, ten digits.
        api_version: Version of the API, such as ``v26``; None takes the client's.
        access: Access level of the developer token, which sets the operations a day.
        report_level: Whether the report tells ``campaign`` or ``ad_group`` (its name is the tag ``audience``); campaigns without ad
            groups appear only in the first.
        name: Name of the platform, as registered with the loop.
        quiet_period: Seconds within which a mutate without an answer may still be applied.

    A target's resource is the id of a campaign (``123``), or of a budget that several campaigns share (``budget/456``).

    >>> ads = GoogleAdsPlatform(client=None, customer="111-222-3333", access="explorer")  # a real one has a client
    >>> ads.customer, ads.limits(Target("google", "123"))
    ('1112223333', (('google/project/operations', 2880.0, 86400.0),))
    """

    client: Any = attrs.field(repr=False)
    customer: str = attrs.field(converter=_digits)
    api_version: str | None = None
    access: Access = attrs.field(default="basic", validator=attrs.validators.in_(("explorer", "test", "basic", "standard")))
    report_level: Literal["campaign", "ad_group"] = attrs.field(
        default="campaign", validator=attrs.validators.in_(("campaign", "ad_group"))
    )
    name: str = "google"
    quiet_period: float = 60.0
    _service: Any = attrs.field(default=None, init=False, repr=False)
    _last_request: list[str] = attrs.field(factory=list, init=False, repr=False)
    _currency: str | None = attrs.field(default=None, init=False)
    _timezone: str | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if not (self.customer.isdigit() and len(self.customer) == 10):
            raise ConfigurationError("a Google Ads account is ten digits", "customer", self.customer, "write for example 123-456-7890")

    # -- what it is ------------------------------------------------------------------------------------------------------

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions to record beside what was sent."""
        from importlib.metadata import version

        return {"platform": self.name, "sdk": f"google-ads {version('google-ads')}", "api": self._version()}

    def check(self, *, now: datetime) -> tuple[str, ...]:
        """Read the account once and return warnings: a version near its end, an account that is not enabled.

        Call it at start: a version that the platform has switched off, or credentials that do not serve, fail here and not at the
        first write. Sunset notices are also issued as `SunsetWarning`.

        Raises:
            ConfigurationError: The platform no longer answers this version, or the account is not to be used.
            AuthenticationError: The credentials do not serve.
            NotSentError: The platform cannot be reached now.
        """
        notes = []
        notice = sunset_notice("google", self._version(), now)
        if notice:
            warnings.warn(notice, SunsetWarning, stacklevel=2)
            notes.append(notice)
        try:
            status = self._account(now)
        except RejectedError as error:
            raise ConfigurationError(error.problem, "customer", self.customer, "check the account and the version of the API") from None
        if status != "ENABLED":
            notes.append(f"the account {self.customer} is {status}")
        return tuple(notes)

    @property
    def reporting_window(self) -> AttributionWindow | None:
        """None: Google counts each conversion action in its own window; every row of the report carries the one it was counted in."""
        return None

    def limits(self, target: Target) -> Sequence[tuple[str, float, float]]:
        """Return the operations a rolling day of the project; an access level of ``standard`` has no such limit."""
        most = _OPERATIONS.get(self.access)
        return () if most is None else ((f"{self.name}/project/operations", most, 86_400.0),)

    def cost(self, change: Change | None) -> float:
        """Return the operations of a change or a read: a budget is looked up before it is changed."""
        return 2.0 if change is not None and change.kind == "set_budget" else 1.0

    # -- doors -----------------------------------------------------------------------------------------------------------

    def read(self, target: Target, *, now: datetime) -> TargetState:
        """Return the budget, switch and learning phase of a campaign, or of a shared budget.

        ``budget`` is None when the campaign has no daily budget of its own: it shares one, or has one for a period.

        Raises:
            RejectedError: It does not exist or is removed.
            AuthenticationError: The credentials do not serve.
            NotSentError: It cannot be read now.
        """
        found = self._look([target], now, 30.0)[target]
        if isinstance(found, Refusal):
            raise _raised(found, str(target))
        own = target.resource.startswith("budget/") or not found.shared
        return TargetState(target=target, budget=found.amount if own else None, active=found.active, learning=found.learning, read_at=now)

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        """Send one change once and say what is known of it; only a read confirms it."""
        return self._send([change], now, timeout, validate_only=False)[0]

    def send_many(self, changes: Sequence[Change], *, now: datetime, timeout: float = 30.0) -> list[AttemptResult]:
        """Send several changes in one request (``partial_failure``): each has its own result, in the same order."""
        return self._send(changes, now, timeout, validate_only=False)

    def validate(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        """Ask Google whether it would take a change, without making it (``validate_only``)."""
        return self._send([change], now, timeout, validate_only=True)[0]

    def report(self, *, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """Return rows of spend, impressions, clicks and conversions by day, for ``[since, until)`` in the account's days.

        Google counts a conversion on the day of the click and tells its lag in whole days up to 14, then in spans; a row stands that
        many days after the click (the middle of a span). Each row of conversions carries the window of its own conversion action.
        Fractional conversions are carried to whole ones, ``reported_quantity`` keeps Google's figure.

        Raises:
            PlatformError: It cannot be read.
        """
        if self._currency is None or self._timezone is None:
            self._account(until)
        tz = zone(str(self._timezone))
        first, last = account_days(since, until, tz)
        return report_rows(
            lambda query: self._search(query, until, 120.0),
            name=self.name,
            customer=self.customer,
            currency=str(self._currency),
            tz=tz,
            days=(first, last),
            level=self.report_level,
        )

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _version(self) -> str:
        if self.client.version or self.api_version:
            return str(self.client.version or self.api_version)
        return str(type(self.client).get_service.__defaults__[0])

    def _daily(self) -> str:
        return f"{self.name}/project/operations" if self.access in _OPERATIONS else ""

    def _secrets(self) -> tuple[str | None, ...]:
        credentials = self.client.credentials
        names = ("token", "refresh_token", "client_secret", "id_token")
        return self.client.developer_token, *(getattr(credentials, n, None) for n in names)

    def _type(self, name: str) -> Any:
        return self.client.get_type(name, version=self._version())

    def _door(self) -> Any:
        """Return the service, built once; an interceptor keeps the request id, which a success tells only in its trailing metadata."""
        if self._service is None:
            try:
                import grpc
            except ImportError as error:
                raise MissingExtraError("Google Ads needs its SDK", "extra", "google", "pip install 'closedloop[google]'") from error
            kept = self._last_request

            class KeepsRequestId(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
                def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
                    call = continuation(client_call_details, request)
                    kept[:] = [str(v) for k, v in call.trailing_metadata() or () if k == "request-id"]
                    return call

            self._service = self.client.get_service(
                "GoogleAdsService", version=self._version(), interceptors=_Innermost([KeepsRequestId()])
            )
        return self._service

    def _refusal(self, error: Exception, now: datetime) -> Refusal:
        failure_type = type(raw(self._type("GoogleAdsFailure")))
        return refusal_of(error, failure_type=failure_type, now=now, secrets=self._secrets())

    def _errors(self) -> tuple[type[Exception], ...]:
        import grpc
        from google.ads.googleads.errors import GoogleAdsException
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        return GoogleAdsException, GoogleAPIError, GoogleAuthError, grpc.RpcError

    def _search(self, query: str, now: datetime, timeout: float) -> list[Any]:
        service = self._door()
        refusal = None
        try:
            stream = service.search_stream(customer_id=self.customer, query=query, timeout=timeout)
            return [row for batch in stream for row in raw(batch).results]
        except self._errors() as error:
            refusal = self._refusal(error, now)
        raise _raised(refusal, query.rpartition(" FROM ")[2].split()[0])  # outside the handler: nothing unredacted hangs on

    def _account(self, now: datetime) -> str:
        rows = self._search(_CUSTOMER, now, 30.0)
        if not rows:
            raise RejectedError("Google told nothing of the account", "customer", self.customer)
        customer = rows[0].customer
        self._currency, self._timezone = customer.currency_code, customer.time_zone
        return enum_name(customer, "status")

    def _look(self, targets: Sequence[Target], now: datetime, timeout: float) -> dict[Target, Looked | Refusal]:
        """Look up the budgets behind targets, one query for campaigns and one for shared budgets."""
        found: dict[Target, Looked | Refusal] = {}
        for prefix, query in (("", CAMPAIGN), ("budget/", BUDGET)):
            asked = {}
            for target in targets:
                if target.resource.startswith("budget/") != bool(prefix):
                    continue
                key = target.resource.removeprefix(prefix)
                if key.isdigit():
                    asked[int(key)] = target
                else:
                    words = f"{target}: use the digits of a campaign, or budget/ and the digits of a shared budget"
                    found[target] = Refusal(status="rejected", code="target", message=words)
            if not asked:
                continue
            rows = self._search(query.format(ids=", ".join(map(str, sorted(asked)))), now, timeout)
            for row in rows:
                self._currency = row.customer.currency_code
                target_found = asked.get(row.campaign_budget.id if prefix else row.campaign.id)
                if target_found is not None:
                    found[target_found] = seen(row, bool(prefix), target_found)
            for target in asked.values():
                words = f"{target} does not exist in account {self.customer}"
                found.setdefault(target, Refusal(status="rejected", code="RESOURCE_NOT_FOUND", message=words))
        return found

    def _send(self, changes: Sequence[Change], now: datetime, timeout: float, *, validate_only: bool) -> list[AttemptResult]:
        self._door()
        results: dict[int, AttemptResult] = {}
        lookups = [c.target for c in changes if c.kind == "set_budget"]
        looked: dict[Target, Looked | Refusal] = {}
        try:
            if lookups:
                looked = self._look(lookups, now, timeout)
        except NotSentError as error:
            status: Literal["throttled", "not_sent"] = "throttled" if error.retry_at else "not_sent"
            attempt = AttemptResult(status=status, code=error.field or "", message=error.problem, retry_at=error.retry_at)
            return [attempt] * len(changes)
        except AuthenticationError as error:
            return [AttemptResult(status="not_sent", code=error.field or "", message=error.problem)] * len(changes)
        except RejectedError as error:
            return [AttemptResult(status="rejected", code=error.field or "", message=error.problem)] * len(changes)
        operations: list[Any] = []
        order: list[int] = []
        touched: set[str] = set()
        for at, change in enumerate(changes):
            made = operation_of(
                change,
                looked.get(change.target),
                operation=self._type("MutateOperation"),
                customer=self.customer,
                currency=self._currency,
            )
            if isinstance(made, AttemptResult):
                results[at] = made
                continue
            operation, resource = made
            if resource in touched or len(operations) == _MOST_OPERATIONS:
                results[at] = AttemptResult(status="not_sent", code="request", message=f"{resource}: one change of it in one request")
                continue
            touched.add(resource)
            operations.append(operation)
            order.append(at)
        if operations:
            sent = self._mutate(operations, now, timeout, validate_only=validate_only)
            results.update(zip(order, sent, strict=True))
        return [results[at] for at in range(len(changes))]

    def _mutate(self, operations: Sequence[Any], now: datetime, timeout: float, *, validate_only: bool) -> list[AttemptResult]:
        request = self._type("MutateGoogleAdsRequest")
        request.customer_id, request.validate_only = self.customer, validate_only
        request.partial_failure = len(operations) > 1 and not validate_only
        request.mutate_operations.extend(operations)
        service = self._door()
        self._last_request.clear()
        try:
            answer = raw(service.mutate(request=request, timeout=timeout))
        except self._errors() as error:
            return [self._refusal(error, now).attempt(self._daily())] * len(operations)
        request_id = self._last_request[0] if self._last_request else ""
        results = [AttemptResult(status="accepted", request_id=request_id)] * len(operations)
        failure_type = type(raw(self._type("GoogleAdsFailure")))
        hidden = partial_refusals(
            answer.partial_failure_error, failure_type=failure_type, now=now, secrets=self._secrets(), request_id=request_id
        )
        for refusal in hidden:
            for at in range(len(operations)) if refusal.index is None else (refusal.index,):
                results[at] = refusal.attempt(self._daily())
        return results


def _raised(refusal: Refusal, what: str) -> PlatformError:
    """Return the exception that says what a refused read means to the caller."""
    if refusal.authentication:
        return AuthenticationError(f"Google Ads: {refusal.message}", refusal.code, None, "renew the credentials")
    if refusal.status == "rejected":
        return RejectedError(f"Google Ads: {refusal.message}", refusal.code, what)
    return NotSentError(f"Google Ads cannot be read now: {refusal.message}", refusal.code, what, retry_at=refusal.retry_at)
