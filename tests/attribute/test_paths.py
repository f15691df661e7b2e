"""Path models against brute force on random small graphs, closed forms, and hostile input."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.attribute import PathCounts, attribute_paths, shapley_values
from closedloop.attribute import paths as paths_module
from closedloop.attribute.coalitions import inside
from closedloop.attribute.global_credit import markov_replicates
from closedloop.attribute.markov import Steps, chain, removal_effects
from closedloop.attribute.paths import exact_sum
from closedloop.errors import ConfigurationError, InputError

PATHS = st.lists(
    st.tuples(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12
)


def counts_of(rows):
    return PathCounts.of(
        [r[0] for r in rows], conversions=[r[1] for r in rows], nulls=[r[2] for r in rows], value=[2.5 * r[1] for r in rows]
    )


def conversion_probability(rows, order, removed=None):
    """P(conversion) of the order-k chain by following the walk step by step until its mass is gone; removed channels lead to null."""
    moves, ends = {}, {}
    for path, won, lost in rows:
        state = ()
        for c in path:
            following = (*state, c)[-order:]
            moves.setdefault(state, {})
            moves[state][following] = moves[state].get(following, 0) + won + lost
            state = following
        w, z = ends.get(state, (0, 0))
        ends[state] = (w + won, z + lost)
    total = 0.0
    mass = {(): 1.0}
    for _ in range(4000):
        coming = {}
        for state, p in mass.items():
            out = moves.get(state, {})
            won, lost = ends.get(state, (0, 0))
            leaving = sum(out.values()) + won + lost
            if not leaving:
                continue
            total += p * won / leaving
            for following, n in out.items():
                if following[-1] != removed and n:
                    coming[following] = coming.get(following, 0.0) + p * n / leaving
        mass = coming
        if sum(mass.values()) < 1e-13:
            return total
    return total


@settings(max_examples=60, deadline=None)
@given(rows=PATHS, order=st.integers(1, 3))
def test_markov_of_any_order_equals_following_the_walk(rows, order):
    """Removal effects equal those of a walk followed step by step, channel after channel removed."""
    credits = attribute_paths(counts_of(rows), "markov", order=order, replicates=20)
    whole = conversion_probability(rows, order)
    effects = []
    for c in credits.channels:
        effects.append(1 - conversion_probability(rows, order, c) / whole if whole else 0.0)
    assert credits.removal_effect.estimate == pytest.approx(effects, abs=1e-8)
    won = sum(r[1] for r in rows)
    assert math.fsum(credits.conversions.estimate) == won
    if won:
        assert credits.conversions.estimate == pytest.approx(won * np.array(effects) / sum(effects), abs=1e-6)


def test_many_states_take_the_sparse_road_to_the_same_answer(monkeypatch):
    """Above the size of the dense factorisation the sparse one gives the same numbers."""
    rng = np.random.default_rng(5)
    rows = [(list(rng.choice(list("abcdef"), size=rng.integers(1, 9))), int(rng.integers(0, 3)), 1) for _ in range(150)]
    dense = attribute_paths(counts_of(rows), "markov", order=3, replicates=20)
    from closedloop.attribute import markov

    monkeypatch.setattr(markov, "_DENSE", 0)
    sparse = attribute_paths(counts_of(rows), "markov", order=3, replicates=20)
    assert sparse.removal_effect.estimate == pytest.approx(dense.removal_effect.estimate, abs=1e-10)
    assert sparse.value.high == pytest.approx(dense.value.high, abs=1e-8)


def test_as_many_states_as_channels_does_not_make_them_the_channels():
    """With one channel that no journey uses, a chain of order 2 has two states of the other channel: the answer stays as without it."""
    used = PathCounts.of([["b"], ["b", "b"]], conversions=[1, 1])
    spare = attrs.evolve(used, channels=np.array(["a", "b"], dtype=object), codes=used.codes + 1)
    alone = attribute_paths(used, "markov", order=2, replicates=50, rng=np.random.default_rng(1)).conversions
    beside = attribute_paths(spare, "markov", order=2, replicates=50, rng=np.random.default_rng(1)).conversions
    assert alone.low[0] >= 0.0
    assert (beside.low[1], beside.estimate[1], beside.high[1]) == (alone.low[0], alone.estimate[0], alone.high[0])
    assert (beside.low[0], beside.high[0]) == (0.0, 0.0)


def shapley_by_orderings(game, n):
    """Average marginal contribution over all orders of arrival."""
    out = np.zeros(n)
    for order in itertools.permutations(range(n)):
        coalition = 0
        for player in order:
            out[player] += game[coalition | 1 << player] - game[coalition]
            coalition |= 1 << player
    return out / math.factorial(n)


@settings(max_examples=40, deadline=None)
@given(game=st.integers(1, 5).flatmap(lambda n: st.lists(st.floats(-10, 10), min_size=2**n, max_size=2**n)))
def test_shapley_values_equal_the_average_over_orders(game):
    """Enumeration of coalitions equals enumeration of orders, and is efficient."""
    n = len(game).bit_length() - 1
    values = shapley_values(game)
    assert values == pytest.approx(shapley_by_orderings(game, n), abs=1e-9)
    assert values.sum() == pytest.approx(game[-1] - game[0], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows=PATHS)
def test_closed_form_shapley_equals_enumeration(rows):
    """The rule by distinct channels is the Shapley value of the game of conversions inside a coalition; ordered too."""
    counts = counts_of(rows)
    game = inside(counts, counts.conversions)
    for subset in range(len(game)):
        names = {c for i, c in enumerate(counts.channels) if subset >> i & 1}
        assert game[subset] == sum(won for path, won, _ in rows if set(path) <= names)
    expected = shapley_by_orderings(game, len(counts.channels))
    for model in ("shapley", "ordered_shapley"):
        assert attribute_paths(counts, model).conversions.estimate == pytest.approx(expected, abs=1e-9)


def test_rate_shapley_shares_the_rates_value():
    """Two channels by hand: v(a) = 1/2, v(b) = 0, v(ab) = 3/8 shared, scaled to the conversions."""
    counts = PathCounts.of(["a", "b", "a > b"], conversions=[1, 0, 2], nulls=[1, 3, 1])
    v = np.array([0, 1 / 2, 0, 3 / 8])
    raw = np.array([(v[1] + v[3] - v[2]) / 2, (v[2] + v[3] - v[1]) / 2])
    assert attribute_paths(counts, "shapley_rate", replicates=20).conversions.estimate == pytest.approx(3 * raw / raw.sum())


def test_distinct_and_collapsed_paths():
    """Equal paths are joined with their counts summed; repeats in a row are one touch; nothing else changes."""
    counts = (
        PathCounts.of(["a > a > b > a", "a>b>a", "", "b", "a > b > a"], conversions=[1, 2, 3, 4, 5], nulls=[1] * 5).collapsed().distinct()
    )
    assert counts.to_columns()["path"] == ["a > b > a", "", "b"]
    assert counts.conversions.tolist() == [8, 3, 4]
    assert counts.nulls.tolist() == [3, 1, 1]


@settings(max_examples=30, deadline=None)
@given(rows=PATHS, cut=st.integers(0, 12), model=st.sampled_from(["linear", "shapley", "markov", "fractribution"]))
def test_path_counts_add(rows, cut, model):
    """Counts of two parts added are the counts of the whole."""
    whole = counts_of(rows)
    parts = [counts_of(r) for r in (rows[:cut], rows[cut:]) if r]
    added = PathCounts.add(parts)
    one, other = (attribute_paths(c, model, replicates=20) for c in (whole, added))
    assert other.conversions.estimate == pytest.approx(one.conversions.estimate, abs=1e-9)


def test_touch_rows_in_any_order_make_the_same_journeys():
    """Grouping by journey and time is part of the reduction."""
    rng = np.random.default_rng(1)
    journey, at = np.repeat(np.arange(50), 4), np.tile(np.arange(4), 50)
    channel = rng.integers(0, 3, 200)
    mixed = rng.permutation(200)
    one = PathCounts.of_touches(journey, channel, ["a", "b", "c"], at=at, conversions=np.ones(50))
    other = PathCounts.of_touches(journey[mixed], channel[mixed], ["a", "b", "c"], at=at[mixed], conversions=np.ones(50))
    assert one.codes.tolist() == other.codes.tolist()
    assert one.starts.tolist() == other.starts.tolist()


@pytest.mark.parametrize("model", ["first", "linear", "time_decay", "shapley", "markov", "fractribution", "shapley_rate"])
@pytest.mark.parametrize(
    ("paths", "conversions", "nulls"),
    [
        (["a > a > a"], [1], [0]),
        (["a > b > a > b"], [3], [2]),
        (["a", "a > a"], [0, 0], [5, 1]),
        (["a"], [1e15], [1e15]),
        (["a > b", "b > c"], [0, 7], [0, 0]),
        ([""], [4], [1]),
        (["a" + " > b" * 2000], [1], [1]),
    ],
    ids=["self-loop", "cycle", "no conversions", "huge", "weight zero", "no touch", "long"],
)
def test_hostile_paths_give_right_sums_and_never_nan(model, paths, conversions, nulls):
    """Cycles, a channel that is every path, zero and huge weights: finite credits that sum to the conversions with a touch."""
    credits = attribute_paths(paths, model, conversions=conversions, nulls=nulls, replicates=20)
    assert math.fsum(credits.conversions.estimate) == sum(c for c, p in zip(conversions, paths, strict=True) if p)
    assert credits.uncredited == sum(c for c, p in zip(conversions, paths, strict=True) if not p)
    assert np.isfinite(credits.conversions.low).all()
    assert np.isfinite(credits.conversions.high).all()
    assert "nan" not in repr(credits)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: attribute_paths(["a"], conversions=[-1]), InputError),
        (lambda: attribute_paths(["a"], conversions=[float("nan")]), InputError),
        (lambda: attribute_paths(["a"], conversions=[1, 2]), InputError),
        (lambda: attribute_paths([["a", None]]), InputError),
        (lambda: attribute_paths(["a > > b"]), InputError),
        (lambda: attribute_paths(["a"], "markov", order=0), ConfigurationError),
        (lambda: attribute_paths(["a"], "nonsense"), ConfigurationError),
        (lambda: attribute_paths([" > ".join(f"c{i}" for i in range(21))], "shapley_rate"), ConfigurationError),
        (lambda: shapley_values([1.0, 2.0, 3.0]), InputError),
        (lambda: PathCounts.of_touches([0, 1], [0, 5], ["a"]), InputError),
        (lambda: PathCounts.of_touches([0, 1], [0], ["a"]), InputError),
        (lambda: PathCounts.of_touches([0, 2], [0, 0], ["a"], n_journeys=2), InputError),
        (lambda: shapley_values([0.0, float("inf")]), InputError),
        (lambda: attribute_paths(PathCounts.of(["a"]), conversions=[1]), ConfigurationError),
        (lambda: attribute_paths(["a"], level=1.0), ConfigurationError),
        (lambda: attribute_paths(["a"], replicates=19), ConfigurationError),
    ],
)
def test_bad_input_is_named(call, error):
    """What is wrong is said, with the field."""
    with pytest.raises(error) as caught:
        call()
    assert caught.value.field


def simulate(rng, n, lengths=5):
    """Journeys of a known chain over three channels: each step ends in conversion, null or another channel."""
    move = np.array([[0.2, 0.3, 0.1], [0.1, 0.2, 0.2], [0.3, 0.1, 0.1]])
    win = np.array([0.05, 0.15, 0.1])
    paths, won = [], []
    for _ in range(n):
        c, path = int(rng.choice(3, p=[0.5, 0.3, 0.2])), []
        while True:
            path.append("abc"[c])
            u = rng.random()
            if u < win[c]:
                won.append(1)
                break
            if u >= win[c] + move[c].sum():
                won.append(0)
                break
            c = int(np.searchsorted(np.cumsum(move[c]), u - win[c], side="right"))
        paths.append(path)
    return paths, won


def test_both_roads_of_the_bootstrap_have_the_same_spread(monkeypatch):
    """Blocks of journeys give the standard deviations of the journey-by-journey bootstrap (within 8 %), of single and of counted rows."""
    from closedloop.attribute import global_credit

    rng = np.random.default_rng(3)
    paths, won = simulate(rng, 4000)
    counts = PathCounts.of(paths, conversions=won, nulls=[1 - w for w in won], value=[3.0 * w for w in won])
    exact = attribute_paths(counts, replicates=3000)
    monkeypatch.setattr(global_credit, "_EXACT", 0)
    for rows in (counts, counts.distinct()):
        blocks = attribute_paths(rows, replicates=3000)
        for one, other in ((exact.conversions, blocks.conversions), (exact.value, blocks.value)):
            assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.08)


def test_block_replicates_have_the_covariance_of_single_ones():
    """The covariance of compound Poisson sums is the sum of the outer products of the units; 1,024 blocks estimate correlations to 0.03."""
    from closedloop.stats.bootstrap import BLOCKS, block_replicates

    rng = np.random.default_rng(1)
    units = np.stack([np.ones(50_000), rng.random(50_000), rng.random(50_000) < 0.01], axis=1)
    block = rng.integers(0, BLOCKS, len(units))
    sums = np.stack([np.bincount(block, weights=u, minlength=BLOCKS) for u in units.T], axis=1)
    found, expected = np.cov(block_replicates(sums, 4_000, rng), rowvar=False), units.T @ units
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert found / scale == pytest.approx(expected / scale, abs=0.12)


def test_journeys_numbered_and_timed_by_huge_integers_are_grouped_the_same():
    """Where one sort of packed numbers would overflow, two keys are sorted instead: the journeys are those of Python's own sort."""
    rng = np.random.default_rng(2)
    journey, channel = rng.integers(0, 40, 300), rng.integers(0, 3, 300)
    at = rng.integers(-(2**61), 2**61, 300)
    found = PathCounts.of_touches(journey, channel, ["a", "b", "c"], at=at)
    touches = sorted(zip(journey.tolist(), at.tolist(), channel.tolist(), strict=True))
    assert found.codes.tolist() == [c for _, _, c in touches]
    assert found.lengths.tolist() == np.bincount(journey, minlength=40).tolist()


