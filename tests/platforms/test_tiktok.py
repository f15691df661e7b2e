"""The TikTok adapter with the real SDK against a loopback server: HTTP 200 for almost everything, the verdict in the body."""

import socket
from datetime import UTC, datetime, timedelta

import pytest

from closedloop.errors import AuthenticationError, ConfigurationError, NotSentError, PlatformError, RejectedError
from closedloop.interfaces import AppliesChanges, LimitsRequests, ReadsState, ReportsSpend
from closedloop.platforms.tiktok import TikTokPlatform
from closedloop.records.action import Change
from closedloop.records.decision import Target
from closedloop.records.money import Money

sdk = pytest.importorskip("business_api_client", reason="needs the extra tiktok")

from tiktok_server import TikTokServer, refusal  # noqa: E402

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "tiktoksecrettoken0123456789"


@pytest.fixture
def server():
    with TikTokServer(token=TOKEN) as running:
        yield running


def platform(server, *, token: str = TOKEN, **options) -> TikTokPlatform:
    configuration = sdk.Configuration()
    configuration.host = server.address
    return TikTokPlatform(api_client=sdk.ApiClient(configuration), access_token=token, **{"advertiser": "700", **options})


@pytest.fixture
def tiktok(server):
    return platform(server)


def budget(amount: str, resource: str = "11", currency: str = "USD") -> Change:
    return Change(action_id="d1", target=Target("tiktok", resource), budget=Money.of(amount, currency))


def test_offers_the_protocols(tiktok):
    """The adapter is what the executor asks for, by shape alone."""
    for protocol in (ReadsState, AppliesChanges, LimitsRequests, ReportsSpend):
        assert isinstance(tiktok, protocol)


class TestChanges:
    @pytest.mark.parametrize(("amount", "sent"), [("71.23", "71.23"), ("80", "80"), ("1234567.89", "1234567.89"), ("45.1", "45.1")])
    def test_sets_a_budget_exactly_and_nothing_else(self, tiktok, server, amount, sent):
        """The amount leaves as its own decimal text, is read back as the same money, and no other field goes with it."""
        result = tiktok.send(budget(amount), now=NOW)
        assert result.status == "accepted"
        assert result.request_id.startswith("T")
        assert server.bodies == [{"advertiser_id": "700", "adgroup_id": "11", "budget": float(sent)}]
        assert str(server.bodies[0]["budget"]) == sent
        assert tiktok.read(Target("tiktok", "11"), now=NOW).budget == Money.of(amount, "USD")

    def test_the_sdks_own_model_sends_fields_never_set(self, tiktok, server):
        """The trap is real: when the SDK mends it, this test says so and the adapter may be simplified."""
        from business_api_client.api.adgroup_api import AdgroupApi
        from business_api_client.models import AdgroupUpdateBody

        body = AdgroupUpdateBody(advertiser_id="700", adgroup_id="11", budget=50.0)
        AdgroupApi(tiktok.api_client).adgroup_update(TOKEN, body=body)
        assert server.bodies[0]["exclude_age_under_eighteen"] is False

    def test_pauses_and_resumes(self, tiktok):
        """Pause and resume turn the ad group's own switch."""
        for kind, active in (("pause", False), ("resume", True)):
            assert tiktok.send(Change(action_id="d", target=Target("tiktok", "11"), kind=kind), now=NOW).status == "accepted"
            assert tiktok.read(Target("tiktok", "11"), now=NOW).active is active

    def test_campaign_level(self, server):
        """With campaign budgets the target is a campaign."""
        tiktok = platform(server, level="campaign")
        assert tiktok.send(budget("950", "21"), now=NOW).status == "accepted"
        assert tiktok.read(Target("tiktok", "21"), now=NOW).budget == Money.of(950, "USD")

    def test_whole_units(self):
        """A currency without minor unit goes as a whole number, and a fraction of it is refused by name."""
        with TikTokServer(token=TOKEN, currency="JPY") as server:
            tiktok = platform(server)
            assert tiktok.send(budget("5000", currency="JPY"), now=NOW).status == "accepted"
            assert server.bodies[0]["budget"] == 5000
            assert isinstance(server.bodies[0]["budget"], int)
            result = tiktok.send(budget("5000.5", currency="JPY"), now=NOW)
            assert (result.status, result.code) == ("rejected", "budget")
            assert len(server.bodies) == 1


