"""Models on events, against credit worked out by hand; own models; options."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.attribute import WindowedAttribution
from closedloop.errors import ConfigurationError, InputError
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

TAGS = TagSchema(arm=("platform", "campaign"))
WINDOW = AttributionWindow(click="7d", view="1d")
DAY0 = 19_000


def touch(i, at, campaign, kind="click", user="u", platform="google"):
    return {"id": i, "kind": kind, "user": user, "at": DAY0 + at, "platform": platform, "campaign": campaign}


def conversion(i, at, user="u", **more):
    return {"id": i, "kind": "conversion", "user": user, "at": DAY0 + at, **more}


JOURNEY = [
    touch("0", 0.0, "too old"),
    touch("1", 2.0, "a"),
    touch("2", 5.0, "b"),
    touch("3", 6.5, "old view", kind="impression"),
    touch("4", 7.5, "v", kind="impression"),
    touch("5", 8.0, "a"),
    conversion("6", 8.0, value=100.0),
]


def credit(model, batch_of, rows=JOURNEY, **options):
    outcomes = WindowedAttribution(WINDOW, tags=TAGS, model=model, **options).attribute(batch_of(rows))
    assert outcomes.per_arm("credit").sum() == outcomes.n_conversions - outcomes.n_uncredited
    found = {arm[1]: c for arm, c in zip(outcomes.arms, outcomes.per_arm("credit").tolist(), strict=True) if c}
    assert outcomes.per_arm("value") == pytest.approx(100 * outcomes.per_arm("credit"), abs=1e-5)
    return found


def test_each_model_on_one_journey(batch_of):
    """Clicks within 7 days and views within 1 day of the conversion are a, b, v, a; each model's shares of them, by hand."""
    third = pytest.approx(1 / 3, abs=1e-9)
    assert credit("first", batch_of) == {"a": 1.0}
    assert credit("last", batch_of) == {"a": 1.0}
    assert credit("linear", batch_of) == {"a": 0.5, "b": 0.25, "v": 0.25}
    assert credit("position", batch_of) == {"a": pytest.approx(0.8), "b": pytest.approx(0.1), "v": pytest.approx(0.1)}
    assert credit("position", batch_of, ends=(0.5, 0.1)) == {"a": pytest.approx(0.6), "b": pytest.approx(0.2), "v": pytest.approx(0.2)}
    assert credit("shapley", batch_of) == {"a": third, "b": third, "v": third}
    halves = {"a": 2 ** (-6 / 3) + 1, "b": 2 ** (-3 / 3), "v": 2 ** (-0.5 / 3)}
    total = sum(halves.values())
    assert credit("time_decay", batch_of, half_life="3d") == {k: pytest.approx(v / total, abs=1e-8) for k, v in halves.items()}


def test_last_non_direct_passes_over_direct(batch_of):
    """The last touch that is not direct; the last one where all are."""
    rows = [touch("1", 1.0, "a"), touch("2", 2.0, "d", platform="direct"), conversion("3", 3.0, value=100.0)]
    assert credit("last_non_direct", batch_of, rows, direct=("direct",)) == {"a": 1.0}
    assert credit("last_non_direct", batch_of, rows[1:], direct=("direct",)) == {"d": 1.0}


def test_an_own_model_is_a_function_of_touches(batch_of):
    """Any weights from 0 up make a model; weights that are none are refused."""
    assert credit(lambda t: t.age >= 1, batch_of) == {"a": 0.5, "b": 0.5}
    for wrong in (lambda t: -t.age - 1, lambda t: 0 * t.age, lambda t: np.ones(1), lambda t: t.age * np.nan):
        with pytest.raises(InputError):
            credit(wrong, batch_of)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "lienar"},
        {"model": "last_non_direct"},
        {"model": "time_decay", "half_life": "0d"},
        {"model": "position", "ends": (0.8, 0.4)},
    ],
)
def test_options_are_checked_at_once(options):
    """A wrong option is named when the attribution is made, not when events come."""
    with pytest.raises(ConfigurationError):
        WindowedAttribution(WINDOW, **options)


@settings(max_examples=40, deadline=None)
@given(
    touches=st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.booleans(), st.sampled_from("uv")), max_size=12),
    sales=st.lists(st.tuples(st.integers(0, 40), st.sampled_from("uv")), min_size=1, max_size=5),
)
def test_linear_equals_a_plain_loop(batch_of, touches, sales):
    """Over all users and conversions, linear credit is what a loop over all pairs gives; several conversions each look back."""
    rows = [touch(f"t{i}", at / 4, c, "click" if clicked else "impression", u) for i, (at, c, clicked, u) in enumerate(touches)]
    expected = dict.fromkeys("abc", 0.0)
    for at, user in sales:
        mine = [c for t, c, clicked, u in touches if u == user and 0 <= at - t <= (28 if clicked else 4)]
        for c in mine:
            expected[c] += 1 / len(mine)
    rows += [conversion(f"c{i}", at / 4, user, value=100.0) for i, (at, user) in enumerate(sales)]
    found = credit("linear", batch_of, rows)
    assert found == {c: pytest.approx(v, abs=1e-8) for c, v in expected.items() if v}
