"""The adapters cost nothing until they are used, and say what to install when their SDK is not there."""

import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from closedloop.errors import MissingExtraError
from closedloop.platforms.google_ads import GoogleAdsPlatform
from closedloop.platforms.meta import MetaPlatform
from closedloop.platforms.tiktok import TikTokPlatform
from closedloop.records.action import Change
from closedloop.records.decision import Target
from closedloop.records.money import Money

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SESSION = SimpleNamespace(access_token="token-0123456789", app_secret=None, timeout=None)
ADAPTERS = {
    "meta": (lambda: MetaPlatform(api=SimpleNamespace(_session=SESSION), account="act_1"), "facebook_business"),
    "google": (lambda: GoogleAdsPlatform(client=SimpleNamespace(version="v26"), customer="1112223333"), "grpc"),
    "tiktok": (lambda: TikTokPlatform(api_client=None, access_token="token-0123456789", advertiser="1"), "business_api_client"),
}


def test_importing_the_adapters_loads_no_sdk():
    """Importing all three adapters loads none of the SDKs and no HTTP client."""
    code = """
import sys
import closedloop.platforms.google_ads, closedloop.platforms.meta, closedloop.platforms.tiktok
heavy = {"facebook_business", "google.ads", "grpc", "business_api_client", "requests", "urllib3", "google.protobuf"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("extra", ADAPTERS)
@pytest.mark.parametrize("kind", ["set_budget", "pause", "read"])
def test_a_missing_sdk_is_named(extra, kind, monkeypatch):
    """Without the SDK every door says which extra brings it; no change is told as refused by the platform."""
    make, module = ADAPTERS[extra]
    for name in [name for name in sys.modules if name.split(".")[0] == module] or [module]:
        monkeypatch.setitem(sys.modules, name, None)
    platform, target = make(), Target(extra, "11")
    change = Change(action_id="d", target=target, kind="pause" if kind == "pause" else "set_budget", budget=Money.of(5, "EUR"))
    with pytest.raises(MissingExtraError, match=rf"closedloop\[{extra}\]"):
        _ = platform.read(target, now=NOW) if kind == "read" else platform.send(change, now=NOW)