class TestFaults:
    @pytest.mark.parametrize("code", [40100, 40132, 61000])
    def test_quota_in_an_answer_of_http_200(self, tiktok, server, code):
        """Throttling comes with HTTP 200 and a code, without a wait: five minutes, as TikTok wants after a full minute."""
        server.world.script("write", refusal(code, "Too many requests. Please retry in some time."))
        result = tiktok.send(budget("71"), now=NOW)
        assert (result.status, result.code, result.retry_at) == ("throttled", str(code), NOW + timedelta(minutes=5))
        assert result.request_id == "2026112400000000"
        assert result.message == "Too many requests. Please retry in some time."
        server.world.script("read", refusal(code, "Too many requests."))
        with pytest.raises(NotSentError) as caught:
            tiktok.read(Target("tiktok", "11"), now=NOW)
        assert caught.value.retry_at == NOW + timedelta(minutes=5)

    @pytest.mark.parametrize("http", [200, 429, 502])
    def test_html_page(self, tiktok, server, http):
        """A gateway's page is no answer: unknown, or throttled where its status says so."""
        server.world.script("write", {"http": http, "text": "<html>success, code 0</html>"})
        result = tiktok.send(budget("71"), now=NOW)
        assert result.status == ("throttled" if http == 429 else "unknown")
        server.world.script("read", {"http": http, "text": "<html>success</html>"})
        with pytest.raises(NotSentError):
            tiktok.read(Target("tiktok", "11"), now=NOW)

    def test_lost_reply_is_unknown_and_sent_once(self, tiktok, server):
        """The value was applied and the connection closed: unknown, one request, no retry of urllib3's."""
        server.world.script("write", "lost")
        result = tiktok.send(budget("71.23"), now=NOW)
        assert result.status == "unknown"
        assert TOKEN not in repr(result)
        assert len(server.bodies) == 1
        assert tiktok.read(Target("tiktok", "11"), now=NOW).budget == Money.of("71.23", "USD")

    def test_timeout_holds_although_the_sdk_ignores_floats(self, tiktok):
        """A server that never answers ends at the caller's timeout."""
        tiktok.read(Target("tiktok", "11"), now=NOW)
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            tiktok.api_client.configuration.host = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            result = tiktok.send(budget("71"), now=NOW, timeout=0.2)
        assert result.status == "unknown"

    def test_no_connection_is_surely_not_sent(self, tiktok, server):
        """When nobody listens the change certainly did not arrive."""
        tiktok.read(Target("tiktok", "11"), now=NOW)
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        tiktok.api_client.configuration.host = f"http://127.0.0.1:{port}"
        assert tiktok.send(budget("71"), now=NOW).status == "not_sent"
        with pytest.raises(NotSentError):
            tiktok.read(Target("tiktok", "11"), now=NOW)

    @pytest.mark.parametrize("code", [50000, 50002, 51010, 52002, 60001, 40012, 99999])
    def test_failures_of_the_system_are_unknown(self, tiktok, server, code):
        """A failure inside TikTok, or a code that nobody knows, may come after the change was applied."""
        server.world.script("write", refusal(code, "System error", apply=True))
        assert tiktok.send(budget("71"), now=NOW).status == "unknown"

    def test_write_conflict_may_be_sent_again(self, tiktok, server):
        """Two writers at once: refused, surely not applied, and worth another try in a moment."""
        server.world.script("write", refusal(40202, "Write conflict"))
        result = tiktok.send(budget("71"), now=NOW)
        assert result.status == "not_sent"
        assert result.retry_at > NOW

    def test_late_apply_and_read_lag(self, tiktok, server):
        """What comes late comes within the quiet period; an accepted change may not be seen at once."""
        server.world.script("write", "late")
        assert tiktok.send(budget("71"), now=NOW).status == "unknown"
        assert tiktok.read(Target("tiktok", "11"), now=NOW).budget == Money.of(50, "USD")
        server.world.advance(tiktok.quiet_period)
        assert tiktok.read(Target("tiktok", "11"), now=NOW).budget == Money.of(71, "USD")
        server.world.advance(10.0)
        server.world.lag = 5.0
        assert tiktok.send(budget("72"), now=NOW).status == "accepted"
        assert tiktok.read(Target("tiktok", "11"), now=NOW).budget == Money.of(71, "USD")


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "code", "words"),
        [
            (budget("5"), "40002", "minimum daily budget is 20"),
            (budget("50", "404"), "40007", "does not exist"),
            (budget("50", "16"), "40001", "No permission"),
            (budget("50", "13"), "40002", "campaign level"),
            (budget("50", "14"), "40007", "does not exist"),
            (budget("50", currency="EUR"), "currency", "USD"),
            (budget("50.001"), "budget", "nearest"),
            (budget("50", "one"), "target", "digits"),
            (Change(action_id="d", target=Target("tiktok", "11")), "budget", "needs a budget"),
        ],
        ids=["minimum", "unknown", "rights", "wrong-level", "deleted", "currency", "step", "no-id", "no-budget"],
    )
    def test_rejected_for_good_with_tiktoks_own_words(self, tiktok, server, change, code, words):
        """What cannot succeed is rejected with the platform's own code and words, and the others go on."""
        result = tiktok.send(change, now=NOW)
        assert (result.status, result.code) == ("rejected", code)
        assert words in result.message
        assert not server.world.writes
        assert tiktok.send(budget("71"), now=NOW).status == "accepted"

    @pytest.mark.parametrize(("resource", "words"), [("404", "does not exist"), ("14", "no longer exists"), ("21", "does not exist")])
    def test_reads_that_cannot_be(self, tiktok, resource, words):
        """A target that is not there, is deleted or sits at the other level is refused by name."""
        with pytest.raises(RejectedError, match=words):
            tiktok.read(Target("tiktok", resource), now=NOW)

    def test_budget_at_the_other_level(self, tiktok):
        """An ad group whose campaign holds the budget has none of its own."""
        assert tiktok.read(Target("tiktok", "13"), now=NOW).budget is None

    def test_revoked_token(self, server):
        """A revoked token holds the change and stops a read; the token is not told."""
        tiktok = platform(server, token="revokedtoken0123456789")
        result = tiktok.send(budget("71"), now=NOW)
        assert (result.status, result.code) == ("not_sent", "40105")
        with pytest.raises(AuthenticationError, match="revoked") as caught:
            tiktok.read(Target("tiktok", "11"), now=NOW)
        assert "revokedtoken" not in repr(caught.value) + repr(result) + repr(tiktok)
        assert caught.value.__context__ is None
        with pytest.raises(AuthenticationError):
            tiktok.check(now=NOW)

    def test_ended_version_and_set_up(self, tiktok, server):
        """An ended version or a foreign account fails at start; an account that is not approved is told."""
        assert tiktok.check(now=NOW) == ()
        server.world.script("account", refusal(40051, "Invalid API version"))
        with pytest.raises(ConfigurationError, match="Invalid API version"):
            tiktok.check(now=NOW)
        server.world.script("write", refusal(41001, "The interface is offline"))
        assert tiktok.send(budget("71"), now=NOW).status == "rejected"
        with pytest.raises(ConfigurationError, match="No permission"):
            platform(server, advertiser="701").check(now=NOW)
        server.account["status"] = "STATUS_LIMIT"
        assert "STATUS_LIMIT" in tiktok.check(now=NOW)[0]
        with pytest.raises(ConfigurationError, match="digits"):
            platform(server, advertiser="x")

    def test_limits_and_versions(self, tiktok):
        """Three windows are declared for the app's level; SDK and API versions can be recorded."""
        limits = tiktok.limits(Target("tiktok", "11"))
        assert [(units, seconds) for _, units, seconds in limits] == [(10.0, 1.0), (600.0, 60.0), (864_000.0, 86_400.0)]
        assert tiktok.versions["sdk"].startswith("tiktok-business-api-sdk-official 1.")


