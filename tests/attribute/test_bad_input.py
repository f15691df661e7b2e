"""What data do at their worst: right answers or clear errors, and never NaN."""

import os

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.attribute import MODELS, PathCounts, WindowedAttribution, attribute_paths, event_paths
from closedloop.errors import InputError
from closedloop.records.batch import EventBatch
from closedloop.records.moments import US_PER_DAY
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

TAGS = TagSchema(arm=("platform", "campaign"))
WINDOW = AttributionWindow(click="3d", view="1d")
DAY0 = 19_000
EVERY = sorted(MODELS)


def layer_of(model, window=WINDOW, tags=TAGS):
    return WindowedAttribution(window, tags=tags, model=model, direct=("direct",), replicates=20)


def click(i, at, user="u", platform="a", **more):
    return {"id": i, "kind": "click", "user": user, "at": DAY0 + at, "platform": platform, "campaign": "x", **more}


def sale(i, at, user="u", **more):
    return {"id": i, "kind": "conversion", "user": user, "at": DAY0 + at, **more}


def sound(outcomes):
    """Finite everywhere, sums exact; return the credit by platform."""
    c = outcomes.cohorts
    for values in (c.exposures, c.credit, c.credit_squared, c.value, c.value_squared, c.maturity, outcomes.spend.spend):
        assert np.isfinite(values).all()
    for values in (outcomes.credits.low, outcomes.credits.estimate, outcomes.credits.high):
        assert np.isfinite(values).all()
    assert outcomes.per_arm("credit").sum() == pytest.approx(outcomes.n_conversions - outcomes.n_uncredited, abs=1e-9)
    assert "nan" not in repr(outcomes)
    credit = {}
    for arm, n in zip(outcomes.arms, outcomes.per_arm("credit").tolist(), strict=True):
        credit[arm[0]] = credit.get(arm[0], 0.0) + n
    return {platform: pytest.approx(n, abs=1e-9) for platform, n in credit.items()}


END = click("end", 20.0, "other", "z")
CASES = {
    "conversions without users": ([click("1", 1.0), sale("2", 1.5, None), END], {"a": 0, "z": 0}),
    "conversions alone": ([sale("1", 1.0), sale("2", 1.5, None)], {}),
    "cyclic path": ([click("1", 0.0), click("2", 0.5, platform="b"), click("3", 1.0), sale("4", 1.5), END], None),
    "self-loop path": ([click("1", 0.0), click("2", 0.5), click("3", 1.0), sale("4", 1.5), END], {"a": 1, "z": 0}),
    "a channel that is every path": ([click("1", 0.0), sale("2", 1), click("3", 0.0, "v"), sale("4", 1, "v")], {"a": 2}),
    "a single journey": ([click("1", 0.0), sale("2", 1.0)], {"a": 1}),
    "zero conversions": ([click("1", 0.0), click("2", 0.5, platform="b"), END], {"a": 0, "b": 0, "z": 0}),
    "no touch of a user": ([click("1", 0.0, None, quantity=1000), sale("2", 1.0), END], {"a": 0, "z": 0}),
    "quantity zero": ([click("1", 0.0), sale("2", 1.0, quantity=0), END], {"a": 0, "z": 0}),
    "a huge quantity": ([click("1", 0.0), sale("2", 1.0, quantity=2**30, value=1e9), END], {"a": 2**30, "z": 0}),
    "a value of zero": ([click("1", 0.0), sale("2", 1.0, value=0.0), END], {"a": 1, "z": 0}),
    "all at one moment": ([click("1", 1.0), click("2", 1.0, platform="b"), sale("3", 1.0), sale("4", 1.0)], None),
    "nothing at all": ([], {}),
}


@pytest.mark.parametrize("model", EVERY)
@pytest.mark.parametrize("case", list(CASES))
def test_events_at_their_worst(batch_of, case, model):
    """Credit of each case by every model: finite, exact in sum, and the one that can be said without a model."""
    rows, expected = CASES[case]
    credit = sound(layer_of(model).attribute(batch_of(rows)))
    if expected is not None:
        assert credit == expected


@pytest.mark.parametrize("model", ["last", "linear", "markov", "fractribution"])
def test_equal_times_credit_one_conversion_in_any_order(batch_of, model):
    """Twenty touches and two sales at one microsecond: the same credit in every order of arrival."""
    rows = [click(f"t{i}", 1.0, platform="abc"[i % 3]) for i in range(20)] + [sale("s1", 1.0), sale("s2", 1.0)]
    credits = [sound(layer_of(model).attribute(batch_of(r))) for r in (rows, rows[::-1], rows[7:] + rows[:7])]
    assert [{k: v.expected for k, v in c.items()} for c in credits[1:]] == [{k: v.expected for k, v in credits[0].items()}] * 2


