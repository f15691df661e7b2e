"""What plans promise holds in the simulator's markets, where every credited conversion is caused (long: only in the full run)."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from closedloop.decide import BudgetDecider
from closedloop.records.decision import Constraints

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(not os.environ.get("CLOSEDLOOP_FULL"), reason="minutes of daily cycles: set CLOSEDLOOP_FULL=1")


@pytest.fixture(scope="module")
def plans():
    """The benchmark's module, which knows the markets."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_plans", BENCHMARKS / "plans.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def test_true_gains_lie_inside_the_stated_intervals(plans):
    """Of accounts that differ in how saturated they are, weekly over a month: nine plans in ten, within three standard errors."""
    decider, shares = BudgetDecider(Constraints(gate="evidence", max_step=0.2), looks=()), []
    for seed in range(100, 124):
        inside = []

        def see(day, plan, account, before, after, position, inside=inside):
            if (day - plans.WARM_UP) % 7 == 0 and plan.decisions:
                inside.append((account.truth(after) - account.truth(before)).sum() in plan.gain)

        plans.play(plans.Account(plans.scenario("healthy", seed, "mixed"), seed), decider, 29, see)
        shares += [np.mean(inside)] if inside else []
    assert len(shares) > 20
    assert np.mean(shares) == pytest.approx(0.9, abs=max(0.02, 3.0 * np.std(shares) / len(shares) ** 0.5))


def test_identical_arms_cost_nothing_and_nothing_is_certain(plans):
    """56 daily cycles where no arm is better: under 1 % against holding still, and no move called certain."""
    decider = BudgetDecider(Constraints(gate="evidence", max_step=0.2), looks=())
    runs = [plans.play(plans.Account(plans.scenario("identical", s), s), decider, 56) for s in range(200, 206)]
    assert np.mean([won for won, _, _ in runs]) > -0.01
    assert sum(certain > 0 for _, _, certain in runs) <= 1
