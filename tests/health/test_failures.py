"""Each failure, injected into a simulated account, is found within days with its evidence; healthy accounts stay quiet."""

import math

import numpy as np
import pytest
from scipy import stats

from closedloop.errors import ConfigurationError
from closedloop.health import Thresholds, compare_reports, credit_against_tests
from closedloop.health.breaks import breaks
from closedloop.health.daily import Daily, daily
from closedloop.health.failures import changed_hands, data_gaps, double_counting, missing_tags
from closedloop.health.gaps import p_at_most
from closedloop.ingest import TableIngestor
from closedloop.records.arms import TAG_COLUMNS, Arms
from closedloop.records.lift import LiftResult
from closedloop.simulation import Break, MissingTags, SilentPlatform, Simulator, WindowMismatch, WrongAttribution, small

LIMITS = Thresholds()
FAULT_DAY = 24


def _history(days, *, faults=(), scenario=None, seed=1, moves=0.0):
    """Return daily sums of a simulated account; ``moves`` is the largest daily change of a budget, at random, for ever."""
    simulator = Simulator(scenario or small(), seed=seed, faults=faults)
    market, rng = simulator.market, np.random.default_rng(seed)
    spend_level = np.full(len(market.arms), market.scenario.total / len(market.arms))
    clicks, spends, names = [], [], {}
    for day in range(days):
        rows = simulator.rows(day, dict(zip(market.arms, spend_level.tolist(), strict=True)))
        arm = [names.setdefault(key, len(names)) for key in zip(*(rows[c] for c in TAG_COLUMNS), strict=True)]
        clicks.append(np.bincount(np.array(arm)[rows["kind"] == "click"], minlength=200))
        spends.append(np.bincount(arm, weights=rows["cost"], minlength=200))
        spend_level = spend_level * np.exp(rng.normal(0, moves, len(spend_level)))
        spend_level *= market.scenario.total / spend_level.sum()
    keep = [i for key, i in names.items() if key[0] is not None]
    arms = Arms.of(TAG_COLUMNS, [key for key in names if key[0] is not None])
    table = (np.stack(clicks, axis=1)[keep].astype(float), np.stack(spends, axis=1)[keep])
    return Daily(arms=arms, days=20_454 + np.arange(days), clicks=table[0], views=np.zeros_like(table[0]), spend=table[1])


def _until(sums, day):
    """Return the history as it stood at the end of a day."""
    part = slice(0, day + 1)
    return Daily(arms=sums.arms, days=sums.days[part], clicks=sums.clicks[:, part], views=sums.views[:, part], spend=sums.spend[:, part])


def _all(sums):
    return [*missing_tags(sums, LIMITS), *data_gaps(sums, LIMITS), *changed_hands(sums, LIMITS)]


def _first_day(sums, name, scope=None):
    """Return the first day at whose end a finding of this name stands, from the day of the fault, and that it stays to the last day."""
    seen = [any(f.name == name and scope in (None, f.scope) for f in _all(_until(sums, d))) for d in range(len(sums.days))]
    assert not any(seen[:FAULT_DAY])
    assert any(seen)
    return seen.index(True) - FAULT_DAY, seen


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("moves", [0.0, 0.1], ids=["steady budgets", "moving budgets"])
def test_healthy_accounts_stay_quiet(seed, moves):
    """Over 60 days, looked at every other day, no detector says a word, whether budgets stand still or move by a tenth a day."""
    sums = _history(60, seed=seed, moves=moves)
    assert [f.evidence for d in range(1, 60, 2) for f in _all(_until(sums, d))] == []


def test_dearer_clicks_are_no_wrong_attribution():
    """A campaign whose clicks cost twice as much is no wrong tag: nobody gained what it lost."""
    sums = _history(45, scenario=small(breaks=(Break(day=FAULT_DAY, cpc=2.0, campaigns=("social",)),)))
    assert [f.evidence for d in range(45) for f in _all(_until(sums, d))] == []


def test_lost_tags_of_one_campaign_are_found_by_name():
    """A campaign that loses its tags is named within two days, and stays named while it lasts."""
    sums = _history(60, faults=[MissingTags(0.8, from_day=FAULT_DAY, campaign="social")])
    day, seen = _first_day(sums, "missing_tags", "meta / social")
    assert day <= 2
    assert all(seen[FAULT_DAY + day :])
    finding = next(f for f in _all(sums) if f.scope == "meta / social")
    assert finding.severity == "critical"
    assert 0.2 in finding.measured


