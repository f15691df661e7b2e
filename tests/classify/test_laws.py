"""The same evidence, one answer: order of events, batch splits, listing of arms and unit of currency do not matter."""

from datetime import UTC, datetime, timedelta

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import closedloop as cl
from closedloop.classify import BayesClassifier, LastWindowClassifier
from closedloop.errors import ConfigurationError

WINDOW = cl.AttributionWindow(click="7d", view="1d")
START = datetime(2026, 3, 1, tzinfo=UTC)


def rows(seed, n=120):
    """Clicks, conversions and spend of four campaigns over twelve days."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        at = START + timedelta(minutes=int(rng.integers(0, 12 * 1440)))
        tags = {"platform": "google", "campaign": f"c{int(rng.integers(0, 4))}"}
        out.append({"event_id": f"k{i}", "kind": "click", "occurred_at": at, "user_id": f"u{i}", **tags})
        if rng.random() < 0.4:
            later = at + timedelta(hours=float(rng.exponential(20)))
            out.append(
                {"event_id": f"v{i}", "kind": "conversion", "occurred_at": later, "user_id": f"u{i}", "value": 5.0, "currency": "EUR"}
            )
        out.append({"event_id": f"s{i}", "kind": "spend", "occurred_at": at, "cost": 0.5, "currency": "EUR", **tags})
    return out


def signals(parts, classifier=None):
    tags = cl.TagSchema(arm=("platform", "campaign"))
    attribution = cl.WindowedAttribution(WINDOW, tags=tags, lateness="30d")
    state = outcomes = None
    for part in parts:
        batch = cl.TableIngestor(tags=tags).ingest(part).batch
        outcomes = attribution.attribute(batch, state=state, now=START + timedelta(days=25))
        state = outcomes.state
    return (classifier or BayesClassifier(WINDOW)).classify(outcomes)


def facts(found):
    """What is said of each arm, whatever the order in which arms are listed."""
    names = ("p_best", "expected_loss", "effective_volume", "weekly_conversions", "borrowed_share", "maturity")
    return {
        arm: [found.rate.low[i], found.rate.high[i], found.cost_per_conversion.high[i], *(getattr(found, name)[i] for name in names)]
        for i, arm in enumerate(found.arms)
    }


def assert_same(one, two):
    ours, theirs = facts(one), facts(two)
    assert ours.keys() == theirs.keys()
    for arm in ours:
        np.testing.assert_allclose(ours[arm], theirs[arm], rtol=1e-9)
    assert [one.arms[i] for i in one.order] == [two.arms[i] for i in two.order]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_order_of_events_does_not_matter(seed, random):
    """Shuffled rows give the same signals."""
    events = rows(seed)
    shuffled = list(events)
    random.shuffle(shuffled)
    assert_same(signals([events]), signals([shuffled]))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 100), st.booleans())
def test_batch_splits_do_not_matter(seed, cut, twice):
    """In one batch, in two, or with one of them delivered again: the same signals."""
    events = sorted(rows(seed), key=lambda row: row["occurred_at"])
    parts = [events[:cut], events[cut:]]
    assert_same(signals([events]), signals([*parts, parts[0]] if twice else parts))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.01, 7.0, 1000.0]), st.sampled_from([BayesClassifier, LastWindowClassifier]))
def test_unit_of_currency_and_listing_of_arms_do_not_matter(outcomes_of_module, seed, unit, make):
    """Another unit scales costs alone; another listing of arms permutes the answer alone."""
    rng = np.random.default_rng(seed)
    arms = [("google" if i % 2 else "meta", f"c{i}") for i in range(9)]
    exposures = rng.poisson(80, (9, 20)).astype(float)
    credit = rng.poisson(0.05 * exposures * rng.gamma(2, 0.5, (9, 1))).astype(float)
    other = rng.permutation(9)
    one = make(WINDOW).classify(outcomes_of_module(arms, exposures, credit, spend=exposures))
    two = make(WINDOW).classify(
        outcomes_of_module([arms[i] for i in other], exposures[other], credit[other], spend=exposures[other] * unit)
    )
    rescaled = attrs.evolve(two, cost_per_conversion=two.cost_per_conversion.map(lambda cost: cost / unit))
    assert_same(one, rescaled)


@pytest.fixture(scope="module")
def outcomes_of_module(request):
    """The factory of outcomes, for functions that hypothesis calls many times."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("classify_conftest", Path(__file__).with_name("conftest.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_outcomes


def test_posteriors_are_drawn_as_a_ridge(outcomes_of):
    """One density per arm, each peaking near its estimate; only rates have posteriors to draw."""
    pytest.importorskip("matplotlib").use("Agg")
    exposures = np.full((3, 10), 1000.0)
    credit = exposures * [[0.01], [0.02], [0.03]]
    found = BayesClassifier(WINDOW).classify(outcomes_of([("google", c) for c in "abc"], exposures, credit, spend=exposures))
    axes = found.plot(kind="ridge")
    peaks = [line.get_xdata()[np.argmin(line.get_ydata())] for line in axes.lines if len(line.get_xdata()) > 100]
    np.testing.assert_allclose(peaks, [0.03, 0.02, 0.01], rtol=0.05)
    for arguments in ({"kind": "violin"}, {"kind": "ridge", "what": "roas"}):
        with pytest.raises(ConfigurationError):
            found.plot(**arguments)
