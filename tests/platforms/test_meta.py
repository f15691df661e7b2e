"""The Meta adapter with the real SDK against a loopback server that speaks the Graph protocol."""

import json
import logging
import sys
from datetime import UTC, datetime, timedelta

import pytest

from closedloop.errors import AuthenticationError, ConfigurationError, NotSentError, PlatformError, RejectedError
from closedloop.interfaces import AppliesChanges, LimitsRequests, ReadsState, ReportsSpend, WeighsRequests
from closedloop.platforms.meta import MetaPlatform
from closedloop.platforms.sunset import SunsetWarning
from closedloop.records.action import Change
from closedloop.records.decision import Target
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow

api_module = pytest.importorskip("facebook_business.api", reason="needs the extra meta")

from facebook_business.session import FacebookSession  # noqa: E402
from meta_server import HTML_502, MetaServer, graph_error  # noqa: E402

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "EAABsecrettoken0123456789"
SECRET = "appsecretappsecret0123456789"


@pytest.fixture
def server():
    with MetaServer(token=TOKEN) as running:
        yield running


def client(server: MetaServer, *, token: str = TOKEN, version: str = "v26.0"):
    session = FacebookSession(app_id="1", app_secret=SECRET, access_token=token)
    session.GRAPH = server.address
    session.requests.trust_env = False
    return api_module.FacebookAdsApi(session, api_version=version)


@pytest.fixture
def meta(server):
    return MetaPlatform(api=client(server), account="act_100")


def budget(amount: str, resource: str = "11", currency: str = "EUR") -> Change:
    return Change(action_id="d1", target=Target("meta", resource), budget=Money.of(amount, currency))


def secret_free(*texts: object) -> bool:
    proof = FacebookSession(app_id="1", app_secret=SECRET, access_token=TOKEN).appsecret_proof
    return not any(s in str(t) + repr(t) for t in texts for s in (TOKEN, SECRET, proof))


def test_offers_the_protocols(meta):
    """The adapter is what the executor asks for, by shape alone."""
    for protocol in (ReadsState, AppliesChanges, LimitsRequests, WeighsRequests, ReportsSpend):
        assert isinstance(meta, protocol)


