"""The executor and the real SDKs together: every fault of a platform settles, with one effective write and no secret in the ledger."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from closedloop.execute import OutboxExecutor
from closedloop.ledger import SqliteLedger
from closedloop.records.action import Change
from closedloop.records.decision import Decision, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "EAABsecrettoken0123456789"
SECRET = "appsecretappsecret0123456789"
HTML = {"http": 502, "text": "<html>502 Bad Gateway success</html>"}


@contextmanager
def meta():
    pytest.importorskip("facebook_business", reason="needs the extra meta")
    from facebook_business.api import FacebookAdsApi
    from facebook_business.session import FacebookSession
    from meta_server import MetaServer, graph_error

    from closedloop.platforms.meta import MetaPlatform

    with MetaServer(token=TOKEN) as server:
        session = FacebookSession(app_id="1", app_secret=SECRET, access_token=TOKEN)
        session.GRAPH = server.address
        session.requests.trust_env = False
        yield SimpleNamespace(
            platform=MetaPlatform(api=FacebookAdsApi(session, api_version="v26.0"), account="act_100"),
            server=server, world=server.world, currency="EUR", other={"daily_budget": "6100"}, key="11",
            budget=lambda: int(server.world.objects["11"]["daily_budget"]) * 10_000,
            faults={
                "lost": "lost", "late": "late", "dropped": "reset", "silent": "silent", "html": HTML,
                "server error": {**graph_error(2, "down", http=503), "apply": True},
                "quota": graph_error(17, f"too many, access_token={TOKEN}", subcode=2446079),
            },
        )  # fmt: skip


@contextmanager
def google():
    pytest.importorskip("google.ads.googleads", reason="needs the extra google")
    import grpc
    from google.ads.googleads.client import GoogleAdsClient
    from google.oauth2.credentials import Credentials
    from google_server import GoogleServer, process_certificate

    from closedloop.platforms.google_ads import GoogleAdsPlatform

    with GoogleServer(process_certificate(), token=TOKEN) as server:
        client = GoogleAdsClient(
            credentials=Credentials(token=TOKEN), developer_token=SECRET, endpoint=server.endpoint, version="v26", use_proto_plus=True
        )
        quota = server.failure(server.error("quota_error", "RESOURCE_TEMPORARILY_EXHAUSTED", f"developer-token: {SECRET}", seconds=300))
        code = grpc.StatusCode
        yield SimpleNamespace(
            platform=GoogleAdsPlatform(client=client, customer="1112223333"),
            server=server, world=server.world, currency="EUR", other={"amount_micros": 61_000_000}, key="campaignBudgets/91",
            budget=lambda: server.world.objects["campaignBudgets/91"]["amount_micros"],
            faults={
                "lost": "lost", "late": "late", "dropped": "dropped", "silent": "silent",
                "html": {"status": code.UNKNOWN, "details": "Received http2 header with status: 502"},
                "server error": {"status": code.INTERNAL, "details": "oops", "apply": True},
                "quota": {"status": code.RESOURCE_EXHAUSTED, "failure": quota},
            },
        )  # fmt: skip


@contextmanager
def tiktok():
    sdk = pytest.importorskip("business_api_client", reason="needs the extra tiktok")
    from tiktok_server import TikTokServer, refusal

    from closedloop.platforms.tiktok import TikTokPlatform

    with TikTokServer(token=TOKEN) as server:
        configuration = sdk.Configuration()
        configuration.host = server.address
        yield SimpleNamespace(
            platform=TikTokPlatform(api_client=sdk.ApiClient(configuration), access_token=TOKEN, advertiser="700"),
            server=server, world=server.world, currency="USD", other={"budget": 61.0}, key="11",
            budget=lambda: round(server.world.objects["11"]["budget"] * 1e6),
            faults={
                "lost": "lost", "late": "late", "dropped": "reset", "silent": "silent", "html": HTML,
                "server error": refusal(50000, "System error", apply=True),
                "quota": refusal(40100, f"Too many requests from Access-Token: {TOKEN}"),
            },
        )  # fmt: skip


@pytest.fixture(params=[meta, google, tiktok], ids=lambda make: make.__name__)
def door(request):
    with request.param() as opened:
        yield opened


def plan(door, after: str = "71.23", before: str = "50", name: str = "p1", at: datetime = START) -> Plan:
    interval = Interval(low=0.5, estimate=1.0, high=1.5, level=0.9, kind="credible")
    decision = Decision(
        decision_id=f"{name}/d", arm=(door.platform.name, "11"), target=Target(door.platform.name, "11"),
        before=Money.of(before, door.currency),
        after=Money.of(after, door.currency), gain=interval, p_gain=0.9, reason="more conversions for the money",
    )  # fmt: skip
    return Plan(
        plan_id=name, made_at=at, window=AttributionWindow(click="7d", view="1d"), decisions=(decision,), holds=(), gain=interval,
        p_gain=0.9, expected_shortfall=0.1, horizon_days=7.0,
    )  # fmt: skip


def carry_out(door, ledger, what: Plan, **options) -> tuple[str, float]:
    """Execute a plan and tick until it rests; return the state of its action and the seconds that it took."""
    executor = OutboxExecutor(ledger, {door.platform.name: door.platform}, **options)
    now = START
    executor.execute(what, now=now)
    for _ in range(200):
        due = executor.tick(now)
        if due is None:
            break
        door.world.advance((due - now).total_seconds())
        now = due
    return executor.receipts("p1")[0].state, (now - START).total_seconds()


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (None, "confirmed"),
        ("lost", "confirmed"),
        ("late", "confirmed"),
        ("dropped", "confirmed"),
        ("html", "confirmed"),
        ("server error", "confirmed"),
        ("quota", "confirmed"),
        ("silent", "diverged"),
    ],
)
def test_every_fault_settles_with_one_effective_write(door, fault, state, tmp_path):
    """What was perhaps applied is looked for, what was surely not applied is sent again, and the value is written once."""
    if fault is not None:
        door.world.script("write", door.faults[fault])
    path = tmp_path / "loop.db"
    with SqliteLedger(path) as ledger:
        found, seconds = carry_out(door, ledger, plan(door))
        ledger.verify()
    assert found == state
    assert len(door.world.writes) == (0 if fault == "silent" else 1)
    assert door.budget() == (50_000_000 if fault == "silent" else 71_230_000)
    if fault == "quota":
        assert seconds >= 300.0
    kept = b"".join(f.read_bytes() for f in tmp_path.iterdir())
    assert TOKEN.encode() not in kept
    assert SECRET.encode() not in kept


def test_someone_elses_change_makes_it_stale(door, tmp_path):
    """The prior state is read and compared before sending: what someone else changed meanwhile is not overwritten."""
    door.world.change(door.key, door.other)
    with SqliteLedger(tmp_path / "loop.db") as ledger:
        state, _ = carry_out(door, ledger, plan(door))
    assert state == "stale"
    assert len(door.world.writes) == 1  # the other's


def test_a_refusal_ends_it(door, tmp_path):
    """A budget below the platform's minimum is rejected for good, with one request."""
    with SqliteLedger(tmp_path / "loop.db") as ledger:
        state, _ = carry_out(door, ledger, plan(door, after="0.50"))
    assert state == "rejected"
    assert door.world.writes == []


