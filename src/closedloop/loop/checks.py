"""What must fit before a loop runs, and what an attribution hands over, looked at before anything is learned from it.

Law of this file: layers of different windows and ledgers of other accounts are refused. A plug-in may return nonsense: what cannot be
meant (no outcomes, another window, NaN, unknown arms) is refused with the plug-in's name, before anything is recorded or sent, so that the
cycle can be run again. What can be meant but is wrong (more credit than conversions) is a finding that holds the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from closedloop.display import number
from closedloop.errors import ConfigurationError, WindowMismatchError
from closedloop.interfaces import Ledger
from closedloop.ledger import decode
from closedloop.records.feedback import Finding
from closedloop.records.interval import Interval
from closedloop.records.outcomes import Cohorts, Outcomes, SpendDays
from closedloop.records.window import AttributionWindow

_ROUNDING = 1e-6  # of a sum of many credits


_LAYERS = {"ingest": "ingestor", "attribute": "attribution", "classify": "classifier", "decide": "decider", "execute": "executor"}


def refuse_other_windows(window: AttributionWindow, rooms: Mapping[str, Any]) -> None:
    """Raise unless every room that has a window has the loop's.

    Raises:
        WindowMismatchError: One has another; both are named.
    """
    for verb, room in rooms.items():
        found = getattr(room, "window", window)
        if found is not None and found != window:
            problem = f"the loop has {window} and its {_LAYERS[verb]} has {found}"
            raise WindowMismatchError(problem, _LAYERS[verb], None, "give every layer the same AttributionWindow")


def refuse_other_account(ledger: Ledger, mine: Mapping[str, Any]) -> None:
    """Raise if the ledger was made for another account, window or arm.

    Raises:
        ConfigurationError: It was; WindowMismatchError where it is the window.
    """
    known = ledger.newest("identity", subject="loop")
    if not known:
        return
    theirs = known[0].entry.body
    for field, what in (("name", "account"), ("window", "attribution window"), ("arm", "arm columns")):
        if theirs[field] != mine[field]:
            error = WindowMismatchError if field == "window" else ConfigurationError
            found = decode(theirs[field]) if field == "window" else theirs[field]
            raise error(f"this ledger was made for another {what}: {found}", field, mine[field], "open it with that, or start a new ledger")


def reporting(platforms: Mapping[str, Any]) -> dict[str, AttributionWindow]:
    """Return the windows under which platforms say that they report."""
    found = {name: getattr(platform, "reporting_window", None) for name, platform in platforms.items()}
    return {name: window for name, window in found.items() if window is not None}


def refuse_nonsense(outcomes: Any, window: AttributionWindow, attribution: str) -> None:
    """Raise unless these are outcomes that the other rooms can work with.

    Args:
        outcomes: What was returned.
        window: The loop's.
        attribution: Name of the class that returned it.

    Raises:
        ConfigurationError: They are not; what is wrong is named.
        WindowMismatchError: They were made under another window.
    """
    mend = f"mend {attribution}.attribute; nothing of this cycle was recorded or sent, run it again with the same rows"

    def refuse(problem: str, field: str, found: Any) -> ConfigurationError:
        return ConfigurationError(f"{attribution} returned nonsense: {problem}", field, found, mend)

    if not isinstance(outcomes, Outcomes):
        raise refuse("no Outcomes", "outcomes", type(outcomes).__name__)
    if outcomes.window != window:
        raise WindowMismatchError(f"the loop has {window} and its outcomes were made under {outcomes.window}", "window", None, mend)
    if not hasattr(outcomes.state, "to_bytes"):
        raise refuse("a state that cannot be kept", "state", type(outcomes.state).__name__)
    joined = outcomes.participation
    if joined is not None and not np.array_equal(joined.arms.codes, outcomes.arms.codes):
        raise refuse("participation of other arms than were credited", "participation", len(joined.arms))
    for table in (outcomes.cohorts, outcomes.spend, *(() if joined is None else (joined.cohorts,))):
        _refuse_table(table, len(outcomes.arms), refuse)
    if len(outcomes.cohorts) and outcomes.cohorts.maturity.max() > 1.0 + _ROUNDING:
        raise refuse("a maturity above 1", "maturity", float(outcomes.cohorts.maturity.max()))


def _refuse_table(table: Cohorts | SpendDays, n_arms: int, refuse: Any) -> None:
    for field in attrs.fields(type(table)):
        column = getattr(table, field.name)
        if not isinstance(column, np.ndarray) or column.shape != (len(table),):
            raise refuse(f"{len(table)} rows, and a column that has not", field.name, getattr(column, "shape", type(column).__name__))
        wrong = ~(np.isfinite(column) & (column >= 0)) if column.dtype.kind == "f" else np.zeros(len(table), dtype=bool)
        if field.name == "arm":
            wrong = (column < 0) | (column >= n_arms)
        if wrong.any():
            raise refuse("a value that cannot be", field.name, column[wrong][0].item())


def over_credit(outcomes: Outcomes, level: float) -> list[Finding]:
    """Return a critical finding where more is credited than was seen: every arm would look better than it is."""
    credited = float(outcomes.cohorts.credit.sum())
    if credited <= outcomes.n_conversions * (1.0 + _ROUNDING) + _ROUNDING:
        return []
    ratio = credited / outcomes.n_conversions if outcomes.n_conversions else float("inf")
    return [
        Finding(
            name="wrong_attribution",
            severity="critical",
            scope="account",
            measured=Interval(low=ratio, estimate=ratio, high=ratio, level=level, kind="credible"),  # counted, not estimated
            threshold=1.0,
            evidence=f"{outcomes.model} credits {number(credited)} conversions and has seen {outcomes.n_conversions:,}",
            mend="the credits of a conversion add up to at most 1: mend the attribution, or count what it credits",
        )
    ]
