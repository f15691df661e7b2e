"""Untagged events: what each arm could own, what all could own together, and what follows from taking tags to be lost at random."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import optimize

from closedloop.classify import BayesClassifier
from closedloop.classify.joint import Arms, met
from closedloop.errors import ConfigurationError
from closedloop.records.pool import Pool
from closedloop.records.window import AttributionWindow

WINDOW = AttributionWindow(click="7d", view="1d")


def solvable(pool, least, worth):
    """Whether the pool can be shared out (by linear programming) so that each arm gains at least ``least`` at ``worth`` a unit."""
    n = len(pool.block)
    pairs = [(p, i, of_arm[i]) for p, of_arm in enumerate(pool.cell_of_arm) for i in range(n)]
    rows, bounds = [], []
    for p, cells in enumerate(pool.cells):
        for cell, amount in enumerate(cells):
            rows.append([1.0 * (q == p and c == cell) for q, _, c in pairs])
            bounds.append(amount)
    for i in range(n):
        rows.append([-worth[i] * (j == i) for _, j, _ in pairs])
        bounds.append(-least[i] * (1 - 1e-9) if least[i] > 0 else 0.0)
    return optimize.linprog(np.zeros(len(pairs)), A_ub=rows, b_ub=bounds, bounds=(0, None)).status == 0


@given(
    need=arrays.arrays(float, (3, 6), elements=st.integers(0, 16)),
    supply=arrays.arrays(float, 2, elements=st.integers(0, 24)),
    block=arrays.arrays(np.intp, 6, elements=st.integers(0, 1)),
    hopeless=st.integers(0, 5),
)
@settings(max_examples=30, deadline=None)
def test_as_many_needs_are_met_as_any_choice_of_them_can(need, supply, block, hopeless):
    """The greedy count equals the largest affordable subset; what cannot be met is never met."""
    need[:, hopeless] = np.inf
    for row, found in zip(need, met(need, supply, block), strict=True):
        best = 0
        for mask in product([False, True], repeat=6):
            chosen = np.array(mask)
            spent = np.array([row[chosen & (block == b)].sum() for b in (0, 1)])
            if (spent <= supply * (1 + 1e-12)).all():
                best = max(best, int(chosen.sum()))
        assert found == best


def pool_of_patterns(rng, patterns, n=5):
    """A pool whose arms lie on one platform; the second pattern knows more tags than the first."""
    cells = [np.array([3.0]), rng.gamma(2.0, 1.0, 2)][:patterns]
    of_arm = [np.zeros(n, dtype=np.intp), np.array([0, 0, 1, 1, 1])][:patterns]
    return Pool(cells=tuple(cells), cell_of_arm=tuple(of_arm), block=np.zeros(n, dtype=np.intp))


@pytest.mark.parametrize("patterns", [1, 2])
def test_ranks_are_the_least_and_greatest_over_all_ways_to_share_out(patterns):
    """Which rivals can be lifted over an arm, or brought under it, is found by linear programming over every set of them."""
    rng = np.random.default_rng(patterns)
    n, draws = 5, 6
    own = rng.gamma(4.0, 1.0, (draws, n))
    conversions, spend = pool_of_patterns(rng, patterns), pool_of_patterns(rng, patterns)
    per_unit = rng.uniform(0.5, 1.5, n)  # what an untagged conversion is worth to each arm
    base = rng.uniform(1.0, 2.0, n)
    most = own + per_unit * conversions.own
    sides = [(p.own, p.block, p.supply) for p in (conversions, spend)]
    arms = Arms(own=own, most=most, base=base, returns=sides[0], bases=sides[1])
    for i in range(n):
        best, worst = arms.ranks(i)
        others = [j for j in range(n) if j != i]
        for d in range(draws):
            bar = own[d, i] / (base[i] + spend.own[i])
            short = bar * base - own[d]
            lifted = max(
                len(some)
                for k in range(n)
                for some in combinations(others, k)
                if solvable(conversions, np.where(np.isin(np.arange(n), some), np.maximum(short, 0.0), 0.0), per_unit)
            )
            bar = most[d, i] / base[i]
            rivals = [j for j in others if own[d, j] / base[j] > bar]
            lowered = max(
                len(some)
                for k in range(len(rivals) + 1)
                for some in combinations(rivals, k)
                if solvable(spend, np.where(np.isin(np.arange(n), some), own[d] / bar - base, 0.0), np.ones(n))
            )
            least, greatest = 1 + len(rivals) - lowered, 1 + lifted
            if patterns == 1:
                assert (best[d], worst[d]) == (least, greatest)
            else:  # an outer bound
                assert best[d] <= least
                assert worst[d] >= greatest


def test_the_most_a_pool_is_worth_is_that_of_the_best_way_to_share_it_out():
    """Against a linear programme over all ways, two patterns of missing tags."""
    rng = np.random.default_rng(3)
    pool = pool_of_patterns(rng, 2)
    worth = rng.uniform(0.0, 2.0, (4, 5))
    pairs = [(p, i, of_arm[i]) for p, of_arm in enumerate(pool.cell_of_arm) for i in range(5)]
    rows = [[1.0 * (q == p and c == cell) for q, _, c in pairs] for p, cells in enumerate(pool.cells) for cell in range(len(cells))]
    for row, found in zip(worth, pool.most(worth), strict=True):
        best = optimize.linprog([-row[i] for _, i, _ in pairs], A_ub=rows, b_ub=np.concatenate(pool.cells), bounds=(0, None))
        assert found == pytest.approx(-best.fun)
    some = pool.take(np.array([2, 4]))
    assert float(some.most(np.ones(2))) == pytest.approx(pool.cells[0][0] + pool.cells[1][1])
    assert some.own.tolist() == pool.own[[2, 4]].tolist()


def test_every_way_to_give_the_untagged_away_lies_inside(outcomes_of):
    """Three arms and six untagged conversions: each of the 84 ways is classified as if it had been tagged so."""
    names, exposures = [("google", a) for a in "abc"], np.full((3, 1), 1e4)
    counts, untagged = np.array([[40.0], [44.0], [38.0]]), 6
    classifier = BayesClassifier(WINDOW, breaks_per_year=0)
    whole = outcomes_of(
        [*names, ("google", None)],
        np.append(exposures, [[0.0]], axis=0),
        np.append(counts, [[untagged]], axis=0),
        spend=np.append(exposures, [[0.0]], axis=0),
    )
    learned = {k: s.learned for k, s in classifier.start(whole).items()}
    signals = classifier.classify(whole, learned=learned)
    p_best, losses, ranks, totals = [], [], [], []
    for way in product(range(untagged + 1), repeat=3):
        if sum(way) <= untagged:
            given_away = classifier.classify(
                outcomes_of(names, exposures, counts + np.array(way)[:, None], spend=exposures), learned=learned
            )
            p_best.append(given_away.p_best)
            losses.append(given_away.expected_loss)
            ranks.append((given_away.rank_interval.low, given_away.rank_interval.high))
            totals.append(given_away.draw_conversions_per_day(np.random.default_rng(0), 4000).sum(axis=1).mean())
    noise = 0.04  # of a few hundred draws
    low, high = np.min(p_best, axis=0), np.max(p_best, axis=0)
    assert (signals.p_best_range.low <= low + noise).all()
    assert (signals.p_best_range.high >= high - noise).all()
    assert np.abs(signals.p_best_range.high - high).max() < noise  # and no wider at the upper end than one of the ways
    assert (signals.expected_loss_range.low <= np.min(losses, axis=0) + noise).all()
    assert (signals.expected_loss_range.high >= np.max(losses, axis=0) - noise).all()
    assert (signals.rank_interval.low <= np.min([r[0] for r in ranks], axis=0)).all()
    assert (signals.rank_interval.high >= np.max([r[1] for r in ranks], axis=0)).all()
    total = signals.total_per_day()
    assert total.kind == "identified"
    assert total.low < min(totals) < max(totals) < total.high
    alone = sum(signals.take([i]).total_per_day().high for i in range(3))
    assert total.high < alone - untagged  # adding the arms' own ends would count each untagged conversion three times
    assert "Whoever the others belong to" in signals.explain(names[0])


def lossy(outcomes_of, seed, *, lost=0.2, arms=12, days=56):
    """Return true rates and outcomes where a share of all clicks (and their conversions) has lost the campaign, and with none lost."""
    rng = np.random.default_rng(seed)
    rate, platform = rng.gamma(3, 0.02 / 3, arms), np.array(["google", "meta"])[np.arange(arms) % 2]
    names = [(p, f"c{i:02d}") for i, p in enumerate(platform)]
    clicks = rng.poisson(np.exp(rng.normal(np.log(20), 0.7, arms))[:, None], (arms, days)).astype(float)
    gone = rng.binomial(clicks.astype(int), lost).astype(float)
    counts, lost_counts = rng.poisson(rate[:, None] * (clicks - gone)), rng.poisson(rate[:, None] * gone)

    def both(tagged, untagged):
        return np.concatenate([tagged, [untagged[platform == p].sum(axis=0) for p in ("google", "meta")]])

    seen = outcomes_of(
        [*names, ("google", None), ("meta", None)],
        both(clicks - gone, gone),
        both(counts, lost_counts),
        spend=np.concatenate([clicks, np.zeros((2, days))]),
    )
    return rate, seen, outcomes_of(names, clicks, counts + lost_counts, spend=clicks)


def test_a_fifth_lost_at_random_leaves_the_estimate_where_it_was(outcomes_of):
    """The estimate is that of tags lost at random; the identified set holds it and the truth, and ends where no more could be lost."""
    ratio, inside, assumed, wider = [], [], [], []
    for seed in range(8):
        rate, seen, whole = lossy(outcomes_of, seed)
        bounded, true = BayesClassifier(WINDOW).classify(seen), BayesClassifier(WINDOW).classify(whole)
        random = BayesClassifier(WINDOW, missing="at random", missing_spread=0.1).classify(seen)
        cost, full, fair = bounded.cost_per_conversion, true.cost_per_conversion, random.cost_per_conversion
        assert cost.kind == "identified"
        assert fair.kind == "credible"
        ratio.append(cost.estimate / full.estimate)
        inside.append((cost.low <= 1 / rate) & (1 / rate <= cost.high))
        assumed.append((fair.low <= 1 / rate) & (1 / rate <= fair.high))
        wider.append((1 / fair.low - 1 / fair.high) / (1 / full.low - 1 / full.high))
        # The spend is known: at worst none of the untagged conversions was the arm's, so a fifth fewer than all, with chance on top.
        assert np.median(cost.high / full.high) < 1.35
        assert bounded.exposures_per_day["click"] == pytest.approx(true.exposures_per_day["click"], rel=0.15)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03)
    assert np.mean(inside) > 0.93
    assert np.mean(assumed) > 0.9 - 3 * np.sqrt(0.09 / 96)
    assert 1.0 < np.median(wider) < 1.25  # a fifth of the evidence is gone: 1.12 for the count alone


def test_untagged_spend_and_views_take_part(outcomes_of):
    """Spend without an arm could make any arm dearer; with two kinds of touch and revenue the ends are drawn."""
    names = [("google", "a"), ("google", "b"), ("google", None)]
    x = np.array([[1000.0], [1000.0], [200.0]])
    c, spend = np.array([[30.0], [20.0], [5.0]]), np.array([[500.0], [500.0], [0.0]])
    classifier, extra = BayesClassifier(WINDOW, breaks_per_year=0), np.array([[0.0], [0.0], [250.0]])
    known = classifier.classify(outcomes_of(names, x, c, spend=spend))
    unknown = classifier.classify(outcomes_of(names, x, c, spend=spend + extra))
    assert unknown.cost_per_conversion.high == pytest.approx(1.5 * known.cost_per_conversion.high)
    assert unknown.cost_per_conversion.low == pytest.approx(known.cost_per_conversion.low)
    assert unknown.p_best_range.low[0] <= known.p_best_range.low[0]
    views = {"view_exposures": 10 * x, "view_credit": np.array([[3.0], [2.0], [1.0]])}
    both = classifier.classify(outcomes_of(names, x, c, spend=spend, value=40 * c, value_squared=1700 * c, **views))
    assert both.roas.kind == both.cost_per_conversion.kind == "identified"
    assert (both.roas.high > 40 * (c[:2, 0] + 5) / 500).all()
    assert (both.roas.low < 40 * c[:2, 0] / 500).all()
    assert (both.cost_per_conversion.low < 500 / (c[:2, 0] + 5)).all()


def test_many_arms_are_bounded_from_quantiles(outcomes_of):
    """With more than a hundred arms the bounds hold those if tags are lost at random, and an arm that could own much could be first."""
    rate, seen, whole = lossy(outcomes_of, 1, arms=150, days=14)
    signals, true = BayesClassifier(WINDOW).classify(seen), BayesClassifier(WINDOW).classify(whole)
    best = int(np.argmax(rate))
    assert signals.rank_interval.low[best] == 1.0
    assert (signals.rank_interval.low <= true.rank_interval.estimate).mean() > 0.95
    assert (signals.rank_interval.high >= true.rank_interval.estimate).mean() > 0.95
    assert (signals.p_best_range.low <= signals.p_best).all()
    assert (signals.p_best_range.high >= signals.p_best).all()
    assert (signals.p_best_range.high >= true.p_best - 0.05).all()
    assert (signals.expected_loss_range.low <= signals.expected_loss_range.high).all()


def test_how_tags_are_missing_is_checked():
    """The valid ways are listed."""
    with pytest.raises(ConfigurationError, match="at random"):
        BayesClassifier(WINDOW, missing="somehow")
    with pytest.raises(ConfigurationError, match="missing_spread"):
        BayesClassifier(WINDOW, missing_spread=-1.0)
