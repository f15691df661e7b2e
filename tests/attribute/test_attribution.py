"""Events to credited outcomes: windows, ties, cohorts, maturity, money, and what is refused."""

import io
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy import stats

from closedloop.attribute import WindowedAttribution, credit_intervals
from closedloop.attribute.cohorts import closed_before
from closedloop.errors import ConfigurationError, InputError, WindowMismatchError
from closedloop.interfaces import AttributionFeedback
from closedloop.records.batch import EventBatch
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

TAGS = TagSchema(arm=("platform", "campaign"))
WINDOW = AttributionWindow(click="7d", view="1d")
DAY0 = 19_000


def click(i, user, at, campaign="a", **more):
    return {"id": i, "kind": "click", "user": user, "at": DAY0 + at, "platform": "google", "campaign": campaign, **more}


def view(i, user, at, campaign="a", **more):
    return {"id": i, "kind": "impression", "user": user, "at": DAY0 + at, "platform": "google", "campaign": campaign, **more}


def conversion(i, user, at, **more):
    return {"id": i, "kind": "conversion", "user": user, "at": DAY0 + at, **more}


def credit_by_campaign(outcomes):
    return dict(zip([arm[1] for arm in outcomes.arms], outcomes.per_arm("credit").tolist(), strict=True))


@pytest.fixture
def attribution():
    return WindowedAttribution(WINDOW, tags=TAGS)


def test_it_serves_the_protocol(attribution):
    """The room is what the loop asks for."""
    assert isinstance(attribution, AttributionFeedback)


def test_last_click_takes_all_and_beats_a_later_view(attribution, batch_of):
    """The last click inside its window is credited, even when a view came after it; a view only without such a click."""
    rows = [click("1", "u", 1.0, "a"), click("2", "u", 2.0, "b"), view("3", "u", 2.4, "c"), conversion("4", "u", 2.5)]
    assert credit_by_campaign(attribution.attribute(batch_of(rows))) == {"a": 0.0, "b": 1.0, "c": 0.0}
    only_view = [view("3", "u", 2.4, "c"), conversion("4", "u", 2.5)]
    assert credit_by_campaign(attribution.attribute(batch_of(only_view))) == {"c": 1.0}


@pytest.mark.parametrize(("kind", "days"), [("click", 7.0), ("impression", 1.0)])
def test_both_ends_of_a_window_are_inside(attribution, batch_of, kind, days):
    """A conversion at the very end of the window is credited, one a microsecond later is not; likewise at the moment of the touch."""
    touch = {"id": "t", "kind": kind, "user": "u", "at": DAY0 + 1.0, "platform": "google", "campaign": "a"}
    us = 1 / 86_400_000_000
    for delay, expected in [(0.0, 1.0), (days, 1.0), (days + us, 0.0), (-us, 0.0)]:
        batch = batch_of([touch, conversion("c", "u", 1.0)])
        at = batch.occurred_at.copy()
        at[1] = at[0] + round(delay * 86_400_000_000)
        moved = EventBatch(**{f: getattr(batch, f) for f in batch.__slots__ if f not in ("occurred_at", "__weakref__")}, occurred_at=at)
        outcomes = attribution.attribute(moved)
        assert outcomes.per_arm("credit").tolist() == [expected]
        assert outcomes.n_uncredited == 1 - expected


def test_ties_do_not_depend_on_order(attribution, batch_of):
    """Two clicks at the same microsecond: one of them is credited whole, the same one in any order."""
    rows = [click("1", "u", 1.0, "a"), click("2", "u", 1.0, "b"), conversion("3", "u", 1.0)]
    one, other = (attribution.attribute(batch_of(r)) for r in (rows, rows[::-1]))
    assert credit_by_campaign(one) == credit_by_campaign(other)
    assert one.per_arm("credit").sum() == 1.0


