"""The small examples that other packages document: from their read-me files and their own tests, with their numbers."""

import numpy as np
import pytest

from closedloop.attribute import PathCounts, attribute_paths, shapley_values


def credit(counts, model, **options):
    found = attribute_paths(counts, model, replicates=20, **options)
    return dict(zip(found.channels, found.conversions.estimate.tolist(), strict=True))


@pytest.fixture(scope="module")
def journeys():
    """mta, tests/conftest.py: a small dataset whose total conversion credit is easy to verify."""
    return PathCounts.of(["direct", "search > email", "search > social > email"], conversions=[2, 3, 5], nulls=[1, 2, 4])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("first", {"direct": 2, "search": 8, "email": 0, "social": 0}),
        ("last", {"direct": 2, "email": 8, "search": 0, "social": 0}),
        ("linear", {"direct": 2, "search": 19 / 6, "email": 19 / 6, "social": 5 / 3}),
        ("position", {"direct": 2, "search": 3.5, "email": 3.5, "social": 1}),
    ],
)
def test_heuristics_of_mta(journeys, model, expected):
    """mta (eeghor/mta), tests/test_heuristic_models.py: exact allocations of first, last, linear and position-based touch."""
    assert credit(journeys, model) == pytest.approx(expected)


def test_linear_credit_of_mta_counts_repeated_touches():
    """mta, test_linear_proportional_counts_repeated_touches."""
    assert credit(PathCounts.of(["a > a > b"], conversions=[6]), "linear") == pytest.approx({"a": 4, "b": 2})


@pytest.mark.parametrize(("ends", "expected"), [((0.4, 0.4), {"x": 5, "y": 5}), ((0.3, 0.7), {"x": 3, "y": 7})])
def test_position_of_mta_on_two_touches(ends, expected):
    """mta, test_position_based_len2_respects_weights: the two ends share by their ratio."""
    assert credit(PathCounts.of(["x > y"], conversions=[10]), "position", ends=ends) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("paths", "conversions", "expected"),
    [
        (["a"], [5], {"a": 5}),
        (["a > b > c > d"], [10], {"a": 2.5, "b": 2.5, "c": 2.5, "d": 2.5}),
        (["a", "a > b"], [4, 6], {"a": 7, "b": 3}),
    ],
)
def test_shapley_of_mta(paths, conversions, expected):
    """mta, tests/test_shapley.py: the game of conversions inside a coalition, as ours."""
    assert credit(PathCounts.of(paths, conversions=conversions), "shapley") == pytest.approx(expected)


def test_the_transition_matrix_of_mta():
    """mta, test_transition_matrix_contains_expected_probabilities: from its matrix the removal effects follow by hand.

    P(conversion) = 2/3 * 3/4 + 1/3 * 1/2 = 2/3; without b the first part is lost, without c the second, without a all.
    """
    counts = PathCounts.of(["a > b", "a > c"], conversions=[3, 1], nulls=[1, 1])
    found = attribute_paths(counts, "markov", replicates=20)
    assert found.conversion_rate == pytest.approx(2 / 3)
    assert found.removal_effect.estimate == pytest.approx([1, 3 / 4, 1 / 4])
    assert found.conversions.estimate == pytest.approx([2, 1.5, 0.5])


QUICK_START = [
    ("Email > Social", 1),
    ("Search > Email", 1),
    ("Social", 1),
    ("Email > Search", 0),
    ("Search > Social > Email", 1),
    ("Direct", 1),
    ("Email > Social", 0),
    ("Search > Email > Social", 1),
    ("Social > Email", 1),
    ("Search", 0),
]


def test_the_quick_start_of_do_attribution():
    """do-attribution 0.0.2, README: shares, removal effects and P(conversion) of ten journeys, to the digits printed there."""
    counts = PathCounts.of([p for p, _ in QUICK_START], conversions=[w for _, w in QUICK_START], nulls=[1 - w for _, w in QUICK_START])
    found = attribute_paths(counts, "markov", replicates=20)
    assert found.channels.tolist() == ["Direct", "Email", "Search", "Social"]
    assert found.conversions.estimate / 7 == pytest.approx([0.085, 0.3912, 0.1913, 0.3324], abs=5e-5)
    assert found.removal_effect.estimate[[1, 3]] == pytest.approx([0.6571, 0.5584], abs=5e-5)
    assert found.conversion_rate == pytest.approx(0.7)


def test_the_shapley_values_of_do_attribution_are_those_of_another_game():
    """do-attribution 0.0.2, README: v(S) counts journeys whose channels are *exactly* S; the same values, from that game, by ours.

    The game gives nothing to the coalition of all, so its values sum to 0 and no credit can be made of them; ours, of conversions
    inside S, shares all seven.
    """
    names = ["Direct", "Email", "Search", "Social"]
    game = np.zeros(16)
    for path, won in QUICK_START:
        game[sum(1 << names.index(c) for c in set(path.split(" > ")))] += won
    assert shapley_values(game) == pytest.approx([-0.5833, 0.25, -0.0833, 0.4167], abs=5e-5)
    ours = credit(PathCounts.of([p for p, _ in QUICK_START], conversions=[w for _, w in QUICK_START]), "shapley")
    assert sum(ours.values()) == 7
    assert min(ours.values()) >= 1 - 1e-12


def test_the_read_me_of_pychattr():
    """pychattr, README: walks sampled 10,000 times give A 1.991 and B 1.009 of three conversions; exactly they are 2 and 1."""
    counts = PathCounts.of(["A > B > A > B > B > A", "A > B > B > A > A", "A > A"], conversions=[1, 1, 1]).collapsed()
    assert credit(counts, "markov") == pytest.approx({"A": 2, "B": 1})
    assert credit(counts, "markov") == pytest.approx({"A": 1.991106, "B": 1.008894}, abs=0.02)
