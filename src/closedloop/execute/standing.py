"""Whether what stands at a target is what was wanted.

Law of this file: pure comparisons. Budgets are compared to the currency's minor unit, which is all that platforms keep; a target that
does not exist (yet) is None.
"""

from __future__ import annotations

import attrs

from closedloop.records.action import Change, TargetState
from closedloop.records.money import Money


@attrs.frozen(kw_only=True)
class Look:
    """What was read of a target: its states (several only for creations, none when it is gone), or why it could not be read."""

    found: tuple[TargetState, ...] = ()
    trouble: str = ""


def same_amount(one: Money | None, other: Money | None) -> bool:
    """Return whether two budgets are the same to the currency's minor unit, which is all that platforms keep."""
    if one is None or other is None:
        return one is other
    return one.currency == other.currency and one.minor_units == other.minor_units


def in_force(change: Change, found: TargetState | None) -> bool:
    """Return whether a target stands as the change wants it; None is what a creation finds before it is made."""
    if found is None:
        return False
    if change.kind in ("set_budget", "create"):
        return same_amount(change.budget, found.budget)
    return found.active == (change.kind == "resume")


def same_aspect(one: Change, other: Change) -> bool:
    """Return whether the later of two changes of a target makes the earlier one pointless: a pause says nothing about a budget."""
    return "create" not in (one.kind, other.kind) and (one.kind == "set_budget") == (other.kind == "set_budget")


def unchanged(change: Change, prior: TargetState | None, found: TargetState | None) -> bool:
    """Return whether a target stands as it did before the change was sent."""
    if found is None or prior is None:
        return found is prior
    return same_amount(prior.budget, found.budget) if change.kind == "set_budget" else prior.active == found.active


def describe(found: TargetState | None) -> str:
    """Return what stands, for a message."""
    if found is None:
        return "nothing"
    return f"{found.budget!r}{'' if found.active else ' (paused)'}"
