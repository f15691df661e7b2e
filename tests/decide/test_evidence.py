"""Draws and what is taken from them: blocks change nothing, a doubt has mean one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import chi2

from closedloop.decide import evidence
from closedloop.decide.evidence import chance_of_alike, draw, draw_for, helps, intervals, summary
from closedloop.stats.response import HILL, LOG, POWER, Response


def three():
    return Response(
        shape=np.array([POWER, LOG, HILL]), location=np.array([0.6, 0.3, 0.6]), scale=np.full(3, 0.5), common=np.full(3, 0.3),
        at=np.array([100.0, 100.0, 100.0]), prior_share=np.ones(3),
    )  # fmt: skip


def test_a_summary_is_the_mean_of_losses_and_the_share_of_gains():
    """Zero is neither gained nor lost; without a loss the shortfall is none."""
    interval, chance, shortfall = summary(np.array([-3.0, -1.0, 0.0, 5.0]), 0.5)
    assert (chance, shortfall) == (0.25, 2.0)
    assert [interval.low, interval.estimate, interval.high] == pytest.approx(np.quantile([-3, -1, 0, 5], [0.25, 0.5, 0.75]))
    assert summary(np.array([0.0, 1.0]), 0.5)[1:] == (0.5, 0.0)


def test_blocks_change_nothing(signals_of, monkeypatch):
    """Gains and intervals in small blocks are those at once: level times the change of the curve, draw by draw."""
    signals, response = signals_of([10, 20, 30], [100, 100, 100]), three()
    joint = draw(signals, np.arange(3), np.ones(3), response, np.random.default_rng(1), 500)
    before, after = np.array([100.0, 90.0]), np.array([120.0, 100.0])
    for arms in (np.array([0, 2]), np.array([2, 1])):
        whole = joint.gain(arms, before, after)
        part = response.take(arms)
        np.testing.assert_allclose(whole, joint.level[:, arms] * part.change(before, after, joint.theta[:, arms]), rtol=1e-5)
        monkeypatch.setattr(evidence, "_BLOCK", 7)
        np.testing.assert_array_equal(joint.gain(arms, before, after), whole)
        assert intervals(whole, 0.9) == [summary(whole[:, j], 0.9)[0] for j in range(2)]
        monkeypatch.undo()
    assert len(joint.first(20).level) == len(joint.first(20).theta) == 20
    assert joint.first(500) is joint


def test_levels_are_conversions_times_value_times_a_doubt_of_mean_one(signals_of):
    """Means are conversions a day times what each is worth; a doubt of 0.5 widens the log by 0.5 and leaves the mean."""
    signals, value = signals_of([10, 20, 30], [100, 100, 100], days=2800), np.array([1.0, 2.0, 0.5])
    sure = draw(signals, np.arange(3), value, three(), np.random.default_rng(2), 40_000)
    np.testing.assert_allclose(sure.level.mean(axis=0), [10, 40, 15], rtol=2e-3)
    unsure = draw(signals, np.arange(3), value, three(), np.random.default_rng(2), 40_000, np.array([0.5, 0.0, 0.5]))
    np.testing.assert_allclose(unsure.level.mean(axis=0), [10, 40, 15], rtol=2e-2)
    np.testing.assert_allclose(np.log(unsure.level).std(axis=0), np.hypot([0.5, 0.0, 0.5], np.log(sure.level).std(axis=0)), rtol=2e-2)
    np.testing.assert_allclose(unsure.theta.mean(axis=0), [0.6, 0.3, 0.6], atol=0.02)


@pytest.mark.parametrize(
    ("move", "price"), [([3, -1, -2, 2], 0.4), ([5, -1, -2, 2], 0.4), ([1, -4, -2, 2], 0.4), ([1, 2, 3, 4], 0.4), ([-1, -2, -3, -4], 0.4)]
)
def test_a_move_helps_where_it_beats_the_other_side_of_the_plan(move, price):
    """Counted by draw: a rise against what cuts lose per unit, a cut against what rises win; new or saved money at its price."""
    rng = np.random.default_rng(6)
    move = np.array(move, dtype=float)
    gain = (move * price * rng.lognormal(0, 0.5, (4000, 4))).astype(np.float32)
    taken, given = move[move > 0].sum(), -move[move < 0].sum()
    counts = np.zeros(4)
    for g in gain.astype(float):
        lost = -g[move < 0].sum() + price * max(0.0, taken - given)
        won = g[move > 0].sum() + price * max(0.0, given - taken)
        for j in range(4):
            counts[j] += g[j] > (lost if move[j] > 0 else won) / max(taken, given) * move[j]
    np.testing.assert_allclose(helps(gain, move, price), counts / 4000, atol=1e-3)


def test_thousands_of_moves_are_judged_as_one_block():
    """Two copies of the same 700 moves have the same probabilities, whichever block they fall in."""
    rng = np.random.default_rng(7)
    move = rng.choice([-1.0, 1.0], 700)
    gain = (move * rng.lognormal(0, 0.5, (300, 700))).astype(np.float32)
    found = helps(np.tile(gain, 2), np.tile(move, 2), 0.9)
    np.testing.assert_array_equal(found[:700], found[700:])


def test_alike_is_cochrans_test():
    """With known curves the weight of each log return is its count: the p-value is that of scipy's chi-square."""
    count, value, elasticity = np.array([50.0, 80.0, 0.0, 40.0]), np.array([1.0, 1.3, 1.0, 0.8]), 0.6
    response = Response(
        shape=np.full(4, POWER), location=np.full(4, np.log(0.6 / 0.4)), scale=np.full(4, 1e-9), common=np.zeros(4), at=np.full(4, 100.0),
        prior_share=np.ones(4),
    )  # fmt: skip
    p = SimpleNamespace(
        signals=SimpleNamespace(effective_volume=count), response=response, curves=response.curves(value), doubt=np.full(4, 0.1),
        limits=SimpleNamespace(now=np.full(4, 100.0)),
    )  # fmt: skip
    free = np.array([True, True, True, True])
    seen, weight = np.log(value * elasticity / 100)[[0, 1, 3]], 1 / (1 / count[[0, 1, 3]] + 0.01)
    q = (weight * (seen - (weight * seen).sum() / weight.sum()) ** 2).sum()
    assert chance_of_alike(p, free) == pytest.approx(chi2.sf(q, 2), rel=1e-3)
    assert chance_of_alike(p, np.array([True, False, True, False])) == 0.0
    two = chance_of_alike(p, np.array([True, True, False, False]))
    assert two == pytest.approx(chi2.sf(np.diff(seen[:2])[0] ** 2 / (1 / weight[:2]).sum(), 1), rel=1e-3)


