"""Every adapter of the library passes the suite that is shipped for anyone's."""

import importlib
from datetime import UTC, datetime, timedelta

import pytest

from closedloop.platforms.simulated import SimulatedPlatform
from closedloop.records.action import Change
from closedloop.records.decision import Target
from closedloop.records.money import Money
from closedloop.testing import PlatformConformance, PlatformSubject

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "EAABsecrettoken0123456789"
DEVELOPER = "developer-token-0123456789"


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    """Skip a whole class where an extra is not installed; a fixture that skips would count as lost checks, and rightly so."""
    try:
        importlib.import_module(module)
        there = True
    except ImportError:
        there = False
    return pytest.mark.skipif(not there, reason=f"needs the extra {extra}")


class TestSimulated(PlatformConformance):
    @pytest.fixture
    def subject(self):
        platform = SimulatedPlatform(
            {"a": Money.of(50, "EUR"), "b": Money.of(60, "EUR")},
            latency=timedelta(seconds=2),
            late_by=timedelta(seconds=1),
            minimum=Money.of(1, "EUR"),
            quota=(1000.0, 60.0),
        )
        subject = PlatformSubject(
            platform=platform,
            target=Target("simulated", "a"),
            amounts=(Money.of("71.23", "EUR"), Money.of("45.67", "EUR")),
            now=NOW,
            unknown=Target("simulated", "zz"),
            refused=Change(action_id="r", target=Target("simulated", "a"), budget=Money.of("0.01", "EUR")),
            other=Target("simulated", "b"),
            writes=lambda: len(platform.applied()),
            alter=lambda budget: platform.alter("a", budget, at=subject.now),
            excused={
                "calls_a_server_error_unknown": "the simulated platform has no such failure",
                "tells_bad_credentials_apart": "the simulated platform has no credentials",
                "keeps_its_secrets": "the simulated platform has no secrets",
                "reports_rows_of_the_event_table": "the simulated market reports, the platform does not",
            },
        )
        names = {"throttle": "throttle", "lose_reply": "lose_reply", "lose_request": "lose_request", "ignore": "ignore"}
        subject.faults = {
            **{name: (lambda fault=fault: platform.fault(fault)) for name, fault in names.items()},
            "late": lambda: platform.fault("late", seconds=0.5),
            "unreachable": lambda: platform.outage(subject.now, subject.now + timedelta(days=1)),
        }
        yield subject
        platform.close()


@needs("facebook_business.api", "meta")
class TestMeta(PlatformConformance):
    @pytest.fixture
    def subject(self):
        from facebook_business.api import FacebookAdsApi
        from facebook_business.session import FacebookSession
        from meta_server import MetaServer, graph_error

        from closedloop.platforms.meta import MetaPlatform

        with MetaServer(token=TOKEN) as server:
            session = FacebookSession(app_id="1", app_secret="appsecretappsecret", access_token=TOKEN)
            session.GRAPH = server.address
            session.requests.trust_env = False
            world = server.world
            day = {"campaign_id": "1", "campaign_name": "C", "adset_id": "11", "adset_name": "S", "ad_id": "2", "ad_name": "A"}
            actions = [{"action_type": "purchase", "value": "3", "1d_click": "2", "7d_click": "3"}]
            server.insights = [
                {"date_start": f"2026-11-0{d}", **day, "spend": "5.25", "impressions": "9", "clicks": "1", "actions": actions}
                for d in (1, 2)
            ]

            def unreachable() -> None:
                server.http.shutdown()
                server.http.server_close()
                session.requests.close()

            yield PlatformSubject(
                platform=MetaPlatform(api=FacebookAdsApi(session, api_version="v26.0"), account="act_100", creation={"campaign_id": "21"}),
                target=Target("meta", "11"),
                amounts=(Money.of("71.23", "EUR"), Money.of("45.67", "EUR")),
                now=NOW,
                unknown=Target("meta", "404"),
                refused=Change(action_id="r", target=Target("meta", "11"), budget=Money.of("0.01", "EUR")),
                other=Target("meta", "12"),
                advance=lambda step: world.advance(step.total_seconds()),
                writes=lambda: sum(method == "POST" for method, _, _ in world.requests),
                alter=lambda budget: world.change("11", {"daily_budget": str(budget.minor_units)}),
                secrets=(TOKEN, "appsecretappsecret", session.appsecret_proof),
                report_span=(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC)),
                faults={
                    "throttle": lambda: world.script("write", graph_error(17, "too many", subcode=2446079)),
                    "lose_reply": lambda: world.script("write", "lost"),
                    "lose_request": lambda: world.script("write", "reset"),
                    "late": lambda: world.script("write", "late"),
                    "ignore": lambda: world.script("write", "silent"),
                    "server_error": lambda: world.script("write", {**graph_error(2, "down", http=503), "apply": True}),
                    "unreachable": unreachable,
                    "revoke": lambda: setattr(server, "token", "another"),
                },
            )


