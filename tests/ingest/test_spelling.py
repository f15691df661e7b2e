"""Spellings that look like one tag are proposed, and nothing is merged until a person says so."""

from __future__ import annotations

import pytest

from closedloop.ingest import TableIngestor
from closedloop.ingest.spelling import proposed_spellings
from closedloop.records.tags import TagSchema


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        ("spring-sale", "Spring_Sale", True),
        ("spring sale", "spring  sale ", True),
        ("\uff33pring", "spring", True),
        ("retargeting", "retargetting", True),
        ("prospecting", "prosepcting", True),
        ("prospecting", "prospectinG!", True),
        ("campaign_1", "campaign_2", False),
        ("campaign_1", "campaign_11", False),
        ("feed", "feet", False),
        ("spring-sale", "winter-sale", False),
        ("lookalike-ab", "lookalike-cd", False),
    ],
)
def test_what_looks_alike(a: str, b: str, alike: bool) -> None:
    """Case, white space, separators, Unicode form and one slip; never digits, never short words."""
    assert proposed_spellings({a: 1000, b: 1}) == ({b: a} if alike else {})


def test_two_frequent_words_are_two_words() -> None:
    """A letter's difference between two frequent tags is no slip."""
    assert proposed_spellings({"women-shoes": 500, "woman-shoes": 400}) == {}


def test_proposals_are_applied_only_when_given_back() -> None:
    """The report proposes by column; the batch keeps the spellings; ``values=report.proposals`` merges them."""
    rows = [
        {"event_id": str(i), "kind": "click", "occurred_at": "2026-01-31T12:00:00Z", "campaign": "Spring_Sale" if i == 0 else "spring-sale"}
        for i in range(5)
    ]
    tags = TagSchema(arm=("campaign",))
    done = TableIngestor(tags).ingest(rows)
    assert done.batch.tags["campaign"].vocab.tolist() == ["Spring_Sale", "spring-sale"]
    assert done.tags.suggestions == {"Spring_Sale": "spring-sale"}
    assert "1 spellings to look at" in repr(done.tags)
    again = TableIngestor(tags, values=done.tags.proposals).ingest(rows)
    assert again.batch.tags["campaign"].vocab.tolist() == ["spring-sale"]
    assert again.tags.suggestions == {}


def test_a_hostile_vocabulary_takes_no_forever() -> None:
    """Thousands of texts that differ in one letter are looked at in linear memory and bounded time."""
    many = {f"{'x' * 20}{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}": 1 for i in range(5000)}
    assert proposed_spellings(many) == {}
    crowd = {"x" * 20 + chr(0x4E00 + i): 1 for i in range(20_000)}
    assert proposed_spellings(crowd) == {}
