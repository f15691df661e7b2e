"""What deciding costs: ratios of medians, printed. Run this file; nothing here asserts a time.

1. 100,000 arms under one budget with floors, ceilings and steps: in evaluations of the bare vectorised objective.
2. 300 arms: against scipy's SLSQP with the exact gradient, at the same optimum.
3. 1,000 joint draws x 10,000 arms for the gain interval: peak memory of this process.
4. A whole plan (10,000 arms).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from closedloop.decide import BudgetDecider
from closedloop.decide.evidence import draw, summary
from closedloop.records.arms import Arms
from closedloop.records.decision import Constraints
from closedloop.records.interval import Intervals
from closedloop.records.outcomes import Cohorts, Outcomes, SpendDays
from closedloop.records.signal import GammaMixture, Signals
from closedloop.records.window import AttributionWindow
from closedloop.stats.concave import Curves
from closedloop.stats.response import Response, ResponsePrior
from closedloop.stats.waterfill import fill

DAY_US = 86_400_000_000


def median_time(work: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def problem(arms: int, seed: int = 0) -> tuple[Curves, np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng(seed)
    now = rng.lognormal(3, 1, arms)
    response = Response.from_prior(ResponsePrior(), now)
    curves = response.curves(now * rng.lognormal(-3, 0.5, arms))
    low = np.maximum(0.8 * now, rng.uniform(0, 2, arms).clip(max=1.1 * now))
    high = np.maximum(np.minimum(1.2 * now, rng.lognormal(6, 1, arms)), low)
    return curves, low, high, float(np.clip(now.sum(), low.sum() * 1.001, high.sum() * 0.999))


def many_arms(repeats: int) -> None:
    for arms in (10_000, 100_000):
        curves, low, high, total = problem(arms)
        objective = median_time(lambda c=curves, s=0.5 * (low + high): c.value(s), repeats * 3)
        allocation = median_time(lambda c=curves, a=low, b=high, t=total: fill(c, a, b, t), repeats)
        found = fill(curves, low, high, total)
        marginal = curves.marginal(found.spend)
        inside = (found.spend > low * (1 + 1e-9)) & (found.spend < high * (1 - 1e-9))
        spread = float(np.abs(marginal[inside] / found.price - 1).max())
        print(
            f"{arms:>7,} arms: allocation = {allocation / objective:5.1f} evaluations of the objective ({allocation * 1e3:.0f} ms), "
            f"{found.evaluations} Newton rounds, marginal values equal to {spread:.0e}, sum to {abs(found.spend.sum() - total) / total:.0e}"
        )


def against_slsqp(repeats: int) -> None:
    from scipy.optimize import minimize

    curves, low, high, total = problem(300)
    size = curves.value(0.5 * (low + high)).sum()
    width = high - low
    share = (total - low.sum()) / width.sum()

    def slsqp() -> Any:
        return minimize(
            lambda u: -curves.value(low + u * width).sum() / size,
            np.full(300, share),
            jac=lambda u: -curves.marginal(low + u * width) * width / size,
            bounds=[(0.0, 1.0)] * 300,
            constraints=[{"type": "eq", "fun": lambda u: (u @ width + low.sum()) / total - 1.0, "jac": lambda u: width / total}],
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-12},
        )

    begin = time.perf_counter()
    peer = slsqp()
    took = time.perf_counter() - begin
    mine = fill(curves, low, high, total)
    ratio = took / median_time(lambda: fill(curves, low, high, total), repeats * 5)
    gap = curves.value(mine.spend).sum() / curves.value(low + np.clip(peer.x, 0, 1) * width).sum() - 1
    print(f"    300 arms: {ratio:,.0f}x faster than scipy SLSQP (exact gradient, {peer.nit} iterations); value over SLSQP's {gap:+.1e}")


def signals_of(arms: int, seed: int = 0) -> Signals:
    """Signals without cohorts (the curves stay at their prior)."""
    rng = np.random.default_rng(seed)
    table = Arms.of(("platform", "campaign"), [("p", f"c{i:06d}") for i in range(arms)])
    conversions, spend = rng.gamma(2.0, 10.0, arms), rng.gamma(2.0, 50.0, arms) + 1.0
    ones, none = np.ones(arms), np.empty(0)
    i32 = np.empty(0, dtype=np.int32)
    flat = Intervals(low=ones, estimate=ones, high=ones, level=0.9, kind="credible")
    window = AttributionWindow(click="7d", view=None)
    cohorts = Cohorts(
        arm=i32, day=i32, kind=np.empty(0, dtype=np.int8), exposures=none, credit=none, credit_squared=none, value=none,
        value_squared=none, maturity=none, age=i32,
    )  # fmt: skip
    outcomes = Outcomes(
        window=window, arms=table, cohorts=cohorts, spend=SpendDays(arm=i32, day=i32, spend=none), delay={}, credits=flat,
        conversion_type=None, model="last", currency="EUR", watermark={"p": 20_000 * DAY_US}, revision=0, n_conversions=0, n_uncredited=0,
    )  # fmt: skip
    posterior = GammaMixture(shape=(conversions * 28)[:, None], rate=np.full((arms, 1), 2800.0), weight=np.ones((arms, 1)))
    return Signals(
        window=window, arms=table, order=np.arange(arms), rate=flat, cost_per_conversion=flat, roas=None, posteriors={"click": posterior},
        exposures_per_day={"click": np.full(arms, 100.0)}, spend_per_day=spend, value_per_conversion=ones, p_best=ones / arms,
        expected_loss=0 * ones, effective_volume=conversions * 28, weekly_conversions=conversions * 7, evidence_age=14 * ones,
        dispersion=ones, maturity=ones, borrowed_share=0 * ones, tagged_share=ones, classifier="benchmark", outcomes=outcomes,
        now_us=20_000 * DAY_US,
    )  # fmt: skip


def gain_interval() -> None:
    """Runs in a process of its own, so that the peak is this work's alone."""
    arms, draws = 10_000, 1_000
    signals = signals_of(arms)
    response = Response.from_prior(ResponsePrior(), signals.spend_per_day)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    joint = draw(signals, np.arange(arms), np.ones(arms), response, np.random.default_rng(0), draws)
    rng = np.random.default_rng(1)
    after = signals.spend_per_day * rng.uniform(0.8, 1.2, arms)
    gain = joint.gain(np.arange(arms), signals.spend_per_day, after)
    each = np.quantile(gain, [0.05, 0.5, 0.95], axis=0)
    whole, chance, _ = summary(gain.sum(axis=1, dtype=float), 0.9)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f" 10,000 arms x 1,000 joint draws: peak {peak:,.0f} MB (of which {base:,.0f} MB before), {time.perf_counter() - start:.1f} s, "
        f"plan {whole!r}, P {chance:.2f}, {each.shape[1]:,} intervals of single arms"
    )


def whole_plan(repeats: int) -> None:
    for arms in (300, 10_000):
        signals = signals_of(arms)
        for looks in ((), (1.0, 3.0)):
            decider = BudgetDecider(Constraints(minimum_volume=30), draws=1000, looks=looks, scenarios=8)
            took = median_time(lambda d=decider, s=signals: d.decide(s), repeats)
            plan = decider.decide(signals)
            words = "with act-now-or-wait" if looks else "without it"
            print(f"{arms:>7,} arms, a whole plan {words}: {took:.2f} s, {len(plan.decisions):,} moves, {len(plan.holds):,} holds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", choices=["gain"], default=None)
    chosen = parser.parse_args()
    if chosen.only == "gain":
        gain_interval()
        return
    many_arms(chosen.repeats)
    against_slsqp(chosen.repeats)
    subprocess.run([sys.executable, __file__, "--only", "gain"], check=True)
    whole_plan(max(1, chosen.repeats // 3))


if __name__ == "__main__":
    main()