class TestChanges:
    def test_sets_a_budget_exactly_in_minor_units(self, meta, server):
        """12.34 EUR leaves as the whole number 1234 and is read back as the same money."""
        result = meta.send(budget("12.34"), now=NOW)
        assert result.status == "accepted"
        assert result.request_id.startswith("R")
        assert server.world.objects["11"]["daily_budget"] == "1234"
        assert meta.read(Target("meta", "11"), now=NOW).budget == Money(12_340_000, "EUR")

    @pytest.mark.parametrize(("currency", "amount", "sent"), [("TWD", "900", "900"), ("JPY", "900", "900"), ("JOD", "9.50", "950")])
    def test_minor_units_are_metas_not_those_of_iso(self, currency, amount, sent):
        """Meta takes TWD in whole units (ISO: hundredths) and JOD in hundredths (ISO: thousandths): a factor 100 or 10 in money."""
        with MetaServer(token=TOKEN, currency=currency) as server:
            meta = MetaPlatform(api=client(server), account="act_100")
            assert meta.send(budget(amount, currency=currency), now=NOW).status == "accepted"
            assert server.world.objects["11"]["daily_budget"] == sent
            assert meta.read(Target("meta", "11"), now=NOW).budget == Money.of(amount, currency)

    def test_never_rounds_on_its_own(self, meta, server):
        """An amount that Meta cannot take exactly is refused with the nearest one named; nothing is sent."""
        result = meta.send(budget("12.345"), now=NOW)
        assert result.status == "rejected"
        assert "12.35 EUR" in result.message or "12.34 EUR" in result.message
        assert not server.world.writes
        assert (
            meta.send(Change(action_id="d", target=Target("meta", "11"), budget=meta.rounded(Money.of("12.345", "EUR"))), now=NOW).status
            == "accepted"
        )

    def test_pauses_and_resumes(self, meta, server):
        """Pause and resume turn the object's own switch."""
        for kind, active in (("pause", False), ("resume", True)):
            assert meta.send(Change(action_id="d", target=Target("meta", "11"), kind=kind), now=NOW).status == "accepted"
            assert meta.read(Target("meta", "11"), now=NOW).active is active

    def test_campaign_level(self, server):
        """With campaign budgets the target is a campaign, and no ad-set field is asked for."""
        meta = MetaPlatform(api=client(server), account="act_100", level="campaign")
        assert meta.read(Target("meta", "21"), now=NOW).budget == Money.of(900, "EUR")
        assert meta.send(budget("950", "21"), now=NOW).status == "accepted"
        assert server.world.objects["21"]["daily_budget"] == "95000"

    def test_creates_only_when_told_what(self, meta, server):
        """Without the fields of a new object nothing is created; with them it starts paused, with its mark, and is found by it."""
        change = Change(action_id="d-7", target=Target("meta", "North"), kind="create", budget=Money.of("71.23", "EUR"))
        assert meta.send(change, now=NOW).code == "kind"
        assert not server.world.writes
        meta.creation = {"campaign_id": "21", "optimization_goal": "OFFSITE_CONVERSIONS"}
        assert meta.find(change, now=NOW) == []
        assert meta.send(change, now=NOW).status == "accepted"
        (found,) = meta.find(change, now=NOW)
        assert (found.budget, found.active) == (Money.of("71.23", "EUR"), False)
        assert meta.read(found.target, now=NOW).budget == Money.of("71.23", "EUR")
        meta.creation = {}
        assert meta.send(change, now=NOW).code == "100"

    def test_validate_only_changes_nothing(self, meta, server):
        """The platform is asked, not told."""
        assert meta.validate(budget("12.34"), now=NOW).status == "accepted"
        assert meta.validate(budget("0.50"), now=NOW).status == "rejected"
        assert not server.world.writes

    def test_reads_the_learning_phase(self, meta):
        """The learning phase is told where Meta tells it."""
        assert meta.read(Target("meta", "12"), now=NOW).learning is True
        assert meta.read(Target("meta", "11"), now=NOW).learning is None

    def test_session_of_the_caller_is_not_changed(self, meta):
        """The timeout of one call is not left behind in the caller's session."""
        session = meta.api._session
        meta.send(budget("12.34"), now=NOW, timeout=3.0)
        assert session.timeout is None
        assert meta.api._session is session

    def test_installs_no_crash_reporter(self, meta):
        """Only FacebookAdsApi.init would; the interpreter's hook stays as it was."""
        meta.read(Target("meta", "11"), now=NOW)
        assert sys.excepthook is sys.__excepthook__ or "facebook" not in (sys.excepthook.__module__ or "")
        assert api_module.FacebookAdsApi.get_default_api() is None


