"""The words that would make a stranger's file readable: a guess from its column names and its kinds, to be looked at by a person.

Law of this file: it proposes and decides nothing. A column is proposed for one field, a field for one column, and what the user mapped
stands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence

from closedloop.ingest.wording import OTHER_NAMES
from closedloop.ingest.written import SIGNS

_KINDS: Mapping[str, tuple[str, ...]] = {
    "conversion": ("purchase", "sale", "order", "buy", "bought", "signup", "sign_up", "lead", "checkout", "subscribe", "install", "conv"),
    "click": ("visit", "session", "session_start", "clicks", "ad_click", "tap", "landing", "page_view", "pageview"),
    "impression": ("view", "imp", "impressions", "ad_view", "exposure", "shown"),
    "spend": ("cost", "costs", "ad_spend", "budget"),
}

_DAY = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?:([ ,T]+)\d{1,2}:\d\d(:\d\d)?( ?[AaPp][Mm])?)?$")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"\(.*?\)", "", name).lower()).strip("_")


def proposed(columns: Sequence[str], mapped: Collection[str]) -> dict[str, str]:
    """Return ``{"their column": "our field"}`` for columns that look like a field nobody has filled.

    Args:
        columns: Columns of the file.
        mapped: Fields that are there already, by name or by mapping.

    >>> proposed(["Time", "Event Type", "cost", "price_micros"], {"cost"})
    {'Event Type': 'kind', 'Time': 'occurred_at'}
    """
    by_name = {_plain(column): column for column in reversed(columns)}
    found: dict[str, str] = {}
    for field, names in OTHER_NAMES.items():
        if field in mapped or field in columns:
            continue
        theirs = next((by_name[n] for n in names if n in by_name and by_name[n] not in found and not n.endswith("_micros")), None)
        if theirs is not None:
            found[theirs] = field
    return found


def kinds(words: Collection[str]) -> dict[str, str]:
    """Return ``{"their word": "our kind"}`` for words that look like one.

    >>> kinds(["Purchase", "visit", "scroll", "click", "Click"])
    {'Purchase': 'conversion', 'visit': 'click', 'Click': 'click'}
    """
    return {word: ours for word in words if word not in _KINDS for ours, names in _KINDS.items() if _plain(word) in (ours, *names)}


def lacks_zone(moments: Iterable[object]) -> bool:
    """Return whether these are texts of moments without a zone, which is then to be said once for all.

    >>> lacks_zone(["2026-03-02 04:48:00"]), lacks_zone(["2026-03-02T04:48:00Z", "2026-03-02 04:48+01:00"])
    (True, False)
    """
    texts = [moment for moment in moments if isinstance(moment, str) and moment[:1].isdigit() and ":" in moment]
    return bool(texts) and not any(re.search(r"(Z|[+-]\d\d:?\d\d| [A-Z]{3,4})$", text.strip()) for text in texts)


def time_format(moments: Iterable[object]) -> tuple[str, bool] | None:
    """Return how days are written where not in ISO 8601, and whether day and month might be the other way round; None where ISO or unknown.

    >>> time_format(["01.09.2026 14:25"]), time_format(["9/1/2026", "9/13/2026"]), time_format(["2026-09-01"])
    (('%d.%m.%Y %H:%M', False), ('%m/%d/%Y', False), None)
    """
    found = [_DAY.match(str(moment).strip()) for moment in moments if moment]
    if not found or not all(found):
        return None
    parts = [match.groups() for match in found if match]
    _, sign, _, _, gap, seconds, noon = parts[0]
    day_first = sign == "." or any(int(p[0]) > 12 for p in parts)
    unsure = not day_first and not any(int(p[2]) > 12 for p in parts)
    form = sign.join(("%d", "%m") if day_first or unsure else ("%m", "%d")) + f"{sign}%Y"
    if gap:
        form += (
            gap + ("%I" if noon else "%H") + ":%M" + (":%S" if seconds else "") + ((" " if noon[0] == " " else "") + "%p" if noon else "")
        )
    return form, unsure


def decimal_sign(amounts: Iterable[object]) -> str | None:
    """Return the decimal sign of amounts that are not plain numbers, None where all are.

    >>> decimal_sign(["€ 1.234,50", "3,5"]), decimal_sign(["$1,234.50"]), decimal_sign(["12.5", "3"])
    (',', '.', None)
    """
    texts = [text.strip() for text in amounts if isinstance(text, str) and re.search(r"\d", text)]
    if all(re.fullmatch(r"[+-]?\d*\.?\d+(e[+-]?\d+)?", text) for text in texts):
        return None
    return "," if any(re.search(r"\d,\d{1,2}\D*$", text) for text in texts) else "."


def currency_of(names: Iterable[str], amounts: Iterable[object]) -> str:
    """Return the currency that an amount's sign or a column's name in brackets tells, EUR as an example where none does.

    >>> currency_of(["Spend (USD)"], []), currency_of(["cost"], ["£ 5"]), currency_of(["CPC"], ["5"])
    ('USD', 'GBP', 'EUR')
    """
    signs = [codes[0] for amount in amounts for sign, codes in SIGNS.items() if sign in str(amount)]
    named = [found[1] for name in names if (found := re.search(r"\(([A-Z]{3})\)", name))]
    return next(iter([*named, *signs]), "EUR")


def as_words(mapping: Mapping[str, str], values: Mapping[str, str]) -> str:
    """Return the proposal as words of the command line, "" when there is nothing to propose.

    >>> as_words({"Event Type": "kind"}, {"visit": "click"})
    "--map 'Event Type=kind' --value kind:visit=click"
    """
    words = [("--map", f"{theirs}={ours}") for theirs, ours in mapping.items()]
    words += [("--value", f"kind:{theirs}={ours}") for theirs, ours in values.items()]
    return " ".join(f"{option} {shlex.quote(word)}" for option, word in words)
