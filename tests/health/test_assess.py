"""The four conditions say run, hold or manual, each for its own reason."""

from datetime import timedelta

import pytest

from closedloop.errors import ConfigurationError
from closedloop.health import Thresholds, assess
from closedloop.records.action import Receipts
from closedloop.records.batch import EventBatch
from closedloop.records.feedback import Finding
from closedloop.records.interval import Interval
from closedloop.records.quarantine import Ingested, Quarantine, TagReport
from closedloop.records.window import AttributionWindow

WINDOW = AttributionWindow(click="7d", view="1d")
GOOD = {("google", "a"): 120.0, ("google", "b"): 80.0, ("meta", "c"): 60.0}


def _ingested(**shares):
    """Return an ingestion of 1,000 rows per campaign with these shares tagged."""
    names = list(shares)
    tags = TagReport(
        platform=("google",) * len(names),
        campaign=tuple(names),
        rows=(1000,) * len(names),
        tagged=tuple(int(1000 * shares[n]) for n in names),
    )
    return Ingested(batch=EventBatch.empty(), quarantine=Quarantine(), tags=tags, n_rows=0, n_accepted=0, n_duplicates=0)


def _assess(signals, now, *, windows=None, ingested=None, receipts=None, **thresholds):
    layers = {"loop": WINDOW, "classifier": WINDOW} if windows is None else windows
    given = ingested or _ingested(a=1.0, b=1.0)
    return assess(
        windows=layers, ingested=given, signals=signals, receipts=receipts or Receipts(), now=now, thresholds=Thresholds(**thresholds)
    )


def _state(report):
    return {f.name: f.severity for f in report.conditions}


def test_a_healthy_account_runs(make_signals, make_receipts, now):
    """With one window, full tags, volume and settled actions every condition is ok and the advice is run."""
    report = _assess(make_signals(GOOD), now, receipts=make_receipts(confirmed=8))
    assert _state(report) == dict.fromkeys(("one_window", "tagging", "volume", "integrations"), "ok")
    assert (report.advice, report.because) == ("run", "all four conditions hold")
    assert set(report.campaigns.values()) == {"run"}


def test_layers_with_different_windows_hold(make_signals, now):
    """Two windows inside the loop are critical, and both are named."""
    report = _assess(make_signals(GOOD), now, windows={"loop": WINDOW, "classifier": AttributionWindow(click="28d")})
    assert report.advice == "hold"
    assert "28d" in report.because
    assert "7d" in report.because


def test_a_platforms_own_window_is_a_warning(make_signals, now):
    """A platform that reports under another window is named, and the loop runs on."""
    report = _assess(make_signals(GOOD), now, windows={"loop": WINDOW, "platform meta": AttributionWindow(click="28d")})
    assert (report.advice, _state(report)["one_window"]) == ("run", "warning")
    assert "platform meta" in report.conditions[0].evidence


@pytest.mark.parametrize(("tagged", "severity", "advice"), [(0.99, "ok", "run"), (0.93, "warning", "run"), (0.65, "critical", "hold")])
def test_untagged_events_degrade(make_signals, now, tagged, severity, advice):
    """Tags under the warning limit warn, under the critical one hold."""
    report = _assess(make_signals(GOOD), now, ingested=_ingested(a=tagged, b=tagged))
    assert (_state(report)["tagging"], report.advice) == (severity, advice)


def test_rows_that_stand_for_many_events_condemn_no_account(make_signals, now):
    """Six tenths of the events tagged is critical when they are single events, and a warning when two rows bring most of them."""
    single = TagReport(platform=("google",), campaign=("a",), rows=(10_000,), tagged=(6_000,))
    lumps = TagReport(platform=("google",), campaign=("a",), rows=(10_000,), tagged=(6_000,), squares=(4_000.0**2 + 5_000.0**2 + 1_000.0,))
    found = {}
    for name, tags in (("single", single), ("lumps", lumps)):
        ingested = Ingested(batch=EventBatch.empty(), quarantine=Quarantine(), tags=tags, n_rows=0, n_accepted=0, n_duplicates=0)
        found[name] = _assess(make_signals(GOOD), now, ingested=ingested)
    assert (_state(found["single"])["tagging"], found["single"].advice) == ("critical", "hold")
    assert (_state(found["lumps"])["tagging"], found["lumps"].advice) == ("warning", "run")
    measured = {name: next(f for f in r.conditions if f.name == "tagging").measured for name, r in found.items()}
    assert measured["lumps"].estimate == measured["single"].estimate  # what was counted; few draws widen the interval only
    assert measured["lumps"].low < measured["single"].low
    assert "they say as much as 2.44 single ones" in found["lumps"].conditions[1].evidence