class TestFaults:
    @pytest.mark.parametrize("word", ["", "success", "error", "Service Unavailable"])
    @pytest.mark.parametrize("http", [502, 200])
    def test_html_page_is_not_success(self, meta, server, word, http):
        """A gateway's page, which the SDK takes for success or trips over, is an unknown outcome."""
        meta.read(Target("meta", "11"), now=NOW)
        server.world.script("write", {"http": http, "text": HTML_502.format(word=word)})
        result = meta.send(budget("12.34"), now=NOW)
        assert result.status == "unknown"
        assert not server.world.writes

    def test_the_sdk_itself_takes_the_page_for_success(self, server):
        """The trap is real: when the SDK mends it, this test says so and the adapter may be simplified."""
        server.world.script("write", {"http": 502, "text": HTML_502.format(word="")})
        response = client(server).call("POST", ("11",), params={"daily_budget": 1500})
        assert response.status() == 502
        assert response.is_success() is True

    def test_html_page_on_a_read(self, meta, server):
        """A read that meets a page raises NotSentError: it may be read again."""
        server.world.script("account", {"http": 502, "text": HTML_502.format(word="success")})
        with pytest.raises(NotSentError):
            meta.read(Target("meta", "11"), now=NOW)
        assert meta.read(Target("meta", "11"), now=NOW).budget == Money.of(50, "EUR")

    def test_success_without_effect_shows_in_the_read(self, meta, server):
        """Accepted is no confirmation: the read shows the old value."""
        server.world.script("write", "silent")
        assert meta.send(budget("12.34"), now=NOW).status == "accepted"
        assert meta.read(Target("meta", "11"), now=NOW).budget == Money.of(50, "EUR")

    def test_lost_reply_is_unknown_and_sent_once(self, meta, server):
        """The value was applied and the connection closed: unknown, one write, no retry, no token in the words."""
        server.world.script("write", "lost")
        result = meta.send(budget("12.34"), now=NOW)
        assert result.status == "unknown"
        assert [w[1:] for w in server.world.writes] == [("11", {"daily_budget": "1234"})]
        assert secret_free(result)
        assert meta.read(Target("meta", "11"), now=NOW).budget == Money.of("12.34", "EUR")

    def test_late_apply_lies_within_the_quiet_period(self, meta, server):
        """No answer, and the value appears 2 s later: a look before the quiet period would have seen the old one."""
        server.world.script("write", "late")
        assert meta.send(budget("12.34"), now=NOW).status == "unknown"
        assert meta.read(Target("meta", "11"), now=NOW).budget == Money.of(50, "EUR")
        server.world.advance(meta.quiet_period)
        assert meta.read(Target("meta", "11"), now=NOW).budget == Money.of("12.34", "EUR")

    def test_read_lag(self, meta, server):
        """An accepted change may not be seen at once."""
        server.world.lag = 5.0
        assert meta.send(budget("12.34"), now=NOW).status == "accepted"
        assert meta.read(Target("meta", "11"), now=NOW).budget == Money.of(50, "EUR")
        server.world.advance(6.0)
        assert meta.read(Target("meta", "11"), now=NOW).budget == Money.of("12.34", "EUR")

    def test_timeout_is_unknown(self, meta):
        """A server that never answers ends at the caller's timeout, as unknown."""
        import socket

        meta.read(Target("meta", "11"), now=NOW)
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            meta.api._session.GRAPH = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            result = meta.send(budget("12.34"), now=NOW, timeout=0.2)
        assert (result.status, result.code) == ("unknown", "ReadTimeout")
        assert secret_free(result)

    def test_no_connection_is_surely_not_sent(self, meta, server):
        """When nobody listens the change certainly did not arrive; the address with the token is not told."""
        meta.read(Target("meta", "11"), now=NOW)
        server.http.shutdown()
        server.http.server_close()
        meta.api._session.requests.close()
        result = meta.send(budget("12.34"), now=NOW)
        assert result.status == "not_sent"
        assert secret_free(result)
        with pytest.raises(NotSentError) as caught:
            meta.read(Target("meta", "11"), now=NOW)
        assert secret_free(caught.value)
        assert caught.value.__context__ is None

    @pytest.mark.parametrize(("http", "code"), [(500, 1), (503, 2), (500, 99)])
    def test_server_errors_are_unknown(self, meta, server, http, code):
        """A 5xx may come after the change was applied: perhaps applied."""
        server.world.script("write", {**graph_error(code, "An unexpected error has occurred", http=http, transient=True), "apply": True})
        assert meta.send(budget("12.34"), now=NOW).status == "unknown"
        assert meta.read(Target("meta", "11"), now=NOW).budget == Money.of("12.34", "EUR")

    @pytest.mark.parametrize(
        ("code", "subcode", "seconds", "scope"),
        [
            (17, 2446079, 300, "meta/act_100/score"),
            (613, 1487742, 60, "meta/act_100/score"),
            (613, 5044001, 2, "meta/act_100/changes"),
            (17, None, 3600, "meta/act_100/budget/11"),
            (613, 1487632, 3600, "meta/act_100/budget/11"),
            (4, None, 3600, ""),
            (80004, None, 300, "meta/act_100/calls"),
        ],
    )
    def test_quota_without_header(self, meta, server, code, subcode, seconds, scope):
        """Each of Meta's quota codes says throttled and when; a bare 17 on an ad set's budget is the hour's block."""
        server.world.script("write", graph_error(code, "request limit reached", subcode=subcode, transient=True))
        result = meta.send(budget("12.34"), now=NOW)
        assert (result.status, result.retry_at, result.scope) == ("throttled", NOW + timedelta(seconds=seconds), scope)
        assert scope in ("", *(name for name, _, _ in meta.limits(Target("meta", "11"))))
        assert not server.world.writes

    def test_quota_header_says_when_in_minutes(self, meta, server):
        """The header's unit is minutes; its shares come back as usage."""
        header = {
            "100": [
                {"type": "ads_management", "call_count": 100, "total_cputime": 7, "total_time": 12, "estimated_time_to_regain_access": 9}
            ]
        }
        fault = graph_error(80004, "There have been too many calls to this ad-account.", transient=True)
        headers = {"x-business-use-case-usage": json.dumps(header), "x-ad-account-usage": json.dumps({"acc_id_util_pct": 42.5})}
        server.world.script("write", {**fault, "headers": headers})
        result = meta.send(budget("12.34"), now=NOW)
        assert result.retry_at == NOW + timedelta(minutes=9)
        assert result.usage == {"meta/act_100/calls": 1.0, "meta/act_100/score": 0.425}

    def test_usage_on_success(self, meta, server):
        """Usage is told on success too, so that a gate can slow down before the wall."""
        header = json.dumps({"100": [{"type": "ads_management", "call_count": 28, "total_cputime": 25, "total_time": 61}]})
        server.world.script(
            "write", {"http": 200, "json": {"success": True}, "headers": {"X-Business-Use-Case-Usage": header}, "apply": True}
        )
        assert meta.send(budget("12.34"), now=NOW).usage == {"meta/act_100/calls": 0.61}

    def test_fifth_budget_change_in_an_hour(self, meta, server):
        """The server counts: four changes pass, the fifth is throttled for an hour; the declared limit says the same."""
        results = [meta.send(budget(f"{50 + i}"), now=NOW).status for i in range(5)]
        assert results == ["accepted"] * 4 + ["throttled"]
        target = Target("meta", "11")
        assert ("meta/act_100/budget/11", 4.0, 3600.0) in meta.limits(target)
        assert meta.costs(budget("50"), target)["meta/act_100/budget/11"] == 1.0
        assert "meta/act_100/budget/11" not in meta.costs(None, target)
        assert set(meta.costs(budget("50"), target)) <= {scope for scope, _, _ in meta.limits(target)}

    def test_concurrent_change_shows_in_the_read(self, meta, server):
        """Someone else's change after the prior was read is seen by reading again, as compare-and-set needs."""
        prior = meta.read(Target("meta", "11"), now=NOW)
        server.world.change("11", {"daily_budget": "6100"})
        assert meta.read(Target("meta", "11"), now=NOW).budget == Money.of(61, "EUR") != prior.budget


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "code", "words"),
        [
            (budget("0.50"), "100/1885272", "at least €1.00"),
            (budget("12", "404"), "100/33", "does not exist"),
            (budget("12", "16"), "200", "permission"),
            (budget("12", "13"), "100/1885621", "ad set budget or a campaign budget"),
            (budget("12", "14"), "100/1487056", "deleted"),
            (budget("12", currency="USD"), "currency", "EUR"),
            (budget("12", "twelve"), "target", "digits"),
            (Change(action_id="d", target=Target("meta", "11")), "budget", "needs a budget"),
        ],
        ids=["below-minimum", "unknown", "rights", "wrong-level", "deleted", "currency", "no-id", "no-budget"],
    )
    def test_rejected_for_good_with_metas_own_words(self, meta, server, change, code, words):
        """What cannot succeed is rejected with the platform's own code and words, and the others go on."""
        result = meta.send(change, now=NOW)
        assert (result.status, result.code) == ("rejected", code)
        assert words in result.message
        assert not server.world.writes
        assert meta.send(budget("12.34"), now=NOW).status == "accepted"

    @pytest.mark.parametrize(("resource", "words"), [("404", "does not exist"), ("14", "no longer exists"), ("15", "another ad account")])
    def test_reads_that_cannot_be(self, meta, resource, words):
        """A target that is not there, is deleted or is not ours is refused by name."""
        with pytest.raises(RejectedError, match=words):
            meta.read(Target("meta", resource), now=NOW)

    def test_budget_at_the_other_level(self, meta):
        """An ad set whose campaign holds the budget has none of its own."""
        assert meta.read(Target("meta", "13"), now=NOW).budget is None

    def test_expired_token(self, server):
        """An expired token holds the change and stops a read; neither tells the token."""
        meta = MetaPlatform(api=client(server, token="EAABexpired0123456789"), account="act_100")
        result = meta.send(budget("12.34"), now=NOW)
        assert (result.status, result.code) == ("not_sent", "190/463")
        assert "Session has expired" in result.message
        with pytest.raises(AuthenticationError, match="expired") as caught:
            meta.read(Target("meta", "11"), now=NOW)
        assert "EAABexpired" not in str(caught.value) + str(result)
        with pytest.raises(AuthenticationError):
            meta.check(now=NOW)

    def test_ended_version(self, server):
        """A version that Meta has switched off fails at start, and rejects a write."""
        meta = MetaPlatform(api=client(server, version="v21.0"), account="act_100")
        with pytest.warns(SunsetWarning, match="has ended"), pytest.raises(ConfigurationError, match="deprecated version"):
            meta.check(now=NOW)
        assert meta.send(budget("12.34"), now=NOW).code == "2635"

    def test_check_at_start(self, server):
        """A version that ends within 90 days is warned of by date; a paused account too; a living one passes in silence."""
        meta = MetaPlatform(api=client(server, version="v25.0"), account="act_100")
        with pytest.warns(SunsetWarning, match="2027-02-23"):
            notes = meta.check(now=datetime(2026, 12, 1, tzinfo=UTC))
        assert len(notes) == 1
        assert MetaPlatform(api=client(server), account="act_100").check(now=NOW) == ()
        server.world.objects["act_100"]["account_status"] = 2
        assert "account_status 2" in MetaPlatform(api=client(server), account="act_100").check(now=NOW)[0]
        with pytest.raises(ConfigurationError, match="does not exist"):
            MetaPlatform(api=client(server), account="act_999").check(now=NOW)

    def test_set_up_is_checked(self, server):
        """A malformed account and a window that Meta does not count in are refused at once."""
        with pytest.raises(ConfigurationError, match="act_"):
            MetaPlatform(api=client(server), account="100")
        with pytest.raises(ConfigurationError, match="does not count"):
            MetaPlatform(api=client(server), account="act_100", reporting_window=AttributionWindow(click="3d"))

        with pytest.raises(ConfigurationError, match="not a field of the report"):
            MetaPlatform(api=client(server), account="act_100", tags={"campaign": "objective"})

    def test_versions_are_told(self, meta):
        """SDK and API versions can be recorded beside what was sent."""
        assert meta.versions["api"] == "v26.0"
        assert meta.versions["sdk"].startswith("facebook-business v")

    def test_no_secret_in_repr_or_log(self, meta, server, caplog):
        """Neither the repr nor a log at debug level shows a secret."""
        caplog.set_level(logging.DEBUG, logger="closedloop")
        server.world.script("write", "lost", graph_error(100, f"bad access_token={TOKEN}"))
        results = [meta.send(budget("12.34"), now=NOW) for _ in range(2)]
        assert secret_free(meta, caplog.text, *results)