def test_rows_in_order_of_time_are_grouped_by_journey():
    """Few journeys are packed into one sort, very many are not: either way touches keep their order within the journey."""
    journey, channel = [2, 0, 2, 1, 0], [1, 0, 2, 2, 1]
    for n in (3, 2**61):
        paths = paths_module._grouped(np.array(journey), np.array(channel, dtype=np.int32), n)
        assert paths.tolist() == [0, 1, 2, 1, 2]


def test_journeys_without_any_touch_make_no_game():
    """All value belongs to the empty coalition, and so to each larger one; no channel adds anything."""
    paths = PathCounts.of_touches(np.empty(0, int), np.empty(0, int), ["a", "b"], n_journeys=3, conversions=[1, 2, 3])
    assert inside(paths, paths.conversions).tolist() == [6.0] * 4
    assert shapley_values(inside(paths, paths.conversions)).tolist() == [0.0, 0.0]


def test_repeated_touches_of_many_channels_are_one_credit():
    """With far more channels than touches, credits are those of a handful of channels: 2/3 of one journey is one credit, not two."""
    few = attribute_paths(["a > b > a", "b"], "linear", conversions=[3, 1])
    spare = PathCounts.of_touches([0, 0, 0, 1], [0, 1, 0, 1], [*"ab", *(f"z{i}" for i in range(60))], conversions=[3, 1])
    many = attribute_paths(spare, "linear")
    for end in ("low", "estimate", "high"):
        assert getattr(many.conversions, end)[:2] == pytest.approx(getattr(few.conversions, end), rel=1e-12)
    assert many.conversions.estimate[:2] == pytest.approx([2.0, 2.0])


