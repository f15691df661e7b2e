"""Amounts in several currencies: converted by a table that the user states, or set aside; never mixed in silence.

Law of this file: a rate is units of the batch's currency for one unit of theirs. A rate with dates holds from its date until the next;
before the first one there is none. The table is the user's: this file knows no rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError
from closedloop.ingest.schema import Failure
from closedloop.ingest.typed import TypedEvents
from closedloop.records.moments import US_PER_DAY

Rate = float | Mapping[str, float]
Int64 = npt.NDArray[np.int64]


def check_rates(rates: Mapping[str, Rate], currency: str | None) -> None:
    """Raise unless every rate is a positive number, by day or for all days, into a named currency.

    Raises:
        ConfigurationError: One is not, or there is no currency to convert to.
    """
    if rates and currency is None:
        raise ConfigurationError("rates need the currency they lead to", "currency", None, "give currency='EUR' or another")
    for code, rate in rates.items():
        table = dict(rate) if isinstance(rate, Mapping) else {"": rate}
        if not table:
            raise ConfigurationError("the table of rates is empty", "rates", code, "give a rate from a date on")
        for day, value in table.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigurationError(f"the rate of {code} is no positive number", "rates", value, f"units of {currency} for one {code}")
            if day:
                _day(day)


def _day(text: str) -> int:
    try:
        moment = datetime.combine(date.fromisoformat(text), datetime.min.time(), tzinfo=UTC)
    except (TypeError, ValueError) as error:
        raise ConfigurationError("not a date", "rates", text, "write 2026-01-31") from error
    return moment.toordinal() - date(1970, 1, 1).toordinal()


def _rates_at(rate: Rate, occurred_at: Int64) -> npt.NDArray[np.float64]:
    """The rate at each time, NaN where there is none yet."""
    if not isinstance(rate, Mapping):
        return np.full(len(occurred_at), float(rate))
    table = sorted((_day(day), float(value)) for day, value in rate.items())
    at = np.searchsorted([d for d, _ in table], occurred_at // US_PER_DAY, side="right") - 1
    values = np.array([v for _, v in table] + [np.nan])
    return np.where(at < 0, np.nan, values[at])


def rates_on(rates: Mapping[str, Rate], at_us: int) -> dict[str, float]:
    """Return the rates that hold at a time; a currency that has none yet is left out.

    >>> rates_on({"USD": {"2026-01-01": 0.9, "2026-02-01": 0.8}, "GBP": 1.2}, 1_772_442_000_000_000)
    {'USD': 0.8, 'GBP': 1.2}
    """
    found = {code: float(_rates_at(rate, np.array([at_us], dtype=np.int64))[0]) for code, rate in rates.items()}
    return {code: value for code, value in found.items() if not math.isnan(value)}


def converted(events: TypedEvents, currency: str | None, rates: Mapping[str, Rate]) -> tuple[TypedEvents, list[Failure]]:
    """Return the events with amounts in one currency, and the rows that cannot be converted.

    Args:
        events: Typed events.
        currency: The currency of the batch; None leaves the amounts as they are.
        rates: By currency of a row, units of ``currency`` for one unit.
    """
    codes, distinct = events.texts["currency"]
    if currency is None or not len(distinct):
        return events, []
    cost, value = events.numbers["cost"], events.numbers["value"]
    money = (cost != 0) | (value != 0)
    factor = np.ones(events.n)
    for code, name in enumerate(distinct.tolist()):
        if name != currency:
            at = np.flatnonzero(codes == code)
            factor[at] = _rates_at(rates[name], events.times["occurred_at"][at]) if name in rates else np.nan
    rows = np.flatnonzero(np.isnan(factor) & money)
    found = []
    if len(rows):
        mend = f"give a rate: rates={{'USD': 0.9}} (units of {currency} for one of theirs)"
        reason = f"is not {currency}, and has no rate that day"
        found = [Failure(field="currency", check="one_currency", reason=reason, mend=mend, rows=rows)]
    if rates:
        factor = np.where(np.isnan(factor), 1.0, factor)
        events = attrs.evolve(events, numbers={**events.numbers, "cost": cost * factor, "value": value * factor})
    return events, found
