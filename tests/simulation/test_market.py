"""The market's truth is what its events average to, its days repeat, and its export reads back."""

import csv
import json

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from closedloop.errors import ConfigurationError, InputError
from closedloop.simulation import COLUMNS, SCENARIOS, Break, Market, Scenario, export, healthy, identical, retargeting, small
from closedloop.simulation.curves import best_split, conversions_at, slope_at


def _days(market, days, budgets=None):
    return [market.day(market.next_day, budgets or market.equal_split()) for _ in range(days)]


def _same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in COLUMNS)


def _events(days):
    """Return (kind, moment, user, arm, cost) of every row, as plain Python."""
    for rows in days:
        for i in range(len(rows["kind"])):
            arm = tuple(rows[c][i] for c in ("platform", "campaign", "audience", "creative", "placement"))
            yield rows["kind"][i], rows["occurred_at"][i], rows["user_id"][i], arm, rows["cost"][i]


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_rows_are_a_table(name):
    """Every scenario gives columns of one length, distinct event ids, times of its own day in order, and no negative amount."""
    market = Market(SCENARIOS[name](), seed=3)
    seen: set[str] = set()
    for day, rows in enumerate(_days(market, 4)):
        assert tuple(rows) == COLUMNS
        assert len({len(rows[c]) for c in COLUMNS}) == 1
        assert not seen & set(rows["event_id"])
        assert len(set(rows["event_id"])) == len(rows["event_id"])
        seen |= set(rows["event_id"])
        date = market.day_start(day).date().isoformat()
        assert all(t.startswith(date) and t.endswith("Z") for t in rows["occurred_at"])
        assert list(rows["occurred_at"]) == sorted(rows["occurred_at"])
        assert (rows["recorded_at"] >= rows["occurred_at"]).all()
        assert (rows["cost"] >= 0).all()
        assert (rows["cost"][rows["kind"] != "spend"] == 0).all()
        assert (rows["quantity"] >= 1).all()
        assert {u is None for u in rows["user_id"][rows["kind"] == "click"]} == {False}


def test_same_seed_day_and_budgets_give_the_same_rows():
    """A market is a function of scenario, seed and budgets; another seed gives another market."""
    one, other = Market(small(), seed=5), Market(small(), seed=5)
    assert all(_same(a, b) for a, b in zip(_days(one, 5), _days(other, 5), strict=True))
    assert not _same(Market(small(), seed=6).day(0, one.equal_split()), Market(small(), seed=5).day(0, one.equal_split()))


def test_a_market_resumes_after_a_restart():
    """Replaying the budgets of the past, or loading the saved memory, leads to the same future."""
    straight = Market(small(drift=0.01), seed=5)
    history = [straight.equal_split(1000 + 100 * d) for d in range(8)]
    rows = [straight.day(d, b) for d, b in enumerate(history)]
    replayed, loaded, source = (Market(small(drift=0.01), seed=5) for _ in range(3))
    replayed.replay(history[:5])
    source.replay(history[:5])
    loaded.load(source.save())
    for day in range(5, 8):
        assert _same(replayed.day(day, history[day]), rows[day])
        assert _same(loaded.day(day, history[day]), rows[day])
    with pytest.raises(InputError, match="another market"):
        Market(small(), seed=6).load(source.save())


def test_days_come_in_order():
    """A day out of turn is refused, with the way out."""
    market = Market(small(), seed=1)
    with pytest.raises(InputError, match=r"stands at day 0.*replay"):
        market.day(3, market.equal_split())


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_bad_budgets_are_named(amount):
    """A budget that is no amount, or an arm that does not exist, is refused."""
    market = Market(small(), seed=1)
    with pytest.raises(InputError, match="budgets"):
        market.day(0, {market.arms[0]: amount})
    with pytest.raises(ConfigurationError, match="no such arm"):
        market.truth(0, {("x",): 1.0})


def _calm(scenario: Scenario) -> Scenario:
    """Return the scenario without organic conversions and late comers, so that all conversions are caused and seen."""
    return attrs.evolve(scenario, organic=0.0, delay_days=0.05, delay_spread=0.1)