@pytest.fixture(scope="session")
def tls():
    from google_server import process_certificate

    return process_certificate()


@needs("google.ads.googleads.client", "google")
class TestGoogleAds(PlatformConformance):
    @pytest.fixture
    def subject(self, tls):
        import grpc
        from google.ads.googleads.client import GoogleAdsClient
        from google.oauth2.credentials import Credentials
        from google_server import GoogleServer

        from closedloop.platforms.google_ads import GoogleAdsPlatform

        with GoogleServer(tls, token=TOKEN) as server:
            client = GoogleAdsClient(
                credentials=Credentials(token=TOKEN),
                developer_token=DEVELOPER,
                endpoint=server.endpoint,
                version="v26",
                use_proto_plus=True,
            )
            world, code = server.world, grpc.StatusCode
            line = {"date": "2026-11-01", "id": 11, "name": "C"}
            server.delivery = [{**line, "cost_micros": 5_250_000, "impressions": 9, "clicks": 1}]
            server.conversions = [{**line, "lag": "LESS_THAN_ONE_DAY", "conversions": 2.0, "conversions_value": 1.0, "action": "purchase"}]
            quota = server.failure(server.error("quota_error", "RESOURCE_TEMPORARILY_EXHAUSTED", seconds=30))

            def unreachable() -> None:
                server.proxy.close()

            yield PlatformSubject(
                platform=GoogleAdsPlatform(client=client, customer="1112223333"),
                target=Target("google", "11"),
                amounts=(Money.of("71.23", "EUR"), Money.of("45.67", "EUR")),
                now=NOW,
                unknown=Target("google", "404"),
                refused=Change(action_id="r", target=Target("google", "11"), budget=Money.of("0.01", "EUR")),
                other=Target("google", "12"),
                advance=lambda step: world.advance(step.total_seconds()),
                writes=lambda: server.calls.count("write"),
                alter=lambda budget: world.change("campaignBudgets/91", {"amount_micros": budget.micros}),
                secrets=(TOKEN, DEVELOPER),
                report_span=(datetime(2026, 11, 1, 5, tzinfo=UTC), datetime(2026, 11, 3, 5, tzinfo=UTC)),
                faults={
                    "throttle": lambda: world.script("write", {"status": code.RESOURCE_EXHAUSTED, "failure": quota}),
                    "lose_reply": lambda: world.script("write", "lost"),
                    "lose_request": lambda: world.script("write", "dropped"),
                    "late": lambda: world.script("write", "late"),
                    "ignore": lambda: world.script("write", "silent"),
                    "server_error": lambda: world.script("write", {"status": code.INTERNAL, "details": "oops", "apply": True}),
                    "unreachable": unreachable,
                    "revoke": lambda: setattr(server, "token", "another"),
                },
            )


@needs("business_api_client", "tiktok")
class TestTikTok(PlatformConformance):
    @pytest.fixture
    def subject(self):
        import business_api_client as sdk
        from tiktok_server import TikTokServer, refusal

        from closedloop.platforms.tiktok import TikTokPlatform

        with TikTokServer(token=TOKEN) as server:
            configuration = sdk.Configuration()
            configuration.host = server.address
            client = sdk.ApiClient(configuration)
            world = server.world
            metrics = {"campaign_id": "c", "adgroup_id": "g", "spend": "1.25", "impressions": "9", "clicks": "1", "cta_conversion": "2"}
            server.lines = [{"dimensions": {"ad_id": "a", "stat_time_day": "2026-11-01 00:00:00"}, "metrics": metrics}]

            def unreachable() -> None:
                server.http.shutdown()
                server.http.server_close()
                client.rest_client.pool_manager.clear()

            yield PlatformSubject(
                platform=TikTokPlatform(api_client=client, access_token=TOKEN, advertiser="700"),
                target=Target("tiktok", "11"),
                amounts=(Money.of("71.23", "USD"), Money.of("45.67", "USD")),
                now=NOW,
                unknown=Target("tiktok", "404"),
                refused=Change(action_id="r", target=Target("tiktok", "11"), budget=Money.of("0.01", "USD")),
                other=Target("tiktok", "12"),
                advance=lambda step: world.advance(step.total_seconds()),
                writes=lambda: len(server.bodies),
                alter=lambda budget: world.change("11", {"budget": budget.units}),
                secrets=(TOKEN,),
                report_span=(datetime(2026, 11, 1, 8, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC)),
                faults={
                    "throttle": lambda: world.script("write", refusal(40100, "Too many requests")),
                    "lose_reply": lambda: world.script("write", "lost"),
                    "lose_request": lambda: world.script("write", "reset"),
                    "late": lambda: world.script("write", "late"),
                    "ignore": lambda: world.script("write", "silent"),
                    "server_error": lambda: world.script("write", refusal(50000, "System error", apply=True)),
                    "unreachable": unreachable,
                    "revoke": lambda: setattr(server, "token", "another"),
                },
            )
