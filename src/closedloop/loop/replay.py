"""Make past decisions again from the ledger: as proof, or with corrected data to see what would have differed.

Law of this file: it reads the ledger and sends nothing. Without a correction every plan must come out bit for bit as recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from closedloop.display import frame, html_table, text_table
from closedloop.errors import ConfigurationError
from closedloop.loop.deciding import decide, informed
from closedloop.loop.evidence import unpack
from closedloop.records.arms import Arm
from closedloop.records.codec import canonical, decode, encode
from closedloop.records.decision import Plan
from closedloop.records.outcomes import Outcomes

if TYPE_CHECKING:
    from closedloop.loop.loop import ClosedLoop

EVIDENCE = "evidence:"


@attrs.frozen(kw_only=True)
class ReplayedCycle:
    """One cycle made again.

    Args:
        cycle: Its number.
        recorded, replayed: The plan in the ledger, and the plan that comes out now.
    """

    cycle: int
    recorded: Plan
    replayed: Plan

    @property
    def identical(self) -> bool:
        """Whether both plans are the same, bit for bit."""
        return canonical(encode(self.recorded)) == canonical(encode(self.replayed))

    def differences(self) -> list[tuple[Arm, float | None, float | None]]:
        """Return (arm, budget as recorded, budget as replayed) where they differ; None is a budget left alone or unknown."""
        one, other = ({d.arm: d.after.units for d in plan.decisions} for plan in (self.recorded, self.replayed))
        return [(arm, one.get(arm), other.get(arm)) for arm in {**one, **other} if one.get(arm) != other.get(arm)]


@attrs.frozen(kw_only=True)
class Replay:
    """Past cycles made again; `identical` proves them, `differences` shows what corrected data would have changed."""

    cycles: tuple[ReplayedCycle, ...]

    @property
    def identical(self) -> bool:
        """Whether every plan came out bit for bit as recorded."""
        return all(c.identical for c in self.cycles)

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per cycle, and per budget that differs."""
        rows: list[tuple[Any, ...]] = []
        for c in self.cycles:
            changed = c.differences() or [((), None, None)]
            rows += [(c.cycle, c.identical, " / ".join(str(t) for t in arm), was, now) for arm, was, now in changed]
        return {name: [row[i] for row in rows] for i, name in enumerate(("cycle", "identical", "arm", "recorded", "replayed"))}

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the comparison as a frame."""
        return frame(self.to_columns(), library)

    def _title(self) -> str:
        same = sum(c.identical for c in self.cycles)
        return f"Replay: {same} of {len(self.cycles)} plans come out bit for bit as recorded"

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=self._title())


def replay(
    loop: ClosedLoop, *, cycles: Sequence[int] | None = None, corrected: Callable[[int, Outcomes], Outcomes] | None = None
) -> Replay:
    """Make the decisions of past cycles again, from the evidence in the loop's ledger.

    Args:
        loop: A loop opened on the ledger with the rooms to decide with (usually those of then). Nothing is sent or written.
        cycles: Which cycles; by default all whose evidence is kept.
        corrected: Called with the number of a cycle and its outcomes; returns the outcomes as they should have been. They are
            classified anew by the loop's classifier. None keeps what was recorded.

    Raises:
        ConfigurationError: A cycle has no evidence in the ledger; those that have are listed.
        LedgerError: The evidence cannot be read.
    """
    found = [r.entry.body for r in loop.ledger.newest("plan") if r.entry.body["cycle"]]  # plans of cycles, not reverts
    plans = {int(body["cycle"]): decode(body["plan"]) for body in found}
    kept = {cycle: data for cycle in sorted(plans) if (data := loop.ledger.state(f"{EVIDENCE}{cycle}")) is not None}
    wanted = list(kept) if cycles is None else list(cycles)
    done = []
    for cycle in wanted:
        if cycle not in kept:
            raise ConfigurationError("no evidence of this cycle is kept", "cycles", cycle, None, [str(c) for c in kept])
        signals, budgets = unpack(kept[cycle])
        recorded = plans[cycle]
        if corrected is not None:
            outcomes = corrected(cycle, signals.outcomes)
            tests = [decode(r.entry.body["test"]) for r in loop.ledger.entries(kind="lift") if r.entry.at < recorded.made_at]
            known = attrs.evolve(loop.causes(), tests=tests)
            signals = informed(loop.classifier, known).classify(outcomes, now=recorded.made_at)
        added = {name: recorded.provenance[name] for name in ("cycle", "seed", "mode", "override")}
        plan = decide(loop.decider, signals, budgets, horizon=recorded.horizon_days, now=recorded.made_at, cycle=cycle, added=added)
        done.append(ReplayedCycle(cycle=cycle, recorded=recorded, replayed=plan))
    return Replay(cycles=tuple(done))
