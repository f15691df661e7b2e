"""Nine in ten: 90 % intervals of credit hold the expected credit 88 to 92 times in a hundred, over simulated journeys of a known chain.

The number of journeys is Poisson, as traffic is. The expected credit at that traffic is the mean over the simulated sets.
"""

import os

import numpy as np
import pytest

from closedloop.attribute import PathCounts, WindowedAttribution, attribute_paths
from closedloop.records.arms import TAG_COLUMNS, Coded
from closedloop.records.batch import CLICK, CONVERSION, NO_TIME, EventBatch
from closedloop.records.moments import US_PER_DAY
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

FULL = os.environ.get("CLOSEDLOOP_FULL") == "1"
long = pytest.mark.skipif(not FULL, reason="takes minutes; set CLOSEDLOOP_FULL=1")
MOVE = np.array([[0.2, 0.3, 0.1], [0.1, 0.2, 0.2], [0.3, 0.1, 0.1]])
WIN = np.array([0.05, 0.15, 0.1])


def walks(rng, n):
    """Journey, channel and step of each touch, and which journeys convert: each step ends in conversion, null or another channel."""
    table = np.cumsum(np.concatenate([WIN[:, None], MOVE], axis=1), axis=1)
    who, state, won, parts = np.arange(n), rng.choice(3, n, p=[0.5, 0.3, 0.2]), np.zeros(n, dtype=bool), []
    while len(who):
        parts.append((who, state, np.full(len(who), len(parts))))
        choice = (rng.random(len(who))[:, None] >= table[state]).sum(axis=1)
        won[who[choice == 0]] = True
        on = (choice > 0) & (choice < 4)
        who, state = who[on], choice[on] - 1
    journey, channel, step = (np.concatenate(p) for p in zip(*parts, strict=True))
    return journey, channel, step, won


def share_held(estimate, low, high):
    truth = np.mean(estimate, axis=0)
    return np.mean((np.array(low) <= truth) & (truth <= np.array(high)))


def held_by_paths(model, order, sets, size, replicates=200, seed=11):
    rng, found = np.random.default_rng(seed), []
    for _ in range(sets):
        journey, channel, step, won = walks(rng, int(rng.poisson(size)))
        n = len(won)
        paths = PathCounts.of_touches(journey, channel, list("abc"), at=step, n_journeys=n, conversions=won.astype(float), nulls=~won)
        c = attribute_paths(paths, model, order=order, replicates=replicates, rng=rng).conversions
        found.append((c.estimate, c.low, c.high))
    return share_held(*zip(*found, strict=True))


@pytest.mark.parametrize("model", ["first", "last", "linear", "position", "time_decay", "shapley", "ordered_shapley"])
def test_exact_intervals_of_rules(model):
    """Gamma intervals, fractional credit tempered."""
    sets = 1500 if FULL else 100
    assert abs(held_by_paths(model, 1, sets, 2000) - 0.9) < (0.02 if FULL else 0.06)


@long
@pytest.mark.parametrize(
    ("model", "order", "sets", "size"),
    [
        pytest.param("markov", 1, 1000, 2000, id="markov 1"),
        pytest.param("markov", 2, 600, 2000, id="markov 2"),
        pytest.param("markov", 1, 500, 12_000, id="markov 1 in blocks"),
        pytest.param("fractribution", 1, 800, 2000, id="fractribution"),
        pytest.param("shapley_rate", 1, 500, 1000, id="shapley_rate"),
    ],
)
def test_bootstrap_intervals_of_models_of_whole_journeys(model, order, sets, size):
    """Percentile intervals of the Poisson bootstrap over journeys, one by one and in blocks."""
    assert abs(held_by_paths(model, order, sets, size) - 0.9) < 0.02


def events(rng, size):
    """Each journey is a user's clicks, an hour apart, over two campaigns of each channel, and perhaps a sale; every window has closed."""
    journey, channel, step, won = walks(rng, int(rng.poisson(size)))
    n, buyers = len(journey), np.flatnonzero(won)
    began = rng.integers(0, 5 * US_PER_DAY, len(won))
    last = np.zeros(len(won), dtype=np.int64)
    np.maximum.at(last, journey, step)
    hour = US_PER_DAY // 24
    at = np.concatenate([began[journey] + step * hour, began[buyers] + (last[buyers] + 1) * hour, [30 * US_PER_DAY]])
    m = len(at)
    who = np.concatenate([journey, buyers, [-1]]).astype(np.int32)
    campaign = np.concatenate([(rng.random(n) < 0.3).astype(np.int32), np.full(len(buyers), -1, dtype=np.int32), [0]]).astype(np.int32)
    platform = np.concatenate([channel, np.full(len(buyers), -1), [0]]).astype(np.int32)
    tags = {
        "platform": Coded(codes=platform, vocab=np.array(list("abc"), dtype=object)),
        "campaign": Coded(codes=campaign, vocab=np.array(["x", "y"], dtype=object)),
    }
    zero = np.zeros(m, dtype=np.int64)
    kind = np.concatenate([np.full(n, CLICK), np.full(len(buyers), CONVERSION), [CLICK]])
    return EventBatch(
        event_id=np.arange(m).astype(str).astype(object),
        kind=kind.astype(np.int8),
        occurred_at=at,
        recorded_at=at,
        user_id=Coded(codes=who, vocab=np.arange(len(won)).astype(str).astype(object)),
        tags={name: tags.get(name, Coded.missing(m)) for name in TAG_COLUMNS},
        conversion_type=Coded.missing(m),
        cost=zero,
        value=zero,
        quantity=np.ones(m, dtype=np.int64),
        touch_kind=np.full(m, -1, dtype=np.int8),
        touch_at=np.full(m, NO_TIME, dtype=np.int64),
    )


@long
@pytest.mark.parametrize("model", ["last", "linear", "shapley", "markov", "fractribution"])
def test_intervals_of_arms_from_events(model):
    """Six arms in three channels: credit by arm, from events, whatever the model."""
    rng, found = np.random.default_rng(12), []
    tags = TagSchema(arm=("platform", "campaign"))
    layer = WindowedAttribution(AttributionWindow(click="3d", view=None), tags=tags, model=model, lateness="1d")
    for _ in range(400):
        c = layer.attribute(events(rng, 1500)).credits
        found.append((c.estimate, c.low, c.high))
    assert abs(share_held(*zip(*found, strict=True)) - 0.9) < 0.02