def test_several_conversions_of_a_user_each_look_back(attribution, batch_of):
    """A touch may serve two conversions; conversions without a user or a touch stay uncredited and counted."""
    rows = [click("1", "u", 1.0), conversion("2", "u", 2.0, value=10.0), conversion("3", "u", 3.0, value=5.5), conversion("4", None, 3.0)]
    outcomes = attribution.attribute(batch_of([*rows, conversion("5", "other", 3.0)]))
    assert outcomes.per_arm("credit").tolist() == [2.0]
    assert outcomes.per_arm("value").tolist() == [15.5]
    assert outcomes.cohorts.value_squared.sum() == pytest.approx(10.0**2 + 5.5**2)
    assert (outcomes.n_conversions, outcomes.n_uncredited) == (4, 2)


def test_self_credited_conversions_need_no_user_and_are_checked_against_the_window(attribution, batch_of):
    """A source's own credit counts inside our window, with its quantity; outside it is uncredited."""
    own = {"kind": "conversion", "platform": "meta", "campaign": "m", "value": 30.0, "quantity": 3}
    rows = [
        {"id": "in", "at": DAY0 + 5.0, "touch_at": DAY0 + 1.5, "touch_kind": 0, **own},
        {"id": "out", "at": DAY0 + 9.5, "touch_at": DAY0 + 1.5, "touch_kind": 0, **own},
        {"id": "view out", "at": DAY0 + 3.5, "touch_at": DAY0 + 1.5, "touch_kind": 1, **own},
    ]
    outcomes = attribution.attribute(batch_of(rows))
    assert outcomes.per_arm("credit").tolist() == [3.0]
    assert outcomes.per_arm("value").tolist() == [30.0]
    assert outcomes.cohorts.day.tolist() == [DAY0 + 1]
    assert (outcomes.n_conversions, outcomes.n_uncredited) == (9, 6)


def test_untagged_events_take_part_as_incomplete_arms(attribution, batch_of):
    """An untagged click is the last touch of its conversion: the credit goes to an arm that is not complete, not to the one before."""
    rows = [click("1", "u", 1.0, "a"), click("2", "u", 2.0, None, untagged=True), conversion("3", "u", 3.0)]
    outcomes = attribution.attribute(batch_of(rows))
    assert outcomes.per_arm("credit")[outcomes.arms.complete].tolist() == [0.0]
    assert outcomes.per_arm("credit")[~outcomes.arms.complete].tolist() == [1.0]


def test_a_conversion_type_is_chosen(batch_of):
    """Only the named type counts, credited or not."""
    rows = [click("1", "u", 1.0), conversion("2", "u", 2.0, type="sale"), conversion("3", "u", 2.5, type="lead")]
    outcomes = WindowedAttribution(WINDOW, tags=TAGS, conversion_type="sale").attribute(batch_of(rows))
    assert (outcomes.n_conversions, outcomes.per_arm("credit").tolist()) == (1, [1.0])
    same = WindowedAttribution(WINDOW, tags=TAGS, conversion_type="sale").attribute(batch_of(rows[:2]))  # no other type to leave out
    assert (same.n_conversions, same.per_arm("credit").tolist()) == (1, [1.0])
    none = WindowedAttribution(WINDOW, tags=TAGS, conversion_type="visit").attribute(batch_of(rows))  # nor any of the one asked for
    assert (none.n_conversions, none.per_arm("credit").tolist()) == (0, [0.0])


def test_cohorts_carry_exposures_spend_age_and_maturity(attribution, batch_of):
    """Touch rows count by quantity, spend by arm and day; fresh cohorts are less mature than old ones, closed ones are mature."""
    rows = [view("v", None, 1.2, quantity=1000), view("w", None, 19.2, quantity=500), click("n", None, 20.5)]
    rows += [{"id": f"s{d}", "kind": "spend", "at": DAY0 + d, "platform": "google", "campaign": "a", "cost": 12.5} for d in (1, 1.5, 20)]
    rows += [conversion("c", "u", 20.5)]
    outcomes = attribution.attribute(batch_of(rows), now=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=DAY0 + 30))
    c = outcomes.cohorts
    assert c.day.tolist() == [DAY0 + 1, DAY0 + 19, DAY0 + 20]
    assert c.kind.tolist() == [1, 1, 0]
    assert c.exposures.tolist() == [1000, 500, 1]
    assert c.age.tolist() == [19, 1, 0]
    assert c.maturity[0] == 1.0
    seen = outcomes.delay["view"].share_seen
    assert c.maturity[1] == pytest.approx(seen[0] + 0.5 * (seen[1] - seen[0]))
    assert c.maturity[2] == pytest.approx(0.5 * outcomes.delay["click"].share_seen[0])
    assert outcomes.spend.spend.tolist() == [25.0, 12.5]


