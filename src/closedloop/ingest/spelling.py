"""Spellings that look like one tag: found and proposed, never merged.

Law of this file: a proposal goes from the rarer spelling to the most frequent one, and each text is proposed once. Two texts are one
when they differ only in case, white space, separators or Unicode form; or, if long and not different in a digit, by one slip of the
keyboard (a letter more, less, other, or two swapped) where one of them is rare.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping

_SEPARATORS = re.compile(r"[\s_\-.+/|:]+")
_SHORTEST_SLIP = 8  # characters below which one letter is a difference of meaning
_LONGEST_SLIP = 64  # characters above which slips are not looked for
_LEADERS = 10  # frequent spellings that a rare one is held against, of those that share all letters but one
_RARE = 0.05  # a slip of the keyboard is rare beside what was meant
_LARGEST = 20_000  # spellings above which slips are not looked for


def folded(text: str) -> str:
    """Return what is left of a text without case, separators and Unicode form.

    >>> folded("Spring_Sale") == folded(" spring - SALE ")
    True
    """
    return _SEPARATORS.sub("-", unicodedata.normalize("NFKC", text).casefold()).strip("-")


def proposed_spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """Return ``{spelling: the spelling it looks like}`` for the texts of one tag column.

    Args:
        counts: How many events carry each spelling.

    >>> proposed_spellings({"spring-sale": 90, "Spring_Sale": 7, "spirng-sale": 1, "sale_1": 5, "sale_2": 4})
    {'Spring_Sale': 'spring-sale', 'spirng-sale': 'spring-sale'}
    """
    same: dict[str, list[str]] = defaultdict(list)
    for text in counts:
        key = folded(text)
        if key:
            same[key].append(text)
    leader = {key: min(texts, key=lambda t: (-counts[t], t)) for key, texts in same.items()}
    total = {key: sum(counts[t] for t in texts) for key, texts in same.items()}
    meant = _slips(total) if len(total) <= _LARGEST else {}
    out = {}
    for key, texts in same.items():
        target = leader[meant.get(key, key)]
        out.update({text: target for text in texts if text != target})
    return dict(sorted(out.items()))


def _slips(total: Mapping[str, int]) -> dict[str, str]:
    """Map rare keys to the frequent key that is one slip away; found through the texts with one letter left out."""
    enough = _RARE * max(total.values(), default=0)
    long = [key for key in total if _SHORTEST_SLIP <= len(key) <= _LONGEST_SLIP]
    of_rare = {short for key in long if total[key] <= enough for short in (key, *_without_one(key))}
    if not of_rare:
        return {}
    shortened: dict[str, list[str]] = defaultdict(list)
    for key in long:
        for short in {key, *_without_one(key)} & of_rare:
            shortened[short].append(key)
    best: dict[str, str] = {}
    for keys in shortened.values():
        if len(keys) > 1:
            frequent = heapq.nlargest(_LEADERS, keys, key=total.__getitem__)  # a crowd of near texts must not cost its square
            for rare in keys:
                for often in frequent:
                    known = best.get(rare)
                    if (
                        total[rare] <= _RARE * total[often]
                        and _one_slip(rare, often)
                        and (known is None or (-total[often], often) < (-total[known], known))
                    ):
                        best[rare] = often
    return {rare: often for rare, often in best.items() if often not in best}


def _without_one(key: str) -> Iterator[str]:
    """The key without one letter; digits stay, as keys that differ in one are no slips of each other."""
    return (key[:i] + key[i + 1 :] for i, letter in enumerate(key) if not letter.isdigit())


def _one_slip(a: str, b: str) -> bool:
    """True when one letter more, less, other or swapped makes ``a`` of ``b``, and no digit is concerned."""
    if a == b or abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    end = next((i for i, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=False)) if x != y), min(len(a), len(b)))
    end = min(end, len(a) - start, len(b) - start)
    left, right = a[start : len(a) - end], b[start : len(b) - end]
    slip = (len(left), len(right)) in ((0, 1), (1, 0), (1, 1)) or (len(left) == 2 and left == right[::-1])
    return slip and not any(c.isdigit() for c in left + right)
