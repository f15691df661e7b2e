"""Rows of a report: days of the account, whole counts, nothing lost."""

import itertools
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.errors import ConfigurationError, InputError
from closedloop.platforms.rows import WholeCounts, account_days, day_start, zone

AMOUNTS = st.decimals(min_value=0, max_value=1000, places=6)


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), max_size=50))
def test_fractions_are_carried_not_lost(rows):
    """Every running total stays within half a conversion of the exact one; no count is negative; no value is lost with a count."""
    counts, exact, given_, worth = WholeCounts(), Decimal(0), 0, Decimal(0)
    for amount, value in rows:
        whole, with_it = counts.next(amount, value)
        exact, given_ = exact + amount, given_ + whole
        worth += with_it or 0
        assert whole >= 0
        assert abs(exact - given_) <= Decimal("0.5")
        assert (with_it is None) == (whole == 0)
    rest = counts.next(Decimal(1), Decimal(0))[1] or 0
    assert worth + rest == sum((v for _, v in rows), Decimal(0))


def test_days_of_an_account_have_23_and_25_hours():
    """The days of a zone with summer time are its own, not UTC's."""
    berlin = ZoneInfo("Europe/Berlin")
    starts = [day_start(date(2026, 3, d), berlin) for d in (28, 29, 30)]
    assert [b - a for a, b in itertools.pairwise(starts)] == [timedelta(hours=24), timedelta(hours=23)]
    assert account_days(datetime(2026, 3, 28, 23, 30, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC), berlin) == (
        date(2026, 3, 29),
        date(2026, 3, 29),
    )


def test_bad_spans_and_zones_are_named():
    """An empty span, a naive time and an unknown zone are told by name."""
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    with pytest.raises(InputError, match="since"):
        account_days(moment, moment, ZoneInfo("UTC"))
    with pytest.raises(InputError, match="zone"):
        account_days(moment.replace(tzinfo=None), moment, ZoneInfo("UTC"))
    with pytest.raises(ConfigurationError, match="Mars/Base"):
        zone("Mars/Base")
