"""Privacy: keyed hashes, contact details noticed, nothing raw left anywhere, a person forgotten."""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
from typing import Any

import pytest

from closedloop.errors import ConfigurationError
from closedloop.ingest import Privacy, TableIngestor, forget_quarantined, forget_user, save_quarantine
from closedloop.ingest.privacy import contact_in
from closedloop.records.tags import TagSchema

KEY = b"a key of thirty-two bytes, random"
TAGS = TagSchema(arm=("campaign",))


def row(**change: Any) -> dict[str, Any]:
    base = {"event_id": "1", "kind": "click", "occurred_at": "2026-01-31T12:00:00Z", "campaign": "spring", "user_id": "user-4711"}
    return {**base, **change}


def test_user_ids_are_hmac_sha256() -> None:
    """The kept id is Python's own HMAC-SHA-256 of the raw one; equal ids stay equal, numbers and texts alike."""
    done = TableIngestor(TAGS, privacy=Privacy(key=KEY)).ingest([row(), row(event_id="2", user_id=4711), row(event_id="3", user_id="4711")])
    users = done.batch.user_id.decode().tolist()
    assert users[0] == "hmac-" + hmac.new(KEY, b"user-4711", hashlib.sha256).hexdigest()
    assert users[1] == users[2]


def test_nothing_raw_is_left(tmp_path: Any) -> None:
    """Neither key nor raw id is in reprs, tables, pickles of results, quarantine or its file."""
    rows = [row(), row(event_id="2", kind="hover", note="call +49 170 1234567"), row(event_id="3", campaign="ann@example.org")]
    ingestor = TableIngestor(TAGS, privacy=Privacy(key=KEY))
    done = ingestor.ingest(rows)
    assert (done.n_accepted, len(done.quarantine)) == (1, 2)
    refused = done.quarantine.rows[1]
    assert (refused.field, refused.value) == ("campaign", "'(contact detail withheld)'")
    places = [repr(done), done._repr_html_(), repr(done.quarantine), repr(done.batch), repr(ingestor)]
    places += [str(done.quarantine.to_columns()), str([r.row for r in done.quarantine.rows]), str(done.batch.to_columns())]
    places += [pickle.dumps((done.batch, done.quarantine.rows)).decode("latin-1")]
    places += [save_quarantine(done.quarantine, tmp_path / "q.ndjson").read_text()]
    for place in places:
        for secret in ("user-4711", "ann@example.org", "1234567", KEY.decode()):
            assert secret not in place


def test_a_raw_id_hides_in_no_other_place(tmp_path: Any) -> None:
    """In ids of events, in other columns, in nested values, in lines that are no records; and a mended row is still the same event."""
    person = "ann.4711"
    session = {"event_name": "session_start", "event_timestamp": 1772442000_000_000, "user_pseudo_id": person, "user_id": person}
    session["collected_traffic_source"] = {"manual_source": "google", "manual_medium": "cpc", "manual_campaign_name": "spring"}
    bad = {**session, "event_timestamp": 5, "note": [f"asked by {person}", {"who": person}]}
    ingestor = TableIngestor(preset="ga4", privacy=Privacy(key=KEY))
    done = ingestor.ingest([session, bad])
    assert (done.n_accepted, len(done.quarantine)) == (1, 1)
    path = tmp_path / "t.ndjson"
    good = row(user_id=person, event_id=f"order-{person}-17")
    path.write_text(json.dumps(good) + "\n" + json.dumps(good)[:-1] + "\n")
    lines = TableIngestor(TAGS, privacy=Privacy(key=KEY)).ingest(path)
    assert (lines.n_accepted, len(lines.quarantine)) == (1, 1)
    for part in (done, lines):
        assert person not in str(part.batch.to_columns()) + str(part.quarantine.rows) + repr(part.quarantine)
    mended = ingestor.ingest([{**done.quarantine.rows[0].row, "event_timestamp": session["event_timestamp"]}])
    assert mended.batch.event_id.tolist() == done.batch.event_id.tolist()
    assert len(set(lines.batch.event_id.tolist()[0].split("-")) & {"order", "17", "hmac"}) == 3


def test_a_mended_row_keeps_its_person() -> None:
    """What was hashed in quarantine is not hashed again: the mended row belongs to the same user."""
    ingestor = TableIngestor(TAGS, privacy=Privacy(key=KEY))
    done = ingestor.ingest([row(), row(event_id="2", kind="hover")])
    mended = ingestor.ingest([{**done.quarantine.rows[0].row, "kind": "click"}])
    assert mended.batch.user_id.vocab.tolist() == done.batch.user_id.vocab.tolist()


@pytest.mark.parametrize("field", ["user_id", "campaign", "event_id", "creative"])
def test_contact_details_as_the_caller_chose(field: str) -> None:
    """Refuse, hash or keep, in id and tag fields."""
    rows = [row(**{field: "Ann@Example.org"})]
    refused = TableIngestor(TAGS, privacy=Privacy(contacts="refuse")).ingest(rows)
    assert refused.quarantine.rows[0].field == field
    assert "e-mail" in refused.quarantine.rows[0].reason
    for contacts, start in (("hash", "hmac-"), ("keep", "Ann@")):
        done = TableIngestor(TAGS, privacy=Privacy(key=KEY if contacts == "hash" else None, contacts=contacts)).ingest(rows)
        assert str(done.batch.to_columns()[field][0]).startswith(start)


@pytest.mark.parametrize(
    ("text", "is_contact"),
    [
        ("a.b+c@sub.example.co.uk", True),
        ("mailto:ann@example.org?subject=x", True),
        ("+1 (415) 555-2671", True),
        ("0049 170 1234567", True),
        ("campaign+retargeting", False),
        ("4711", False),
        ("00123", False),
        ("00000000-0000-0000-0000-000000000000", False),
        ("2026-01-31 12:00:00+00:00", False),
        ("user@localhost", False),
        ("x" * 1_000_000 + "@", False),
    ],
)
def test_what_a_contact_detail_is(text: str, is_contact: bool) -> None:
    """Addresses and prefixed numbers; ids, dates and UUIDs are none."""
    assert contact_in(text) is is_contact


def test_forgetting_a_person() -> None:
    """The person's events, untagged ones and quarantined rows go; the id is in no vocabulary; the others stay."""
    rows = [row(), row(event_id="2", user_id="other"), row(event_id="3", campaign=None), row(event_id="4", kind="hover")]
    privacy = Privacy(key=KEY)
    for chosen in (None, privacy):
        done = TableIngestor(TAGS, privacy=chosen).ingest(rows)
        batch = forget_user(done.batch, "user-4711", chosen)
        assert batch.event_id.tolist() == ["2"]
        assert batch.untagged is None
        assert batch.user_id.vocab.tolist() == ["other" if chosen is None else privacy.hashed("other")]
        assert len(forget_quarantined(done.quarantine, "user-4711", chosen)) == 0
        assert len(forget_quarantined(done.quarantine, "nobody", chosen)) == 2


def test_bad_keys_are_refused_without_being_shown() -> None:
    """Short keys, text keys and hashing without one."""
    for wrong in ({"key": b"secret"}, {"key": "secret secret secret"}, {"contacts": "hash"}):
        with pytest.raises(ConfigurationError) as caught:
            Privacy(**wrong)
        assert "secret" not in json.dumps(str(caught.value)).replace("secrets.token", "").replace("secret store", "")
