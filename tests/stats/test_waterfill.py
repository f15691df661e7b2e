"""Water-filling against scipy's solvers and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from closedloop.errors import InfeasibleError, InvariantError
from closedloop.stats.concave import Curves
from closedloop.stats.waterfill import Group, fill

pytestmark = pytest.mark.filterwarnings("ignore:Values in x were outside bounds:RuntimeWarning")  # older SLSQP says so of its own steps


def random_curves(rng, arms, parts):
    kind = rng.integers(0, 3, (arms, 1))
    shift = np.where(kind == 0, 0.0, rng.lognormal(3, 1, (arms, parts)))
    power = np.where(kind == 0, rng.uniform(0.05, 0.9, (arms, parts)), np.where(kind == 1, 1.0, 2.0))
    scale = rng.lognormal(0, 1, (arms, parts)) * np.where(kind == 2, 1e3, np.where(kind == 1, 50, 1))
    return Curves(scale=scale, shift=shift, power=power)


def slsqp(curves, low, high, total, groups=()):
    """The same problem for scipy, scaled so that its objective is near one."""
    size = abs(curves.value(0.5 * (low + high) + 1e-9).sum())
    start = low + (total - low.sum()) / (high - low).sum() * (high - low)
    rules = [{"type": "eq", "fun": lambda s: s.sum() - total, "jac": lambda s: np.ones(len(low))}]
    for g in groups:
        mask = np.zeros(len(low))
        mask[g.members] = 1.0
        rules.append({"type": "ineq", "fun": lambda s, m=mask, g=g: m @ s - g.low, "jac": lambda s, m=mask: m})
        if np.isfinite(g.high):
            rules.append({"type": "ineq", "fun": lambda s, m=mask, g=g: g.high - m @ s, "jac": lambda s, m=mask: -m})
    return minimize(
        lambda s: -curves.value(np.maximum(s, 1e-12)).sum() / size,
        start,
        jac=lambda s: -curves.marginal(np.maximum(s, 1e-12)) / size,
        bounds=list(zip(low, high, strict=True)),
        constraints=rules,
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-15},
    )


@pytest.mark.parametrize("seed", range(30))
def test_no_worse_than_slsqp(seed):
    """On random problems the value is SLSQP's to 1e-6 or better, inside every end, and the sum is exact."""
    rng = np.random.default_rng(seed)
    arms, parts = int(rng.integers(2, 12)), int(rng.integers(1, 5))
    curves = random_curves(rng, arms, parts)
    low = rng.uniform(0, 5, arms) * (rng.random(arms) < 0.7)
    high = low + rng.lognormal(3, 1, arms)
    total = rng.uniform(low.sum(), high.sum())
    found = fill(curves, low, high, total)
    assert found.spend.sum() == pytest.approx(total, rel=1e-12)
    assert np.all((found.spend >= low) & (found.spend <= high))
    peer = slsqp(curves, low, high, total)
    best = curves.value(np.clip(peer.x, low, high)).sum()
    assert curves.value(found.spend).sum() >= best * (1 - 1e-6) - 1e-9


def test_agrees_with_trust_constr():
    """An interior-point method that shares no code with SLSQP finds the same quantities."""
    rng = np.random.default_rng(5)
    curves = Curves.power_law(level=rng.lognormal(0, 1, 6), at=np.full(6, 10.0), exponent=rng.uniform(0.3, 0.8, (6, 3)))
    low, high = np.full(6, 1.0), np.full(6, 30.0)
    peer = minimize(
        lambda s: -curves.value(s).sum(),
        np.full(6, 10.0),
        jac=lambda s: -curves.marginal(s),
        bounds=list(zip(low, high, strict=True)),
        constraints=[LinearConstraint(np.ones(6), 60.0, 60.0)],
        method="trust-constr",
        options={"gtol": 1e-12, "xtol": 1e-14, "barrier_tol": 1e-12, "maxiter": 5000},
    )
    np.testing.assert_allclose(fill(curves, low, high, 60.0).spend, peer.x, rtol=2e-4)
    assert curves.value(fill(curves, low, high, 60.0).spend).sum() >= -peer.fun * (1 - 1e-6)


def test_closed_form_of_equal_exponents():
    """For ``k_a s^b`` without ends the shares are proportional to ``k_a^(1 / (1 - b))``."""
    k, b = np.array([1.0, 2.0, 5.0]), 0.4
    curves = Curves.power_law(level=k, at=np.ones(3), exponent=np.full((3, 1), b))
    share = k ** (1 / (1 - b))
    found = fill(curves, np.zeros(3), np.full(3, 1e6), 100.0)
    np.testing.assert_allclose(found.spend, 100 * share / share.sum(), rtol=1e-9)
    assert found.price == pytest.approx(b * k[0] * found.spend[0] ** (b - 1), rel=1e-9)