def test_now_does_not_age_data(attribution, batch_of):
    """Waiting without new data makes nothing look more mature."""
    batch = batch_of([click("1", "u", 1.0), conversion("2", "u", 2.0)])
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    soon = attribution.attribute(batch, now=epoch + timedelta(days=DAY0 + 2))
    later = attribution.attribute(batch, now=epoch + timedelta(days=DAY0 + 99))
    assert soon.cohorts.maturity.tolist() == later.cohorts.maturity.tolist()


def test_credit_intervals_are_jeffreys():
    """Whole credits: the equal-tailed Gamma posterior of a Poisson mean under the Jeffreys prior; 0 conversions start at 0."""
    found = credit_intervals(np.array([0, 1, 2]), np.array([0.0, 7.0, 900.0]), np.array([0.0, 7.0, 900.0]), 3, 0.8)
    assert found.estimate.tolist() == [0.0, 7.0, 900.0]
    assert found.low[1:] == pytest.approx(stats.gamma.ppf(0.1, [7.5, 900.5]))
    assert found.high == pytest.approx(stats.gamma.ppf(0.9, [0.5, 7.5, 900.5]))
    assert found.low[0] == 0.0


def test_states_of_other_terms_are_refused(attribution, batch_of):
    """A window, an arm or bytes that do not fit are named, with what to do."""
    state = attribution.attribute(batch_of([click("1", "u", 1.0)])).state
    with pytest.raises(WindowMismatchError, match="click=7d"):
        WindowedAttribution(AttributionWindow(click="1d"), tags=TAGS).attribute(EventBatch.empty(), state=state)
    with pytest.raises(ConfigurationError, match="columns"):
        WindowedAttribution(WINDOW).load(state.to_bytes())
    with pytest.raises(InputError, match="no saved attribution state"):
        attribution.load(b"nonsense")
    with pytest.raises(ConfigurationError, match="not a state"):
        attribution.attribute(EventBatch.empty(), state=object())
    with pytest.raises(InputError, match="USD"):
        attribution.attribute(batch_of([click("9", "u", 1.0)], currency="USD"), state=state)
    with pytest.raises(ConfigurationError, match="last"):
        WindowedAttribution(WINDOW, model="lsat")


def test_no_raw_id_is_kept(attribution, batch_of):
    """Neither user nor event ids can be read from the saved state, and a user can be forgotten."""
    rows = [click("event-secret", "user-secret", 1.0), conversion("c", "user-secret", 2.0)]
    state = attribution.attribute(batch_of(rows)).state
    assert b"secret" not in state.to_bytes()
    forgotten = attribution.attribute(EventBatch.empty(), state=state.forget("user-secret"))
    assert (len(forgotten.arms), forgotten.n_conversions) == (0, 0)
    assert state.forget("nobody") is state


def test_late_events_are_refused_and_counted_once(attribution, batch_of):
    """Written down too long after, or delivered after the days closed: refused, counted, and not counted again when delivered again."""
    first = attribution.attribute(batch_of([click("1", "u", 1.0), click("2", "u", 20.0), conversion("late", "u", 1.5, recorded=DAY0 + 10)]))
    assert (first.n_too_late, first.n_conversions) == (1, 0)
    missed = batch_of([click(f"m{i}", "v", 2.0) for i in range(5)])
    second = attribution.attribute(missed, state=first.state)
    third = attribution.attribute(missed, state=second.state)
    assert [o.n_too_late for o in (second, third)] == [6, 6]
    assert third.revision == second.revision == first.revision
    copies = attribution.attribute(batch_of([click("1", "u", 1.0)]), state=first.state)
    assert copies.n_too_late == 1


