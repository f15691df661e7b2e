"""Participation: every conversion counts whole for every arm in its journey, whoever is credited with it."""

from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.attribute import WindowedAttribution
from closedloop.attribute.state import AttributionState
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

TAGS = TagSchema(arm=("platform",))
DAY0 = 19_000
CLICK, VIEW = 3.0, 1.0


def layer(model="last", participation=True):
    window = AttributionWindow(click="3d", view="1d")
    return WindowedAttribution(window, model=model, tags=TAGS, lateness="2d", replicates=20, participation=participation)


@st.composite
def events(draw):
    rows = []
    for i in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from(["click", "impression", "conversion"]))
        row = {"id": f"e{i}", "kind": kind, "at": DAY0 + draw(st.integers(0, 60)) / 4, "user": draw(st.sampled_from("uvw"))}
        if kind == "conversion":
            row |= {"value": draw(st.integers(0, 9)), "quantity": draw(st.integers(1, 3))}
        else:
            row["platform"] = draw(st.sampled_from(["google", "meta", "tiktok"]))
        rows.append(row)
    return rows


def by_hand(rows):
    """Conversions and revenue that each arm took part in, touch by touch."""
    count, value = {}, {}
    for c in rows:
        if c["kind"] != "conversion":
            continue
        present = {
            t["platform"]
            for t in rows
            if t["kind"] != "conversion"
            and t["user"] == c["user"]
            and 0 <= c["at"] - t["at"] <= (CLICK if t["kind"] == "click" else VIEW)
        }  # fmt: skip
        for arm in present:
            count[arm] = count.get(arm, 0) + c["quantity"]
            value[arm] = value.get(arm, 0) + c["value"]
    return count, value


@settings(max_examples=80, deadline=None)
@given(rows=events(), model=st.sampled_from(["last", "first", "linear", "shapley", "markov"]))
def test_each_conversion_counts_whole_for_each_arm_of_its_journey(batch_of, rows, model):
    """Under any model of credit the participation is that of a search through all touches; settled days stand in it as open ones do."""
    half = len(rows) // 2
    ordered = sorted(rows, key=lambda r: r["at"])
    first = layer(model).attribute(batch_of(ordered[:half]))
    outcomes = layer(model).attribute(batch_of(ordered[half:]), state=layer(model).load(first.state.to_bytes()))
    joined = outcomes.participation
    assert [*joined.arms] == [*outcomes.arms]
    assert joined.cohorts.exposures.tolist() == outcomes.cohorts.exposures.tolist()
    count, value = by_hand(rows)
    for i, (arm,) in enumerate(joined.arms):
        assert joined.per_arm("credit")[i] == count.get(arm, 0)
        assert outcomes.to_columns()["participation"][i] == count.get(arm, 0)
        assert joined.per_arm("value")[i] == pytest.approx(value.get(arm, 0))
    if model == "last":
        assert (outcomes.per_arm("credit") <= joined.per_arm("credit")).all()


def test_an_arm_takes_part_by_its_last_click_and_by_a_view_only_without_one(batch_of):
    """Three touches of one arm before a sale: the younger click counts, though a view is younger still."""
    touches = [("click", 1.0), ("click", 2.0), ("impression", 3.0)]
    rows = [{"id": f"t{i}", "kind": k, "at": DAY0 + at, "user": "u", "platform": "google"} for i, (k, at) in enumerate(touches)]
    rows += [{"id": "v", "kind": "impression", "at": DAY0 + 2.75, "user": "u", "platform": "meta"}]
    rows += [{"id": "c", "kind": "conversion", "at": DAY0 + 3.5, "user": "u"}]
    c = layer().attribute(batch_of(rows)).participation.cohorts
    found = {(int(a), int(d) - DAY0, int(k)) for a, d, k, x in zip(c.arm, c.day, c.kind, c.credit, strict=True) if x}
    assert found == {(0, 2, 0), (1, 2, 1)}


