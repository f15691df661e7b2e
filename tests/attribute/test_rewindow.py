"""Another window or model over the events that a state still holds equals reading the events again, from the first whole day on."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.attribute import WindowedAttribution
from closedloop.attribute.rows import keys_of
from closedloop.errors import ConfigurationError, InputError, WindowMismatchError
from closedloop.records.batch import EventBatch
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

TAGS = TagSchema(arm=("platform", "campaign"))
DAY0 = 19_000
WINDOWS = [("3d", "1d"), ("1d", None), ("5d", "5d"), (None, "2d")]
MODELS = ["last", "first", "linear", "shapley"]


def layer_of(window, model="last", keep="0d"):
    return WindowedAttribution(AttributionWindow(*window), model=model, tags=TAGS, lateness="2d", keep=keep)


@st.composite
def events(draw):
    """Up to 50 events of three users over 30 days, half of them in the last 15."""
    rows = []
    for i in range(draw(st.integers(1, 50))):
        at = DAY0 + draw(st.integers(0, 120)) / 4
        row = {"id": f"e{i}", "at": at, "recorded": min(at + draw(st.sampled_from([0, 0.25, 1.0])), math.floor(at) + 2.0)}
        kind = draw(st.sampled_from(["click", "impression", "conversion", "spend"]))
        if kind == "conversion":
            rows.append({**row, "kind": kind, "user": draw(st.sampled_from(["u", "v", "w", None])), "value": draw(st.integers(0, 9))})
        else:
            tags = {"platform": draw(st.sampled_from(["google", "meta"])), "campaign": "a", "cost": 1.0}
            rows.append({**row, "kind": kind, "user": draw(st.sampled_from("uvw")), **tags})
    return sorted(rows, key=lambda r: r["recorded"])


def since(outcomes, day):
    """Everything about cohorts, and spend, from a day on."""
    c, s = outcomes.cohorts, outcomes.spend
    labels = [outcomes.arms.label(i) for i in range(len(outcomes.arms))]
    cohorts = {
        (labels[a], d, k): (x, round(n, 9), round(v, 6))
        for a, d, k, x, n, v in zip(c.arm, c.day.tolist(), c.kind.tolist(), c.exposures, c.credit, c.value, strict=True)
        if d >= day
    }
    return cohorts, {(labels[a], d): x for a, d, x in zip(s.arm, s.day.tolist(), s.spend, strict=True) if d >= day}


def held(state, rows):
    """The ids of the events that a state still has as rows."""
    keys = set(state.rows.key.tolist())
    ids = np.array([r["id"] for r in rows], dtype=object)
    return {i for i, key in zip(ids, keys_of(ids).tolist(), strict=True) if key in keys}


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_another_window_equals_reading_the_events_again(batch_of, data):
    """Any window and model, changed at any time, with events before and after the change: cohorts of whole days are those of a rescan."""
    rows = data.draw(events())
    cut = data.draw(st.integers(0, len(rows)))
    old = layer_of(data.draw(st.sampled_from(WINDOWS)), data.draw(st.sampled_from(MODELS)), data.draw(st.sampled_from(["0d", "12d"])))
    new = layer_of(data.draw(st.sampled_from(WINDOWS)), data.draw(st.sampled_from(MODELS)))
    state = old.attribute(batch_of(rows[:cut])).state
    changed = new.rewindow(state)
    found = new.attribute(batch_of(rows[cut:]), state=new.load(changed.to_bytes()))
    again = new.attribute(batch_of(rows))
    whole = DAY0 - 100
    gone = [r["at"] // 1 for r in rows[:cut] if r["id"] not in held(state, rows)]
    if gone:
        whole = max(gone) + 1 + new.window.longest_days
    assert since(found, whole) == since(again, whole)
    assert min(found.cohorts.day, default=whole) >= whole
    assert found.n_too_late == again.n_too_late


def test_kept_days_go_over_to_a_longer_window(batch_of):
    """With 20 days kept, a window of 7 days instead of 2 credits the click of 5 days ago, which the shorter one had left out."""
    rows = [{"id": "t", "kind": "click", "user": "u", "at": DAY0 + 20.0, "platform": "google", "campaign": "a"}]
    rows += [{"id": "c", "kind": "conversion", "user": "u", "at": DAY0 + 25.0, "value": 3.0}]
    rows += [{"id": f"x{d}", "kind": "click", "user": "v", "at": DAY0 + d, "platform": "meta", "campaign": "b"} for d in range(31)]
    short, long = layer_of(("2d", None), keep="20d"), layer_of(("7d", None), keep="20d")
    before = short.attribute(batch_of(rows))
    assert before.per_arm("credit").sum() == 0
    after = long.attribute(EventBatch.empty(), state=long.rewindow(before.state))
    assert dict(zip((a[0] for a in after.arms), after.per_arm("credit"), strict=True)) == {"google": 1.0, "meta": 0.0}
    assert after.cohorts.day.min() == DAY0 + 30 - 22 - 2 + 7  # touches are held for one window more, and nothing but touches was there
    assert after.revision == before.revision + 1


def test_keeping_more_days_begins_with_the_days_that_are_there(batch_of):
    """An attribution that keeps more than the one before goes on from its state, and holds more days as they come, not before."""
    rows = [{"id": f"x{d}", "kind": "spend", "at": DAY0 + d, "platform": "meta", "campaign": "b", "cost": 1.0} for d in range(31)]
    before = layer_of(("2d", None)).attribute(batch_of(rows[:25])).state
    assert before.rows.day.min() == DAY0 + 24 - 4
    longer = layer_of(("2d", None), keep="20d")
    after = longer.attribute(batch_of(rows[25:]), state=longer.load(before.to_bytes()))
    assert after.state.rows.day.min() == DAY0 + 20
    week = layer_of(("7d", None))
    assert week.attribute(EventBatch.empty(), state=week.rewindow(after.state)).spend.day.min() == DAY0 + 20 + 7


@pytest.mark.parametrize("model", ["markov", "fractribution", "shapley_rate"])
def test_models_of_whole_journeys_go_over_too(batch_of, model):
    """While every event is still held, going over to a model of whole journeys is reading all events with it."""
    rows = []
    for u in range(12):
        rows += [{"id": f"a{u}", "kind": "click", "user": f"u{u}", "at": DAY0 + u / 4, "platform": "ab"[u % 2], "campaign": "x"}]
        rows += [{"id": f"b{u}", "kind": "click", "user": f"u{u}", "at": DAY0 + u / 4 + 0.5, "platform": "bc"[u % 2], "campaign": "x"}]
        rows += [{"id": f"c{u}", "kind": "conversion", "user": f"u{u}", "at": DAY0 + u / 4 + 1}] if u % 3 else []
    rows.append({"id": "end", "kind": "spend", "at": DAY0 + 6.5, "platform": "a", "campaign": "x"})
    old, new = layer_of(("1d", None), keep="10d"), layer_of(("3d", None), model)
    found = new.attribute(EventBatch.empty(), state=new.rewindow(old.attribute(batch_of(rows)).state))
    again = new.attribute(batch_of(rows))
    assert again.n_conversions - again.n_uncredited == 8
    assert found.credits.estimate == pytest.approx(again.credits.estimate)
    assert found.credits.high == pytest.approx(again.credits.high)


def test_what_cannot_go_over_is_named(batch_of):
    """Another window without the call is refused, and the refusal names the call; other tags and foreign states cannot go over at all."""
    state = layer_of(("3d", "1d")).attribute(batch_of([])).state
    with pytest.raises(WindowMismatchError, match="rewindow"):
        layer_of(("5d", "1d")).attribute(batch_of([]), state=state)
    with pytest.raises(ConfigurationError, match="columns"):
        WindowedAttribution(AttributionWindow()).rewindow(state)
    with pytest.raises(ConfigurationError, match="conversion_type"):
        WindowedAttribution(AttributionWindow(), tags=TAGS, conversion_type="sale").rewindow(state)
    with pytest.raises(ConfigurationError, match="not a state"):
        layer_of(("3d", "1d")).rewindow(b"state")


ASSETS = Path(__file__).parent / "assets"


def test_states_of_the_first_format_are_still_read(batch_of):
    """A state saved by the first version goes on: seven conversions are there, and one more is credited to the arm of its click."""
    layer = layer_of(("3d", "1d"))
    state = layer.load((ASSETS / "state_1_last.npz").read_bytes())
    out = layer.attribute(batch_of([{"id": "new", "kind": "conversion", "user": "u19", "at": DAY0 + 20.0}]), state=state)
    assert dict(zip((a[0] for a in out.arms), out.per_arm("credit").tolist(), strict=True)) == {"google": 4.0, "meta": 4.0}
    assert out.n_conversions == 8
    assert np.isfinite(out.cohorts.maturity).all()
    assert layer.load(out.state.to_bytes()).to_bytes() == out.state.to_bytes()


def test_steps_of_the_first_format_are_refused():
    """Its Markov states hold steps, from which whole journeys cannot be had: that is said, with what to do."""
    with pytest.raises(InputError, match="start without state"):
        layer_of(("3d", "1d"), "markov").load((ASSETS / "state_1_markov.npz").read_bytes())
