"""The audit on events with known faults: each check finds its fault, with its size, and stays quiet without it."""

import numpy as np
import pytest
from scipy import stats

from closedloop.attribute import LiftResult, PlatformReport, WindowedAttribution, audit
from closedloop.attribute.audit import _dropped, _moved, _severity, _split, proportion
from closedloop.errors import InputError
from closedloop.records.interval import Interval
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

TAGS = TagSchema(arm=("platform", "campaign"))
WINDOW = AttributionWindow(click="7d", view="1d")
DAY0 = 19_000


@pytest.fixture(scope="module")
def batch(batch_of):
    """200 buyers: all clicked on meta/early five days before, every second one on google/late a day before, every fourth saw a view."""
    rows = []
    for i in range(200):
        user, at = f"u{i}", DAY0 + 10 + i / 50
        rows.append({"id": f"a{i}", "kind": "click", "user": user, "at": at - 5, "platform": "meta", "campaign": "early", "cost": 1.0})
        if i % 2:
            rows.append({"id": f"b{i}", "kind": "click", "user": user, "at": at - 1, "platform": "google", "campaign": "late"})
        if i % 4 == 0:
            rows.append({"id": f"v{i}", "kind": "impression", "user": user, "at": at - 0.5, "platform": "tiktok", "campaign": "view"})
        rows.append({"id": f"c{i}", "kind": "conversion", "user": user, "at": at})
    return batch_of(rows)


@pytest.fixture(scope="module")
def outcomes(batch):
    return WindowedAttribution(WINDOW, tags=TAGS).attribute(batch)


def finding(found, name):
    return next(f for f in found if f.name == name)


def test_a_report_under_another_window_is_re_attributed(outcomes, batch):
    """Under three days meta's older clicks fall out: half of the conversions, named by arm, with the decision that would follow."""
    report = PlatformReport(platform="google", conversions=100, window=AttributionWindow(click="3d", view="1d"))
    f = finding(audit(outcomes, [report], batch=batch, tags=TAGS, repeats=3), "window_mismatch")
    assert f.measured.estimate == pytest.approx(0.25)
    assert f.severity == "critical"
    assert "meta / early would lose" in f.mend
    same = PlatformReport(platform="google", conversions=100, window=WINDOW)
    assert not [f for f in audit(outcomes, [same], batch=batch, tags=TAGS, repeats=3) if f.name == "window_mismatch"]


def test_platforms_claiming_the_same_conversions(outcomes):
    """200 happened and 300 are claimed: at least 100 twice, a third of the claims; 150 claims are quiet."""
    claims = [PlatformReport(platform="meta", conversions=200), PlatformReport(platform="google", conversions=100)]
    f = finding(audit(outcomes, claims), "claimed_twice")
    assert f.measured.estimate == pytest.approx(1 / 3)
    assert f.severity == "critical"
    assert finding(audit(outcomes, [PlatformReport(platform="meta", conversions=150)]), "claimed_twice").severity == "ok"
    with pytest.raises(InputError):
        audit(outcomes, [PlatformReport(platform="meta", conversions=float("nan"))])


def test_view_through_inflation(batch):
    """Without a click window a view takes all its credit; the share of views is measured and its arm named."""
    by_view = WindowedAttribution(AttributionWindow(click="2d", view="1d"), tags=TAGS).attribute(batch)
    f = finding(audit(by_view), "view_through")
    assert f.measured.estimate == pytest.approx(50 / 150)
    assert "tiktok / view" in f.evidence
    assert f.severity == "warning"


def test_credit_that_was_not_caused(outcomes):
    """A test that finds a fifth of the credit caused is critical; one that finds all of it is quiet."""
    low = LiftResult(where={"platform": "meta"}, attributed=500.0, estimate=100.0, standard_error=25.0)
    fair = LiftResult(where={"platform": "meta"}, attributed=500.0, estimate=500.0, standard_error=50.0)
    found = [f for f in audit(outcomes, tests=[low, fair]) if f.name == "credit_against_caused"]
    assert [f.severity for f in found] == ["critical", "ok"]
    assert found[0].measured.estimate == pytest.approx(0.2, abs=0.02)
    assert "count about 20" in found[0].mend
    assert found[0].threshold == 1.0


