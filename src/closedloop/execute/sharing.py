"""Several workers on one ledger: who is at which target, and who may use a quota now.

Law of this file: a target is held from the look before a send until the answer is recorded, a platform's quota while it is read and
charged; both by claims of the ledger, which a dead worker gives up by dying. What others recorded is taken in before anything is
decided. That no action is sent twice does not rest on this alone: two workers cannot both record the same step of an action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any

from closedloop.execute.dispatch import Dispatcher, Timing
from closedloop.execute.lifecycle import IN_FLIGHT
from closedloop.execute.outbox import Outbox, Place
from closedloop.execute.quota import QuotaGate
from closedloop.execute.standing import Look
from closedloop.interfaces import Claims
from closedloop.records.action import Action, Change
from closedloop.records.moments import to_us


class SharedDispatcher(Dispatcher):
    """Move actions on beside other workers; see `Dispatcher`.

    Args:
        claims: The shared ledger.
    """

    def __init__(self, outbox: Outbox, gate: QuotaGate, platforms: Mapping[str, Any], timing: Timing, claims: Claims) -> None:
        super().__init__(outbox, gate, platforms, timing)
        self._claims = claims

    def _look_all(self, due: Sequence[Action], moment: Callable[[], datetime]) -> None:
        for action in due:
            target = action.receipt.change.target
            with self._claims.claim(f"target {target}") as mine:
                if not mine:
                    self.outbox.delay(action, moment() + self.timing.poll_interval)
                    continue
                fresh = self.outbox.fresh(action)
                if fresh is None:
                    continue
                with self._claims.claim(f"quota {target.platform}", wait=True):
                    self.gate.absorb(self.outbox.others_charges())
                    may = self._may_look(fresh, moment())
                    self.outbox.flush()
                if may:
                    self._look_at(fresh, moment)
                self.outbox.flush()

    def _send_next(self, place: Place, action: Action, moment: Callable[[], datetime]) -> int:
        """Send an action unless another worker is at its target; all of it is charged while the quota is held."""
        change = action.receipt.change
        with self._claims.claim(f"target {change.target}") as mine:
            if not mine:
                self.outbox.delay(action, moment() + self.timing.poll_interval)
                return 0
            fresh = self.outbox.fresh(action)
            if fresh is None or fresh.receipt.state in IN_FLIGHT or self.outbox.busy(fresh):
                return 0
            with self._claims.claim(f"quota {change.target.platform}", wait=True):
                self.gate.absorb(self.outbox.others_charges())
                at = moment()
                if self._held_back(place, fresh, to_us(at)):
                    return 0
                charges = self.gate.charge(to_us(at), self.limits(change.target), self.whole_cost(change)[0])
                self.outbox.stage_request(change.target.platform, at, charges)
                self.outbox.flush()
            self._send_one(place, fresh, moment, charged=True)
            self.outbox.flush()
        return 1

    def survey(self, changes: Sequence[Change], moment: Callable[[], datetime]) -> list[Look]:
        """Read what stands at the targets of changes, with the quotas of all their platforms held."""
        with ExitStack() as held:
            for name in sorted({change.target.platform for change in changes}):
                held.enter_context(self._claims.claim(f"quota {name}", wait=True))
            self.gate.absorb(self.outbox.others_charges())
            return super().survey(changes, moment)
