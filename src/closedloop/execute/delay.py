"""Where the time went between a decision and its confirmation, and whose it was.

Law of this file: pure over receipts. Every second between decision and confirmation belongs to exactly one owner: ours (deciding,
recording, waiting for the next tick), the quota's, or the platform's; the three add up to the total of each action. Quantiles are of
settled actions only, and the number of those still open is said, since leaving out the slow ones flatters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import frame, html_table, text_table
from closedloop.execute.outbox import KIND
from closedloop.interfaces import Ledger
from closedloop.records.action import Receipt
from closedloop.records.codec import decode

OWNERS = ("ours", "quota", "platform")
QUANTILES = (0.5, 0.9, 0.99)
FloatArray = npt.NDArray[np.float64]


def _between(start: datetime | None, end: datetime | None) -> float:
    return 0.0 if start is None or end is None else max((end - start).total_seconds(), 0.0)


def split(receipt: Receipt) -> tuple[float, float, float]:
    """Return the seconds of one confirmed action that were ours, the quota's and the platform's.

    The platform's begin with the last attempt; an attempt before it that was lost counts as ours, since waiting it out was our choice.
    """
    before = _between(receipt.decided_at, receipt.sent_at or receipt.settled_at)
    quota = min(receipt.waited_for_quota, before)
    return before - quota, quota, _between(receipt.sent_at, receipt.settled_at)


@attrs.frozen(kw_only=True, eq=False)
class DelayReport:
    """Delays of actions, split by owner.

    Args:
        platforms: The platform of each confirmed action, N names.
        seconds: Seconds by action and owner (`OWNERS`), shape (N, 3).
        n_open: Actions that have not ended.
        n_ended: Actions that ended without confirmation.
    """

    platforms: tuple[str, ...]
    seconds: FloatArray
    n_open: int
    n_ended: int

    def __len__(self) -> int:
        return len(self.platforms)

    @property
    def total(self) -> FloatArray:
        """Seconds from decision to confirmation of each action, shape (N,)."""
        return np.asarray(self.seconds.sum(axis=1))

    def quantiles(self, platform: str | None = None, levels: Sequence[float] = QUANTILES) -> dict[str, FloatArray]:
        """Return quantiles of the delay by owner and in total, in seconds (NaN-free; empty when nothing was confirmed)."""
        chosen = self.seconds if platform is None else self.seconds[[p == platform for p in self.platforms]]
        if not len(chosen):
            return {}
        columns = {owner: chosen[:, i] for i, owner in enumerate(OWNERS)}
        return {name: np.quantile(values, levels) for name, values in {**columns, "total": chosen.sum(axis=1)}.items()}

    @property
    def owner(self) -> str:
        """The owner of the largest share of all time, "" when no time went by."""
        sums = self.seconds.sum(axis=0) if len(self) else np.zeros(len(OWNERS))
        return OWNERS[int(sums.argmax())] if sums.any() else ""

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per platform and owner."""
        names: list[str | None] = [*sorted(set(self.platforms))]
        rows = [
            (name, owner, int(sum(p == name for p in self.platforms)), *values)
            for name in names
            for owner, values in self.quantiles(name).items()
        ]
        titles = ("platform", "owner", "actions", *(f"p{level * 100:g} seconds" for level in QUANTILES))
        return {title: [row[i] for row in rows] for i, title in enumerate(titles)}

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the quantiles as a frame."""
        return frame(self.to_columns(), library)

    def plot(self, ax: Any = None) -> Any:
        """Draw the mean delay of each platform, split by owner; return the Axes."""
        from closedloop.display import plots

        names = sorted(set(self.platforms))
        means = [self.seconds[[p == name for p in self.platforms]].mean(axis=0) for name in names]
        parts = {owner: [float(m[i]) for m in means] for i, owner in enumerate(OWNERS)}
        return plots.stacked_delay(names, parts, title="Whose the delay was", unit="seconds, mean of an action", ax=ax)

    def _title(self) -> str:
        word = f"; most of it {self.owner if self.owner == 'ours' else f'the {self.owner}’s'}" if self.owner else ""
        return f"Delay of {len(self):,} confirmed actions{word}; {self.n_open:,} open, {self.n_ended:,} ended otherwise"

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=self._title())


def delay_of(receipts: Iterable[Receipt]) -> DelayReport:
    """Return the delays of receipts."""
    confirmed, n_open, n_ended = [], 0, 0
    for receipt in receipts:
        if receipt.state == "confirmed":
            confirmed.append(receipt)
        elif receipt.settled_at is None:
            n_open += 1
        else:
            n_ended += 1
    seconds = np.array([split(r) for r in confirmed], dtype=np.float64).reshape(len(confirmed), len(OWNERS))
    return DelayReport(platforms=tuple(r.change.target.platform for r in confirmed), seconds=seconds, n_open=n_open, n_ended=n_ended)


def delay_report(ledger: Ledger, *, since: datetime | None = None) -> DelayReport:
    """Return where the time went, from a ledger.

    Args:
        ledger: Where actions are recorded.
        since: Only actions decided at or after this time.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    receipts = (decode(r.entry.body["action"]).receipt for r in ledger.newest(KIND))
    return delay_of(r for r in receipts if since is None or r.decided_at >= since)