def test_a_restatement_replaces(attribution, batch_of):
    """The same event id recorded later with another value replaces the earlier one, whichever arrives first, and raises the revision."""
    old, new = conversion("c", "u", 2.0, value=10.0), conversion("c", "u", 2.0, value=4.0, recorded=DAY0 + 3.0)
    base = attribution.attribute(batch_of([click("1", "u", 1.0), old]))
    restated = attribution.attribute(batch_of([new]), state=base.state)
    reversed_order = attribution.attribute(batch_of([old]), state=attribution.attribute(batch_of([click("1", "u", 1.0), new])).state)
    assert restated.per_arm("value").tolist() == reversed_order.per_arm("value").tolist() == [4.0]
    assert restated.n_conversions == 1
    assert restated.revision == base.revision + 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("history", "20000d"), ("lateness", "20000d"), ("delay_groups", ("creative",)), ("order", 0), ("order", 9), ("replicates", 19),
        ("level", 0.0), ("level", 1.0), ("channel", "creative"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(field, value):
    """Each setting outside its range, or naming a tag that arms do not have, is refused by its name."""
    with pytest.raises(ConfigurationError) as caught:
        WindowedAttribution(WINDOW, tags=TAGS, model="markov", **{field: value})
    assert caught.value.field == field


def test_history_older_than_kept_is_dropped(batch_of):
    """After 30 kept days the first days' clicks, spend and path counts go; what is inside stays, day for day."""
    layer = WindowedAttribution(WINDOW, tags=TAGS, model="markov", replicates=20, history="30d")
    days = range(0, 60, 2)
    rows = [click(f"k{d}", f"u{d}", d) for d in days] + [conversion(f"s{d}", f"u{d}", d + 0.5) for d in days]
    rows += [{"id": f"c{d}", "kind": "spend", "at": DAY0 + d, "platform": "google", "campaign": "a", "cost": 1.0} for d in days]
    found = layer.attribute(batch_of(rows))
    later = layer.attribute(batch_of([click("end", "v", 75.0)]), state=found.state)
    kept = [DAY0 + d for d in days if d >= 75 - 30]
    assert sorted(later.cohorts.day.tolist()) == [*kept, DAY0 + 75]
    assert sorted(later.spend.day.tolist()) == kept
    assert later.per_arm("credit").sum() == pytest.approx(len(kept))


def test_a_state_of_another_format_is_refused(attribution, batch_of):
    """A format that this version does not know is named, with the one it does."""
    saved = attribution.attribute(batch_of([click("1", "u", 1.0)])).state.to_bytes()
    with np.load(io.BytesIO(saved)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["header"].tobytes()) | {"format": "closedloop-attribution-99"}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    out = io.BytesIO()
    np.savez(out, **arrays)
    with pytest.raises(InputError, match="closedloop-attribution-99"):
        attribution.load(out.getvalue())


def test_the_first_open_day_of_a_feed_that_lags_is_not_mature(attribution, batch_of):
    """A day is settled by the newest data of all platforms; the day after the last settled one matures with its own platform's feed."""
    rows = [click(f"g{d}", f"u{d}", d) for d in range(15, 25)]
    rows += [{"id": "m", "kind": "click", "user": "m", "at": DAY0 + 30.0, "platform": "meta", "campaign": "a"}]
    found = attribution.attribute(batch_of(rows))
    closed = closed_before(found.state)
    google = {
        int(d): m
        for a, d, m in zip(found.cohorts.arm, found.cohorts.day, found.cohorts.maturity, strict=True)
        if found.arms[a][0] == "google"
    }
    assert DAY0 + 15 < closed < DAY0 + 24
    assert all((m == 1.0) == (d < closed) for d, m in google.items())
