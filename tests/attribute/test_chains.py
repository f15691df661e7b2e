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


@settings(max_examples=60, deadline=None)
@given(rows=events())
def test_markov_on_events_equals_markov_on_their_paths(batch_of, rows):
    """Credit summed over the arms of a channel is the path model's, in conversions and revenue; sums are exact.

    Channels in no converting journey have no touch to credit: the others take their share in proportion.
    """
    batch = batch_of(rows)
    outcomes = WindowedAttribution(WINDOW, tags=TAGS, model="markov").attribute(batch)
    paths = event_paths(batch, WINDOW, tags=TAGS)
    expected = attribute_paths(paths, "markov", replicates=20)
    converting = np.zeros(len(expected), dtype=bool)
    converting[paths.codes[paths.conversions[paths.journey] > 0]] = True
    scale = expected.conversions.estimate.sum() / max(expected.conversions.estimate[converting].sum(), 1e-300)
    channels = list(outcomes.arms.column("platform").decode())
    credit = dict.fromkeys("abc", 0.0)
    value = dict(credit)
    for c, n, v in zip(channels, outcomes.per_arm("credit"), outcomes.per_arm("value"), strict=True):
        credit[c] += n
        value[c] += v
    for i, c in enumerate(expected.channels):
        assert credit[c] == pytest.approx(expected.conversions.estimate[i] * scale * converting[i], abs=1e-7)
        if expected.value is not None and converting.all():
            assert value[c] == pytest.approx(expected.value.estimate[i], abs=1e-4)
    assert outcomes.per_arm("credit").sum() == pytest.approx(outcomes.n_conversions - outcomes.n_uncredited, abs=1e-9)
    assert np.isfinite(outcomes.credits.high).all()


def test_a_channel_is_a_tag_of_the_arm():
    """Another tag than the arm's cannot be a channel."""
    with pytest.raises(ConfigurationError, match="creative"):
        WindowedAttribution(WINDOW, tags=TAGS, model="markov", channel="creative")