@pytest.mark.parametrize("scenario", [small(), healthy()], ids=["small", "healthy"])
def test_truth_is_what_conversions_average_to(scenario):
    """Without organic conversions, the conversions of many days are the expected incremental ones, within 4 standard errors.

    The standard error is Poisson's plus that of the common noise of a day (5 %) and of the arms' (15 %, at most as if all were one arm).
    """
    market, days = Market(_calm(scenario), seed=2), 60
    budgets = market.equal_split()
    expected = sum(market.truth(d, budgets).total for d in range(days))
    counted = sum(int((rows["kind"] == "conversion").sum()) for rows in _days(market, days, budgets))
    error = np.sqrt(expected + (expected * np.hypot(0.15, 0.05)) ** 2 / days)
    assert abs(counted - expected) < 4 * error


def test_advertising_does_not_change_organic_conversions():
    """With rates of zero the conversions are the organic ones, whatever is spent: touches have no effect."""
    scenario = retargeting(rate=0.0, delay_days=0.05, delay_spread=0.1)
    counts = {}
    for name, budgets in (("rich", Market(scenario, 4).equal_split(20_000)), ("poor", Market(scenario, 4).equal_split(0.0))):
        counts[name] = sum(int((rows["kind"] == "conversion").sum()) for rows in _days(Market(scenario, 4), 40, budgets))
        assert abs(counts[name] - 40 * scenario.organic) < 4 * np.sqrt(40 * scenario.organic)


def test_retargeting_takes_credit_that_it_did_not_earn():
    """Counted by last touch, retargeting and brand arms get a multiple of what they cause; prospecting arms lose some of theirs."""
    market = Market(retargeting(), seed=3)
    days, budgets = _days(market, 42), market.equal_split()
    last: dict[str, tuple] = {}
    credit: dict[tuple, int] = dict.fromkeys(market.arms, 0)
    for kind, _, user, arm, _ in _events(days):
        if kind == "click" and user is not None:
            last[user] = arm
        elif kind == "conversion" and user in last:
            credit[last[user]] += 1
    caused = dict(zip(market.arms, sum(market.truth(d, budgets).conversions for d in range(42)), strict=True))
    role = {c.campaign: c.role for c in market.scenario.campaigns}
    ratio = {}
    for wanted in (True, False):
        arms = [a for a in market.arms if (role[a[1]] == "prospecting") is wanted]
        ratio[wanted] = sum(credit[a] for a in arms) / sum(caused[a] for a in arms)
    assert ratio[False] > 2.5
    assert 0.4 < ratio[True] < 1.2


def test_journeys_lead_over_several_arms():
    """Some converters touched more than one arm before their conversion."""
    touched: dict[str, set] = {}
    journeys = []
    for kind, _, user, arm, _ in _events(_days(Market(retargeting(), seed=3), 28)):
        if kind in ("click", "impression") and user is not None:
            touched.setdefault(user, set()).add(arm)
        elif kind == "conversion":
            journeys.append(len(touched.get(user, ())))
    assert np.mean(np.array(journeys) >= 2) > 0.1


def test_clicks_follow_the_hill_curve():
    """Mean clicks at a spend are (h / cpc) s / (h + s) with cpc and h read off from two other spends of the same market."""
    scenario = identical(day_noise=(0.0, 0.0), spend_noise=0.0, weekday=(1.0,) * 7)

    def mean_clicks(each):
        market = Market(scenario, seed=9)
        days = _days(market, 3, dict.fromkeys(market.arms, each))
        return sum(int((r["kind"] == "click").sum()) for r in days) / 3 / len(market.arms)

    # 1 / clicks is linear in 1 / spend (Lineweaver-Burk), so a third point lies on the line through two.
    low, middle, high = (1.0 / mean_clicks(x) for x in (300.0, 1200.0, 4800.0))
    slope = (low - high) / (1 / 300 - 1 / 4800)
    assert middle == pytest.approx(high + slope * (1 / 1200 - 1 / 4800), rel=0.02)


def test_a_break_changes_the_truth_from_its_day_on():
    """A break strikes the named campaign from its day on, and no other."""
    market = Market(small(breaks=(Break(day=10, rate=0.25, campaigns=("social",)),)), seed=1)
    budgets, struck = market.equal_split(), np.array([a[1] == "social" for a in market.arms])
    before, after = market.truth(3, budgets), market.truth(10, budgets)  # the same weekday
    assert after.conversions[struck] == pytest.approx(0.25 * before.conversions[struck])
    assert after.conversions[~struck] == pytest.approx(before.conversions[~struck])