def test_straight_arms_are_filled_greedily():
    """Without diminishing returns the best arm is filled first, the next takes the rest."""
    curves = Curves(scale=np.array([[3.0], [2.0], [1.0]]), shift=np.zeros((3, 1)), power=np.zeros((3, 1)))
    np.testing.assert_allclose(fill(curves, np.zeros(3), np.full(3, 10.0), 14.0).spend, [10, 4, 0], atol=1e-6)


def test_worthless_arms_get_what_nobody_else_can_take():
    """An arm worth nothing keeps its floor until the others are full."""
    curves = Curves.power_law(level=np.array([1.0, 0.0]), at=np.ones(2), exponent=np.full((2, 1), 0.5))
    np.testing.assert_allclose(fill(curves, np.array([0.0, 2.0]), np.array([10.0, 50.0]), 8.0).spend, [6, 2])
    np.testing.assert_allclose(fill(curves, np.array([0.0, 2.0]), np.array([10.0, 50.0]), 20.0).spend, [10, 10])


@pytest.mark.parametrize("seed", range(20))
def test_groups_no_worse_than_slsqp(seed):
    """With nested groups too."""
    rng = np.random.default_rng(100 + seed)
    curves = random_curves(rng, 9, 3)
    low, high = rng.uniform(0, 2, 9), rng.uniform(10, 40, 9)
    groups = []
    for members, name in ((np.arange(3), "a"), (np.arange(3, 6), "b"), (np.arange(6), "ab")):
        room = np.sort(rng.uniform(low[members].sum(), high[members].sum(), 2))
        groups.append(Group(members=members, low=room[0] * (rng.random() < 0.5), high=room[1], name=name))
    inner_low = max(groups[0].low, low[:3].sum()) + max(groups[1].low, low[3:6].sum())
    inner_high = min(groups[0].high, high[:3].sum()) + min(groups[1].high, high[3:6].sum())
    if max(groups[2].low, inner_low) > min(groups[2].high, inner_high):
        with pytest.raises(InfeasibleError):
            fill(curves, low, high, 0.5 * (low.sum() + high.sum()), groups)
        return
    least = max(groups[2].low, inner_low, low[:6].sum()) + low[6:].sum()
    most = min(groups[2].high, inner_high) + high[6:].sum()
    total = rng.uniform(least, most)
    found = fill(curves, low, high, total, groups)
    assert found.spend.sum() == pytest.approx(total, rel=1e-9)
    for g in groups:
        assert g.low - 1e-6 <= found.spend[g.members].sum() <= g.high + 1e-6
    peer = slsqp(curves, low, high, total, groups)
    if peer.success:
        assert curves.value(found.spend).sum() >= curves.value(np.clip(peer.x, low, high)).sum() * (1 - 1e-6)


def test_many_arms_meet_the_optimality_conditions():
    """At 20,000 arms: the marginal value is the price inside, above it at a ceiling, below it at a floor."""
    rng = np.random.default_rng(3)
    curves = random_curves(rng, 20_000, 4)
    low = rng.uniform(0, 5, 20_000)
    high = low + rng.lognormal(3, 1, 20_000)
    found = fill(curves, low, high, 0.5 * (low.sum() + high.sum()))
    marginal = curves.marginal(found.spend)
    inside = (found.spend > low * (1 + 1e-9)) & (found.spend < high * (1 - 1e-9))
    np.testing.assert_allclose(marginal[inside], found.price, rtol=1e-6)
    assert np.all(marginal[found.spend >= high] >= found.price * (1 - 1e-6))
    assert np.all(marginal[found.spend <= low] <= found.price * (1 + 1e-6))


def test_conflicts_are_named():
    """What cannot be met is an error that says so."""
    curves = Curves.power_law(level=np.ones(3), at=np.ones(3), exponent=np.full((3, 1), 0.5))
    with pytest.raises(InfeasibleError, match="total"):
        fill(curves, np.ones(3), np.full(3, 2.0), 10.0)
    with pytest.raises(InfeasibleError, match="search cannot reach its floor"):
        fill(curves, np.ones(3), np.full(3, 2.0), 5.0, [Group(members=np.array([0, 1]), low=5.0, name="search")])
    with pytest.raises(InvariantError, match="cross"):
        fill(curves, np.ones(3), np.full(3, 2.0), 5.0, [Group(members=np.array([0, 1])), Group(members=np.array([1, 2]))])


def test_ends_that_contradict_each_other_are_refused():
    """A floor above its ceiling, a negative floor and an open ceiling."""
    curves = Curves.power_law(level=np.ones(2), at=np.ones(2), exponent=np.full((2, 1), 0.5))
    for low, high in (([0, 3], [2, 2]), ([-1, 0], [2, 2]), ([0, 0], [2, np.inf])):
        with pytest.raises(InfeasibleError, match="ends of the arms"):
            fill(curves, np.array(low, dtype=float), np.array(high, dtype=float), 2.0)