def test_a_chain_of_millions_of_possible_steps_holds_those_that_occur():
    """With 60 channels at order 2 no table of all steps is made: kinds and counts of steps are those of a walk along the journeys."""
    rng = np.random.default_rng(8)
    journeys = [[f"{c:02d}" for c in rng.integers(0, 60, 8)] for _ in range(600)]
    paths = PathCounts.of(journeys)
    found = chain(paths, 2)
    assert (found.n_states + 1) * found.n_states > 4_000_000
    names = {tuple(p[max(0, i - 1) : i + 1]) for p in journeys for i in range(len(p))}
    assert found.n_states == len(names)
    walked = Counter()
    for p in journeys:
        for i in range(len(p)):
            walked[tuple(p[max(0, i - 2) : i]), tuple(p[max(0, i - 1) : i + 1])] += 1
    assert len(found.source) == len(walked)
    assert sorted(np.bincount(found.step).tolist()) == sorted(walked.values())
    assert (found.target[found.step] == found.state).all()
    assert [paths.channels[found.ends[s]] for s in found.state] == [c for p in journeys for c in p]


def test_replicates_at_once_are_each_of_them_alone():
    """Effects on conversions and on revenue, and the probability of conversion, of many replicates are those of one at a time."""
    rng = np.random.default_rng(3)
    rows = [list(rng.choice(list("abcd"), size=rng.integers(1, 6))) for _ in range(40)]
    paths = PathCounts.of(rows, conversions=rng.integers(0, 4, 40), nulls=rng.integers(1, 5, 40), value=rng.uniform(0, 30, 40))
    links = chain(paths, 1)
    drawn = markov_replicates(paths, links, 12, np.random.default_rng(4))
    together = removal_effects(links, drawn, 4)
    for b in range(12):
        one = removal_effects(links, Steps(**{f.name: getattr(drawn, f.name)[b] for f in attrs.fields(Steps)}), 4)
        for all_of_them, alone in zip(together, one, strict=True):
            np.testing.assert_allclose(all_of_them[b], alone, atol=1e-12)
    assert not np.allclose(together[0], together[1])


