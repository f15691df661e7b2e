"""Records to JSON and back: tagged, versioned, without pickle.

Law of this file: what goes out comes back equal, or an error says which part cannot be kept. Every record carries its name and
version (``"Money/1"``); a field that a later version adds needs a default, so that old records stay readable. Infinite numbers,
tuples, times and mappings with keys that are not text have tags of their own, since JSON has none of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import numpy as np

from closedloop.errors import InvariantError, LedgerError, shorten
from closedloop.records.action import Action, AttemptResult, Change, Receipt, Receipts, TargetState
from closedloop.records.decision import Constraints, Decision, Hold, Plan, Target
from closedloop.records.interval import Interval
from closedloop.records.lift import LiftResult
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow

TAG = "$"
_TEXT = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_VERSION: dict[type, int] = dict.fromkeys(
    (
        Action, AttemptResult, AttributionWindow, Change, Constraints, Decision, Hold, Interval, LiftResult, Money, Plan, Receipt, Receipts,
        Target, TargetState,
    ),
    1,
)  # fmt: skip
_CLASS = {kind.__name__: kind for kind in _VERSION}
_NAME = {kind: f"{kind.__name__}/{version}" for kind, version in _VERSION.items()}
_FIELDS = {kind: tuple(f.name for f in attrs.fields(kind)) for kind in _VERSION}


def canonical(value: Any) -> str:
    """Return JSON-ready content as the one text it has: sorted keys, no spaces, ASCII only, no infinite numbers.

    Raises:
        InvariantError: The content is not JSON-ready; `encode` makes it so.

    >>> canonical({"b": 1, "a": [0.1, None]})
    '{"a":[0.1,null],"b":1}'
    """
    try:
        return _TEXT(value)
    except (TypeError, ValueError) as error:
        raise InvariantError("the content is not JSON-ready", "body", shorten(value), "pass it through encode() first") from error


def encode(value: Any) -> Any:
    """Return a record, or anything made of records, numbers, texts, times and collections, as JSON-ready content.

    Raises:
        InvariantError: Some part is of a type that has no tag here, or a time has no zone.

    >>> encode(Money.of(5, "EUR"))
    {'$': 'Money/1', 'micros': 5000000, 'currency': 'EUR'}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if math.isfinite(number) else {TAG: "float", "is": repr(number)}
    name = _NAME.get(type(value))
    if name is not None:
        return {TAG: name, **{field: encode(getattr(value, field)) for field in _FIELDS[type(value)]}}
    return _encode_other(value)


def _encode_other(value: Any) -> Any:
    if isinstance(value, tuple):
        return {TAG: "tuple", "of": [encode(v) for v in value]}
    if isinstance(value, list):
        return [encode(v) for v in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key != TAG for key in value):
            return {str(key): encode(v) for key, v in value.items()}
        return {TAG: "mapping", "of": [[encode(key), encode(v)] for key, v in value.items()]}
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InvariantError("a time needs its zone", "time", value.isoformat(), "use aware datetimes")
        return {TAG: "time", "at": value.astimezone(UTC).isoformat()}
    if isinstance(value, timedelta):
        return {TAG: "duration", "us": value // timedelta(microseconds=1)}
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {TAG: "array", "dtype": value.dtype.str, "shape": list(value.shape), "of": [encode(v) for v in value.ravel().tolist()]}
    raise InvariantError("no way to keep this type in a ledger", type(value).__name__, shorten(value), None, tuple(_CLASS))


def decode(content: Any) -> Any:
    """Return what `encode` was given.

    Raises:
        LedgerError: A tag, version or field is unknown (written by a later version of the library), or the content is damaged.

    >>> decode(encode((1, float("inf"), timedelta(days=7))))
    (1, inf, datetime.timedelta(days=7))
    """
    if isinstance(content, list):
        return [decode(v) for v in content]
    if not isinstance(content, dict):
        return content
    tag = content.get(TAG)
    if tag is None:
        return {key: decode(v) for key, v in content.items()}
    try:
        return _decode_tagged(str(tag), content)
    except (KeyError, TypeError, ValueError, AttributeError, InvariantError) as error:
        raise LedgerError(
            "a record cannot be read back", "record", shorten(content), "the ledger is damaged, or of a later version"
        ) from error


def _decode_tagged(tag: str, content: Mapping[str, Any]) -> Any:
    match tag:
        case "tuple":
            return tuple(decode(v) for v in content["of"])
        case "float":
            return float(content["is"])
        case "time":
            return datetime.fromisoformat(content["at"])
        case "duration":
            return timedelta(microseconds=content["us"])
        case "mapping":
            return {decode(key): decode(v) for key, v in content["of"]}
        case "array":
            return np.array([decode(v) for v in content["of"]], dtype=content["dtype"]).reshape(content["shape"])
    name, _, version = tag.partition("/")
    kind = _CLASS.get(name)
    if kind is None or int(version) > _VERSION[kind]:
        raise LedgerError("a record of a later version", "record", tag, "read this ledger with a newer closedloop", tuple(_NAME.values()))
    return kind(**{key: decode(v) for key, v in content.items() if key != TAG})