def test_metas_four_changes_an_hour_are_never_exceeded(tmp_path):
    """Seven plans for one ad set within half an hour: the server, which counts for itself, never has to refuse a change."""
    with meta() as door, SqliteLedger(tmp_path / "loop.db") as ledger:
        executor = OutboxExecutor(ledger, {"meta": door.platform}, headroom=1.0)
        now, before = START, 50

        def go_to(moment: datetime) -> datetime:
            door.world.advance((moment - now).total_seconds())
            return moment

        for i in range(7):
            now = go_to(START + i * timedelta(minutes=5))
            executor.execute(plan(door, after=str(51 + i), before=str(before), name=f"p{i}", at=now), now=now)
            before = door.budget() // 1_000_000
        due = executor.tick(now)
        while due is not None and due < START + timedelta(hours=5):
            now = go_to(due)
            due = executor.tick(now)
        changes = [at for at, _, values in door.world.writes if "daily_budget" in values]
        assert max(sum(0 <= b - a < 3600 for b in changes) for a in changes) == 4
        assert "613" not in {r.code.split("/")[0] for i in range(7) for r in executor.receipts(f"p{i}")}
        states = [executor.receipts(f"p{i}")[0].state for i in range(7)]
        assert states.count("confirmed") == len(changes) >= 4


@pytest.mark.parametrize("fault", [None, "lost", "late", "dropped", "html", "server error", "quota"])
def test_a_creation_is_made_once_and_found(fault, tmp_path):
    """Whatever becomes of the answer, one campaign with the decision's mark is there in the end, and its budget is right."""
    with meta() as door, SqliteLedger(tmp_path / "loop.db") as ledger:
        door.platform.level, door.platform.creation = "campaign", {"objective": "OUTCOME_SALES", "special_ad_categories": []}
        if fault is not None:
            door.world.script("write", door.faults[fault])
        executor = OutboxExecutor(ledger, {"meta": door.platform})
        change = Change(action_id="d-7", target=Target("meta", "Holdout north"), kind="create", budget=Money.of("71.23", "EUR"))
        now = START
        executor.submit("p1", [change], now=now, reason="a holdout for the north")
        for _ in range(200):
            due = executor.tick(now)
            if due is None:
                break
            door.world.advance((due - now).total_seconds())
            now = due
        made = [v for v in door.world.objects.values() if "Holdout" in v.get("name", "")]
        assert [(m["name"], m["daily_budget"], m["status"]) for m in made] == [("Holdout north [cl:d-7]", "7123", "PAUSED")]
        assert executor.receipts("p1")[0].state == "confirmed"