def line(day: str, ad: str, spend: str, **more) -> dict:
    return {
        "date_start": day, "date_stop": day, "campaign_id": "c1", "campaign_name": "Autumn", "adset_id": "s1", "adset_name": "Lookalike",
        "ad_id": ad, "ad_name": f"Ad {ad}", "publisher_platform": "instagram", "spend": spend, "impressions": "1000", "clicks": "40",
        **more,
    }  # fmt: skip


class TestReport:
    def test_every_page_and_every_cent(self, meta, server):
        """All pages are read by cursor, amounts are exact, days begin at the account's midnight."""
        server.insights = [line("2026-11-0" + str(1 + i), f"a{i}", f"{i}.10") for i in range(5)]
        rows = meta.report(since=datetime(2026, 11, 1, 12, tzinfo=UTC), until=datetime(2026, 11, 5, 23, 30, tzinfo=UTC))
        spend = [r for r in rows if r["kind"] == "spend"]
        assert [round(r["cost"] * 1e6) for r in spend] == [100_000, 1_100_000, 2_100_000, 3_100_000, 4_100_000]
        assert spend[0]["occurred_at"] == datetime(2026, 10, 31, 23, tzinfo=UTC)
        assert {(r["campaign"], r["audience"], r["placement"], r["currency"]) for r in rows} == {
            ("Autumn", "Lookalike", "instagram", "EUR")
        }
        assert sum(r["quantity"] for r in rows if r["kind"] == "click") == 200
        assert len({r["event_id"] for r in rows}) == len(rows)
        pages = [p for _, path, p in server.world.requests if path.endswith("insights")]
        assert [p.get("after") for p in pages] == [None, "2", "4"]

    def test_conversions_under_the_declared_window(self, server):
        """Meta's cumulative windows become lags; counts and values add up to Meta's own, and the window stands in every row."""
        server.insights = [
            line(
                "2026-11-01", "a", "5.00",
                actions=[
                    {"action_type": "purchase", "value": "9", "1d_click": "3", "7d_click": "7", "28d_click": "8", "1d_view": "2"},
                    {"action_type": "link_click", "value": "40", "1d_click": "40"},
                ],
                action_values=[{"action_type": "purchase", "value": "90", "1d_click": "30.5", "7d_click": "70.75", "1d_view": "20"}],
            )
        ]  # fmt: skip
        meta = MetaPlatform(api=client(server), account="act_100", reporting_window=AttributionWindow(click="7d", view="1d"))
        rows = meta.report(since=datetime(2026, 11, 1, tzinfo=UTC), until=datetime(2026, 11, 20, tzinfo=UTC))
        found = [r for r in rows if r["kind"] == "conversion"]
        assert [(r["touch_kind"], r["quantity"], r["value"], (r["occurred_at"] - r["touch_at"]).days) for r in found] == [
            ("click", 3, 30.5, 0), ("click", 4, 40.25, 4), ("view", 2, 20.0, 0),
        ]  # fmt: skip
        assert {r["reporting_window"] for r in rows} == {"click=7d,view=1d"}
        asked = [p for _, path, p in server.world.requests if path.endswith("insights")][-1]
        assert json.loads(asked["action_attribution_windows"]) == ["1d_click", "7d_click", "1d_view"]
        assert asked["action_report_time"] == "impression"

    def test_two_spans_on_one_day_stay_two_rows(self, meta, server):
        """On the last day of a report no lag is left: all spans stand on that day, and each keeps its own event."""
        actions = [{"action_type": "purchase", "1d_click": "3", "7d_click": "7"}]
        server.insights = [line("2026-11-01", "a", "5.00", actions=actions)]
        rows = meta.report(since=datetime(2026, 11, 1, tzinfo=UTC), until=datetime(2026, 11, 1, 20, tzinfo=UTC))
        found = [r for r in rows if r["kind"] == "conversion"]
        assert [(r["quantity"], r["occurred_at"] - r["touch_at"]) for r in found] == [(3, timedelta(0)), (4, timedelta(0))]
        assert len({r["event_id"] for r in rows}) == len(rows)

    def test_a_failing_report_raises_without_the_token(self, meta, server):
        """A report is whole or raises."""
        server.insights = [line(f"2026-11-0{i}", "a", "1") for i in range(1, 6)]
        server.world.script("report", None, "reset")
        with pytest.raises(PlatformError) as caught:
            meta.report(since=datetime(2026, 11, 1, tzinfo=UTC), until=datetime(2026, 11, 9, tzinfo=UTC))
        assert secret_free(caught.value)