def test_no_arms_take_nothing():
    """Without arms only a total of zero can be met."""
    none = Curves(scale=np.empty((0, 1)), shift=np.empty((0, 1)), power=np.empty((0, 1)))
    assert len(fill(none, np.empty(0), np.empty(0), 0.0).spend) == 0
    with pytest.raises(InfeasibleError, match="total of 1"):
        fill(none, np.empty(0), np.empty(0), 1.0)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_cut_short_it_still_keeps_every_end_and_the_total(rounds):
    """Whatever the number of rounds, the sum is exact and the ends hold; more rounds are worth no less."""
    rng = np.random.default_rng(rounds)
    curves = random_curves(rng, 8, 3)
    low, high = rng.uniform(0, 2, 8), rng.uniform(10, 40, 8)
    short, whole = fill(curves, low, high, 100.0, rounds=rounds), fill(curves, low, high, 100.0)
    assert short.evaluations <= rounds < whole.evaluations
    assert short.spend.sum() == pytest.approx(100.0, rel=1e-12)
    assert np.all((short.spend >= low) & (short.spend <= high))
    assert curves.value(short.spend).sum() <= curves.value(whole.spend).sum() * (1 + 1e-12)


@pytest.mark.parametrize("seed", [0, 1, 7, 8, 10, 14, 21, 54])
def test_groups_inside_a_stopped_group_are_solved_on_their_own(seed):
    """Where a group of groups is at its end and one inside it too the search ends, is worth what SLSQP finds; most of these never ended."""
    rng = np.random.default_rng(seed)
    arms, parts = int(rng.integers(2, 12)), int(rng.integers(1, 5))
    rng.uniform(0, 1, arms), random_curves(rng, arms, parts)
    curves = random_curves(rng, 9, 3)
    low, high = rng.uniform(0, 2, 9), rng.uniform(10, 40, 9)
    groups = [
        Group(members=np.arange(3), low=10.0, high=30.0, name="a"),
        Group(members=np.arange(3, 6), high=25.0, name="b"),
        Group(members=np.arange(6), low=20.0, high=50.0, name="ab"),
    ]
    found = fill(curves, low, high, 90.0, groups)
    assert found.spend.sum() == pytest.approx(90.0, rel=1e-9)
    for g in groups:
        assert g.low - 1e-6 <= found.spend[g.members].sum() <= g.high + 1e-6
    peer = slsqp(curves, low, high, 90.0, groups)
    assert curves.value(found.spend).sum() >= curves.value(np.clip(peer.x, low, high)).sum() * (1 - 1e-6)


def test_a_handful_of_evaluations_is_enough():
    """What is promised: on random problems at most 8 evaluations of all curves, 4 on average; with nested groups some hundreds."""
    used, nested = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        curves = random_curves(rng, 9, 3)
        low, high = rng.uniform(0, 2, 9), rng.uniform(10, 40, 9)
        used.append(fill(curves, low, high, 0.5 * (low.sum() + high.sum())).evaluations)
        groups = [Group(members=np.arange(3), high=30.0, name="a"), Group(members=np.arange(6), low=20.0, high=60.0, name="ab")]
        nested.append(fill(curves, low, high, low.sum() + 0.4 * (high - low).sum(), groups).evaluations)
    assert max(used) <= 8
    assert np.mean(used) <= 5
    assert max(nested) <= 250
    assert np.mean(nested) <= 160


@pytest.mark.parametrize("price", [0.3, 1.0, 4.0])
def test_a_straight_arm_beside_curved_ones_takes_what_they_leave(price):
    """Where ``k b s^(b - 1)`` and ``k / (s + h)`` meet the straight arm's slope they stop, in closed form; the rest is its own."""
    curves = Curves(
        scale=np.array([[price], [2.0], [30.0]]), shift=np.array([[0.0], [0.0], [5.0]]), power=np.array([[0.0], [0.5], [1.0]])
    )  # fmt: skip
    curved = np.array([(2.0 / price) ** 2, 30.0 / price - 5.0])
    for rest in (0.5, 20.0, 70.0):
        found = fill(curves, np.zeros(3), np.full(3, 200.0), curved.sum() + rest)
        np.testing.assert_allclose(found.spend, [rest, *curved], rtol=1e-6)
        assert found.price == pytest.approx(price, rel=1e-6)


def test_a_group_may_be_held_to_just_what_its_arms_need_or_allow():
    """A ceiling equal to the sum of the floors and a floor equal to the sum of the ends are met, not refused; a little beyond is."""
    curves = Curves.power_law(level=np.ones(4), at=np.ones(4), exponent=np.full((4, 1), 0.5))
    low, high = np.full(4, 1.0), np.full(4, 10.0)
    pair = np.array([0, 1])
    np.testing.assert_allclose(fill(curves, low, high, 12.0, [Group(members=pair, high=2.0)]).spend, [1, 1, 5, 5], rtol=1e-9)
    np.testing.assert_allclose(fill(curves, low, high, 24.0, [Group(members=pair, low=20.0)]).spend, [10, 10, 2, 2], rtol=1e-9)
    for total, wrong, named in ((12.0, Group(members=pair, high=1.9999), "ceiling"), (24.0, Group(members=pair, low=20.0001), "floor")):
        with pytest.raises(InfeasibleError, match=named):
            fill(curves, low, high, total, [wrong])
