"""Secrets never come through, and words do."""

import json
import string
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.platforms.redaction import REDACTED, redact

SECRETS = st.text(string.ascii_letters + string.digits + "-_.~|/+=%\"'\\é ", min_size=8, max_size=60).filter(
    lambda s: len(set(s)) > 3 and s not in REDACTED
)
WORDS = st.text(max_size=40)


@given(SECRETS, WORDS, WORDS, st.sampled_from([str, repr, quote, quote_plus, json.dumps, lambda s: quote(s, safe="")]))
def test_a_known_secret_is_taken_out_in_every_spelling(secret, before, after, spelling):
    """However an exception spells a known secret, none of its spellings is left."""
    written = spelling(secret).strip("\"'")
    text = redact(f"{before}{spelling(secret)}{after}", [secret], limit=10_000)
    assert written not in text


@given(st.text(string.ascii_letters + string.digits + "-_.~|", min_size=8, max_size=60).map("Zq9".__add__), st.integers(1, 200))
def test_unknown_secrets_are_known_by_their_names(secret, limit):
    """A token that nobody told of is taken out where its name stands before it, and a cut never leaves half of one."""
    for shape in (
        "GET https://h/v26.0/1?access_token={}&fields=id failed",
        "POST /x HTTP/1.1 Authorization: Bearer {}",
        "{{'access_token': '{}', 'id': 1}}",
        '{{"developer-token": "{}"}}',
        "('Access-Token', '{}')",
        "url=%2Fx%3Faccess_token%3D{}",
        "appsecret_proof={};",
        "headers={{'Authorization': b'Bearer {}'}}",
        "https://user:{}@host/path",
    ):
        for text in (redact(shape.format(secret)), redact(shape.format(secret), limit=max(limit, 4))):
            assert secret not in text
            assert len(text) <= 500


@pytest.mark.parametrize(
    "token", ["EAAB0123456789abcdef", "ya29.a0AfH6SMB0123456789", "1//0gabcdefghijklmnop", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.sig"]
)
def test_tokens_are_known_by_their_shape(token):
    """The platforms' own shapes of tokens are taken out wherever they stand."""
    assert redact(f"bad value {token} given") == f"bad value {REDACTED} given"


@pytest.mark.parametrize(
    "words",
    [
        "Error validating access token: Session has expired on Monday.",
        "Your budget is too low. It must be at least €1.00.",
        "(#100) Unsupported request: Object with ID '404' does not exist",
        "Error Code: 40100, Error Message: Too many requests., Request Id: 202611240001",
    ],
)
def test_ordinary_words_stay(words):
    """The platform's words are what an operator needs; they are kept."""
    assert redact(words) == words


def test_one_line_and_bounded():
    """A page of HTML becomes one bounded line, redacted before it is cut."""
    text = redact("a\n" * 400 + "secret=" + "s" * 400)
    assert len(text) <= 500
    assert "\n" not in text
    assert "sss" not in text
