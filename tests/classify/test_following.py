"""An account that grew tells what arms cause from what they meet; what rose with demand, or followed nothing, is not taken for that."""

import attrs
import numpy as np
import pytest
from scipy import stats

from closedloop.classify import BayesClassifier
from closedloop.classify.evidence import gather
from closedloop.classify.following import SHARES, assumptions, chances
from closedloop.records.causes import CausalEvidence
from closedloop.records.outcomes import ConversionDays
from closedloop.records.window import AttributionWindow
from closedloop.stats.background import _SHARE, _Cells
from closedloop.stats.level import Level
from closedloop.stats.reading import Reading

WINDOW = AttributionWindow(click="7d", view="1d")
DAYS = 60


@pytest.fixture
def account(outcomes_of):
    """Return outcomes of arms with 200 clicks a day beside an account of a level by day; arms' credit is all that they took part in."""

    def of(rates, level, seed=0, clicks=200.0, arms=None):
        n = len(rates)
        clicks = np.full((n, DAYS), clicks)
        credit = np.random.default_rng(seed).poisson(clicks * rates).astype(float)
        arms = arms or [("meta", f"broad {i}") for i in range(n)]
        found = outcomes_of(arms, clicks, credit, spend=clicks * 0.5, columns=("platform", "audience"))
        counts = np.append(np.round(level), 1.0)  # of the day that is not over
        daily = ConversionDays.of(np.arange(DAYS + 1) + int(found.cohorts.day.min()), counts, 0 * counts)
        return attrs.evolve(found, daily=daily, participation=found)

    return of


def number(signals):
    """The number in each arm's name."""
    return np.array([int(arm[1].split()[1]) for arm in signals.arms])


def classify(outcomes, **known):
    return BayesClassifier(WINDOW, incrementality=CausalEvidence(**known)).classify(outcomes)


