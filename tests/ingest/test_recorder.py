"""Recording in a service: context from tags, registry and URL; no event lost or doubled between threads; asyncio; bad calls refused."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.errors import ConfigurationError, InputError
from closedloop.ingest import EventRecorder, TableIngestor, TagRegistry, landing_tags
from closedloop.records.tags import TagSchema

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
INGESTOR = TableIngestor(TagSchema(arm=("platform", "campaign")))
URL = "https://shop.example/shoes?utm_source=bing&utm_campaign=winter&utm_content=b1&msclkid=9"


def test_explicit_tags_come_before_the_registry_and_that_before_the_url() -> None:
    """Each source of context fills what the earlier ones leave open."""
    recorder = EventRecorder(INGESTOR, TagRegistry({"ad-1": {"platform": "meta", "campaign": "spring"}}))
    recorder.record("click", at=AT, url=URL, ad_id="ad-1", campaign="summer")
    recorder.record("click", at=AT, url=URL)
    recorder.record("conversion", at=AT, user_id="u", value=3.5, currency="EUR", conversion_type="purchase")
    recorder.record("click", at=AT, ad_id="unknown")
    assert recorder.counts == {"recorded": 4, "untagged": 1, "waiting": 4}
    done = recorder.flush()
    assert (done.n_rows, done.n_accepted, len(done.quarantine)) == (4, 3, 1)
    tags = {name: done.batch.tags[name].decode().tolist() for name in ("platform", "campaign", "creative")}
    assert tags == {"platform": ["meta", "bing", None], "campaign": ["summer", "winter", None], "creative": ["b1", "b1", None]}
    assert len(recorder) == 0


@pytest.mark.parametrize(
    ("name", "platform"), [("gclid", "google"), ("fbclid", "meta"), ("ttclid", "tiktok"), ("msclkid", "microsoft"), ("gbraid", "google")]
)
def test_click_ids_name_the_platform(name: str, platform: str) -> None:
    """A click id says whose it is, unless utm_source says so, or two platforms' ids are there."""
    assert landing_tags(f"https://a.example/?{name.upper()}=abc") == {"platform": platform, "click_id": "abc"}
    assert landing_tags(f"/?{name}=abc&utm_source=other")["platform"] == "other"
    assert "platform" not in landing_tags("/?gclid=a&fbclid=b")


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_url_or_an_input_error(text: str) -> None:
    """Nothing but tags or InputError comes out of any text."""
    for url in (text, "https://a.example/?utm_source=" + text, "?" + text.replace(" ", "&")):
        try:
            tags = landing_tags(url)
        except InputError:
            continue
        assert set(tags) <= {"platform", "campaign", "audience", "creative", "placement", "click_id"}


@pytest.mark.parametrize(
    "call",
    [
        {"kind": "purchase", "at": AT},
        {"kind": "click", "at": datetime(2026, 1, 31)},  # noqa: DTZ001
        {"kind": "click", "at": "2026-01-31"},
        {"kind": "click", "at": AT, "cost": -1},
        {"kind": "click", "at": AT, "cost": float("nan")},
        {"kind": "click", "at": AT, "value": float("inf")},
        {"kind": "click", "at": AT, "colour": "red"},
        {"kind": "click", "at": AT, "url": "x" * 20_000},
        {"kind": "click", "at": AT, "url": "?" + "&".join(f"a{i}=1" for i in range(500))},
    ],
)
def test_bad_calls_are_refused_there_and_then(call: dict[str, Any]) -> None:
    """The service hears of it at once, and nothing is recorded."""
    recorder = EventRecorder(INGESTOR)
    with pytest.raises(InputError):
        recorder.record(**call)
    assert recorder.counts["recorded"] == 0


def test_strict_refuses_the_untagged() -> None:
    """With strict, a missing tag is the caller's error."""
    with pytest.raises(InputError, match="needs its campaign"):
        EventRecorder(INGESTOR, strict=True).record("click", at=AT, platform="x")


def test_no_event_is_lost_or_doubled_between_threads() -> None:
    """Eight threads record while another drains: every id once."""
    batches: list[list[dict[str, Any]]] = []
    recorder = EventRecorder(INGESTOR, sink=batches.append, batch_rows=97)
    per, workers = 2000, 8

    def work(worker: int) -> None:
        for i in range(per):
            recorder.record("click", at=AT, event_id=f"{worker}-{i}", platform="x", campaign="y")
            if i % 500 == 0:
                batches.append(recorder.drain())

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    batches.append(recorder.drain())
    ids = [row["event_id"] for batch in batches for row in batch]
    assert len(ids) == per * workers
    assert set(ids) == {f"{w}-{i}" for w in range(workers) for i in range(per)}


def test_from_asyncio() -> None:
    """Tasks record without awaiting anything."""
    recorder = EventRecorder(INGESTOR, source="loop")

    async def visit(i: int) -> str:
        await asyncio.sleep(0)
        return recorder.record("click", at=AT, platform="x", campaign=str(i % 3))

    async def main() -> list[str]:
        return await asyncio.gather(*(visit(i) for i in range(500)))

    assert len(set(asyncio.run(main()))) == 500
    assert recorder.flush().n_accepted == 500


def test_a_failing_sink_loses_nothing() -> None:
    """The rows are kept, the exception is the caller's."""

    def sink(rows: list[dict[str, Any]]) -> None:
        raise OSError("disk full")

    recorder = EventRecorder(INGESTOR, sink=sink, batch_rows=2)
    recorder.record("click", at=AT, platform="x", campaign="y")
    with pytest.raises(OSError, match="disk full"):
        recorder.record("click", at=AT, platform="x", campaign="y")
    assert recorder.flush().n_accepted == 2


def test_limits() -> None:
    """A recorder that nobody drains says so, rather than take all memory."""
    recorder = EventRecorder(INGESTOR, batch_rows=1, limit=1)
    recorder.record("click", at=AT)
    with pytest.raises(ConfigurationError, match="full"):
        recorder.record("click", at=AT)
    with pytest.raises(ConfigurationError):
        EventRecorder(INGESTOR, batch_rows=0)


def test_registries() -> None:
    """From rows; contradictions and columns that are none are refused."""
    registry = TagRegistry.from_rows([{"ad_id": 1, "campaign": "a", "colour": "red"}, {"ad_id": 1, "campaign": "a"}])
    assert dict(registry.tags("1")) == {"campaign": "a"}
    assert len(registry) == 1
    with pytest.raises(InputError, match="different things"):
        TagRegistry.from_rows([{"ad_id": 1, "campaign": "a"}, {"ad_id": 1, "campaign": "b"}])
    with pytest.raises(InputError, match="no key"):
        TagRegistry.from_rows([{"campaign": "a"}])
    with pytest.raises(ConfigurationError):
        TagRegistry({"1": {"colour": "red"}})
