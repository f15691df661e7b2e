"""The Google Ads adapter with the real client against a loopback server: gRPC over TLS, generic handlers, real messages."""

from datetime import UTC, datetime, timedelta

import pytest

from closedloop.errors import AuthenticationError, ConfigurationError, NotSentError, RejectedError
from closedloop.interfaces import AppliesChanges, LimitsRequests, ReadsState, ReportsSpend
from closedloop.platforms.google_ads import GoogleAdsPlatform
from closedloop.platforms.sunset import SunsetWarning
from closedloop.records.action import Change
from closedloop.records.decision import Target
from closedloop.records.money import Money

client_module = pytest.importorskip("google.ads.googleads.client", reason="needs the extra google")
grpc = pytest.importorskip("grpc", reason="needs the extra google")

from google.oauth2.credentials import Credentials  # noqa: E402
from google_server import GoogleServer, process_certificate  # noqa: E402

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "ya29.secret-token-0123456789"
DEVELOPER = "developer-token-0123456789"


@pytest.fixture(scope="session")
def tls():
    """One certificate for the process, trusted by gRPC."""
    return process_certificate()


@pytest.fixture
def server(tls):
    with GoogleServer(tls, token=TOKEN) as running:
        yield running


def platform(server, *, token: str = TOKEN, proto_plus: bool = True, version: str | None = "v26", **options) -> GoogleAdsPlatform:
    client = client_module.GoogleAdsClient(
        credentials=Credentials(token=token), developer_token=DEVELOPER, login_customer_id="1112223333",
        endpoint=server.endpoint, version=version, use_proto_plus=proto_plus,
    )  # fmt: skip
    return GoogleAdsPlatform(client=client, customer="111-222-3333", **options)


@pytest.fixture(params=[True, False], ids=["proto-plus", "protobuf"])
def google(server, request):
    """Both message styles that a client may be set to."""
    return platform(server, proto_plus=request.param)


@pytest.fixture
def plain(server):
    return platform(server)


def budget(amount: str, resource: str = "11", currency: str = "EUR") -> Change:
    return Change(action_id="d1", target=Target("google", resource), budget=Money.of(amount, currency))


def amount_of(server, key: str = "91") -> int:
    return server.world.objects[f"campaignBudgets/{key}"]["amount_micros"]


def secret_free(*texts: object) -> bool:
    return not any(s in str(t) + repr(t) for t in texts for s in (TOKEN, DEVELOPER))


def test_offers_the_protocols(plain):
    """The adapter is what the executor asks for, by shape alone."""
    for protocol in (ReadsState, AppliesChanges, LimitsRequests, ReportsSpend):
        assert isinstance(plain, protocol)


