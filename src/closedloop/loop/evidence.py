"""The evidence of a cycle as bytes: signals with their outcomes, and the budgets that stood, without pickle.

Law of this file: what is unpacked equals what was packed to the last bit, so that a decision can be made again from it. Arrays go into
one compressed npz, everything else into its JSON header; only the classes listed here are ever built from bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from closedloop.errors import LedgerError
from closedloop.records.arms import Arm, Arms
from closedloop.records.codec import decode, encode
from closedloop.records.interval import Intervals
from closedloop.records.money import Money
from closedloop.records.outcomes import Cohorts, ConversionDays, DelayCurve, Outcomes, SpendDays
from closedloop.records.pool import Pool
from closedloop.records.posterior import GammaMixture, Untagged
from closedloop.records.signal import Signals

_CLASSES: dict[str, type[Any]] = {
    c.__name__: c
    for c in (Arms, Cohorts, ConversionDays, DelayCurve, GammaMixture, Intervals, Outcomes, Pool, Signals, SpendDays, Untagged)
}
_LEFT_OUT = {"Outcomes": {"state"}}  # attribution's memory is kept once, as the ledger's state
_HEADER = "header"


def pack(signals: Signals, budgets: Mapping[Arm, Money] | None) -> bytes:
    """Return signals and current budgets as bytes; equal evidence gives equal bytes.

    Raises:
        InvariantError: Some part is of a kind that cannot be kept.
    """
    arrays: dict[str, np.ndarray] = {}
    known = None if budgets is None else [[list(arm), encode(money)] for arm, money in budgets.items()]
    header = {"signals": _flatten(signals, arrays), "budgets": known}
    arrays[_HEADER] = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def unpack(data: bytes) -> tuple[Signals, dict[Arm, Money] | None]:
    """Return the signals and budgets that `pack` was given.

    Raises:
        LedgerError: The bytes are not such evidence.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
        budgets = header["budgets"]
        return _build(header["signals"], arrays), None if budgets is None else {tuple(arm): decode(m) for arm, m in budgets}
    except (ValueError, KeyError, OSError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LedgerError(
            "the evidence of a cycle cannot be read", "evidence", type(error).__name__, "restore a copy of the ledger"
        ) from error


def _flatten(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    name = type(value).__name__
    if _CLASSES.get(name) is type(value):
        left_out = _LEFT_OUT.get(name, set())
        return {
            "class": name,
            "fields": {f.name: _flatten(getattr(value, f.name), arrays) for f in attrs.fields(type(value)) if f.name not in left_out},
        }
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return {"texts": value.tolist()}
        key = f"a{len(arrays)}"
        arrays[key] = value
        return {"array": key}
    if isinstance(value, tuple) and any(isinstance(v, np.ndarray) for v in value):
        return {"tuple": [_flatten(v, arrays) for v in value]}
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {"mapping": {k: _flatten(v, arrays) for k, v in value.items()}}
    return {"plain": encode(value)}


def _build(node: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    if "class" in node:
        return _CLASSES[node["class"]](**{name: _build(part, arrays) for name, part in node["fields"].items()})
    if "array" in node:
        return arrays[node["array"]]
    if "texts" in node:
        texts = np.empty(len(node["texts"]), dtype=object)
        texts[:] = node["texts"]
        return texts
    if "tuple" in node:
        return tuple(_build(part, arrays) for part in node["tuple"])
    if "mapping" in node:
        return {k: _build(part, arrays) for k, part in node["mapping"].items()}
    return decode(node["plain"])
