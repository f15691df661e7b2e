"""Whatever a platform answers, an adapter neither raises nor guesses: only a clear yes is accepted, money survives every currency."""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from closedloop.errors import PlatformError
from closedloop.records.action import Change
from closedloop.records.decision import Target
from closedloop.records.money import MICROS, Money

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "EAABsecrettoken0123456789"
FEW = settings(
    max_examples=1000 if os.environ.get("CLOSEDLOOP_FULL") else 50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SCALARS = st.none() | st.booleans() | st.integers(-100, 100_000) | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8
)
HTTP = st.sampled_from([200, 201, 204, 400, 401, 403, 404, 408, 429, 500, 502, 503])
IDS = {"campaign_id": "1", "adset_id": "2", "ad_id": "3"}
SURELY_NOT = ("rejected", "throttled", "not_sent")


def change(amount: str = "71.23", currency: str = "EUR") -> Change:
    return Change(action_id="d", target=Target("p", "11"), budget=Money.of(amount, currency))


class TestMeta:
    @pytest.fixture
    def server(self):
        pytest.importorskip("facebook_business", reason="needs the extra meta")
        from meta_server import MetaServer

        with MetaServer(token=TOKEN) as running:
            yield running

    def platform(self, server):
        from facebook_business.api import FacebookAdsApi
        from facebook_business.session import FacebookSession

        from closedloop.platforms.meta import MetaPlatform

        session = FacebookSession(app_id="1", access_token=TOKEN)
        session.GRAPH = server.address
        session.requests.trust_env = False
        return MetaPlatform(api=FacebookAdsApi(session, api_version="v26.0"), account="act_100")

    errors = st.fixed_dictionaries(
        {},
        optional={
            "error": JSON
            | st.fixed_dictionaries(
                {},
                optional={
                    "code": JSON | st.sampled_from([1, 2, 4, 17, 100, 190, 613, 2635, 80004]),
                    "error_subcode": JSON | st.sampled_from([2446079, 1487632]),
                    "message": JSON,
                    "error_data": JSON,
                    "is_transient": JSON,
                    "fbtrace_id": JSON,
                },
            ),
            "success": JSON,
            "id": JSON,
        },
    )

    @given(HTTP, errors.map(json.dumps) | JSON.map(json.dumps) | st.text(max_size=60).map(lambda t: f"<html>{t}</html>"))
    @example(200, '{"error": {"code": [], "message": {}}}')
    @example(200, '{"success": "yes"}')
    @example(400, '{"error": "success"}')
    @example(500, '{"error": {"code": 17, "error_data": "{"}}')
    @FEW
    def test_only_a_clear_yes_is_accepted(self, server, http, text):
        """Neither a send nor a read raises anything but a PlatformError; yes needs HTTP 200 and success true; no needs an error object."""
        meta = self.platform(server)
        meta.read(Target("p", "11"), now=NOW)
        server.world.script("write", {"http": http, "text": text})
        result = meta.send(change(), now=NOW)
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        said = body if isinstance(body, dict) else {}
        assert (result.status == "accepted") == (http == 200 and said.get("success") is True and "error" not in said)
        if result.status in SURELY_NOT and http != 429:
            assert isinstance(said.get("error"), dict)
        assert TOKEN not in repr(result)
        server.world.script("read", {"http": http, "text": text})
        try:
            state = meta.read(Target("p", "11"), now=NOW)
        except PlatformError:
            return
        assert http == 200
        assert state.budget is None

    @given(
        st.lists(st.dictionaries(st.sampled_from(["date_start", "spend", "clicks", "actions", "action_values"]), JSON), max_size=3), JSON
    )
    @example([{**IDS, "date_start": "2026-11-01", "spend": "NaN"}], None)
    @example([{**IDS, "date_start": "2026-11-01", "spend": "1"}], None)
    @example([{**IDS, "date_start": "2026-11-01", "actions": [{"action_type": "purchase", "1d_click": "x"}]}], None)
    @example([], {"next": "x"})
    @FEW
    def test_a_report_is_whole_or_raises(self, server, lines, paging):
        """A broken report raises a PlatformError; nothing of it is returned."""
        server.world.script("report", {"http": 200, "json": {"data": lines, "paging": paging}})
        try:
            rows = self.platform(server).report(since=datetime(2026, 11, 1, tzinfo=UTC), until=NOW)
        except PlatformError:
            return
        finally:
            server.world.faults.clear()
        assert all(math.isfinite(row[name] or 0.0) for row in rows for name in ("cost", "value"))

    @given(st.sampled_from(["EUR", "USD", "JPY", "TWD", "HUF", "BHD", "JOD", "VND", "IDR"]), st.integers(100, 10**9))
    @FEW
    def test_money_survives_every_currency(self, server, currency, minor):
        """Any amount of Meta's minor units is sent and read back as the same money."""
        server.world.objects["act_100"]["currency"] = currency
        meta = self.platform(server)
        unit = MICROS if currency in ("JPY", "TWD", "HUF", "VND", "IDR") else MICROS // 100
        server.budget_changes.clear()
        amount = Money(minor * unit, currency)
        assert meta.send(Change(action_id="d", target=Target("p", "11"), budget=amount), now=NOW).status == "accepted"
        assert server.world.objects["11"]["daily_budget"] == str(minor)
        assert meta.read(Target("p", "11"), now=NOW).budget == amount