def test_evenly_lost_tags_are_measured_by_platform():
    """A fifth of all tags lost is a warning with the right share, for each platform; the ranking is not at stake."""
    sums = _history(40, faults=[MissingTags(0.2, from_day=FAULT_DAY)])
    day, _ = _first_day(sums, "missing_tags", "google")
    assert day <= 1
    found = {f.scope: f for f in missing_tags(sums, LIMITS)}
    assert set(found) == {"google", "meta"}
    assert all(0.8 in f.measured and f.severity == "warning" for f in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_clicks_under_wrong_tags_are_found(seed):
    """A tracker that stamps one campaign on a quarter of the others' clicks is found within four days, and stays found."""
    faults = [WrongAttribution(0.25, campaign="reminder", from_day=FAULT_DAY)]
    sums = _history(70, faults=faults, seed=seed)
    day, seen = _first_day(sums, "wrong_attribution")
    assert day <= 3
    assert all(seen[FAULT_DAY + day :])
    finding = next(f for f in _all(sums) if f.name == "wrong_attribution")
    assert "reminder" in finding.evidence
    assert finding.severity == "critical"


def _account(spend, *, days=60, stolen=0.0, taker=0, walk=0.0, common=0.0, seed=1):
    """Return sums of arms whose clicks follow spend (shape (A, days)), some of which go to the taker from the fault's day on."""
    rng = np.random.default_rng(seed)
    spend = np.broadcast_to(np.asarray(spend, dtype=float), (len(spend), days))
    price = np.exp(np.cumsum(rng.normal(0.0, walk, spend.shape), axis=1) + np.cumsum(rng.normal(0.0, common, (1, days)), axis=1))
    clicks = rng.poisson(price * spend * rng.gamma(100.0, 0.01, spend.shape))
    taken = rng.binomial(clicks, np.where(np.arange(days) >= FAULT_DAY, stolen, 0.0))
    taken[taker] = 0
    clicks = clicks - taken
    clicks[taker] += taken.sum(axis=0)
    arms = Arms.of(("platform", "campaign"), [("p", f"c{i}") for i in range(len(spend))])
    return Daily(arms=arms, days=20_454 + np.arange(days), clicks=clicks.astype(float), views=np.zeros(spend.shape), spend=spend)


def test_an_arm_that_was_starved_is_seen_to_take_clicks():
    """An arm that has hardly any spend left, and so should have hardly any clicks, is named a day after it is stamped on the others'."""
    spend = np.full((4, 60), 100.0)
    spend[0, FAULT_DAY - 14 :] = 4.0
    day, seen = _first_day(_account(spend, stolen=0.25), "wrong_attribution")
    assert day <= 1
    assert all(seen[FAULT_DAY + day :])


def test_a_large_arm_that_takes_from_small_ones_is_a_warning():
    """It rises by little, but what it gains the others lose: named within a fortnight, without holding the account."""
    sums = _account([[600.0], [150.0], [150.0], [150.0]], stolen=0.25)
    day, _ = _first_day(sums, "wrong_attribution")
    assert day <= 14
    finding = next(f for f in _all(sums) if f.name == "wrong_attribution")
    assert (finding.severity, finding.threshold) == ("warning", 1.1)
    assert 1.19 in finding.measured  # a quarter of 450, upon 600
    assert "p / c0" in finding.evidence


def test_a_rise_that_takes_from_nobody_is_no_warning():
    """One arm's clicks rise by a fifth and all others' fall by a fifth, but the arm is so small that it cannot have taken them."""
    spend = np.array([[60.0], [300.0], [300.0], [300.0]])
    sums = _account(spend)
    shift = np.where(np.arange(60) >= FAULT_DAY, 1.0, 0.0)
    clicks = np.round(sums.clicks * (1.0 + shift * np.array([[0.3], [-0.2], [-0.2], [-0.2]])))
    changed = Daily(arms=sums.arms, days=sums.days, clicks=clicks, views=sums.views, spend=sums.spend)
    assert [f.evidence for d in range(60) for f in _all(_until(changed, d)) if f.name == "wrong_attribution"] == []


@pytest.mark.parametrize("seed", range(4))
def test_prices_that_wander_are_no_wrong_attribution(seed):
    """Every arm's price and the market's wander by 1 % a day: quiet, looked at every fifth day."""
    sums = _account(np.exp(np.random.default_rng(seed).normal(4.5, 1.0, (8, 1))), walk=0.01, common=0.01, seed=seed)
    assert [f.evidence for d in range(4, 60, 5) for f in changed_hands(_until(sums, d), LIMITS)] == []


def test_an_accepted_change_is_no_finding():
    """When a person accepts the present tags, what changed before is forgotten."""
    sums = _history(50, faults=[WrongAttribution(0.25, campaign="reminder", from_day=FAULT_DAY)])
    accepted = Thresholds(accepted_day=int(sums.days[FAULT_DAY]))
    assert changed_hands(sums, LIMITS)
    assert not changed_hands(sums, accepted)


def test_a_silent_platform_is_a_gap_on_the_day():
    """A platform that sends a tenth of its rows is found at the end of that day, and the other one is not accused."""
    sums = _history(35, faults=[SilentPlatform("meta", from_day=FAULT_DAY, share=0.9)])
    day, _ = _first_day(sums, "data_gap", "meta")
    assert day == 0
    assert {f.scope for d in range(35) for f in data_gaps(_until(sums, d), LIMITS)} == {"meta"}


def _batch(faults):
    simulator = Simulator(small(), seed=2, faults=faults)
    market = simulator.market
    for day in range(9):
        rows = simulator.rows(day, market.equal_split())
    return TableIngestor().ingest(rows)


def test_two_counters_of_the_same_conversions_are_found_in_the_first_batch():
    """A platform's own conversions added to the tracker's are critical at once; without them nothing is said."""
    found = double_counting(_batch([WindowMismatch("28d")]), LIMITS)
    assert [(f.name, f.severity) for f in found] == [("attribution_mismatch", "critical")]
    assert double_counting(_batch([]), LIMITS) == []
    assert double_counting(None, LIMITS) == []


def test_breaks_are_measured_rightly():
    """At the day of a change, the measured ratio is that of the change within its standard error."""
    sums = _history(40, scenario=small(breaks=(Break(day=FAULT_DAY, cpc=2.0, campaigns=("social",)),)))
    at = next(b for b in breaks(sums) if b.ago == 40 - FAULT_DAY)
    struck = np.array([a[1] == "social" for a in sums.arms])
    z = np.log(at.ratio / np.where(struck, 0.5, 1.0)) / at.error
    assert np.abs(z).max() < 3.5


@pytest.mark.parametrize(("count", "mean", "dispersion"), [(3, 10.0, 1.0), (3, 10.0, 2.5), (80, 100.0, 7.0), (0, 4.0, 1.3)])
def test_prediction_is_scipys_negative_binomial(count, mean, dispersion):
    """The chance of so low a count agrees with scipy's distributions."""
    expected = stats.poisson(mean).cdf(count) if dispersion == 1.0 else stats.nbinom(mean / (dispersion - 1), 1 / dispersion).cdf(count)
    assert p_at_most(np.array([count * 1.0]), np.array([mean]), np.array([dispersion]))[0] == pytest.approx(expected, rel=1e-9)


def test_daily_sums_leave_out_the_day_that_is_not_over(make_signals):
    """Daily sums hold every cohort of the days that are over, and no day whose data are not all in."""
    signals = make_signals({("google", "a"): 70.0, ("meta", "b"): 35.0}, days=10, data_age_days=0.5)
    sums = daily(signals.outcomes, 30)
    watermark_day = max(signals.outcomes.watermark.values()) // 86_400_000_000
    assert sums.days.tolist() == list(range(watermark_day - 9, watermark_day))
    assert sums.clicks.tolist() == [[100.0] * 9] * 2


def holdout(treated: float, control: float, odds: float, attributed: float) -> LiftResult:
    """A holdout of the retargeting campaign with `odds` treated users per held-out one."""
    where = {"platform": "meta", "campaign": "retargeting"}
    users = {"treated_users": 1000.0 * odds, "control_users": 1000.0}
    return LiftResult(where=where, treated=treated, control=control, attributed=attributed, **users)


def test_credit_against_a_holdout():
    """An arm whose holdout converts nearly as well is found; one whose credit is caused is not; an estimate serves like counts."""
    stolen, earned = holdout(6000, 620, 9.0, 3000), holdout(6000, 330, 9.0, 3000)
    (finding,) = credit_against_tests([stolen], LIMITS)
    assert (finding.name, finding.severity, finding.scope) == ("wrong_attribution", "critical", "meta / retargeting")
    assert 420 / 3000 in finding.measured
    assert credit_against_tests([earned], LIMITS) == []
    (stated,) = credit_against_tests([LiftResult(attributed=3000, estimate=420.0, standard_error=240.0)], LIMITS)
    assert (stated.scope, stated.severity) == ("account", "critical")


def test_false_alarms_of_holdouts_are_rare():
    """Where all credit is caused, at most 5 % of holdouts accuse it (within Monte Carlo error of 300 tests)."""
    rng = np.random.default_rng(5)
    tests = [holdout(float(rng.poisson(500)), float(rng.poisson(250 / 4)), 4.0, 250.0) for _ in range(300)]
    alarms = sum(bool(credit_against_tests([t], LIMITS, draws=4000)) for t in tests)
    assert alarms <= 15 + 3 * math.sqrt(15)


def test_reports_are_compared_and_never_added():
    """A platform that claims credibly more than we credit is a warning, and so is a sum of claims above all conversions."""
    found = compare_reports(
        {"google": 100, "meta": 50}, {"google": 104, "meta": 120}, total=160, limits=LIMITS, windows={"meta": "28d click"}
    )
    assert [(f.name, f.scope, f.severity) for f in found] == [
        ("report_differs", "meta", "warning"),
        ("double_claims", "account", "warning"),
    ]
    assert "28d click" in found[0].evidence
    assert 2.4 in found[0].measured
    assert compare_reports({"google": 100}, {"google": 95}, total=120, limits=LIMITS) == []
    with pytest.raises(ConfigurationError, match="theirs"):
        compare_reports({}, {"google": -1}, total=1, limits=LIMITS)