class TestReport:
    def test_every_page_of_every_month(self, tiktok, server):
        """All pages and spans of 30 days are read, money is exact, days are the account's, fractions and kinds of touch are kept."""
        server.lines = [
            {
                "dimensions": {"ad_id": f"a{i}", "stat_time_day": f"2026-{month:02d}-0{i + 1} 00:00:00"},
                "metrics": {
                    "campaign_id": "c", "campaign_name": "C", "adgroup_id": "g", "adgroup_name": "G", "ad_name": f"A{i}",
                    "spend": f"{i}.25", "impressions": "100", "clicks": "7", "cta_conversion": "2", "vta_conversion": "0.5",
                },
            }
            for month in (9, 10)
            for i in range(3)
        ]  # fmt: skip
        rows = tiktok.report(since=datetime(2026, 9, 1, 12, tzinfo=UTC), until=datetime(2026, 11, 1, tzinfo=UTC))
        spend = [r for r in rows if r["kind"] == "spend"]
        assert [round(r["cost"] * 1e6) for r in spend] == [250_000, 1_250_000, 2_250_000] * 2
        assert spend[0]["occurred_at"] == datetime(2026, 9, 1, 7, tzinfo=UTC)  # midnight in Los Angeles, summer time
        conversions = [r for r in rows if r["kind"] == "conversion"]
        assert sum(r["quantity"] for r in conversions if r["touch_kind"] == "click") == 12
        assert sum(r["quantity"] for r in conversions if r["touch_kind"] == "view") == 3
        assert {r["reporting_window"] for r in rows} == {"click=7d,view=1d"}
        assert len({r["event_id"] for r in rows}) == len(rows)
        spans = [(p["start_date"], p["end_date"], p["page"]) for _, path, p in server.world.requests if path.startswith("report")]
        assert spans == [
            ("2026-09-01", "2026-09-30", "1"), ("2026-09-01", "2026-09-30", "2"), ("2026-10-01", "2026-10-30", "1"),
            ("2026-10-01", "2026-10-30", "2"), ("2026-10-31", "2026-10-31", "1"),
        ]  # fmt: skip

    def test_a_failing_report_raises(self, tiktok, server):
        """A report is whole or raises."""
        server.world.script("report", refusal(51001, "statistics error"))
        with pytest.raises(PlatformError):
            tiktok.report(since=datetime(2026, 9, 1, tzinfo=UTC), until=datetime(2026, 9, 2, tzinfo=UTC))