class TestTikTok:
    @pytest.fixture
    def server(self):
        pytest.importorskip("business_api_client", reason="needs the extra tiktok")
        from tiktok_server import TikTokServer

        with TikTokServer(token=TOKEN) as running:
            yield running

    @pytest.fixture
    def tiktok(self, server):
        import business_api_client as sdk

        from closedloop.platforms.tiktok import TikTokPlatform

        configuration = sdk.Configuration()
        configuration.host = server.address
        return TikTokPlatform(api_client=sdk.ApiClient(configuration), access_token=TOKEN, advertiser="700")

    answers = st.fixed_dictionaries(
        {}, optional={"code": JSON | st.sampled_from([0, 20001, 40100, 40002, 50000]), "message": JSON, "data": JSON}
    )

    @given(HTTP, answers.map(json.dumps) | JSON.map(json.dumps) | st.text(max_size=60))
    @example(200, '{"code": "0"}')
    @example(200, '{"code": Infinity, "data": {}}')
    @example(200, '{"code": []}')
    @FEW
    def test_only_a_clear_yes_is_accepted(self, tiktok, server, http, text):
        """Neither a send nor a read raises anything but a PlatformError; yes needs HTTP 2xx and a code that the SDK reads as 0."""
        tiktok.read(Target("p", "11"), now=NOW)
        server.world.script("write", {"http": http, "text": text})
        result = tiktok.send(change(currency="USD"), now=NOW)
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        said = body if isinstance(body, dict) else {}
        try:
            code = int(said["code"])  # the SDK turns whatever stands there into a whole number
        except (KeyError, TypeError, ValueError, OverflowError):
            code = None
        assert (result.status == "accepted") == (http < 300 and code == 0)
        if result.status in SURELY_NOT and http != 429:
            assert code is not None
        assert TOKEN not in repr(result)
        server.world.script("read", {"http": http, "text": text})
        try:
            tiktok.read(Target("p", "11"), now=NOW)
        except PlatformError:
            return
        raise AssertionError("an answer without the ad group was taken for one")

    @given(st.integers(2_000, 10**11))
    @FEW
    def test_money_is_exact_to_the_cent(self, tiktok, server, cents):
        """Every amount of whole cents up to a billion goes through a JSON number and back unchanged."""
        amount = Money(cents * 10_000, "USD")
        assert tiktok.send(Change(action_id="d", target=Target("p", "11"), budget=amount), now=NOW).status == "accepted"
        assert tiktok.read(Target("p", "11"), now=NOW).budget == amount


class TestGoogle:
    @pytest.fixture
    def server(self):
        pytest.importorskip("google.ads.googleads", reason="needs the extra google")
        from google_server import GoogleServer, process_certificate

        with GoogleServer(process_certificate(), token=TOKEN) as running:
            yield running

    @pytest.fixture
    def google(self, server):
        from google.ads.googleads.client import GoogleAdsClient
        from google.oauth2.credentials import Credentials

        from closedloop.platforms.google_ads import GoogleAdsPlatform

        client = GoogleAdsClient(
            credentials=Credentials(token=TOKEN), developer_token="d" * 20, endpoint=server.endpoint, version="v26", use_proto_plus=True
        )
        return GoogleAdsPlatform(client=client, customer="1112223333")

    @given(st.data())
    @FEW
    def test_every_error_of_the_api_is_read(self, google, server, data):
        """Whatever error code of Google's comes under whatever gRPC status, with details or without: no exception, never a yes."""
        import grpc

        codes = type(server.error("quota_error", "UNKNOWN")._pb.error_code).DESCRIPTOR
        family = data.draw(st.sampled_from(sorted(f.name for f in codes.fields)))
        name = data.draw(st.sampled_from(sorted(codes.fields_by_name[family].enum_type.values_by_name)))
        status = data.draw(st.sampled_from(sorted(c.name for c in grpc.StatusCode if c.name != "OK")))
        error = server.error(family, name, data.draw(st.text(max_size=20)), seconds=data.draw(st.integers(0, 90)))
        failure = data.draw(st.sampled_from([server.failure(error), server.failure(), None]))
        server.world.script("write", {"status": grpc.StatusCode[status], "failure": failure, "details": "words"})
        result = google.send(Change(action_id="d", target=Target("p", "11"), kind="pause"), now=NOW)
        assert result.status != "accepted"
        assert (result.retry_at is not None) == (result.status == "throttled" or "CONCURRENT" in result.code)
        if failure is not None and failure.errors and family in ("internal_error",):
            assert result.status == "unknown"
        assert result.code
