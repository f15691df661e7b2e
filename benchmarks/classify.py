"""How long classification takes beside the bare array calls for means and two quantiles, and beside MABWiser.

Run: python benchmarks/classify.py [arms]. Ratios of medians of CPU seconds in one process; nothing is asserted.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy import special

from closedloop.classify import BayesClassifier
from closedloop.classify.state import RateState
from closedloop.records.arms import Arms
from closedloop.records.interval import Intervals
from closedloop.records.moments import US_PER_DAY
from closedloop.records.outcomes import Cohorts, Outcomes, SpendDays
from closedloop.records.window import AttributionWindow

WINDOW = AttributionWindow(click="7d", view="1d")
DAYS, FIRST = 30, 20_000


def outcomes(arms: int, seed: int = 0) -> Outcomes:
    rng = np.random.default_rng(seed)
    rate = rng.gamma(3.0, 0.02 / 3.0, arms)
    exposures = rng.poisson(np.exp(rng.normal(2.5, 1.0, arms))[:, None], (arms, DAYS)).astype(float)
    credit = rng.poisson(rate[:, None] * exposures).astype(float).ravel()
    arm, day = np.repeat(np.arange(arms, dtype=np.int32), DAYS), np.tile(np.arange(FIRST, FIRST + DAYS, dtype=np.int32), arms)
    n = len(arm)
    total = np.bincount(arm, credit)
    width = len(str(arms))
    codes = np.stack([np.arange(arms) % 4, np.arange(arms)], axis=1).astype(np.int32)
    vocabs = (np.array(["a", "b", "c", "d"], dtype=object), np.array([f"{i:0{width}d}" for i in range(arms)], dtype=object))
    return Outcomes(
        window=WINDOW,
        arms=Arms(columns=("platform", "campaign"), codes=codes, vocabs=vocabs),
        cohorts=Cohorts(
            arm=arm,
            day=day,
            kind=np.zeros(n, np.int8),
            exposures=exposures.ravel(),
            credit=credit,
            credit_squared=credit,
            value=np.zeros(n),
            value_squared=np.zeros(n),
            maturity=np.ones(n),
            age=(FIRST + DAYS - day).astype(np.int32),
        ),
        spend=SpendDays(arm=arm, day=day, spend=exposures.ravel() * 0.3),
        delay={},
        credits=Intervals(low=total, estimate=total, high=total, level=0.9, kind="bootstrap"),
        conversion_type=None,
        model="last",
        currency="EUR",
        watermark=dict.fromkeys("abcd", (FIRST + DAYS) * US_PER_DAY),
        revision=1,
        n_conversions=int(total.sum()),
        n_uncredited=0,
    )


def bare(o: Outcomes) -> float:
    """Sums per arm, posterior means and two quantiles: what cannot be avoided."""
    c = o.cohorts
    count, exposure = np.bincount(c.arm, c.credit), np.bincount(c.arm, c.exposures * c.maturity)
    shape, rate = 3.0 + count, 150.0 + exposure
    mean = shape / rate
    return float(mean.sum() + (special.gammaincinv(shape, 0.05) / rate).sum() + (special.gammaincinv(shape, 0.95) / rate).sum())


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def update(arms: int) -> None:
    """One per cent of the cohorts restated beside computing every posterior again; all of some arms', and spread over many arms."""
    o = outcomes(arms)
    c = o.cohorts
    for name, classifier in (("default", BayesClassifier(WINDOW)), ("half-life", BayesClassifier(WINDOW, half_life="28d"))):
        whole = classifier.start(o)["click"]
        empty = RateState.start(whole.learned, whole.group, whole.mark, half_life_days=whole.half_life_days)
        refit = median_seconds(lambda e=empty: e.update(c.arm, c.day, c.credit, c.exposures, revision=1), 3)
        spread = np.zeros(len(c), dtype=bool)
        spread[np.random.default_rng(1).choice(len(c), len(c) // 100, replace=False)] = True
        for how, some in (("of one arm in a hundred", c.arm % 100 == 0), ("spread over all arms", spread)):
            part = (c.arm[some], c.day[some], c.credit[some] + 1.0, c.exposures[some])
            again = median_seconds(lambda w=whole, p=part: w.update(*p, revision=2), 5)
            print(f"{arms:,} arms, {name}: update of 1 % of cohorts, {how}: {again:.3f} s beside {refit:.2f} s of all: {again / refit:.1%}")


def main() -> None:
    arms = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    o = outcomes(arms)
    repeats = 3 if arms <= 200_000 else 1
    before = peak_mb()
    floor = median_seconds(lambda: bare(o), repeats)
    print(f"{arms:,} arms x {DAYS} cohorts; bare calls {floor:.2f} s")
    for name, classifier in (
        ("default recency (calm, breaks, drift)", BayesClassifier(WINDOW)),
        ("half-life", BayesClassifier(WINDOW, half_life="28d")),
        ("nothing forgotten", BayesClassifier(WINDOW, breaks_per_year=0)),
    ):
        seconds = median_seconds(lambda c=classifier: c.classify(o), repeats)
        print(f"{name}: {seconds:.2f} s, {seconds / floor:.1f} x bare; peak {peak_mb() - before:,.0f} MB above the input")
    update(min(arms, 200_000))
    try:
        from mabwiser.mab import MAB, LearningPolicy
    except ImportError:
        print("MABWiser is not installed (pip install mabwiser): its comparison is left out")
        return
    small = outcomes(1000)
    mab = MAB(arms=list(range(1000)), learning_policy=LearningPolicy.ThompsonSampling())
    rng = np.random.default_rng(0)
    decisions, rewards = np.repeat(np.arange(1000), 30), rng.integers(0, 2, 30_000)
    fit = median_seconds(lambda: mab.fit(decisions=decisions, rewards=rewards), 3)
    theirs = median_seconds(mab.predict_expectations, 11)
    for name, classifier in (("default", BayesClassifier(WINDOW)), ("half-life", BayesClassifier(WINDOW, half_life="28d"))):
        ours = median_seconds(lambda c=classifier: c.classify(small), 11)
        signals = classifier.classify(small)
        draw = median_seconds(lambda s=signals: s.draw_conversions_per_day(rng, 1), 21)
        print(
            f"1,000 arms, {name}: classify {1000 * ours:.1f} ms; MABWiser Thompson fit {1000 * fit:.1f} ms, predict {1000 * theirs:.2f} ms"
        )
        print(
            f"  classify / predict {ours / theirs:.1f} x; classify / (fit + predict) {ours / (fit + theirs):.2f} x; "
            f"one draw of every posterior / predict {draw / theirs:.2f} x"
        )


if __name__ == "__main__":
    main()