def test_days_count_all_conversions_credited_or_not(batch_of):
    """Two users convert on one day, one of them without a touch; a third on the day after."""
    rows = [{"id": "t", "kind": "click", "at": DAY0 + 0.5, "user": "u", "platform": "google"}]
    rows += [
        {"id": f"c{u}", "kind": "conversion", "at": DAY0 + at, "user": u, "quantity": q}
        for u, at, q in [("u", 1, 2), ("v", 1, 1), ("w", 2, 1)]
    ]
    daily = layer().attribute(batch_of(rows)).daily
    assert [daily.day.tolist(), daily.conversions.tolist(), daily.uncredited.tolist()] == [[DAY0 + 1, DAY0 + 2], [3, 1], [1, 1]]
    assert daily.per_day(DAY0, DAY0 + 1) == 1.5
    assert daily.per_day(DAY0 + 5, DAY0 + 6) is None


def test_what_was_settled_before_it_was_asked_for_stands_as_credited(batch_of):
    """A state without participation, also one saved by an earlier version, goes on with it."""
    rows = [{"id": f"g{d}", "kind": "click", "at": DAY0 + d, "user": f"u{d}", "platform": "google"} for d in range(12)]
    rows += [{"id": f"m{d}", "kind": "click", "at": DAY0 + d + 0.1, "user": f"u{d}", "platform": "meta"} for d in range(12)]
    rows += [{"id": f"c{d}", "kind": "conversion", "at": DAY0 + d + 0.2, "user": f"u{d}"} for d in range(12)]
    plain = layer(participation=False).attribute(batch_of(rows))
    assert plain.participation is None
    after = layer().attribute(batch_of([]), state=plain.state)
    settled = int((AttributionState.from_bytes(plain.state.to_bytes())).cohorts.sums["credit"].sum()) >> 32
    assert 0 < settled < 12
    assert dict(zip((a[0] for a in after.arms), after.participation.per_arm("credit").tolist(), strict=True)) == {
        "google": 12 - settled,
        "meta": 12,
    }
    without = layer(participation=False).attribute(batch_of([]), state=after.state)
    assert without.state.to_bytes() == layer(participation=False).attribute(batch_of([]), state=plain.state).state.to_bytes()


def test_a_state_of_the_second_format_is_read(batch_of):
    """A file that the version before wrote: seven conversions are there, and one more is credited to the arm of its click."""
    saved = (Path(__file__).parent / "assets" / "state_2_last.npz").read_bytes()
    own = WindowedAttribution(
        AttributionWindow(click="3d", view="1d"), tags=TagSchema(arm=("platform", "campaign")), lateness="2d", participation=True
    )
    out = own.attribute(batch_of([{"id": "new", "kind": "conversion", "user": "u19", "at": DAY0 + 20.0}]), state=own.load(saved))
    credit = dict(zip((a[0] for a in out.arms), out.per_arm("credit").tolist(), strict=True))
    assert credit == {"google": 4.0, "meta": 4.0}
    assert (out.participation.per_arm("credit") >= out.per_arm("credit")).all()
    assert np.isfinite(out.participation.cohorts.maturity).all()


def test_a_robot_with_more_pairs_than_could_be_listed_is_counted(batch_of):
    """40,000 clicks of a user before each of 8,000 conversions make 320 million pairs of touches, and 16,000 of arms."""
    rows = [{"id": f"t{i}", "kind": "click", "at": DAY0 + i / 4e4, "user": "u", "platform": "gm"[i % 2]} for i in range(40_000)]
    rows += [{"id": f"c{i}", "kind": "conversion", "at": DAY0 + 1 + i / 1e4, "user": "u"} for i in range(8_000)]
    out = layer().attribute(batch_of(rows))
    assert out.participation.per_arm("credit").tolist() == [8_000, 8_000]
    assert out.per_arm("credit").sum() == 8_000


def test_a_touch_takes_part_up_to_the_conversion_itself(batch_of):
    """One at the very microsecond does, one a microsecond later does not."""
    rows = [{"id": p, "kind": "click", "user": "u", "at": 19_001.0, "platform": p, "campaign": "x"} for p in ("before", "same", "after")]
    batch = batch_of([*rows, {"id": "s", "kind": "conversion", "user": "u", "at": 19_002.0}])
    at = batch.occurred_at.copy()
    at[1], at[2] = at[3], at[3] + 1
    layer = WindowedAttribution(AttributionWindow(click="3d", view="1d"), tags=TagSchema(arm=("platform", "campaign")), participation=True)
    found = layer.attribute(attrs.evolve(batch, occurred_at=at, recorded_at=at)).participation
    assert {arm[0]: n for arm, n in zip(found.arms, found.per_arm("credit").tolist(), strict=True)} == {"after": 0, "before": 1, "same": 1}