class TestChanges:
    def test_sets_a_budget_in_micros(self, google, server):
        """The campaign's own budget is found and set, exactly; credentials travel in the metadata over TLS."""
        result = google.send(budget("12.34"), now=NOW)
        assert result.status == "accepted"
        assert result.request_id == "G2"
        assert amount_of(server) == 12_340_000
        assert google.read(Target("google", "11"), now=NOW).budget == Money(12_340_000, "EUR")
        seen = server.metadata[-1]
        assert (seen["developer-token"], seen["login-customer-id"]) == (DEVELOPER, "1112223333")
        assert server.calls == ["read", "write", "read"]

    def test_pauses_and_resumes(self, google):
        """Pause and resume turn the campaign's own switch."""
        for kind, active in (("pause", False), ("resume", True)):
            assert google.send(Change(action_id="d", target=Target("google", "11"), kind=kind), now=NOW).status == "accepted"
            assert google.read(Target("google", "11"), now=NOW).active is active

    def test_cost_is_what_the_server_counts(self, plain, server):
        """The declared cost of each request equals the operations that the server counted."""
        for change in (budget("12"), budget("95", "budget/93"), Change(action_id="d", target=Target("google", "11"), kind="pause"), None):
            before = server.operations
            _ = plain.read(Target("google", "11"), now=NOW) if change is None else plain.send(change, now=NOW)
            assert plain.cost(change) == server.operations - before, change

    def test_shared_budget_is_not_the_campaigns(self, google, server):
        """A budget that feeds two campaigns is refused under one of them, and steered under its own name."""
        assert google.read(Target("google", "13"), now=NOW).budget is None
        result = google.send(budget("95", "13"), now=NOW)
        assert (result.status, result.code) == ("rejected", "shared_budget")
        assert "budget/93" in result.message
        assert not server.world.writes
        shared = Target("google", "budget/93")
        assert google.read(shared, now=NOW).budget == Money.of(90, "EUR")
        assert google.send(budget("95", "budget/93"), now=NOW).status == "accepted"
        assert google.read(shared, now=NOW).budget == Money.of(95, "EUR")

    def test_validate_only_changes_nothing(self, google, server):
        """The platform is asked, not told."""
        assert google.validate(budget("12.34"), now=NOW).status == "accepted"
        assert google.validate(budget("0.50"), now=NOW).code == "CampaignBudgetError.BUDGET_BELOW_PER_DAY_MINIMUM"
        assert not server.world.writes

    def test_learning(self, google):
        """The bidding strategy's learning phase is told."""
        assert google.read(Target("google", "12"), now=NOW).learning is True
        assert google.read(Target("google", "11"), now=NOW).learning is False
        assert google.read(Target("google", "budget/93"), now=NOW).learning is None

    def test_many_in_one_request(self, google, server):
        """Several changes travel in one request; a bad one does not stop the others, and each has its own answer."""
        changes = [
            budget("12"), budget("0.10", "12"), budget("95", "13"), budget("95", "budget/93"),
            Change(action_id="p", target=Target("google", "12"), kind="pause"), budget("3", "404"), budget("13"),
        ]  # fmt: skip
        results = google.send_many(changes, now=NOW)
        assert [r.status for r in results] == ["accepted", "rejected", "rejected", "accepted", "accepted", "rejected", "not_sent"]
        assert results[1].code == "CampaignBudgetError.BUDGET_BELOW_PER_DAY_MINIMUM"
        assert "1000000 micros EUR" in results[1].message
        assert server.calls == ["read", "read", "write"]
        assert {w[1] for w in server.world.writes} == {"campaignBudgets/91", "campaignBudgets/93", "campaigns/12"}


