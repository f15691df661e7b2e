"""Rows of a platform's report, in the columns of the event table.

Law of this file: amounts stay the platform's own decimal text until they are exact money; days are days of the account's time
zone and become aware UTC moments here. A report says what the platform counts under its own window: the rows are for
comparison with our own attribution and are marked with that window, they are never added to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import attrs

from closedloop.errors import ConfigurationError, InputError, RejectedError
from closedloop.platforms.redaction import redact
from closedloop.records.moments import format_duration, to_us
from closedloop.records.window import AttributionWindow, TouchKind

_DAY = timedelta(days=1)


@contextmanager
def understood(platform: str) -> Iterator[None]:
    """Turn an answer that is not what its documents say into an error that says so: a report is whole or raises.

    Raises:
        RejectedError: A line lacks a field, or holds something else than it should.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        if isinstance(error, ConfigurationError | InputError):
            raise
        words = redact(f"{type(error).__name__}: {error}")
        raise RejectedError(
            f"the report of {platform} is not what its documents say", "report", words, "see whether its API changed"
        ) from None


def zone(name: str) -> ZoneInfo:
    """Return the time zone of an account.

    Raises:
        ConfigurationError: This machine knows no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigurationError("the account's time zone is not known here", "timezone", name, "install the tzdata package") from error


def account_days(since: datetime, until: datetime, tz: ZoneInfo) -> tuple[date, date]:
    """Return the first and last day of the account that ``[since, until)`` touches.

    Raises:
        InputError: A time has no zone, or the span is empty.

    >>> account_days(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC), ZoneInfo("UTC"))
    (datetime.date(2026, 3, 1), datetime.date(2026, 3, 2))
    """
    if to_us(since) >= to_us(until):
        raise InputError("a report needs since before until", "since", since.isoformat(), f"until is {until.isoformat()}")
    return since.astimezone(tz).date(), (until - timedelta(microseconds=1)).astimezone(tz).date()


def day_start(day: date, tz: ZoneInfo) -> datetime:
    """Return the UTC moment at which a day begins in a time zone.

    >>> day_start(date(2026, 3, 1), ZoneInfo("Europe/Berlin")).isoformat()
    '2026-02-28T23:00:00+00:00'
    """
    return datetime.combine(day, time(), tzinfo=tz).astimezone(UTC)


def window_text(window: AttributionWindow) -> str:
    """Return a window as it stands in the rows of a report.

    >>> window_text(AttributionWindow(click="7d", view=None))
    'click=7d,view=none'
    """
    ends = (("click", window.click), ("view", window.view))
    return ",".join(f"{name}={'none' if length is None else format_duration(length)}" for name, length in ends)


@attrs.define
class WholeCounts:
    """Turn fractional conversions into whole ones without losing any: the rounded sum follows the exact sum.

    Data-driven models give an arm 0.4 of a conversion; the event table counts whole ones. What is cut off one row is carried
    to the next, so every running total is within half a conversion of the platform's. The value of a row that counts none
    goes with the next row that counts some. Each arm needs one of its own: carried from arm to arm, fractions would be credited
    to whichever arm comes next.

    >>> counts = WholeCounts()
    >>> [counts.next(Decimal("0.4"), Decimal(2))[0] for _ in range(5)]
    [0, 1, 0, 1, 0]
    """

    _exact: Decimal = Decimal(0)
    _given: int = 0
    _value: Decimal | None = None

    def next(self, amount: Decimal, value: Decimal | None) -> tuple[int, Decimal | None]:
        """Return the whole count of the next row, and the value that goes with it."""
        self._exact += amount
        if value is not None:
            self._value = (self._value or Decimal(0)) + value
        whole = int(self._exact.to_integral_value(ROUND_HALF_EVEN)) - self._given
        self._given += whole
        if not whole:
            return 0, None
        value, self._value = self._value, None
        return whole, value


@attrs.frozen(kw_only=True)
class ReportRows:
    """Build the rows of one report.

    Args:
        platform: Name of the platform, the tag of every row.
        account: The account, part of every event id.
        currency: Currency of the account.
        tz: Time zone of the account's days.
        window: The window under which the platform counts conversions.
    """

    platform: str
    account: str
    currency: str
    tz: ZoneInfo
    window: AttributionWindow

    def _row(self, kind: str, day: date, tags: dict[str, Any], ids: str, **columns: Any) -> dict[str, Any]:
        return {
            "event_id": f"{self.platform}/{self.account}/{day}/{ids}/{kind}",
            "kind": kind,
            "occurred_at": day_start(day, self.tz),
            "platform": self.platform,
            **tags,
            "conversion_type": None,
            "cost": None,
            "value": None,
            "currency": self.currency,
            "quantity": 1,
            "touch_kind": None,
            "touch_at": None,
            "reporting_window": window_text(self.window),
            "reported_quantity": None,
            **columns,
        }

    def delivery(
        self, day: date, tags: dict[str, Any], ids: str, *, cost: Decimal, impressions: int, clicks: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of spend, impressions and clicks of one arm on one day; nothing for a count of zero.

        Raises:
            ValueError: The cost is no finite number.
        """
        if not cost.is_finite():
            raise ValueError(f"a cost of {cost}")
        if cost:
            yield self._row("spend", day, tags, ids, cost=float(cost))
        for kind, n in (("impression", impressions), ("click", clicks)):
            if n:
                yield self._row(kind, day, tags, ids, quantity=n)

    def conversions(
        self,
        day: date,
        tags: dict[str, Any],
        ids: str,
        *,
        conversion_type: str,
        touch: TouchKind,
        lag_days: int,
        span: str,
        amount: Decimal,
        value: Decimal | None,
        counts: WholeCounts,
    ) -> Iterator[dict[str, Any]]:
        """Yield the row of conversions that the platform credits to touches of one day, if any are left after rounding.

        Args:
            day: Day of the touch.
            tags: Tags of the arm.
            ids: The platform's ids of the arm.
            conversion_type: The platform's name of the conversion.
            touch: Kind of the touch.
            lag_days: Whole days between touch and conversion, as far as the platform tells.
            span: The platform's name of the span of lags that the row stands for; part of the event id, so that two spans
                placed on one day stay two rows.
            amount: Conversions, perhaps fractional.
            value: Their total value in the account's currency, None when not given.
            counts: Carries the fractions of this arm from row to row.
        """
        if not amount.is_finite() or not (value is None or value.is_finite()):
            raise ValueError(f"{amount} conversions worth {value}")
        whole, value = counts.next(amount, value)
        if not whole:
            return
        start = day_start(day, self.tz)
        yield self._row(
            "conversion",
            day,
            tags,
            f"{ids}/{conversion_type}/{touch}/{span}",
            occurred_at=day_start(day + lag_days * _DAY, self.tz),
            conversion_type=conversion_type,
            value=None if value is None else float(value),
            quantity=whole,
            touch_kind=touch,
            touch_at=start,
            reported_quantity=str(amount),
        )
