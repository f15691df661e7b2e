"""What a landing URL says of the touch: UTM parameters and the platforms' click ids.

Law of this file: text in, tags out; no network, no guessing. A click id names the platform where ``utm_source`` does not; two platforms'
click ids in one URL name none. Percent-encoding that is no UTF-8 becomes the replacement character, never an exception.

References: Google Analytics, "URL builders: collect campaign data with custom URLs" (utm_source, utm_medium, utm_campaign, utm_term,
utm_content).
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote_plus

from closedloop.errors import InputError

UTM = {"utm_source": "platform", "utm_medium": "placement", "utm_campaign": "campaign", "utm_term": "audience", "utm_content": "creative"}
CLICK_IDS = {
    "gclid": "google",
    "gbraid": "google",
    "wbraid": "google",
    "dclid": "google",
    "fbclid": "meta",
    "ttclid": "tiktok",
    "msclkid": "microsoft",
}
LONGEST_URL = 16_384
_MOST_PARAMETERS = 200
_NAMES = frozenset((*UTM, *CLICK_IDS))


@lru_cache(maxsize=4096)
def _read(url: str) -> tuple[tuple[str, str], ...]:
    query = url.partition("?")[2].partition("#")[0]
    parts = query.split("&")
    if len(parts) > _MOST_PARAMETERS:
        raise InputError("the URL has too many parameters", "url", url, f"at most {_MOST_PARAMETERS} are read")
    tags: dict[str, str] = {}
    platforms = []
    for part in parts:
        raw, _, value = part.partition("=")
        name = (unquote_plus(raw) if "%" in raw else raw).lower()
        if name not in _NAMES:
            continue
        if "%" in value or "+" in value:
            value = unquote_plus(value, errors="replace")
        value = value.strip()
        if name in UTM and value:
            tags.setdefault(UTM[name], value)  # the first of two counts, as analytics tools do
        elif value:
            platforms.append(CLICK_IDS[name])
            tags.setdefault("click_id", value)
    if platforms and "platform" not in tags and len(set(platforms)) == 1:
        tags["platform"] = platforms[0]
    return tuple(tags.items())


def landing_tags(url: str) -> dict[str, str]:
    """Return the tags in a landing URL, and ``click_id`` where the platform gave one.

    Args:
        url: A URL, or its path and query.

    Raises:
        InputError: It is no text, or longer than 16,384 characters.

    >>> landing_tags("https://shop.example/?utm_source=google&utm_medium=cpc&utm_campaign=Spring+sale&gclid=Cj0K")
    {'platform': 'google', 'placement': 'cpc', 'campaign': 'Spring sale', 'click_id': 'Cj0K'}
    >>> landing_tags("/shoes?fbclid=IwAR")
    {'click_id': 'IwAR', 'platform': 'meta'}
    """
    if not isinstance(url, str) or len(url) > LONGEST_URL:
        raise InputError(
            "no landing URL", "url", url if isinstance(url, str) else type(url).__name__, "give the URL the visitor came in by"
        )
    return dict(_read(url))