def test_one_campaign_with_lost_tags_is_held_alone(make_signals, now):
    """A campaign whose tags are lost is held by name; the account runs."""
    report = _assess(make_signals(GOOD), now, ingested=_ingested(a=0.5, b=1.0, c=1.0, d=1.0, e=1.0))
    assert (report.advice, report.campaigns["google / a"], report.campaigns["google / b"]) == ("run", "hold", "run")


def test_volume_by_campaign(make_signals, now):
    """At the minimum a campaign runs; one that may reach it holds; one that surely does not is for a person."""
    report = _assess(make_signals({("google", "a"): 120.0, ("google", "b"): 48.0, ("google", "c"): 5.0}), now)
    assert report.campaigns == {"google / a": "run", "google / b": "hold", "google / c": "manual"}
    assert report.advice == "run"


def test_no_volume_anywhere_is_manual(make_signals, now):
    """When no campaign can have the volume, a manual strategy is better."""
    assert _assess(make_signals({("google", "a"): 6.0, ("meta", "c"): 3.0}), now).advice == "manual"


def test_one_day_of_data_is_too_little_to_condemn(make_signals, now):
    """After one day with few conversions the interval still reaches the minimum: hold, not manual."""
    report = _assess(make_signals({("google", "a"): 35.0}, days=1), now)
    assert (report.advice, report.campaigns["google / a"]) == ("hold", "hold")


def test_no_arms_at_all(make_signals, now):
    """Without a single complete arm the account is for a person, and says what is missing."""
    report = _assess(make_signals({}), now)
    assert report.advice == "manual"
    assert "tags" in report.conditions[2].mend


@pytest.mark.parametrize(
    ("states", "severity"),
    [
        ({"confirmed": 20}, "ok"),
        ({"confirmed": 5, "superseded": 9, "stale": 3}, "ok"),
        ({"confirmed": 20, "unknown": 5}, "warning"),
        ({"confirmed": 2, "rejected": 6}, "critical"),
        ({"open": 6}, "critical"),
        ({"confirmed": 1, "late": 5}, "warning"),
        ({}, "ok"),
    ],
)
def test_integrations_by_receipts(make_signals, make_receipts, now, states, severity):
    """Lost, refused and stuck actions count against an integration; late ones warn, overtaken ones do nothing."""
    only_google = {k: v for k, v in GOOD.items() if k[0] == "google"}
    report = _assess(make_signals(only_google), now, receipts=make_receipts(**states))
    assert _state(report)["integrations"] == severity
    assert report.advice == ("hold" if severity == "critical" else "run")


def test_a_broken_platform_holds_its_own_campaigns(make_signals, make_receipts, now):
    """What one platform does not do holds its campaigns, names it, and leaves the other platform's alone."""
    report = _assess(make_signals(GOOD), now, receipts=make_receipts(confirmed=2, rejected=6))
    assert (report.advice, _state(report)["integrations"]) == ("run", "warning")
    assert report.campaigns == {"google / a": "hold", "google / b": "hold", "meta / c": "run"}
    (finding,) = (f for f in report.findings if f.name == "integrations")
    assert (finding.scope, "google did 2 of the last 8 changes (6 rejected)" in finding.evidence) == ("google", True)


def test_a_broken_platform_is_tried_again(make_signals, make_receipts, now):
    """After three days in which a held platform was sent nothing, its old failures hold it no longer."""
    receipts = make_receipts(rejected=8)
    advice = [_assess(make_signals(GOOD, data_age_days=-d), now + timedelta(days=d), receipts=receipts).campaigns for d in range(5)]
    assert [a["google / a"] for a in advice] == ["hold"] * 4 + ["run"]


def test_fresh_actions_are_no_fault(make_signals, make_receipts, now):
    """Actions sent a moment ago are not due yet."""
    report = _assess(make_signals(GOOD), now - timedelta(hours=70), receipts=make_receipts(open=5))
    assert "no action is due" in report.conditions[3].evidence