def test_sums_are_exact_where_a_running_sum_is_not():
    """Beyond 2**53 ones would be lost one by one, and tenths never add up: against fractions."""
    for column in ([2.0**53, 1.0, 1.0], [2.0**53 - 2, 1.0, 1.0], [0.1] * 10, [1e16, 0.5, 0.5, 1.0]):
        assert exact_sum(np.array(column)) == float(sum(Fraction(x) for x in column))


def test_wrong_counts_are_named_by_their_place():
    """The first that is no count, from 0: negative, not a number, infinite."""
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="conversions of path 1 is no count"):
            PathCounts.of(["a", "b", "a > b"], conversions=[1, wrong, wrong])
    with pytest.raises(InputError, match="nulls needs one number"):
        PathCounts.of(["a", "b"], conversions=[1, 1], nulls=[1])


def test_journeys_without_touches_add_up():
    """Parts without a channel have no touches; their counts stay, and beside others the codes are of the joint list."""
    none = PathCounts.of(["", ""], conversions=[1, 2])
    both = PathCounts.add([none, none])
    assert (len(both.codes), both.conversions.tolist(), both.starts.tolist()) == (0, [1, 2, 1, 2], [0, 0, 0, 0, 0])
    more = PathCounts.add([PathCounts.of(["b > a"], conversions=[1]), none, PathCounts.of(["c > b"], nulls=[4])])
    assert more.to_columns()["path"] == ["b > a", "", "", "c > b"]
    assert more.to_columns()["nulls"].tolist() == [0, 0, 0, 4]