GROWN = np.repeat([2000.0, 4000.0, 10_000.0], DAYS // 3)


def test_growth_tells_caused_from_met(account):
    """Arms whose rate grew as the account did meet nearly all of it; those whose rate stood still cause it; without growth: who knows."""
    relative = GROWN / GROWN[-1]
    met, caused = 0.002 + 0.04 * relative, 0.04 + 0.0 * relative
    arms = [("meta", f"{'visitors' if i < 3 else 'broad'} {i}") for i in range(6)]  # what is assumed of retargeting allows much to be met
    outcomes = account(np.stack([met] * 3 + [caused] * 3), GROWN, arms=arms)
    found, unread = classify(outcomes), classify(outcomes, follows=0.0)
    of_met = number(found) < 3
    assert (found.rate.high[of_met] < 0.02).all()
    assert (found.rate.low[~of_met] > 0.02).all()
    assert (unread.rate.high[number(unread) < 3] > 0.03).all()
    still = account(np.stack([np.full(DAYS, 0.04)] * 6), np.full(DAYS, 5000.0))
    read, alone = classify(still), classify(still, follows=0.0)
    np.testing.assert_array_equal(read.rate.high, alone.rate.high)


def test_intervals_hold_in_accounts_that_grew(account):
    """Ninety per cent intervals hold what arms cause in about nine of ten cases or more, whatever each arm's share of background."""
    rng, inside, narrower = np.random.default_rng(4), [], []
    for seed in range(15):
        total = rng.uniform(0.02, 0.06, 8)
        share = rng.uniform(0.05, 0.8, 8)
        rates = (total * (1 - share))[:, None] + (total * share)[:, None] * GROWN / GROWN[-1]
        outcomes = account(rates, GROWN, seed)
        found, blind = classify(outcomes), classify(outcomes, follows=0.0)
        truth = (total * (1 - share))[number(found)]
        inside += list((found.rate.low <= truth) & (truth <= found.rate.high))
        width = [np.median(s.rate.high - s.rate.low) for s in (found, blind)]
        narrower.append(width[0] / width[1])
    assert np.mean(inside) > 0.9 - 3.0 * np.sqrt(0.09 / len(inside))
    assert np.median(narrower) < 0.9


def test_demand_is_not_taken_for_background(account):
    """Where every rate rose exactly as the account, all may have been met, or demand rose: the interval keeps a caused half."""
    relative = GROWN / GROWN[-1]
    found = classify(account(np.stack([0.04 * relative] * 6), GROWN))
    assert (found.rate.high > 0.02).all()
    certain = classify(account(np.stack([0.04 * relative] * 6), GROWN), follows=1.0)
    assert (certain.rate.high < 0.01).all()


def test_factors_are_those_of_a_loop_over_days(account):
    """Per block the exposure-weighted mean of (1 - s) + s l; a large arm's own conversions are no others'."""
    rates = np.stack([np.full(DAYS, 0.03), np.linspace(0.1, 0.9, DAYS)])
    level = np.linspace(100.0, 300.0, DAYS)
    outcomes = account(rates, level)
    evidence = gather(outcomes, half_life_days=None, now_us=None)
    e, found = evidence.kinds["click"], assumptions(outcomes, outcomes, evidence.kinds, 0.5)
    assert [a.share for a in found] == [*SHARES, None, None]
    np.testing.assert_allclose(chances(found), [*[0.5 / 8] * 8, 0.25, 0.25])
    account_level, c = Level.of(outcomes), outcomes.cohorts
    edges = np.append(e.block_age, -1.0)
    for unit in range(2):
        arm = int(np.flatnonzero(e.position == unit)[0])
        own = np.zeros(DAYS)
        own[c.day[c.arm == arm] - account_level.first] = c.credit[c.arm == arm]
        own = np.array([own[max(0, d - 3) : d + 4].mean() for d in range(DAYS)])
        if own.sum() <= 0.02 * account_level.by_day.sum():
            own[:] = 0.0
        ages = e.mark[unit] - (account_level.first + np.arange(DAYS))
        for j, share in enumerate(SHARES):
            others = np.maximum(account_level.by_day - (1 - share) * own, 0.05 * account_level.by_day)
            now = account_level.now - (1 - share) * own[-account_level.days :].mean()
            factor = 1 - share + share * np.clip(others / now, 1 / 20, 20)
            for b in range(len(e.block_age)):
                mine = (ages <= edges[b]) & (ages > edges[b + 1])
                assert found[j].factors["click"][unit, b] == pytest.approx(factor[mine].mean(), rel=1e-9)
    demand = found[-2].factors["click"]
    np.testing.assert_allclose(demand[:, -1], account_level.by_day[-1] / account_level.now, rtol=0.05)
    np.testing.assert_array_equal(found[-1].factors["click"], 1.0)


def test_readings_together_are_the_likelihood_of_all_blocks():
    """Posteriors at a few shares, each with its evidence, give back the Poisson likelihood of every block at any rate and share."""
    k, mu, x, level = 0.5, 0.03, np.array([4000.0, 3000.0, 1000.0]), np.array([0.2, 0.5, 1.0])
    counts = np.array([60.0, 75.0, 38.0])
    readings = []
    for share in SHARES:
        exposures = x * (1 - share + share * level)
        shape, rate = k + counts.sum(), k / mu + exposures.sum()
        evidence = (counts * np.log(exposures)).sum() - shape * np.log(rate)
        readings.append(Reading(shape=np.array([[shape]]), rate=np.array([[rate]]), weight=np.ones((1, 1)), share=share, evidence=evidence))
    cells = _Cells.of(readings, np.array([k]), np.array([mu]))
    share = 1 / (1 + np.exp(-_SHARE))
    mean = np.exp(cells.log_g[0])[:, None, None] * x * ((1 - share)[:, None] + share[:, None] * level)
    like = stats.poisson.logpmf(counts, mean).sum(axis=2)
    like -= like.max()
    likely = like > -6
    np.testing.assert_allclose(cells.log_like[0][likely], like[likely], atol=0.12)
    free = attrs.evolve(readings[0], share=None)  # one that does not know of shares adds the same to each
    both = _Cells.of([*readings, free], np.array([k]), np.array([mu]))
    alone = _Cells.of([free], np.array([k]), np.array([mu]))
    assert both.log_like.shape == (1, 17, len(_SHARE))
    assert alone.log_like.shape == (1, 17, 1)


def test_one_day_of_exposures_has_no_past_to_compare(account):
    """However the account stood on that day: nothing is read from its level."""
    outcomes = account(np.full((3, DAYS), 0.04), GROWN)
    c = outcomes.cohorts
    last = type(c)(**{a.name: getattr(c, a.name)[c.day == c.day.max()] for a in attrs.fields(type(c))})
    outcomes = attrs.evolve(outcomes, cohorts=last, participation=attrs.evolve(outcomes.participation, cohorts=last))
    daily = attrs.evolve(outcomes.daily, conversions=np.where(outcomes.daily.day == last.day[0], 100_000.0, outcomes.daily.conversions))
    for found in (outcomes, attrs.evolve(outcomes, daily=daily)):
        np.testing.assert_array_equal(classify(found).rate.high, classify(found, follows=0.0).rate.high)