@pytest.mark.parametrize("model", ["last", "time_decay", "markov"])
def test_a_user_with_a_million_touches(batch_of, model):
    """A robot's one conversion is shared among its touches inside the window, beside a person's (a fifth of a million in the short run)."""
    n = 1_000_000 if os.environ.get("CLOSEDLOOP_FULL") == "1" else 200_000
    person = batch_of([click("1", 5.0, "v", "b"), sale("2", 5.5, "v"), sale("3", 6.0), END])
    robot = batch_of([click("x", 4.0)]).take(np.zeros(n, dtype=np.int64))
    at = (DAY0 * US_PER_DAY + np.linspace(0, 6, n, endpoint=False) * US_PER_DAY).astype(np.int64)
    robot = attrs.evolve(robot, event_id=np.arange(n).astype(str).astype(object), occurred_at=at, recorded_at=at)
    assert sound(layer_of(model).attribute(EventBatch.concat([person, robot]))) == {"a": 1, "b": 1, "z": 0}


def test_too_many_pairs_are_refused_by_name(batch_of):
    """A robot that also buys ten thousand times has no listable journeys: the error says who, how many, and what to do; ``last`` works."""
    touches = batch_of([click("x", 1.0)]).take(np.zeros(40_000, dtype=np.int64))
    sales = batch_of([sale("y", 2.0)]).take(np.zeros(10_000, dtype=np.int64))
    names = [np.array([f"{k}{i}" for i in range(len(b))], dtype=object) for k, b in (("t", touches), ("s", sales))]
    both = EventBatch.concat([attrs.evolve(b, event_id=n) for b, n in zip((touches, sales), names, strict=True)])
    with pytest.raises(InputError, match=r"40000 touches.*model='last'"):
        layer_of("linear").attribute(both)
    assert sound(layer_of("last").attribute(both)) == {"a": 10_000}


def test_impossible_quantities_are_refused(batch_of):
    """A row that stands for more conversions than could be summed exactly, or for less than none, is named."""
    for quantity in (2**31, -1):
        with pytest.raises(InputError, match="impossible number"):
            layer_of("last").attribute(batch_of([click("1", 0.0), sale("2", 1.0, quantity=quantity)]))


WEIGHTS = st.sampled_from([0.0, 1e-300, 1e-9, 0.5, 1.0, 3.0, 1e6, 1e15, 1e18])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.lists(st.sampled_from("ab"), max_size=5), WEIGHTS, WEIGHTS), min_size=1, max_size=6),
    model=st.sampled_from(["first", "linear", "time_decay", "shapley", "markov", "fractribution", "shapley_rate"]),
)
def test_paths_of_any_weight(rows, model):
    """Zero, tiny, fractional and huge weights in one table: finite credits inside their intervals that sum to the conversions."""
    counts = PathCounts.of([p for p, _, _ in rows], conversions=[c for _, c, _ in rows], nulls=[n for _, _, n in rows])
    found = attribute_paths(counts, model, replicates=20)
    c = found.conversions
    assert np.isfinite([c.low, c.estimate, c.high]).all()
    assert (c.low <= c.estimate).all()
    assert (c.estimate <= c.high).all()
    rounding = 1e-15 * np.abs(c.estimate).sum()  # a game of rates may share a small sum as large parts of both signs
    assert c.estimate.sum() == pytest.approx(sum(n for p, n, _ in rows if p), rel=1e-9, abs=rounding + 1e-300)


def test_paths_from_events_of_such_data_are_paths(batch_of):
    """The worst events as path counts, too: every conversion is in some journey, every number finite."""
    for rows, _ in CASES.values():
        paths = event_paths(batch_of(rows), WINDOW, tags=TAGS)
        n = sum(r.get("quantity", 1) for r in rows if r["kind"] == "conversion")
        assert paths.conversions.sum() == n
        assert np.isfinite([paths.conversions, paths.value, paths.nulls]).all()


def test_too_many_arms_met_by_one_user_are_refused(batch_of, monkeypatch):
    """For participation pairs are counted by arm: past the limit the user's number of arms is named; at the limit all is well."""
    from closedloop.attribute import journeys

    batch = batch_of([click(f"t{i}", 1.0, platform=f"p{i}") for i in range(6)] + [sale("s", 2.0)])
    layer = WindowedAttribution(WINDOW, tags=TAGS, participation=True)
    monkeypatch.setattr(journeys, "_MOST_PAIRS", 6)
    assert layer.attribute(batch).participation.per_arm("credit").tolist() == [1.0] * 6
    monkeypatch.setattr(journeys, "_MOST_PAIRS", 5)
    with pytest.raises(InputError, match="6 arms before one conversion"):
        layer.attribute(batch)
