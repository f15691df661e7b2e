"""TikTok's Business API behind the platform Protocols, over the official SDK (extra ``tiktok``).

Law of this file: the caller hands over a ready ``ApiClient`` and the token that every call of that SDK needs. Bodies are plain
mappings with just the fields to be changed: the SDK's models also send fields that were never set (``false``), which could
switch settings off. Timeouts are pairs, because the SDK ignores a float. Money is decimal units, exact to the currency's
minor unit.

References:
    TikTok Business API v1.3; the official SDK 1.1.3. The rate limits by level are as told by third parties (read in 2026).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import attrs

from closedloop.errors import AuthenticationError, ConfigurationError, MissingExtraError, NotSentError, PlatformError, RejectedError
from closedloop.platforms.rows import ReportRows, WholeCounts, account_days, understood, zone
from closedloop.platforms.sunset import SunsetWarning, sunset_notice
from closedloop.platforms.tiktok_errors import Refusal, refusal_of
from closedloop.records.action import AttemptResult, Change, TargetState
from closedloop.records.decision import Target
from closedloop.records.money import MICROS, Money
from closedloop.records.window import AttributionWindow, TouchKind

Level = Literal["adgroup", "campaign"]
_TIERS: Mapping[str, tuple[float, float, float]] = {  # requests a second, a minute, a day
    "basic": (10.0, 600.0, 864_000.0),
    "advanced": (20.0, 1_200.0, 1_728_000.0),
    "premium": (30.0, 1_800.0, 2_592_000.0),
    "ultimate": (50.0, 3_000.0, 4_320_000.0),
}
_DAILY = ("BUDGET_MODE_DAY", "BUDGET_MODE_DYNAMIC_DAILY_BUDGET")
_SWITCH: Mapping[str, str] = {"pause": "DISABLE", "resume": "ENABLE"}
_DAYS, _PAGE = 30, 1000  # a daily report spans 30 days at most
_METRICS = ("campaign_id", "campaign_name", "adgroup_id", "adgroup_name", "ad_name", "spend", "impressions", "clicks")


@attrs.define(eq=False, kw_only=True)
class TikTokPlatform:
    """Set budgets, pause, resume, read and report on one TikTok advertiser account.

    Args:
        api_client: A ready ``business_api_client.ApiClient``.
        access_token: The token of the account.
        advertiser: The account's id, digits.
        level: Where budgets sit: ``adgroup``, or ``campaign`` for campaign budget optimisation. A target's resource is such an id.
        tier: Access level of the app, which sets the quotas.
        reporting_window: The attribution window set on the account's ad groups; TikTok's usual one is 7 days after a click and 1
            day after a view. It is declared in the report, not set by it.
        conversion_metrics: Metrics that count conversions, and the kind of touch that each credits.
        name: Name of the platform, as registered with the loop.
        quiet_period: Seconds within which a write without an answer may still be applied.

    >>> tiktok = TikTokPlatform(api_client=None, access_token="...", advertiser="700")  # a real one has a client
    >>> tiktok.limits(Target("tiktok", "11"))[0]
    ('tiktok/app/s', 10.0, 1.0)
    """

    api_client: Any = attrs.field(repr=False)
    access_token: str = attrs.field(repr=False)
    advertiser: str = attrs.field()
    level: Level = attrs.field(default="adgroup", validator=attrs.validators.in_(("adgroup", "campaign")))
    tier: str = attrs.field(default="basic", validator=attrs.validators.in_(tuple(_TIERS)))
    reporting_window: AttributionWindow = attrs.field(factory=lambda: AttributionWindow(click="7d", view="1d"))
    conversion_metrics: Mapping[str, TouchKind] = attrs.field(factory=lambda: {"cta_conversion": "click", "vta_conversion": "view"})
    name: str = "tiktok"
    quiet_period: float = 60.0
    _currency: str | None = attrs.field(default=None, init=False)
    _timezone: str | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if not self.advertiser.isdigit():
            raise ConfigurationError("an advertiser of TikTok is named by its digits", "advertiser", self.advertiser)

    # -- what it is ------------------------------------------------------------------------------------------------------

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions to record beside what was sent."""
        from importlib.metadata import version

        package = "tiktok-business-api-sdk-official"
        return {"platform": self.name, "sdk": f"{package} {version(package)}", "api": "v1.3"}

    def check(self, *, now: datetime) -> tuple[str, ...]:
        """Read the account once and return warnings: a version near its end, an account that is not approved.

        Raises:
            ConfigurationError: The platform no longer answers this version, or the account is unknown.
            AuthenticationError: The credentials do not serve.
            NotSentError: The platform cannot be reached now.
        """
        notes = []
        notice = sunset_notice("tiktok", "v1.3", now)
        if notice:
            warnings.warn(notice, SunsetWarning, stacklevel=2)
            notes.append(notice)
        try:
            status = self._account(now)
        except RejectedError as error:
            raise ConfigurationError(error.problem, "advertiser", self.advertiser, "check the account and the SDK's version") from None
        if status != "STATUS_ENABLE":
            notes.append(f"the advertiser {self.advertiser} is {status}")
        return tuple(notes)

    def limits(self, target: Target) -> Sequence[tuple[str, float, float]]:
        """Return the quotas of the app: requests a second, a minute and a day."""
        scope = f"{self.name}/app"
        return tuple(
            (f"{scope}/{n}", units, seconds) for n, units, seconds in zip("smd", _TIERS[self.tier], (1.0, 60.0, 86_400.0), strict=True)
        )

    def cost(self, change: Change | None) -> float:
        """Return the requests of a change or a read: one."""
        return 1.0

    # -- doors -----------------------------------------------------------------------------------------------------------

    def read(self, target: Target, *, now: datetime) -> TargetState:
        """Return the budget and switch of an ad group or campaign.

        ``active`` is the object's own switch. ``budget`` is None when it has no daily budget of its own. TikTok tells no learning
        phase here.

        Raises:
            RejectedError: It does not exist or is deleted.
            AuthenticationError: The credentials do not serve.
            NotSentError: It cannot be read now.
        """
        self._own(target)
        if self._currency is None:
            self._account(now)
        key = f"{self.level}_id"
        params = {
            "advertiser_id": self.advertiser,
            "filtering": {f"{key}s": [target.resource]},
            "fields": [key, "budget", "budget_mode", "operation_status", "secondary_status"],
        }
        lines = self._get(f"{self.level}/get/", params, now).get("list") or []
        found = next((x for x in lines if str(x.get(key)) == target.resource), None)
        if found is None:
            raise RejectedError(f"the {self.level} does not exist on TikTok", "target", str(target), f"advertiser {self.advertiser}")
        if str(found.get("secondary_status", "")).endswith("_DELETE"):
            raise RejectedError(f"the {self.level} no longer exists on TikTok", "target", str(target), "it is deleted")
        daily = found.get("budget_mode") in _DAILY and found.get("budget")
        return TargetState(
            target=target,
            budget=Money.of(str(found["budget"]), str(self._currency)) if daily else None,
            active=found.get("operation_status") == "ENABLE",
            read_at=now,
        )

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        """Send one change once and say what is known of it; only a read confirms it."""
        key = f"{self.level}_id"
        body: dict[str, Any]
        try:
            self._own(change.target)
            if change.kind == "set_budget":
                if self._currency is None:
                    self._account(now)
                path, body = f"{self.level}/update/", {key: change.target.resource, "budget": self._units(change.budget)}
            elif change.kind in _SWITCH:
                path, body = f"{self.level}/status/update/", {f"{key}s": [change.target.resource], "operation_status": _SWITCH[change.kind]}
            else:
                raise RejectedError("this adapter does not do that on TikTok", "kind", change.kind, None, ("set_budget", *_SWITCH))
        except NotSentError as error:
            status: Literal["throttled", "not_sent"] = "throttled" if error.retry_at else "not_sent"
            return AttemptResult(status=status, code=error.field or "", message=str(error), retry_at=error.retry_at)
        except AuthenticationError as error:
            return AttemptResult(status="not_sent", code=error.field or "", message=str(error))
        except RejectedError as error:
            return AttemptResult(status="rejected", code=error.field or "", message=str(error))
        found, refusal = self._ask(path, "POST", {"advertiser_id": self.advertiser, **body}, now, timeout)
        if refusal is not None:
            return refusal.attempt()
        return AttemptResult(status="accepted", request_id=str(found.get("request_id") or ""))

    def report(self, *, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """Return rows of spend, impressions, clicks and conversions by ad and day, for ``[since, until)`` in the account's days.

        TikTok counts a conversion on the day of the touch, in the window of its ad group (declared in every row), and tells no lag: a
        row stands on the day of the touch. Read all open days again: the event ids stay the same.

        Raises:
            PlatformError: It cannot be read.
        """
        if self._currency is None or self._timezone is None:
            self._account(until)
        tz = zone(str(self._timezone))
        first, last = account_days(since, until, tz)
        rows = ReportRows(platform=self.name, account=self.advertiser, currency=str(self._currency), tz=tz, window=self.reporting_window)
        counts: dict[tuple[str, str], WholeCounts] = {}
        found: list[dict[str, Any]] = []
        start = first
        while start <= last:
            end = min(start + timedelta(days=_DAYS - 1), last)
            with understood(self.name):
                for line in self._lines(start, end, until):
                    found.extend(self._rows(rows, line, counts))
            start = end + timedelta(days=1)
        return found

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _own(self, target: Target) -> None:
        if not target.resource.isdigit():
            raise RejectedError(f"a {self.level} of TikTok is named by its digits", "target", str(target), "use the id")

    def _units(self, budget: Money | None) -> int | float:
        """Return a budget as TikTok's number; its shortest decimal text is the exact amount."""
        if budget is None:
            raise RejectedError("set_budget needs a budget", "budget", None)
        if budget.currency != self._currency:
            raise RejectedError(f"the account is in {self._currency}", "currency", budget.currency, "give the budget in that currency")
        if budget.rounded() != budget:
            raise RejectedError(
                "TikTok cannot take this amount exactly", "budget", f"{budget.micros} micros", f"nearest: {budget.rounded()}"
            )
        return budget.micros // MICROS if budget.micros % MICROS == 0 else budget.micros / MICROS

    def _account(self, now: datetime) -> str:
        params = {"advertiser_ids": [self.advertiser], "fields": ["currency", "display_timezone", "timezone", "status"]}
        lines = self._get("advertiser/info/", params, now).get("list") or [{}]
        found = lines[0]
        if not isinstance(found.get("currency"), str):
            raise RejectedError("TikTok told no currency of the account", "advertiser", self.advertiser)
        self._currency, self._timezone = found["currency"], found.get("display_timezone") or found.get("timezone") or "UTC"
        return str(found.get("status", "STATUS_ENABLE"))

    def _get(self, path: str, params: Mapping[str, Any], now: datetime, timeout: float = 30.0) -> Mapping[str, Any]:
        found, refusal = self._ask(path, "GET", params, now, timeout)
        if refusal is None:
            data = found.get("data")
            return data if isinstance(data, Mapping) else {}
        raise _raised(refusal, path)  # outside the handler: nothing unredacted hangs on

    def _ask(
        self, path: str, method: str, content: Mapping[str, Any], now: datetime, timeout: float
    ) -> tuple[Mapping[str, Any], Refusal | None]:
        try:
            from business_api_client.rest import ApiException, urllib3  # the very one that the SDK uses
            from business_api_client.tiktok_business.tiktok_exceptions import TiktokSDKError
        except ImportError as error:
            raise MissingExtraError("TikTok needs its SDK", "extra", "tiktok", "pip install 'closedloop[tiktok]'") from error
        query = [(k, json.dumps(v) if isinstance(v, list | dict) else v) for k, v in content.items()] if method == "GET" else []
        try:
            found = self.api_client.call_api(
                f"/open_api/v1.3/{path}",
                method,
                {},
                query,
                {"Access-Token": self.access_token, "Content-Type": "application/json"},
                body=None if method == "GET" else dict(content),
                response_type="InlineResponse200",
                auth_settings=[],
                _return_http_data_only=True,
                _request_timeout=(timeout, timeout),
            )
        except (
            TiktokSDKError,
            ApiException,
            urllib3.exceptions.HTTPError,
            AttributeError,
            TypeError,
            ValueError,
            KeyError,
            ArithmeticError,
        ) as error:
            return {}, refusal_of(error, now=now, secrets=(self.access_token,))
        return found, None

    def _lines(self, first: date, last: date, now: datetime) -> Iterator[Mapping[str, Any]]:
        page = 1
        while True:
            params = {
                "advertiser_id": self.advertiser,
                "report_type": "BASIC",
                "data_level": "AUCTION_AD",
                "dimensions": ["ad_id", "stat_time_day"],
                "metrics": [*_METRICS, *self.conversion_metrics],
                "start_date": first.isoformat(),
                "end_date": last.isoformat(),
                "page": page,
                "page_size": _PAGE,
            }
            data = self._get("report/integrated/get/", params, now, 120.0)
            yield from data.get("list") or []
            if page >= int((data.get("page_info") or {}).get("total_page", 1)):
                return
            page += 1

    def _rows(self, rows: ReportRows, line: Mapping[str, Any], counts: dict[tuple[str, str], WholeCounts]) -> Iterator[dict[str, Any]]:
        where, told = line["dimensions"], line["metrics"]
        day = date.fromisoformat(str(where["stat_time_day"])[:10])
        tags = {
            "campaign": told.get("campaign_name"),
            "audience": told.get("adgroup_name"),
            "creative": told.get("ad_name"),
            "placement": None,
        }
        ids = f"{told.get('campaign_id')}/{told.get('adgroup_id')}/{where['ad_id']}"
        spent, seen, clicked = (str(told.get(k) or "0") for k in ("spend", "impressions", "clicks"))
        yield from rows.delivery(day, tags, ids, cost=Decimal(spent), impressions=int(seen), clicks=int(clicked))
        for metric, touch in self.conversion_metrics.items():
            amount = Decimal(str(told.get(metric) or "0"))
            if amount:
                count = counts.setdefault((ids, metric), WholeCounts())
                yield from rows.conversions(
                    day,
                    tags,
                    ids,
                    conversion_type=metric,
                    touch=touch,
                    lag_days=0,
                    span="all",
                    amount=amount,
                    value=None,
                    counts=count,
                )


def _raised(refusal: Refusal, what: str) -> PlatformError:
    """Return the exception that says what a refused read means to the caller."""
    if refusal.authentication:
        return AuthenticationError(f"TikTok: {refusal.message}", refusal.code, None, "renew the access token")
    if refusal.status == "rejected":
        return RejectedError(f"TikTok: {refusal.message}", refusal.code, what)
    return NotSentError(f"TikTok cannot be read now: {refusal.message}", refusal.code, what, retry_at=refusal.retry_at)