class TestFaults:
    def test_quota_hidden_in_an_answer_without_error(self, google, server):
        """With partial failure a quota error may hide in an OK answer: each change is throttled, none accepted."""
        server.world.script("write", "hidden quota")
        results = google.send_many([budget("12"), budget("71", "12")], now=NOW)
        assert [(r.status, r.retry_at) for r in results] == [("throttled", NOW + timedelta(seconds=7))] * 2
        assert "Requests per account" in results[0].message
        assert not server.world.writes

    @pytest.mark.parametrize(
        ("name", "seconds", "expected"),
        [
            ("RESOURCE_TEMPORARILY_EXHAUSTED", 30, 30), ("RESOURCE_TEMPORARILY_EXHAUSTED", 0, 60),
            ("RESOURCE_EXHAUSTED", 0, 3600), ("EXCESSIVE_SHORT_TERM_QUERY_RESOURCE_CONSUMPTION", 0, 60),
        ],
    )  # fmt: skip
    def test_quota_outside_the_sdks_exception(self, google, server, name, seconds, expected):
        """RESOURCE_EXHAUSTED comes as a bare gRPC error; Google's own words and delay are read from its trailing metadata."""
        failure = server.failure(server.error("quota_error", name, seconds=seconds, rate_name="Requests per account"))
        server.world.script("write", {"status": grpc.StatusCode.RESOURCE_EXHAUSTED, "failure": failure})
        result = google.send(budget("12"), now=NOW)
        assert (result.status, result.code) == ("throttled", f"QuotaError.{name}")
        assert result.retry_at == NOW + timedelta(seconds=expected)
        assert result.request_id == "G2"
        assert result.scope == ("google/project/operations" if name == "RESOURCE_EXHAUSTED" else "")

    def test_the_sdk_leaves_quota_errors_bare(self, plain, server):
        """The trap is real: when the SDK mends it, this test says so and the adapter may be simplified."""
        from google.api_core.exceptions import ResourceExhausted

        server.world.script("read", {"status": grpc.StatusCode.RESOURCE_EXHAUSTED, "failure": server.failure()})
        service = plain.client.get_service("GoogleAdsService")
        with pytest.raises(ResourceExhausted):
            list(service.search_stream(customer_id="1112223333", query="SELECT campaign.id FROM campaign WHERE campaign.id IN (11)"))

    def test_quota_without_words(self, google, server):
        """A bare RESOURCE_EXHAUSTED still waits."""
        server.world.script("write", {"status": grpc.StatusCode.RESOURCE_EXHAUSTED, "details": "slow down"})
        result = google.send(budget("12"), now=NOW)
        assert (result.status, result.retry_at) == ("throttled", NOW + timedelta(seconds=60))

    def test_quota_on_the_look_before(self, google, server):
        """When the look before a change meets the quota, the change is throttled and surely not applied."""
        failure = server.failure(server.error("quota_error", "RESOURCE_TEMPORARILY_EXHAUSTED", seconds=9))
        server.world.script("read", {"status": grpc.StatusCode.RESOURCE_EXHAUSTED, "failure": failure})
        result = google.send(budget("12"), now=NOW)
        assert (result.status, result.retry_at) == ("throttled", NOW + timedelta(seconds=9))
        assert server.calls == ["read"]

    def test_connection_cut_after_the_change(self, google, server):
        """The change was applied and the connection cut: unknown, one write, no retry of the SDK."""
        server.world.script("write", "lost")
        result = google.send(budget("12.34"), now=NOW)
        assert result.status == "unknown"
        assert server.calls.count("write") == 1
        assert google.read(Target("google", "11"), now=NOW).budget == Money.of("12.34", "EUR")

    def test_deadline(self, google, server):
        """A server slower than the deadline: unknown, and the value was applied."""
        google.read(Target("google", "11"), now=NOW)
        server.world.script("write", "slow")
        result = google.send(Change(action_id="d", target=Target("google", "11"), kind="pause"), now=NOW, timeout=2.0)
        assert (result.status, result.code) == ("unknown", "DEADLINE_EXCEEDED")
        assert google.read(Target("google", "11"), now=NOW).active is False

    def test_late_apply_lies_within_the_quiet_period(self, google, server):
        """No answer, and the value appears 2 s later: a look before the quiet period would have seen the old one."""
        server.world.script("write", "late")
        assert google.send(budget("12.34"), now=NOW).status == "unknown"
        assert google.read(Target("google", "11"), now=NOW).budget == Money.of(50, "EUR")
        server.world.advance(google.quiet_period)
        assert google.read(Target("google", "11"), now=NOW).budget == Money.of("12.34", "EUR")

    def test_read_lag(self, google, server):
        """An accepted change may not be seen at once."""
        server.world.lag = 5.0
        assert google.send(budget("12.34"), now=NOW).status == "accepted"
        assert google.read(Target("google", "11"), now=NOW).budget == Money.of(50, "EUR")
        server.world.advance(6.0)
        assert google.read(Target("google", "11"), now=NOW).budget == Money.of("12.34", "EUR")

    @pytest.mark.parametrize("status", ["INTERNAL", "UNKNOWN", "UNAVAILABLE", "ABORTED"])
    def test_server_errors_are_unknown(self, google, server, status):
        """A failure of the server may come after the change was applied."""
        server.world.script("write", {"status": grpc.StatusCode[status], "details": "oops", "apply": True})
        assert google.send(budget("12.34"), now=NOW).status == "unknown"
        assert amount_of(server) == 12_340_000

    def test_internal_error_with_googles_words(self, google, server):
        """INTERNAL with a failure inside is bare as well: its words are read, and it stays unknown."""
        failure = server.failure(server.error("internal_error", "TRANSIENT_ERROR", "An internal error has occurred."))
        server.world.script("write", {"status": grpc.StatusCode.INTERNAL, "failure": failure})
        result = google.send(budget("12.34"), now=NOW)
        assert (result.status, result.code) == ("unknown", "InternalError.TRANSIENT_ERROR")

    def test_concurrent_modification_may_be_sent_again(self, google, server):
        """Two writers at one resource: refused, surely not applied, and worth another try in a moment."""
        failure = server.failure(server.error("database_error", "CONCURRENT_MODIFICATION", index=0))
        server.world.script("write", {"status": grpc.StatusCode.ABORTED, "failure": failure})
        result = google.send(budget("12.34"), now=NOW)
        assert (result.status, result.code) == ("not_sent", "DatabaseError.CONCURRENT_MODIFICATION")
        assert result.retry_at > NOW
        assert google.send(budget("12.34"), now=NOW).status == "accepted"

    def test_concurrent_change_shows_in_the_read(self, google, server):
        """Someone else's change after the prior was read is seen by reading again, as compare-and-set needs."""
        prior = google.read(Target("google", "11"), now=NOW)
        server.world.change("campaignBudgets/91", {"amount_micros": 61_000_000})
        assert google.read(Target("google", "11"), now=NOW).budget == Money.of(61, "EUR") != prior.budget

    def test_nobody_listens(self, tls):
        """When no connection is made the change surely did not arrive, and a read may be repeated."""
        with GoogleServer(tls, token=TOKEN) as gone:
            google = platform(gone)
        result = google.send(Change(action_id="d", target=Target("google", "11"), kind="pause"), now=NOW, timeout=10.0)
        assert result.status == "not_sent"
        with pytest.raises(NotSentError):
            google.read(Target("google", "11"), now=NOW)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "code", "words"),
        [
            (budget("0.50"), "CampaignBudgetError.BUDGET_BELOW_PER_DAY_MINIMUM", "1000000 micros EUR"),
            (budget("12.345"), "CampaignBudgetError.NON_MULTIPLE_OF_MINIMUM_CURRENCY_UNIT", "happened"),
            (budget("12", "404"), "RESOURCE_NOT_FOUND", "does not exist"),
            (Change(action_id="d", target=Target("google", "404"), kind="pause"), "RequestError.RESOURCE_NOT_FOUND", "not found"),
            (budget("12", "17"), "AuthorizationError.USER_PERMISSION_DENIED", "permission"),
            (budget("12", "15"), "REMOVED", "removed"),
            (budget("12", "16"), "no_daily_budget", "whole period"),
            (budget("12", currency="USD"), "currency", "EUR"),
            (budget("12", "one"), "target", "digits"),
            (Change(action_id="d", target=Target("google", "budget/93"), kind="pause"), "target", "only a campaign"),
            (Change(action_id="d", target=Target("google", "11")), "budget", "needs a budget"),
        ],
        ids=["minimum", "step", "unknown", "unknown-pause", "rights", "removed", "period", "currency", "no-id", "no-switch", "no-budget"],
    )
    def test_rejected_for_good_with_googles_own_words(self, google, server, change, code, words):
        """What cannot succeed is rejected with the platform's own code and words, and the others go on."""
        result = google.send(change, now=NOW)
        assert (result.status, result.code) == ("rejected", code)
        assert words in result.message
        assert not server.world.writes
        assert google.send(budget("12.34"), now=NOW).status == "accepted"

    @pytest.mark.parametrize(("resource", "words"), [("404", "does not exist"), ("15", "removed"), ("budget/404", "does not exist")])
    def test_reads_that_cannot_be(self, google, resource, words):
        """A target that is not there or is removed is refused by name."""
        with pytest.raises(RejectedError, match=words):
            google.read(Target("google", resource), now=NOW)

    def test_expired_token(self, server):
        """An expired token holds the change and stops a read; no token is told."""
        google = platform(server, token="ya29.expired-token-0123456789")
        result = google.send(Change(action_id="d", target=Target("google", "11"), kind="pause"), now=NOW)
        assert (result.status, result.code) == ("not_sent", "AuthenticationError.OAUTH_TOKEN_EXPIRED")
        assert google.send(budget("12"), now=NOW).status == "not_sent"
        with pytest.raises(AuthenticationError) as caught:
            google.read(Target("google", "11"), now=NOW)
        assert "expired-token" not in str(caught.value) + str(result)
        assert caught.value.__context__ is None
        with pytest.raises(AuthenticationError):
            google.check(now=NOW)

    def test_revoked_refresh_token(self, server):
        """A token that cannot be refreshed never leaves this machine: not sent, and the credentials are named as the cause."""
        from google.auth.exceptions import RefreshError

        class Revoked(Credentials):
            def before_request(self, request, method, url, headers):
                raise RefreshError("invalid_grant: Token has been expired or revoked.", {"refresh_token": "1//0gsecretsecretsecret"})

        google = platform(server)
        google.client.credentials = Revoked(token=None)
        result = google.send(Change(action_id="d", target=Target("google", "11"), kind="pause"), now=NOW)
        assert result.status == "not_sent"
        assert "revoked" in result.message
        assert "secretsecret" not in result.message
        with pytest.raises(AuthenticationError):
            google.read(Target("google", "11"), now=NOW)
        assert server.calls == []

    def test_ended_version(self, google, server):
        """A version that Google has switched off fails at start, and rejects a write."""
        server.ended = True
        with pytest.raises(ConfigurationError, match="UNSUPPORTED_VERSION"):
            google.check(now=NOW)
        result = google.send(Change(action_id="d", target=Target("google", "11"), kind="pause"), now=NOW)
        assert (result.status, result.code) == ("rejected", "RequestError.UNSUPPORTED_VERSION")

    def test_check_at_start(self, tls, server):
        """A version near its end is warned of by date; a living one passes in silence."""
        assert platform(server).check(now=NOW) == ()
        with GoogleServer(tls, token=TOKEN, version="v23") as old:
            google = platform(old, version=None, api_version="v23")
            with pytest.warns(SunsetWarning, match="v23 ends on about 2027-02-01"):
                assert len(google.check(now=NOW)) == 1
            assert google.versions["api"] == "v23"
            assert google.send(budget("12.34"), now=NOW).status == "accepted"
            assert amount_of(old) == 12_340_000

    def test_versions_and_set_up(self, server):
        """SDK and API versions can be recorded; a client without a version is told by its default; a bad account is refused."""
        assert platform(server).versions["api"] == "v26"
        assert platform(server, version=None).versions["api"] == client_module._DEFAULT_VERSION
        assert platform(server).versions["sdk"].startswith("google-ads 3")
        with pytest.raises(ConfigurationError, match="ten digits"):
            GoogleAdsPlatform(client=None, customer="12")

    def test_limits_by_access(self, server):
        """The rolling day's operations are declared for each access level."""
        target = Target("google", "11")
        limits = {access: platform(server, access=access).limits(target) for access in ("explorer", "basic", "standard")}
        assert limits["explorer"] == (("google/project/operations", 2_880.0, 86_400.0),)
        assert limits["basic"] == (("google/project/operations", 15_000.0, 86_400.0),)
        assert limits["standard"] == ()

    def test_no_secret_in_words(self, plain, server):
        """Words of the platform that repeat a secret are redacted; the repr has none."""
        failure = server.failure(server.error("request_error", "UNKNOWN", f"bad developer-token: {DEVELOPER} and {TOKEN}"))
        server.world.script("write", {"status": grpc.StatusCode.INVALID_ARGUMENT, "failure": failure})
        result = plain.send(budget("12"), now=NOW)
        assert result.status == "rejected"
        assert secret_free(result, plain)


