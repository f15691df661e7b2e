"""Times and amounts as people write them elsewhere: read as told, and set aside in their own words where they do not fit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.errors import ConfigurationError
from closedloop.ingest import TableIngestor
from closedloop.ingest.written import as_read
from closedloop.records.tags import TagSchema

TAGS = TagSchema(arm=("campaign",))


def amounts(texts, decimal, currency="EUR"):
    """The amounts as they are read, None where a row is set aside."""
    rows = [{"kind": "spend", "occurred_at": "2026-03-02T09:00:00Z", "campaign": str(i), "cost": t} for i, t in enumerate(texts)]
    done = TableIngestor(TAGS, decimal=decimal, currency=currency).ingest(rows)
    read = dict(zip(done.batch.tags["campaign"].decode(), done.batch.cost.tolist(), strict=True))
    assert all(bad.field == "cost" and str(rows[bad.position]["cost"]) == bad.value.strip("'") for bad in done.quarantine.rows)
    return [read.get(str(i)) for i in range(len(texts))]


@settings(max_examples=60, deadline=None)
@given(
    cents=st.lists(st.integers(0, 10**10), min_size=1, max_size=8),
    group=st.sampled_from(["", ".", " ", "\u00a0", "\u202f", "'"]),
    before=st.sampled_from(["", "€ ", "€", "EUR "]),
    behind=st.sampled_from(["", " €", "€", "\u00a0EUR"]),
)
def test_amounts_of_either_custom_are_read_to_the_cent(cents, group, before, behind):
    """1.234,50 and 1,234.50, with the currency before or behind and any sign of groups, are what they say."""
    behind = "" if before else behind
    whole = [(f"{c // 100:,}", f"{c % 100:02d}") for c in cents]
    comma = [f"{before}{w.replace(',', group)},{rest}{behind}" for w, rest in whole]
    point = [f"{before}{w.replace(',', ',' if group == '.' else group)}.{rest}{behind}" for w, rest in whole]
    assert amounts(comma, ",") == amounts(point, ".") == [c * 10_000 for c in cents]


def test_signs_of_amounts():
    """A minus stands before or behind the currency: a value, where a refund is one."""
    read = as_read({"value": pd.Series(["-€ 3,50", "€ -3,50", "- 3,50 €", "+1.000"])}, (), ("value",), None, ",", "EUR")["value"]
    assert [float(text) for text in read] == [-3.5, -3.5, -3.5, 1000.0]


@pytest.mark.parametrize(
    "text", ["12,34,56", "1.23,4", "12 apples and 3", "1.234.50", "--5", "€", "5 5", "1,5e3", "9" * 70, "1.50", "3.5", "€5€", "-€ -5"]
)
def test_what_is_no_such_amount_is_set_aside_as_it_came(text):
    """A number with a point among them: where a comma is the decimal sign, 1.500 is a thousand and a half and 1.50 is nothing."""
    assert amounts([text, "2,00"], ",") == [None, 2_000_000]


def test_an_amount_with_another_currency_is_never_mixed_in():
    """Only the stated currency may stand at an amount; where none is stated, none may."""
    assert amounts(["€ 5", "$ 5", "5 USD", "5 EUR", "5"], ",") == [5_000_000, None, None, 5_000_000, 5_000_000]
    assert amounts(["$5", "A$5", "5 CAD"], ".", "CAD") == [5_000_000, None, 5_000_000]
    assert amounts(["$5", "5"], ".", None) == [None, 5_000_000]


def test_what_is_no_text_stays():
    """A column of numbers is not touched, nor a number or a gap between texts; plain numbers with a point are read with one."""
    plain = pd.Series([1.5, 2.0])
    assert as_read({"cost": plain}, (), ("cost",), None, ",", "EUR")["cost"] is plain
    assert amounts(["3,5", 7], ",") == [3_500_000, 7_000_000]
    assert amounts([".5", "1e2", "1,000"], ".") == [500_000, 100_000_000, 1_000_000_000]


@settings(max_examples=60, deadline=None)
@given(
    moment=st.datetimes(datetime(1995, 1, 1), datetime(2190, 1, 1)).map(  # noqa: DTZ001
        lambda t: t.replace(second=0, microsecond=0)
    ),
    form=st.sampled_from(["%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%Y%m%d%H%M", "%d %b %Y, %H:%M", "%H:%M %d-%m-%y"]),
)
def test_times_come_back_from_their_format(moment, form):
    """Written in any order and read under the same words, in a stated zone."""
    if "%y" in form:
        moment = moment.replace(year=2026)
    row = {"kind": "click", "occurred_at": moment.strftime(form), "campaign": "a"}
    done = TableIngestor(TAGS, zone="UTC", time_format=form).ingest([row])
    assert done.n_accepted == 1
    assert int(done.batch.occurred_at[0]) == (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def test_offsets_and_zones_and_what_does_not_fit():
    """An offset that is written counts; without one the zone must be said; what fits neither is set aside in its own words."""
    with_offset = {"kind": "click", "occurred_at": "02.03.2026 09:00 +0100", "campaign": "a"}
    done = TableIngestor(TAGS, time_format="%d.%m.%Y %H:%M %z").ingest([with_offset])
    assert done.batch.occurred_at.view("datetime64[us]")[0] == np.datetime64("2026-03-02T08:00:00")
    rows = [{**with_offset, "occurred_at": "02.03.2026 09:00"}, {**with_offset, "occurred_at": "32.03.2026 09:00"}]
    bare = TableIngestor(TAGS, time_format="%d.%m.%Y %H:%M").ingest(rows)
    assert [(r.reason, r.value.strip("'")) for r in bare.quarantine.rows] == [
        ("has no time zone", "02.03.2026 09:00"),
        ("cannot be read", "32.03.2026 09:00"),
    ]
    berlin = TableIngestor(TAGS, time_format="%d.%m.%Y %H:%M", zone="Europe/Berlin").ingest(rows[:1])
    assert berlin.batch.occurred_at.view("datetime64[us]")[0] == np.datetime64("2026-03-02T08:00:00")


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"time_format": "%H:%M"}, "time_format"),
        ({"time_format": "day"}, "time_format"),
        ({"time_format": "%d%d.%m.%Y"}, "time_format"),
        ({"time_format": "%Q"}, "time_format"),
        ({"decimal": ";"}, "decimal"),
    ],
)
def test_words_that_say_nothing_are_refused(words, field):
    with pytest.raises(ConfigurationError) as caught:
        TableIngestor(TAGS, **words)
    assert caught.value.field == field