def test_alike_allows_for_what_each_curve_was_learned_from():
    """Half of a curve's own spread, learned from its own data, adds its variance times the squared slope of the log elasticity."""
    count, value = np.array([500.0, 800.0, 400.0]), np.array([1.0, 1.2, 0.9])
    response = Response(
        shape=np.full(3, POWER), location=np.full(3, np.log(0.6 / 0.4)), scale=np.full(3, 0.5), common=np.full(3, 0.3),
        at=np.full(3, 100.0), prior_share=np.full(3, 0.5),
    )  # fmt: skip
    p = SimpleNamespace(
        signals=SimpleNamespace(effective_volume=count), response=response, curves=response.curves(value), doubt=np.zeros(3),
        limits=SimpleNamespace(now=np.full(3, 100.0)),
    )  # fmt: skip
    own = (0.5**2 - 0.3**2) * 0.5 * (1 - 0.6) ** 2  # of log expit(theta) the slope is 1 - expit(theta)
    seen, weight = np.log(value), 1 / (1 / count + own)
    q = (weight * (seen - (weight * seen).sum() / weight.sum()) ** 2).sum()
    assert chance_of_alike(p, np.ones(3, dtype=bool)) == pytest.approx(chi2.sf(q, 2), rel=1e-3)


def test_draws_of_a_problem_are_those_of_its_arms(signals_of):
    """In any order of arms: conversions times value, over what the recent days brought of it, with each arm's own doubt."""
    signals = signals_of([10, 20, 30], [100, 100, 100], days=28_000)
    p = SimpleNamespace(
        signals=signals,
        value=np.array([1.0, 2.0, 3.0]),
        uneven=np.array([1.0, 0.5, 0.8]),
        response=three(),
        doubt=np.array([0.3, 0.1, 0.0]),
    )
    found = draw_for(p, np.array([2, 0, 1]), np.random.default_rng(4), 20_000)
    np.testing.assert_allclose(found.level.mean(axis=0), [30 * 3 / 0.8, 10, 20 * 2 / 0.5], rtol=0.02)
    np.testing.assert_allclose(np.log(found.level).std(axis=0), [0.0, 0.3, 0.1], atol=0.005)
    assert found.response.shape.tolist() == [HILL, POWER, LOG]