class TestReport:
    def test_spend_and_conversions(self, google, server):
        """Micros are exact, lags are Google's own, every action has its own window, fractions are carried, totals agree."""
        server.delivery = [
            {"date": "2026-11-01", "id": 11, "name": "Brand", "cost_micros": 12_345_678, "impressions": 900, "clicks": 30},
            {"date": "2026-11-02", "id": 11, "name": "Brand", "cost_micros": 0, "impressions": 5, "clicks": 0},
        ]
        line = {"date": "2026-11-01", "id": 11, "name": "Brand", "action": "purchase"}
        server.conversions = [
            {**line, "lag": "LESS_THAN_ONE_DAY", "conversions": 2.0, "conversions_value": 40.5},
            {**line, "lag": "TWO_TO_THREE_DAYS", "conversions": 0.4, "conversions_value": 8.0},
            {**line, "date": "2026-11-02", "lag": "TWO_TO_THREE_DAYS", "conversions": 0.4, "conversions_value": 4.0},
            {**line, "lag": "FOURTEEN_TO_TWENTY_ONE_DAYS", "conversions": 1.0, "conversions_value": 1.0, "action": "lead"},
        ]
        server.actions = {"purchase": 30, "lead": 90}
        rows = google.report(since=datetime(2026, 11, 1, 5, tzinfo=UTC), until=datetime(2026, 11, 24, tzinfo=UTC))
        spend = [r for r in rows if r["kind"] == "spend"]
        assert [round(r["cost"] * 1e6) for r in spend] == [12_345_678]
        assert spend[0]["occurred_at"] == datetime(2026, 11, 1, 4, tzinfo=UTC)  # midnight in New York, summer time
        found = [r for r in rows if r["kind"] == "conversion"]
        assert [(r["conversion_type"], r["quantity"], r["value"], r["reporting_window"]) for r in found] == [
            ("purchase", 2, 40.5, "click=30d,view=none"), ("purchase", 1, 12.0, "click=30d,view=none"),
            ("lead", 1, 1.0, "click=90d,view=none"),
        ]  # fmt: skip
        assert [round((r["occurred_at"] - r["touch_at"]) / timedelta(days=1)) for r in found] == [0, 2, 17]
        assert found[1]["reported_quantity"] == "0.4"
        assert sum(r["quantity"] for r in rows if r["kind"] == "impression") == 905
        assert len({r["event_id"] for r in rows}) == len(rows)

    def test_two_spans_on_one_day_stay_two_rows(self, google, server):
        """On the last day of a report no lag is left: all buckets stand on that day, and each keeps its own event."""
        line = {"date": "2026-11-01", "id": 11, "name": "B", "action": "purchase", "conversions": 2.0, "conversions_value": 1.0}
        server.conversions = [{**line, "lag": lag} for lag in ("LESS_THAN_ONE_DAY", "ONE_TO_TWO_DAYS", "SIXTY_TO_NINETY_DAYS")]
        rows = google.report(since=datetime(2026, 11, 1, 5, tzinfo=UTC), until=datetime(2026, 11, 1, 20, tzinfo=UTC))
        assert [r["quantity"] for r in rows] == [2, 2, 2]
        assert len({r["event_id"] for r in rows}) == 3

    def test_fractions_stay_with_their_arm(self, server):
        """Twenty days of 0.4 and 0.6 conversions, arm by arm in turn: each arm ends within half a conversion of its own total."""
        line = {"action": "purchase", "lag": "LESS_THAN_ONE_DAY", "conversions_value": 1.0}
        server.conversions = [
            {**line, "date": f"2026-11-{day:02d}", "id": key, "name": str(key), "conversions": share}
            for day in range(1, 21)
            for key, share in ((11, 0.4), (12, 0.6))
        ]
        rows = platform(server).report(since=datetime(2026, 11, 1, 5, tzinfo=UTC), until=NOW)
        assert [sum(r["quantity"] for r in rows if r["campaign"] == name) for name in ("11", "12")] == [8, 12]

    def test_by_ad_group(self, server):
        """At the level of ad groups their name is the audience."""
        server.delivery = [
            {
                "date": "2026-11-01",
                "id": 11,
                "name": "B",
                "group_id": n,
                "group": f"G{n}",
                "cost_micros": n * 10_000,
                "impressions": 1,
                "clicks": 0,
            }
            for n in (1, 2)
        ]
        rows = platform(server, report_level="ad_group").report(since=datetime(2026, 11, 1, 5, tzinfo=UTC), until=NOW)
        assert {(r["audience"], r["cost"]) for r in rows if r["kind"] == "spend"} == {("G1", 0.01), ("G2", 0.02)}

    def test_a_failing_report_raises(self, google, server):
        """A report is whole or raises, saying when to come back."""
        failure = server.failure(server.error("quota_error", "RESOURCE_TEMPORARILY_EXHAUSTED", seconds=5))
        server.world.script("report", None, {"status": grpc.StatusCode.RESOURCE_EXHAUSTED, "failure": failure})
        until = datetime(2026, 11, 9, tzinfo=UTC)
        with pytest.raises(NotSentError) as caught:
            google.report(since=datetime(2026, 11, 1, tzinfo=UTC), until=until)
        assert caught.value.retry_at == until + timedelta(seconds=5)
