"""Records to JSON and back."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.errors import InvariantError, LedgerError
from closedloop.ledger import canonical, decode, encode
from closedloop.records.action import AttemptResult, Change, Receipt, TargetState
from closedloop.records.decision import Constraints, Decision, Hold, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow

texts = st.text(max_size=20)
names = st.text(min_size=1, max_size=12)
numbers = st.floats(allow_nan=False)
times = st.datetimes(
    min_value=datetime(1980, 1, 1),  # noqa: DTZ001
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
money = st.builds(Money, st.integers(-(2**61), 2**61), st.sampled_from(["EUR", "USD", "JPY"]))
targets = st.builds(Target, names, names)
intervals = st.lists(numbers, min_size=3, max_size=3).map(
    lambda v: Interval(low=min(v), estimate=sorted(v)[1], high=max(v), level=0.9, kind="credible")
)
arms = st.lists(st.one_of(st.none(), texts), max_size=4).map(tuple)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), numbers, texts, times, money, st.timedeltas()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(texts, st.just("$")), inner, max_size=3),
        st.dictionaries(arms, inner, max_size=2),
    ),
    max_leaves=8,
)
triggers = st.dictionaries(texts, plain, max_size=3)
decisions = st.builds(
    Decision,
    decision_id=names,
    arm=arms,
    target=targets,
    before=money,
    after=money,
    gain=intervals,
    p_gain=numbers,
    reason=texts,
    triggers=triggers,
)
holds = st.builds(
    Hold,
    arm=arms,
    target=st.none() | targets,
    budget=st.none() | money,
    reason=st.sampled_from(["low_volume", "paused"]),
    explanation=texts,
    lift=texts,
    gain=intervals,
    triggers=triggers,
)
windows = st.builds(AttributionWindow, click=st.none() | st.just("7d"), view=st.sampled_from(["1d", "0s", "36h"]))
plans = st.builds(
    Plan,
    plan_id=names,
    made_at=times,
    window=windows,
    decisions=st.lists(decisions, max_size=3, unique_by=lambda d: d.target).map(tuple),
    holds=st.lists(holds, max_size=2).map(tuple),
    gain=intervals,
    p_gain=numbers,
    expected_shortfall=numbers,
    horizon_days=numbers,
    unit=texts,
    provenance=triggers,
)
changes = st.builds(
    Change, action_id=names, target=targets, kind=st.sampled_from(["set_budget", "pause", "resume"]), budget=st.none() | money
)
stands = st.builds(
    TargetState, target=targets, budget=st.none() | money, active=st.booleans(), read_at=times, learning=st.none() | st.booleans()
)
receipts = st.builds(
    Receipt,
    action_id=names,
    plan_id=names,
    change=changes,
    prior=st.none() | stands,
    state=st.sampled_from(["recorded", "confirmed"]),
    attempts=st.integers(0, 9),
    decided_at=times,
    sent_at=st.none() | times,
    waited_for_quota=numbers,
    message=texts,
)


@given(st.one_of(plans, decisions, holds, receipts, changes, stands, intervals, money, windows, plain))
def test_round_trip_through_text(value: object) -> None:
    """Any record or collection of records comes back equal and of the same type, through the text that a ledger stores."""
    text = canonical(encode(value))
    again = decode(json.loads(text))
    assert type(again) is type(value)
    assert again == value
    assert canonical(encode(again)) == text


def test_special_numbers_keep_their_sign_and_size() -> None:
    """Infinity, minus zero and the smallest number come back bit by bit."""
    for number in (math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2):
        again = decode(json.loads(canonical(encode(number))))
        assert math.copysign(1, again) == math.copysign(1, number)
        assert again == number
    assert math.isnan(decode(json.loads(canonical(encode(math.nan)))))


def test_numpy_comes_back() -> None:
    """Arrays keep shape, type and values; numpy scalars become the plain numbers they are."""
    array = np.array([[1.5, np.inf], [-np.inf, 0.0]])
    again = decode(json.loads(canonical(encode(array))))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)
    assert decode(encode({"n": np.int64(3), "x": np.float64(0.5), "b": np.bool_(True)})) == {"n": 3, "x": 0.5, "b": True}


def test_constraints_with_arms_as_keys() -> None:
    """A mapping whose keys are arms survives."""
    constraints = Constraints(total=100, floors={("google", None): 5.0})
    assert decode(json.loads(canonical(encode(constraints)))) == constraints


def test_what_cannot_be_kept_is_refused() -> None:
    """An object without a tag, or a time without a zone, raises and names the type."""
    with pytest.raises(InvariantError, match="object"):
        encode({"deep": [object()]})
    with pytest.raises(InvariantError, match="zone"):
        encode(datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvariantError, match="JSON"):
        canonical({"n": math.inf})


def test_later_versions_and_damage_are_ledger_errors() -> None:
    """A record of a later version, an unknown tag or a missing field never becomes a wrong value."""
    good = encode(Money.of(5, "EUR"))
    for bad in ({**good, "$": "Money/2"}, {**good, "$": "Gold/1"}, {"$": "Money/1", "micros": 5}, {**good, "extra": 1}, {"$": "Money"}):
        with pytest.raises(LedgerError):
            decode(bad)


def test_old_records_without_a_later_field_are_read() -> None:
    """A field with a default may be missing, as in a ledger written before it was added."""
    old = encode(AttemptResult(status="accepted", request_id="r1"))
    del old["scope"], old["usage"]
    assert decode(old) == AttemptResult(status="accepted", request_id="r1")
    assert {f.name for f in attrs.fields(AttemptResult)} >= {"scope", "usage"}