def test_platforms_claim_more_than_there_is():
    """The claims of all platforms exceed the conversions that they could share, and a longer window claims more."""
    claims = {}
    for days in (7, 28):
        market = Market(retargeting(reporting={"google": days, "meta": days, "tiktok": days}), seed=3)
        total = 0
        for _ in range(28):
            market.day(market.next_day, market.equal_split())
            report = market.report()
            assert set(report["window_days"]) == {days}
            total += sum(report["conversions"])
        claims[days] = total
    assert claims[28] > claims[7] > 0


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "ndjson", "parquet"])
def test_an_export_reads_back(tmp_path, ending):
    """A written file holds the same events."""
    days = _days(Market(small(), seed=1), 2)
    path = tmp_path / f"events.{ending}"
    n = export(days, path)
    assert n == sum(len(d["kind"]) for d in days)
    if ending == "parquet":
        read = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    elif ending == "ndjson":
        read = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        import gzip

        with gzip.open(path, "rt") if ending.endswith("gz") else path.open() as file:
            read = list(csv.DictReader(file))
    ids = [str(i) for d in days for i in d["event_id"]]
    assert [r["event_id"] for r in read] == ids
    assert [float(r["cost"]) for r in read] == [float(c) for d in days for c in d["cost"]]
    assert [r["user_id"] or None for r in read] == [u for d in days for u in d["user_id"]]


def test_an_unknown_format_is_named(tmp_path):
    """An ending that is no format is refused, and the formats are listed."""
    with pytest.raises(ConfigurationError, match=r"\.csv"):
        export([], tmp_path / "events.xlsx")


_positive = st.floats(0.01, 100.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_positive, _positive), min_size=1, max_size=7), st.floats(0.0, 500.0), st.integers(0, 2**32))
def test_no_other_split_beats_the_oracle(arms, total, seed):
    """The oracle's split sums to the total, is never negative, and no random split of the same total causes more."""
    value, half = (np.array(x) for x in zip(*arms, strict=True))
    best = best_split(total, value, half)
    assert best.min() >= -1e-9
    assert best.sum() == pytest.approx(total, abs=1e-6)
    rng = np.random.default_rng(seed)
    reached = conversions_at(best, value, half).sum()
    for weights in rng.dirichlet(np.ones(len(value)), 50):
        assert conversions_at(total * weights, value, half).sum() <= reached * (1 + 1e-9) + 1e-12


def test_the_oracle_agrees_with_a_numerical_optimiser():
    """scipy's SLSQP finds the same optimum of a market's curve."""
    rng = np.random.default_rng(4)
    value, half = np.exp(rng.normal(0, 1, 6)), np.exp(rng.normal(3, 0.5, 6))
    found = minimize(
        lambda s: -conversions_at(s, value, half).sum(),
        np.full(6, 10.0),
        jac=lambda s: -slope_at(s, value, half),
        bounds=[(0, None)] * 6,
        constraints={"type": "eq", "fun": lambda s: s.sum() - 60.0},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert conversions_at(best_split(60.0, value, half), value, half).sum() == pytest.approx(-found.fun, rel=1e-6)


def test_slope_is_the_derivative():
    """The marginal is the numerical derivative of the conversions."""
    spend, value, half = np.array([0.0, 5.0, 50.0]), np.array([1.0, 2.0, 0.5]), np.array([10.0, 20.0, 30.0])
    step = 1e-5
    numerical = (conversions_at(spend + step, value, half) - conversions_at(spend, value, half)) / step
    assert slope_at(spend, value, half) == pytest.approx(numerical, rel=1e-4)


def test_sums_agree_with_the_rows():
    """A day's sums are those counted in its rows: clicks and spend by arm, conversions by last click within 7 days."""
    market, other = Market(retargeting(), seed=3), Market(retargeting(), seed=3)
    last: dict[str, tuple] = {}
    for day in range(14):
        rows = market.day(day, market.equal_split())
        tally = other.advance(day, market.equal_split())
        assert np.array_equal(tally.last_click, market.tally.last_click)
        clicks, spent, credit = (dict.fromkeys(market.arms, 0) for _ in range(3))
        for kind, moment, user, arm, cost in _events([rows]):
            at = np.datetime64(moment[:-1])
            if kind == "click":
                clicks[arm] += 1
                last[user] = (at, arm)
            elif kind == "spend":
                spent[arm] += cost
            elif kind == "conversion" and user in last and at - last[user][0] <= np.timedelta64(7, "D"):
                credit[last[user][1]] += 1
        assert list(clicks.values()) == tally.clicks.tolist()
        assert list(spent.values()) == pytest.approx(tally.spent.tolist())
        assert list(credit.values()) == tally.last_click.tolist()
        assert tally.conversions == (rows["kind"] == "conversion").sum()