def test_models_that_disagree_and_touches_that_are_lost(outcomes, batch):
    """First touch gives all to meta where last gives half to google: half the credit changes hands; lost and split touches are measured."""
    found = audit(outcomes, batch=batch, tags=TAGS, repeats=5)
    assert "50.0%" in finding(found, "rank_stability").evidence
    for name in ("dropped_touchpoints", "fragmented_identities"):
        f = finding(found, name)
        assert 0 < f.measured.low <= f.measured.high < 0.2
        assert "best arm" in f.mend


def test_nothing_to_audit_is_quiet(batch_of):
    """Without an arm no credit moves, whatever the model or the window; no finding is worse than ok."""
    nothing = batch_of([])
    report = PlatformReport(platform="google", conversions=0, window=AttributionWindow(click="3d", view="1d"))
    found = audit(WindowedAttribution(WINDOW, tags=TAGS).attribute(nothing), [report], batch=nothing, tags=TAGS, repeats=3)
    assert {f.severity for f in found} == {"ok"}
    assert finding(found, "window_mismatch").measured.estimate == 0.0
    assert "no arm gains or loses" in finding(found, "window_mismatch").mend


def test_lost_and_split_touches_are_touches_of_known_users(batch_of):
    """At a share of one every touch of a known user goes elsewhere (or is lost); conversions, spend and touches without users stay."""
    rows = [
        {"id": "1", "kind": "click", "user": "u", "at": DAY0, "platform": "meta", "campaign": "x"},
        {"id": "2", "kind": "impression", "user": "v", "at": DAY0, "platform": "meta", "campaign": "x"},
        {"id": "3", "kind": "click", "at": DAY0, "platform": "meta", "campaign": "x"},
        {"id": "4", "kind": "spend", "at": DAY0, "platform": "meta", "campaign": "x", "cost": 1.0},
        {"id": "5", "kind": "conversion", "user": "u", "at": DAY0 + 1},
    ]
    batch, rng = batch_of(rows), np.random.default_rng(0)

    def users(b):
        return [b.user_id.vocab[c] if c >= 0 else None for c in b.user_id.codes]

    assert users(_split(batch, 1.0, rng)) == ["u elsewhere", "v elsewhere", None, None, "u"]
    assert users(_split(batch, 0.0, rng)) == users(batch)
    assert _dropped(batch, 1.0, rng).event_id.tolist() == ["4", "5"]
    assert _dropped(batch, 0.0, rng).event_id.tolist() == list("12345")
    many = batch_of([{**rows[0], "id": str(i), "user": f"u{i}"} for i in range(4000)])
    assert len(_dropped(many, 0.1, rng)) / 4000 == pytest.approx(0.9, abs=0.02)
    assert np.mean(["elsewhere" in u for u in users(_split(many, 0.1, rng))]) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(("claimed", "severity"), [(205, "ok"), (210, "ok"), (225, "warning"), (240, "critical"), (400, "critical")])
def test_how_bad_a_double_claim_is(outcomes, claimed, severity):
    """A twentieth of all claims is the threshold; critical is what surely passes twice of it; the words say the surplus."""
    f = finding(audit(outcomes, [PlatformReport(platform="meta", conversions=claimed)]), "claimed_twice")
    share = (claimed - 200) / claimed
    low = stats.beta.ppf(0.05, claimed - 200 + 0.5, 200 + 0.5)
    assert f.measured.estimate == pytest.approx(share)
    assert f.measured.low == pytest.approx(low)
    assert f.measured.high == pytest.approx(stats.beta.ppf(0.95, claimed - 200 + 0.5, 200 + 0.5))
    assert f.severity == severity == ("critical" if low > 0.1 else "warning" if share > 0.05 else "ok")
    assert f"claim {claimed} conversions, 200 happened: {claimed - 200} or more" in f.evidence


