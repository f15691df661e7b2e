"""Journeys of events: which are converted, which are null, and Markov credit on events against the path model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.attribute import WindowedAttribution, attribute_paths, event_paths
from closedloop.errors import ConfigurationError
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

TAGS = TagSchema(arm=("platform", "campaign"))
WINDOW = AttributionWindow(click="3d", view="1d")
DAY0 = 19_000


def touch(i, at, platform, user="u", kind="click", campaign="x"):
    return {"id": i, "kind": kind, "user": user, "at": DAY0 + at, "platform": platform, "campaign": campaign}


def conversion(i, at, user="u", value=10.0):
    return {"id": i, "kind": "conversion", "user": user, "at": DAY0 + at, "value": value}


def test_journeys_by_hand(batch_of):
    """A conversion takes the touches inside their windows; touches without one are null once the window has passed, cut at longer gaps."""
    rows = [
        touch("1", 0.0, "a"), touch("2", 2.0, "b"), conversion("3", 4.0),  # a is too old: null on its own
        touch("4", 0.0, "b", "v"), touch("5", 2.5, "c", "v"), touch("6", 9.0, "a", "v"),  # two null journeys
        touch("7", 19.0, "a", "w"),  # not yet null: its window is open
        conversion("8", 20.0, "z"),  # no touch
    ]  # fmt: skip
    paths = event_paths(batch_of(rows), WINDOW, tags=TAGS).to_columns()
    found = sorted(zip(paths["path"], paths["conversions"], paths["nulls"], paths["value"], strict=True))
    assert found == [("", 1, 0, 10), ("a", 0, 1, 0), ("a", 0, 1, 0), ("b", 1, 0, 10), ("b > c", 0, 1, 0)]


@st.composite
def events(draw):
    rows = []
    for i in range(draw(st.integers(3, 40))):
        at, user = draw(st.integers(0, 80)) / 4, draw(st.sampled_from("uvw"))
        if draw(st.booleans()):
            campaign, kind = draw(st.sampled_from("xy")), draw(st.sampled_from(["click", "impression"]))
            rows.append(touch(f"t{i}", at, draw(st.sampled_from("abc")), user, kind, campaign))
        else:
            rows.append(conversion(f"c{i}", at, user, value=float(draw(st.integers(1, 9)))))
    return rows


@settings(max_examples=50, deadline=None)
@given(rows=events(), model=st.sampled_from(["markov", "fractribution", "shapley_rate"]), order=st.integers(1, 3))
def test_models_of_whole_journeys_on_events_equal_those_on_their_paths(batch_of, rows, model, order):
    """Credit summed over the arms of a channel is the path model's, of any order, in conversions and revenue; sums are exact.

    Channels in no converting journey have no touch to credit: the others take their share in proportion.
    """
    batch = batch_of(rows)
    outcomes = WindowedAttribution(WINDOW, tags=TAGS, model=model, order=order, replicates=20).attribute(batch)
    paths = event_paths(batch, WINDOW, tags=TAGS)
    expected = attribute_paths(paths, model, order=order, replicates=20)
    converting = np.zeros(len(expected), dtype=bool)
    converting[paths.codes[paths.conversions[paths.journey] > 0]] = True
    found = np.where(converting, expected.conversions.estimate, 0.0)
    scale = expected.conversions.estimate.sum() / found.sum() if found.sum() else 0.0
    channels = list(outcomes.arms.column("platform").decode())
    credit = dict.fromkeys("abc", 0.0)
    value = dict(credit)
    for c, n, v in zip(channels, outcomes.per_arm("credit"), outcomes.per_arm("value"), strict=True):
        credit[c] += n
        value[c] += v
    for i, c in enumerate(expected.channels):
        assert credit[c] == pytest.approx(found[i] * scale, abs=1e-7)
        if expected.value is not None and converting.all():
            assert value[c] == pytest.approx(expected.value.estimate[i], abs=1e-4)
    assert outcomes.per_arm("credit").sum() == pytest.approx(outcomes.n_conversions - outcomes.n_uncredited, abs=1e-9)
    assert np.isfinite(outcomes.credits.high).all()


def test_long_runs_of_unanswered_touches_are_cut_every_window(batch_of):
    """Touches on days 0, 2, 4, 6, 8 and 10, window three days: cut into those of days 0 to 3, to 6, to 9 and to 12, ends inside."""
    rows = [touch(f"t{i}", 2.0 * i, "ab"[i % 2]) for i in range(6)]
    rows.append(touch("end", 30.0, "c", "other"))
    paths = event_paths(batch_of(rows), WINDOW, tags=TAGS).distinct().to_columns()
    assert list(zip(paths["path"], paths["nulls"], strict=True)) == [("a > b", 2.0), ("a", 1.0), ("b", 1.0)]


def test_unanswered_touches_are_dated_on_the_day_their_window_ends(batch_of):
    """Two touches a day apart and one long after, window three days: null on the fourth day from the first of each run."""
    rows = [touch("1", 0.0, "a"), touch("2", 1.0, "b"), touch("3", 20.0, "a"), touch("end", 60.0, "c", "other")]
    layer = WindowedAttribution(WINDOW, tags=TAGS, model="markov", replicates=20)
    book = layer.attribute(batch_of(rows)).state.book
    assert sorted((book.counts.keys["day"] - DAY0).tolist()) == [3, 23]


def test_a_window_of_no_length_takes_what_happens_at_the_same_moment(batch_of):
    """Credited at the very moment, not a second later; and its unanswered touches are null journeys."""
    rows = [
        touch("1", 1.0, "a"),
        conversion("2", 1.0),
        touch("3", 2.0, "b", "v"),
        conversion("4", 2.0 + 1 / 86_400, "v"),
        touch("end", 9.0, "c", "w"),
    ]
    window = AttributionWindow(click="0s", view=None)
    outcomes = WindowedAttribution(window, tags=TAGS).attribute(batch_of(rows))
    assert dict(zip((a[0] for a in outcomes.arms), outcomes.per_arm("credit").tolist(), strict=True)) == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert window.bins("click") == 1
    paths = event_paths(batch_of(rows), window, tags=TAGS).distinct().to_columns()
    assert set(zip(paths["path"], paths["conversions"], paths["nulls"], strict=True)) == {("", 1.0, 0.0), ("a", 1.0, 0.0), ("b", 0.0, 1.0)}


def test_replicates_of_one_arm_a_channel_are_those_of_the_paths(batch_of):
    """Where each channel is one arm, the interval of its credit is the bootstrap interval of the path model (by other draws)."""
    rng = np.random.default_rng(4)
    rows = []
    for u in range(400):
        n = int(rng.integers(1, 4))
        rows += [touch(f"{u}.{i}", 0.2 * i + u % 9, "abc"[int(rng.integers(3))], f"u{u}") for i in range(n)]
        worth = 90.0 if rows[-1]["platform"] == "a" else 1.0  # so that credit in conversions and in revenue differ
        rows += [conversion(f"c{u}", 0.2 * n + u % 9, f"u{u}", worth)] if rng.random() < 0.3 else []
    rows.append(touch("end", 20.0, "a", "other"))
    batch = batch_of(rows)
    outcomes = WindowedAttribution(WINDOW, tags=TagSchema(arm=("platform",)), model="markov", replicates=2000).attribute(batch)
    expected = attribute_paths(event_paths(batch, WINDOW, tags=TAGS), replicates=2000)
    assert outcomes.credits.kind == "bootstrap"
    assert outcomes.credits.estimate == pytest.approx(expected.conversions.estimate)
    assert outcomes.credits.low == pytest.approx(expected.conversions.low, rel=0.05)
    assert outcomes.credits.high == pytest.approx(expected.conversions.high, rel=0.05)


def test_a_channel_is_a_tag_of_the_arm():
    """Another tag than the arm's cannot be a channel."""
    with pytest.raises(ConfigurationError, match="creative"):
        WindowedAttribution(WINDOW, tags=TAGS, model="markov", channel="creative")
    with pytest.raises(ConfigurationError, match="order"):
        WindowedAttribution(WINDOW, tags=TAGS, model="markov", order=9)
    with pytest.raises(ConfigurationError, match="replicates"):
        WindowedAttribution(WINDOW, tags=TAGS, model="markov", replicates=1)
