"""The Snowplow fixture from raw events to sessions, journeys and its published credit."""

import csv
from collections import Counter
from datetime import datetime, timedelta

import pytest

from closedloop.attribute import PathCounts, attribute_paths, shapley_values
from closedloop.attribute.coalitions import rate_game

LOOKBACK = timedelta(days=30)
FIRST, LAST = datetime(2022, 6, 3), datetime(2022, 8, 1)  # noqa: DTZ001 - the fixture's times are all UTC, without zone


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "snowplow_fractribution"


def read(folder, name):
    with (folder / f"snowplow_fractribution_{name}.csv").open() as f:
        return list(csv.DictReader(f))


def channel_of(event):
    """The project's channel rules, as far as the fixture uses them."""
    source, medium = event["mkt_source"], event["mkt_medium"]
    if source == "(direct)" and medium in ("(none)", "(not set)"):
        return "Direct"
    if medium == "referral" and "youtube" in source:
        return "Video"
    if medium == "referral":
        return "Referral"
    if medium == "organic":
        return "Organic_Search"
    if medium == "cpc":
        return "Paid_Search_Other"
    return "Unmatched_Channel"


def moment(text):
    return datetime.fromisoformat(text.replace("Z", ""))


def sessions(events):
    """Return (user, start, channel) of each session: the first page view of it."""
    seen = {}
    for e in sorted(events, key=lambda e: e["derived_tstamp"]):
        if e["event_name"] == "page_view":
            seen.setdefault(e["domain_sessionid"], (e["domain_userid"], moment(e["derived_tstamp"]), channel_of(e)))
    return sorted(seen.values(), key=lambda s: (s[0], s[1]))


def journeys(events):
    """Return converting and unconverted journeys: the sessions of the 30 days before the conversion, or before the last visit."""
    visits = sessions(events)
    won = [(e["domain_userid"], moment(e["derived_tstamp"]), float(e["tr_total"])) for e in events if e["tr_total"]]
    buyers = {user for user, _, _ in won}
    converted = [([c for u, t, c in visits if u == user and at - LOOKBACK <= t <= at], value) for user, at, value in won]
    rest = {u for u, _, _ in visits} - buyers
    lost = []
    for user in sorted(rest):
        mine = [(t, c) for u, t, c in visits if u == user]
        end = max(t for t, _ in mine)
        lost.append([c for t, c in mine if end - LOOKBACK <= t])
    return converted, lost


@pytest.fixture(scope="module")
def counts(folder):
    converted, lost = journeys(read(folder, "events"))
    return PathCounts.of(
        [p for p, _ in converted] + lost,
        conversions=[1] * len(converted) + [0] * len(lost),
        value=[v for _, v in converted] + [0] * len(lost),
        nulls=[0] * len(converted) + [1] * len(lost),
    ).collapsed().distinct()  # fmt: skip


def test_sessions_and_paths_are_theirs(folder, counts):
    """Sessions by channel and the summary of paths equal the project's own expected files."""
    expected = Counter(r["channel"] for r in read(folder, "sessions_by_customer_id_expected"))
    assert Counter(c for _, _, c in sessions(read(folder, "events"))) == expected
    summary = {
        r["transformed_path"]: (float(r["conversions"]), float(r["non_conversions"]), float(r["revenue"] or 0))
        for r in read(folder, "path_summary_expected")
    }
    c = counts.to_columns()
    found = {p: (a, b, v) for p, a, b, v in zip(c["path"], c["conversions"], c["nulls"], c["value"], strict=True)}
    assert found == {p: pytest.approx(v) for p, v in summary.items()}


def test_fractribution_reproduces_their_credit(folder, counts):
    """The published credit, which their files call Shapley, is normalised leave-one-out: equal to 1e-8, revenue too."""
    expected = {r["CHANNEL"]: r for r in read(folder, "channel_attribution_expected") if r["ATTRIBUTION_TYPE"] == "shapley"}
    credits = attribute_paths(counts, "fractribution", replicates=50)
    assert len(credits) == 6
    for channel, conversions, value in zip(credits.channels, credits.conversions.estimate, credits.value.estimate, strict=True):
        assert conversions == pytest.approx(float(expected[channel]["CONVERSIONS"]), abs=1e-8)
        assert value == pytest.approx(float(expected[channel]["REVENUE"]), abs=1e-8)


def test_last_touch_reproduces_theirs(folder, counts):
    """Last touch equals their expected table."""
    rows = [r for r in read(folder, "channel_attribution_expected") if r["ATTRIBUTION_TYPE"] == "last_touch"]
    expected = {r["CHANNEL"]: float(r["CONVERSIONS"]) for r in rows}
    credits = attribute_paths(counts, "last")
    assert dict(zip(credits.channels, credits.conversions.estimate.tolist(), strict=True)) == expected


def test_their_numbers_are_no_shapley_value(counts):
    """Neither Shapley game gives their credit: the sum-of-contained game gives Direct 3.5, and the rate game something else again."""
    direct = counts.channels.tolist().index("Direct")
    assert attribute_paths(counts, "shapley").conversions.estimate[direct] == 3.5
    rate = shapley_values(rate_game(counts))
    assert abs(6 * rate[direct] / rate.sum() - 3.5409582690664606) > 0.1
