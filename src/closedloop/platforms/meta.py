"""Meta's Marketing API behind the platform Protocols, over the official SDK (extra ``meta``).

Law of this file: the caller hands over a ready ``FacebookAdsApi``; nothing here reads credentials, installs a crash reporter or
sets a global. One call is one request. An answer counts as success only with HTTP 200 and a JSON object that says so, because
the SDK takes an HTML error page for success; and even then only a read confirms. No message leaves unredacted, since the
SDK puts the access token into the address of every request.

References:
    Meta, Marketing API: rate limiting, error codes, currencies (the offsets there differ from ISO 4217), insights parameters,
    version history; read in November 2026.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import attrs

from closedloop.errors import AuthenticationError, ConfigurationError, MissingExtraError, NotSentError, PlatformError, RejectedError
from closedloop.platforms.meta_errors import Refusal, refusal_of, usage_of
from closedloop.platforms.meta_report import CLICK_DAYS, FIELDS, report_rows
from closedloop.platforms.redaction import redact
from closedloop.platforms.rows import ReportRows, account_days, understood, zone
from closedloop.platforms.sunset import SunsetWarning, sunset_notice
from closedloop.records.action import AttemptResult, Change, TargetState
from closedloop.records.arms import TAG_COLUMNS
from closedloop.records.decision import Target
from closedloop.records.money import MICROS, Money
from closedloop.records.window import AttributionWindow

Level = Literal["adset", "campaign"]
Tier = Literal["limited", "standard"]
# Meta's own table: these currencies are sent in whole units, all others in hundredths (also BHD and JOD, unlike ISO 4217).
_WHOLE_UNITS = frozenset(("CLP", "COP", "CRC", "HUF", "ISK", "IDR", "JPY", "KRW", "PYG", "TWD", "VND"))
_CALLS = {"limited": 300, "standard": 100_000}
_SCORE = {"limited": 60, "standard": 9_000}
_GONE = ("DELETED", "ARCHIVED")
_SWITCH: Mapping[str, str] = {"pause": "PAUSED", "resume": "ACTIVE"}


@attrs.define(eq=False, kw_only=True)
class MetaPlatform:
    """Set budgets, pause, resume, read and report on one Meta ad account.

    Args:
        api: A ready ``facebook_business.api.FacebookAdsApi``, built from a session (not by ``FacebookAdsApi.init``, which
            installs a crash reporter).
        account: The ad account, ``act_123``.
        level: Where budgets sit: ``adset``, or ``campaign`` for campaign budget optimisation. A target's resource is the id of
            such an object.
        tier: Access tier of the app, which sets the quotas.
        active_ads: Active ads of the account: Meta adds 40 calls an hour for each.
        reporting_window: The window in which Meta is asked to count conversions: clicks 1, 7 or 28 days, views 1 day or None.
        conversion_types: Action types that count as conversions.
        tags: Which field of the report gives each tag.
        creation: What a new campaign or ad set needs besides its name and budget, in Meta's own fields (``objective``,
            ``special_ad_categories``, ...); it starts paused unless a ``status`` is given. None refuses to create.
        name: Name of the platform, as registered with the loop.
        quiet_period: Seconds within which a write without an answer may still be applied.
    """

    api: Any = attrs.field(repr=False)
    account: str = attrs.field()
    level: Level = attrs.field(default="adset", validator=attrs.validators.in_(("adset", "campaign")))
    tier: Tier = attrs.field(default="standard", validator=attrs.validators.in_(("limited", "standard")))
    active_ads: int = 0
    reporting_window: AttributionWindow = attrs.field(factory=lambda: AttributionWindow(click="7d", view="1d"))
    conversion_types: Sequence[str] = ("purchase",)
    tags: Mapping[str, str] = attrs.field(
        factory=lambda: {"campaign": "campaign_name", "audience": "adset_name", "creative": "ad_name", "placement": "publisher_platform"}
    )
    creation: Mapping[str, Any] | None = None
    name: str = "meta"
    quiet_period: float = 60.0
    _currency: str | None = attrs.field(default=None, init=False)
    _timezone: str | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if not (self.account.startswith("act_") and self.account[4:].isdigit()):
            raise ConfigurationError("an ad account is act_ and digits", "account", self.account, "write for example act_123")
        for tag, field in self.tags.items():
            if tag not in TAG_COLUMNS[1:] or field not in FIELDS:
                mend = f"tags are {', '.join(TAG_COLUMNS[1:])}"
                raise ConfigurationError("not a tag, or not a field of the report", "tags", f"{tag}: {field}", mend, FIELDS)
        click, view = self.reporting_window.click, self.reporting_window.view
        if click not in (None, *(timedelta(days=d) for d in CLICK_DAYS)) or view not in (None, timedelta(days=1)):
            mend = "choose click 1d, 7d, 28d or None, and view 1d or None"
            raise ConfigurationError("Meta does not count in this window", "reporting_window", str(self.reporting_window), mend)

    # -- what it is ------------------------------------------------------------------------------------------------------

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions to record beside what was sent."""
        return {"platform": self.name, "sdk": f"facebook-business {self.api.SDK_VERSION}", "api": str(self.api._api_version)}

    def check(self, *, now: datetime) -> tuple[str, ...]:
        """Read the account once and return warnings: a version near its end, an account that is not active.

        Call it at start: a version that the platform has switched off, or credentials that do not serve, fail here and not at the
        first write. Sunset notices are also issued as `SunsetWarning`.

        Raises:
            ConfigurationError: The platform no longer answers this version, or the account is unknown.
            AuthenticationError: The credentials do not serve.
            NotSentError: The platform cannot be reached now.
        """
        notes = []
        notice = sunset_notice("meta", str(self.api._api_version), now)
        if notice:
            warnings.warn(notice, SunsetWarning, stacklevel=2)
            notes.append(notice)
        try:
            account = self._account(now)
        except RejectedError as error:
            raise ConfigurationError(error.problem, "account", self.account, "check the account and the version of the API") from None
        if account.get("account_status") not in (None, 1):
            notes.append(f"the ad account {self.account} is not active (account_status {account['account_status']})")
        return tuple(notes)

    def limits(self, target: Target) -> Sequence[tuple[str, float, float]]:
        """Return Meta's quotas: calls an hour, score in 300 s, changes a second, and 4 budget changes an hour of one ad set."""
        account = f"{self.name}/{self.account}"
        found = [
            (f"{account}/calls", float(_CALLS[self.tier] + 40 * self.active_ads), 3600.0),
            (f"{account}/score", float(_SCORE[self.tier]), 300.0),
            (f"{account}/changes", 100.0, 1.0),
        ]
        if self.level == "adset":
            found.append((f"{account}/budget/{target.resource}", 4.0, 3600.0))
        return found

    def cost(self, change: Change | None) -> float:
        """Return the score of a request: 1 for a read, 3 for a change (`costs` tells it by scope)."""
        return 1.0 if change is None else 3.0

    def costs(self, change: Change | None, target: Target) -> Mapping[str, float]:
        """Return the units by scope of a change of the target, or of a read for None."""
        account = f"{self.name}/{self.account}"
        if change is None:
            return {f"{account}/calls": 1.0, f"{account}/score": 1.0}
        units = {f"{account}/calls": 1.0, f"{account}/score": 3.0, f"{account}/changes": 1.0}
        if change.kind == "set_budget" and self.level == "adset":
            units[f"{account}/budget/{target.resource}"] = 1.0
        return units

    # -- money -----------------------------------------------------------------------------------------------------------

    def rounded(self, amount: Money) -> Money:
        """Return the nearest amount that Meta can take: hundredths, or whole units in some currencies (TWD, HUF, ...).

        >>> MetaPlatform(api=None, account="act_1").rounded(Money.of("12.345", "TWD"))
        12.00 TWD
        """
        return amount.rounded(MICROS // _offset(amount.currency))

    # -- doors -----------------------------------------------------------------------------------------------------------

    def read(self, target: Target, *, now: datetime) -> TargetState:
        """Return the budget, switch and learning phase of a campaign or ad set.

        ``active`` is the object's own switch, the one that `send` turns: a paused parent does not show here. ``budget`` is None
        when the object has no daily budget of its own (the other level has it, or it is a lifetime budget).

        Raises:
            RejectedError: The object does not exist, is deleted, or belongs to another account.
            AuthenticationError: The credentials do not serve.
            NotSentError: It cannot be read now.
        """
        self._own(target)
        fields = ["status", "effective_status", "daily_budget", "lifetime_budget", "account_id"]
        if self.level == "adset":
            fields.append("learning_stage_info")
        if self._currency is None:
            self._account(now)
        found = self._get((target.resource,), {"fields": ",".join(fields)}, now)
        if found.get("status") in _GONE or found.get("effective_status") in _GONE:
            raise RejectedError(f"the {self.level} no longer exists on Meta", "target", str(target), f"its status is {found.get('status')}")
        if str(found.get("account_id", self.account[4:])) != self.account[4:]:
            raise RejectedError(f"the {self.level} belongs to another ad account", "target", str(target), f"this one is {self.account}")
        stage = found.get("learning_stage_info")
        return TargetState(
            target=target,
            budget=self._money(found.get("daily_budget"), target),
            active=found.get("status") == "ACTIVE",
            learning=None if not isinstance(stage, Mapping) else stage.get("status") == "LEARNING",
            read_at=now,
        )

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        """Send one change once and say what is known of it; only a read confirms it."""
        return self._write(change, {}, now, timeout)

    def find(self, change: Change, *, now: datetime) -> list[TargetState]:
        """Return what bears the mark of a change's action in its name (``[cl:<action id>]``), which a creation puts there.

        Meta does not refuse a second object of the same name, so a creation without an answer is looked for before it is repeated.

        Raises:
            PlatformError: It cannot be searched.
        """
        if self._currency is None:
            self._account(now)
        mark = _mark(change)
        params: dict[str, Any] = {
            "fields": "id,name,status,daily_budget",
            "filtering": [{"field": "name", "operator": "CONTAIN", "value": mark}],
            "limit": 50,
        }
        page = self._get((self.account, f"{self.level}s"), params, now)
        with understood(self.name):
            made = [(Target(self.name, str(line["id"])), line) for line in page["data"] if mark in line["name"]]
            return [
                TargetState(target=t, budget=self._money(line.get("daily_budget"), t), active=line["status"] == "ACTIVE", read_at=now)
                for t, line in made
            ]

    def validate(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        """Ask Meta whether it would take a change, without making it (``validate_only``)."""
        return self._write(change, {"execution_options": ["validate_only"]}, now, timeout)

    def report(self, *, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """Return rows of spend, impressions, clicks and conversions by ad and day, for ``[since, until)`` in the account's days.

        Conversions are counted by Meta on the day of the touch, inside ``reporting_window`` (declared in every row). Meta counts
        clicks within 1, 7 and 28 days, so a conversion's lag is known only to lie between those; a row stands at the middle: 0,
        4 or 17 days after the touch, and never after ``until``. A report is restated until its window has passed: read it again
        for all open days, the event ids stay the same.

        Raises:
            PlatformError: It cannot be read.
        """
        if self._currency is None or self._timezone is None:
            self._account(until)
        if self._currency is None or self._timezone is None:  # pragma: no cover - _account sets both or raises
            raise RejectedError("Meta told no currency or time zone", "account", self.account)
        tz = zone(self._timezone)
        first, last = account_days(since, until, tz)
        rows = ReportRows(platform=self.name, account=self.account, currency=self._currency, tz=tz, window=self.reporting_window)
        with understood(self.name):
            return report_rows(
                lambda params: self._get((self.account, "insights"), params, until),
                rows=rows,
                days=(first, last),
                tags=self.tags,
                conversion_types=self.conversion_types,
            )

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _own(self, target: Target) -> None:
        if not target.resource.isdigit():
            raise RejectedError(f"a {self.level} of Meta is named by its digits", "target", str(target), "use the id, such as 23851234")

    def _money(self, text: Any, target: Target) -> Money | None:
        if text in (None, "", "0", 0) or self._currency is None:
            return None
        if not str(text).isdigit():
            raise RejectedError("Meta told a budget that is no number", "daily_budget", redact(text), f"while reading {target}")
        return Money(int(text) * (MICROS // _offset(self._currency)), self._currency)

    def _account(self, now: datetime) -> Mapping[str, Any]:
        found = self._get((self.account,), {"fields": "currency,timezone_name,account_status"}, now)
        if not isinstance(found.get("currency"), str) or not isinstance(found.get("timezone_name"), str):
            raise RejectedError("Meta told no currency or time zone of the account", "account", self.account)
        self._currency, self._timezone = found["currency"], found["timezone_name"]
        return found

    def _call(self, method: str, path: tuple[str, ...], params: Mapping[str, Any], timeout: float) -> Any:
        # The SDK keeps one timeout for a whole session (None by default: for ever). A copy gives this call its own and shares
        # the connections; nothing of the caller's session is changed.
        api = copy.copy(self.api)
        api._session = copy.copy(self.api._session)
        api._session.timeout = timeout
        return api.call(method, path, params=dict(params))

    def _secrets(self) -> tuple[str | None, ...]:
        session = self.api._session
        return session.access_token, session.app_secret, getattr(session, "appsecret_proof", None)

    def _get(self, path: tuple[str, ...], params: Mapping[str, Any], now: datetime, timeout: float = 30.0) -> Mapping[str, Any]:
        found, refusal = self._ask("GET", path, params, now, timeout)
        if refusal is None:
            return found
        raise _raised(refusal, path[0])  # outside the handler: no exception that carries the token hangs on as context

    def _ask(
        self, method: str, path: tuple[str, ...], params: Mapping[str, Any], now: datetime, timeout: float
    ) -> tuple[Mapping[str, Any], Refusal | None]:
        try:
            from facebook_business.exceptions import FacebookError
            from facebook_business.session import requests  # the very one that the SDK uses
        except ImportError as error:
            raise MissingExtraError("Meta needs its SDK", "extra", "meta", "pip install 'closedloop[meta]'") from error
        try:
            response = self._call(method, path, params, timeout)
        except (FacebookError, requests.RequestException, TypeError, ValueError, AttributeError, KeyError) as error:
            return {}, refusal_of(error, now=now, secrets=self._secrets(), account=f"{self.name}/{self.account}")
        body = response.json()
        headers = response.headers()
        if response.status() != 200 or not isinstance(body, Mapping):
            words = f"HTTP {response.status()} without a JSON object: {response.body()}"
            status: Literal["throttled", "unknown"] = "throttled" if response.status() == 429 else "unknown"
            retry_at = now + timedelta(seconds=60) if status == "throttled" else None
            return {}, Refusal(status=status, code=f"http {response.status()}", message=redact(words, self._secrets()), retry_at=retry_at)
        usage = usage_of(headers, f"{self.name}/{self.account}")
        return {**body, "_request_id": headers.get("x-fb-request-id", ""), "_usage": usage}, None

    def _write(self, change: Change, options: Mapping[str, Any], now: datetime, timeout: float) -> AttemptResult:
        params: dict[str, Any]
        path: tuple[str, ...] = (change.target.resource,)
        try:
            if change.kind in ("set_budget", "create") and self._currency is None:
                self._account(now)
            if change.kind == "create" and self.creation is not None:
                path = (self.account, f"{self.level}s")
                name = f"{change.target.resource} {_mark(change)}"
                params = {"status": "PAUSED", **self.creation, "name": name, "daily_budget": self._minor(change.budget)}
            elif change.kind == "set_budget":
                self._own(change.target)
                params = {"daily_budget": self._minor(change.budget)}
            elif change.kind in _SWITCH:
                self._own(change.target)
                params = {"status": _SWITCH[change.kind]}
            else:
                raise RejectedError("this adapter does not do that on Meta", "kind", change.kind, None, ("set_budget", *_SWITCH))
        except NotSentError as error:
            status: Literal["throttled", "not_sent"] = "throttled" if error.retry_at else "not_sent"
            return AttemptResult(status=status, code=error.field or "", message=str(error), retry_at=error.retry_at)
        except AuthenticationError as error:
            return AttemptResult(status="not_sent", code=error.field or "authentication", message=str(error))
        except RejectedError as error:
            return AttemptResult(status="rejected", code=error.field or "", message=str(error))
        found, refusal = self._ask("POST", path, {**params, **options}, now, timeout)
        if refusal is not None:
            budget_scope = f"{self.name}/{self.account}/budget/{change.target.resource}" if self.level == "adset" else None
            return refusal.attempt(change, budget_scope)
        created = change.kind == "create" and str(found.get("id", "")).isdigit()
        if found.get("success") is not True and not created:
            return AttemptResult(status="unknown", code="no success", message=redact(f"Meta answered {dict(found)}", self._secrets()))
        return AttemptResult(status="accepted", request_id=str(found["_request_id"]), usage=found["_usage"])

    def _minor(self, budget: Money | None) -> int:
        if budget is None:
            raise RejectedError("set_budget needs a budget", "budget", None)
        if budget.currency != self._currency:
            raise RejectedError(f"the account is in {self._currency}", "currency", budget.currency, "give the budget in that currency")
        step = MICROS // _offset(budget.currency)
        if budget.micros % step or budget.micros <= 0:
            nearest = self.rounded(budget)
            raise RejectedError("Meta cannot take this amount exactly", "budget", f"{budget.micros} micros", f"the nearest is {nearest}")
        return budget.micros // step


def _mark(change: Change) -> str:
    return f"[cl:{change.action_id}]"


def _offset(currency: str) -> int:
    return 1 if currency in _WHOLE_UNITS else 100


def _raised(refusal: Refusal, what: str) -> PlatformError:
    """Return the exception that says what a refused read means to the caller."""
    if refusal.authentication:
        return AuthenticationError(f"Meta: {refusal.message}", refusal.code, None, "renew the access token")
    if refusal.status == "rejected":
        return RejectedError(f"Meta: {refusal.message}", refusal.code, what)
    return NotSentError(f"Meta cannot be read now: {refusal.message}", refusal.code, what, retry_at=refusal.retry_at)
