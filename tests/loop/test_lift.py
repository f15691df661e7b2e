"""A lift test told to the loop moves money away from credit that was not caused."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

import closedloop as cl
from closedloop.simulation import Simulator, small

WINDOW = cl.AttributionWindow(click="7d", view="1d")


@pytest.fixture(params=["credit", "prior", "told"])
def loop(request: pytest.FixtureRequest) -> Iterator[tuple[str, cl.ClosedLoop, float]]:
    """Four weeks on the demo's market, whose retargeting campaign takes credit it did not earn: credit is taken for cause (and half-way a
    test is told, or is not), or priors stand."""
    sim = Simulator(small(), seed=3)
    limits = cl.Constraints(minimum_volume=20, min_probability=0.6)
    classifier = cl.BayesClassifier(WINDOW, incrementality=None if request.param == "prior" else {})
    with cl.ClosedLoop(window=WINDOW, platforms=sim.platforms, constraints=limits, classifier=classifier) as loop:
        sim.run(loop, days=14)
        if request.param == "told":
            outcomes = loop.attribution.attribute(
                cl.EventBatch.empty(), state=loop.attribution.load(loop.ledger.state("attribution") or b"")
            )
            mine = [arm[1] == "reminder" for arm in outcomes.arms]
            credited = float(outcomes.credits.estimate[mine].sum())
            # What a 50:50 holdout of the retargeting audience would have counted if a fifth of the credit were caused.
            test = cl.LiftResult(
                where={"campaign": "reminder"}, attributed=credited, treated=2 * credited, control=1.8 * credited,
                treated_users=50_000, control_users=50_000,
            )  # fmt: skip
            loop.add_lift_test(test, by="Ada", now=sim.market.day_start(14) + timedelta(hours=3))
        sim.run(loop, days=14)
        at = sim.market.day_start(28) + timedelta(hours=12)
        spent = sum(
            platform.budget_at(resource, at).units
            for platform in sim.platforms.values()
            for resource in platform.resources()
            if "reminder" in resource
        )
        yield request.param, loop, spent


def test_money_leaves_what_was_not_caused(loop: tuple[str, cl.ClosedLoop, float]) -> None:
    """With credit for cause retargeting keeps at least its starting share of 350 a day; with a test, or with the stated priors alone, it
    falls well under; plans replay either way."""
    known, the_loop, spent = loop
    assert len(the_loop.lift_tests()) == int(known == "told")
    assert spent >= 340 if known == "credit" else spent < 200
    assert cl.replay(the_loop).identical


def test_a_classifier_that_cannot_be_told_is_named() -> None:
    """A classifier without a place for incrementality refuses to rank once there is a test, instead of ignoring it."""
    loop = cl.ClosedLoop(window=WINDOW, classifier=cl.LastWindowClassifier(WINDOW), mode="shadow", on_error="raise")
    sim = Simulator(small(), seed=3)
    now = sim.market.day_start(1)
    rows = sim.market.day(0, sim.market.equal_split())
    loop.add_lift_test(cl.LiftResult(attributed=10, estimate=5.0, standard_error=1.0), by="Ada", now=now)
    with pytest.raises(cl.ConfigurationError, match="LastWindowClassifier"):
        loop.run_cycle(rows, now=now)