@pytest.mark.parametrize(("age", "severity"), [(0.5, "ok"), (2.0, "warning"), (4.0, "critical")])
def test_a_platform_that_falls_silent_is_noticed(make_signals, now, age, severity):
    """Data older than the limits warn, then hold, and the platform is named."""
    report = _assess(make_signals(GOOD, data_age_days=age), now)
    assert _state(report)["integrations"] == severity
    assert ("google" in report.conditions[3].evidence) == (severity != "ok")


def test_without_ingestion_the_signals_speak(make_signals, now):
    """Between ingestions the tagged share of the signals is used."""
    signals = make_signals(GOOD, tagged=0.6)
    report = assess(windows={"loop": WINDOW}, ingested=None, signals=signals, receipts=Receipts(), now=now)
    assert _state(report)["tagging"] == "critical"


def _sick(make_signals, make_receipts, now):
    """Return reports of accounts with every condition broken in turn, by what is broken."""
    thin = {("google", "a"): 120.0, ("google", "b"): 48.0, ("meta", "c"): 5.0}
    signals = make_signals(GOOD)
    measured = Interval(low=0.2, estimate=0.3, high=0.4, level=0.9, kind="credible")
    words = {"evidence": "half of it lacks tags", "mend": "mend the links"}
    missing = Finding(name="missing_tags", severity="critical", scope="google", measured=measured, threshold=0.7, **words)
    limits = {"windows": {"loop": WINDOW}, "ingested": _ingested(a=1.0), "receipts": Receipts(), "now": now, "thresholds": Thresholds()}
    return {
        "windows": _assess(signals, now, windows={"loop": WINDOW, "classifier": AttributionWindow(click="28d")}),
        "tags": _assess(signals, now, ingested=_ingested(a=0.5, b=0.5)),
        "tags of one": _assess(signals, now, ingested=_ingested(a=0.5, b=1.0, c=1.0, d=1.0, e=1.0)),
        "volume": _assess(make_signals(thin), now),
        "no volume": _assess(make_signals({("google", "a"): 6.0, ("meta", "c"): 3.0}), now),
        "actions": _assess(signals, now, receipts=make_receipts(confirmed=2, rejected=6)),
        "old data": _assess(make_signals(GOOD, data_age_days=4.0), now),
        "a finding": assess(signals=signals, findings=(missing,), **limits),
    }


def test_whatever_may_not_run_has_its_reason_and_its_mend(make_signals, make_receipts, now):
    """For the account and for each campaign: not to run is explained by a finding about it, with its numbers and what to do."""
    reports = _sick(make_signals, make_receipts, now)
    assert {r.advice for r in reports.values()} == {"run", "hold", "manual"}
    assert {a for r in reports.values() for a in r.campaigns.values()} == {"run", "hold", "manual"}
    for report in reports.values():
        found = [f for f in (*report.conditions, *report.findings) if f.severity != "ok"]
        assert found
        assert report.because
        for finding in found:
            assert finding.evidence
            assert finding.mend
            assert finding.measured.low <= finding.measured.estimate <= finding.measured.high
            assert finding.measured.level == 0.9
        if report.advice != "run":
            assert any(f.scope == "account" and f.severity == "critical" and f.evidence in report.because for f in found) or any(
                f.name == "volume" and f.evidence in report.because for f in report.conditions
            )
        for name, advice in report.campaigns.items():
            about = [f for f in found if f.scope == name or name.startswith(f"{f.scope} / ")]
            assert advice == "run" or any(f.severity == "critical" or f.name == "volume" for f in about)


def test_the_four_conditions_are_measured_against_thresholds_in_every_report(make_signals, make_receipts, now):
    """Windows in use, the share tagged, conversions a week and the share settled, each with interval and threshold, whatever is broken."""
    for report in _sick(make_signals, make_receipts, now).values():
        assert [f.name for f in report.conditions] == ["one_window", "tagging", "volume", "integrations"]
        assert [f.scope for f in report.conditions] == ["account"] * 4
        assert [f.threshold for f in report.conditions] == [1.0, 0.95, 50.0, 0.9]
        windows, tagged, volume, settled = (f.measured for f in report.conditions)
        assert windows.estimate in (1.0, 2.0)
        assert 0.0 <= tagged.low <= tagged.high <= 1.0
        assert volume.low >= 0.0
        assert 0.0 <= settled.low <= settled.high <= 1.0


def test_limits_out_of_order_are_refused():
    """A critical limit above its warning is a mistake of the set-up."""
    with pytest.raises(ConfigurationError, match="tagged_critical"):
        Thresholds(tagged_critical=0.99)
