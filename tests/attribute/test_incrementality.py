"""Lift tests and randomised budgets: likelihoods on caused credit, against closed forms and simulated truth."""

import numpy as np
import pytest
from scipy import stats

from closedloop.attribute import LiftResult, WindowedAttribution, incremental, randomised_effect
from closedloop.attribute.incrementality import GRID, share_posterior
from closedloop.errors import ClosedLoopError
from closedloop.records.causes import CausalEvidence
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow


def test_share_posterior_is_the_product_of_a_cut_normal_and_the_test():
    """Against scipy: the mean of the posterior equals that of the cut Normal which the two Normals multiply to."""
    test = LiftResult(attributed=100.0, estimate=60.0, standard_error=20.0)
    precision = 1 / 0.4**2 + 1 / 0.2**2
    mean, sd = (0.7 / 0.4**2 + 0.6 / 0.2**2) / precision, precision**-0.5
    expected = stats.truncnorm((0 - mean) / sd, (1.5 - mean) / sd, loc=mean, scale=sd)
    weights = share_posterior([test], (0.7, 0.4))
    assert (weights * GRID).sum() == pytest.approx(expected.mean(), abs=1e-3)
    assert np.sqrt((weights * GRID**2).sum() - (weights * GRID).sum() ** 2) == pytest.approx(expected.std(), abs=2e-3)


def test_intervals_of_tested_shares_hold_nine_in_ten():
    """Shares drawn from the prior, tests drawn from Poisson counts: 90 % intervals hold the truth 90 % of the time."""
    rng = np.random.default_rng(4)
    hits = []
    for _ in range(1500):
        iota = -1.0
        while not 0 <= iota <= 1.5:
            iota = rng.normal(0.7, 0.4)
        background, attributed = 400.0, 200.0
        treated, control = rng.poisson(background + iota * attributed), rng.poisson(background / 2)
        test = LiftResult(attributed=attributed, treated=treated, control=control, treated_users=2e5, control_users=1e5)
        upto = np.cumsum(share_posterior([test], (0.7, 0.4)))
        hits.append(GRID[np.searchsorted(upto, 0.05)] <= iota <= GRID[np.searchsorted(upto, 0.95)])
    assert np.mean(hits) == pytest.approx(0.9, abs=0.025)


@pytest.fixture
def outcomes(batch_of):
    rows = []
    for i in range(60):
        audience = "retargeting" if i % 2 else "new"
        rows.append({"id": f"c{i}", "kind": "click", "user": f"u{i}", "at": 19_000.0 + i / 100, "platform": "meta", "audience": audience})
        rows.append({"id": f"s{i}", "kind": "conversion", "user": f"u{i}", "at": 19_001.0})
    tags = TagSchema(arm=("platform", "audience"))
    return WindowedAttribution(AttributionWindow(), tags=tags).attribute(batch_of(rows))


def test_a_test_moves_its_arms_only_and_priors_are_named(outcomes):
    """A sharp test of retargeting sets its caused conversions; the untested arm keeps its wider prior, by name."""
    test = LiftResult(where={"audience": "retargeting"}, attributed=1000.0, estimate=200.0, standard_error=20.0)
    found = incremental(outcomes, [test], known=CausalEvidence(moved=0.0, late=0.0))
    tested, free = outcomes.arms.index(("meta", "retargeting")), outcomes.arms.index(("meta", "new"))
    assert found.source[tested] == "test"
    assert found.source[free] == "prior: prospecting"
    assert found.share.estimate[tested] == pytest.approx(0.2, abs=0.02)
    assert found.share.high[free] - found.share.low[free] > 0.5
    assert found.caused.estimate[tested] == pytest.approx(0.2 * 30, rel=0.15)
    assert found.caused.low[tested] < found.caused.estimate[tested] < found.caused.high[tested] < found.attributed.high[tested]


def test_randomised_budgets_find_the_marginal_effect_with_honest_errors():
    """Simulated conversions with known effects of assigned budgets: 90 % intervals hold them; the detectable effect is about 2.5 errors."""
    rng = np.random.default_rng(9)
    truth = np.array([0.3, 0.0])
    hits = []
    for _ in range(400):
        assigned = rng.choice([-5.0, 5.0], (60, 2))
        found = randomised_effect(assigned, rng.poisson(100 + assigned @ truth))
        hits.append((found.effects.low <= truth) & (truth <= found.effects.high))
    assert np.mean(hits) == pytest.approx(0.9, abs=0.03)
    assert found.detectable / found.standard_error == pytest.approx(2.5, abs=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LiftResult(attributed=0.0, estimate=1.0, standard_error=1.0),
        lambda: LiftResult(attributed=1.0, estimate=1.0),
        lambda: LiftResult(attributed=1.0, treated=3.0, control=1.0),
        lambda: LiftResult(attributed=1.0, treated=3.0, control=1.0, treated_users=5.0, control_users=0.0),
        lambda: LiftResult(attributed=float("nan"), estimate=1.0, standard_error=1.0),
        lambda: randomised_effect(np.ones((20, 2)), np.ones(20)),
        lambda: randomised_effect(np.ones((3, 2)), np.ones(3)),
    ],
)
def test_bad_tests_are_named(make):
    """What a test lacks is said."""
    with pytest.raises(ClosedLoopError) as caught:
        make()
    assert caught.value.field


def test_the_table_holds_each_interval(outcomes):
    """One row per arm with attributed, share and caused, each with both ends, and where the share comes from."""
    found = incremental(outcomes)
    frame = found.to_frame()
    assert len(frame) == len(outcomes.arms)
    for name in ("attributed", "share", "caused"):
        interval = getattr(found, name)
        for column, end in ((name, interval.estimate), (f"{name}_low", interval.low), (f"{name}_high", interval.high)):
            assert frame[column].tolist() == end.tolist()
    assert frame["audience"].tolist() == [arm[1] for arm in outcomes.arms]
    assert frame["source"].tolist() == list(found.source)