def test_a_share_of_nothing_may_be_anything():
    """From 0 to 1; all of few is an interval that ends at 1, none of few one that begins at 0."""
    assert (proportion(0, 0).low, proportion(0, 0).estimate, proportion(0, 0).high) == (0.0, 0.0, 1.0)
    some, none = proportion(3, 3), proportion(0, 3)
    assert (some.estimate, some.high, none.low, none.estimate) == (1.0, 1.0, 0.0, 0.0)
    assert some.low == pytest.approx(stats.beta.ppf(0.05, 3.5, 0.5))
    assert none.high == pytest.approx(1 - some.low)


def test_credit_that_changes_hands_is_half_of_all_changes():
    """An arm that one side does not know has a share of nothing there; who gains and who loses most is said with how much."""
    moved, words = _moved({("a",): 0.6, ("b",): 0.4}, {("b",): 0.3, ("c", None): 0.7})
    assert moved == pytest.approx(0.7)
    assert words == "c / ? would gain 70.0% of all credit, a would lose 60.0%"
    assert _moved({("a",): 1.0}, {("a",): 1.0})[0] == 0.0


@pytest.fixture(scope="module")
def few(batch_of):
    """Ten buyers with a click on a, one of them on b too, later; b costs next to nothing."""
    rows = []
    for i in range(10):
        rows.append({"id": f"a{i}", "kind": "click", "user": f"u{i}", "at": DAY0 + i, "platform": "a", "campaign": "x", "cost": 2.0})
        rows.append({"id": f"c{i}", "kind": "conversion", "user": f"u{i}", "at": DAY0 + i + 0.5})
    rows.append({"id": "b", "kind": "click", "user": "u3", "at": DAY0 + 3.25, "platform": "b", "campaign": "y", "cost": 1.0})
    return batch_of(rows)


def test_each_finding_states_its_threshold_and_its_part(few):
    """A twentieth, three tenths, a fifth and a tenth; one repetition in which the best arm changes, or does not, is all or none of them."""
    outcomes = WindowedAttribution(AttributionWindow(click="7d", view="1d"), tags=TAGS).attribute(few)
    report = PlatformReport(platform="a", conversions=10, window=AttributionWindow(click="6h", view=None))
    found = {f.name: f for f in audit(outcomes, [report], batch=few, tags=TAGS, repeats=1, lost_share=0.0)}
    assert {n: f.threshold for n, f in found.items()} == {
        "claimed_twice": 0.05, "view_through": 0.3, "window_mismatch": 0.05, "rank_stability": 0.2, "dropped_touchpoints": 0.1,
        "fragmented_identities": 0.1,
    }  # fmt: skip
    calm = found["dropped_touchpoints"]
    assert calm.severity == "ok"
    assert "0.0% of credit changes hands, 0.0% is lost; so no arm gains or loses" in calm.evidence
    assert calm.mend == "the best arm changes in 0% of the repetitions"
    lost = next(f for f in audit(outcomes, batch=few, tags=TAGS, repeats=1, lost_share=1.0) if f.name == "dropped_touchpoints")
    assert "100.0% is lost" in lost.evidence
    assert lost.mend == "the best arm changes in 100% of the repetitions"
    window = found["window_mismatch"]
    assert window.measured.estimate == pytest.approx(0.9)  # only b is within six hours
    assert "10 credited conversions" in window.evidence


def test_a_finding_is_grave_past_its_threshold_and_not_at_it():
    """A warning where the estimate is above the threshold, critical where even the low end is above twice of it."""
    for low, estimate, wanted in ((0.0, 0.1, "ok"), (0.0, 0.11, "warning"), (0.2, 0.3, "warning"), (0.21, 0.3, "critical")):
        assert _severity(Interval(low=low, estimate=estimate, high=0.5, level=0.9, kind="credible"), 0.1) == wanted
