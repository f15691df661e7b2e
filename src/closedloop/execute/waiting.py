"""What a restart must know of waits for quota: since when a scope has a queue, and until when its platform refuses it.

Law of this file: one record when a queue for a scope begins and one when it ends, never one for each action that waits; and one for
each refusal of the platform. So a wait that began in an earlier process keeps its owner, and a scope that was refused stays closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import attrs

from closedloop.interfaces import Ledger
from closedloop.records.action import Entry
from closedloop.records.codec import decode, encode

WAIT = "wait"


@attrs.frozen
class Wait:
    """What is known of one scope.

    Args:
        since: Since when actions wait for it without a break, None when none does.
        until: Until when the platform refuses it, None when it does not.
    """

    since: datetime | None = None
    until: datetime | None = None


class Waits:
    """Keep what is known of every scope.

    Args:
        ledger: Where it is read from.
        mark: Makes the keys of this process distinct.
    """

    def __init__(self, ledger: Ledger, mark: str) -> None:
        self._ledger, self._mark = ledger, mark
        self._written = 0
        self._scopes: dict[str, Wait] = {}

    def load(self) -> None:
        """Read what is known."""
        self._scopes = {
            r.entry.subject: Wait(*(decode(r.entry.body[name]) for name in ("since", "until"))) for r in self._ledger.newest(WAIT)
        }

    def refused(self, now: datetime) -> dict[str, datetime]:
        """Return the scopes that their platform refuses, and until when."""
        return {scope: wait.until for scope, wait in self._scopes.items() if wait.until is not None and wait.until > now}

    def since(self, scopes: Iterable[str]) -> datetime | None:
        """Return since when one of these scopes has had a queue without a break."""
        begun = [wait.since for wait in map(self._scopes.get, scopes) if wait is not None and wait.since is not None]
        return min(begun, default=None)

    def begin(self, scope: str, at: datetime) -> list[Entry]:
        """Return the record of a queue that begins now, none when there is one."""
        wait = self._scopes.get(scope, Wait())
        return [] if wait.since is not None else self._note(scope, attrs.evolve(wait, since=at), at)

    def end(self, scope: str, at: datetime) -> list[Entry]:
        """Return the record of a queue that ends now, none when there was none."""
        wait = self._scopes.get(scope, Wait())
        return [] if wait.since is None else self._note(scope, attrs.evolve(wait, since=None), at)

    def refuse(self, scope: str, at: datetime, until: datetime) -> list[Entry]:
        """Return the record of a platform's refusal."""
        return self._note(scope, attrs.evolve(self._scopes.get(scope, Wait()), until=until), at)

    def _note(self, scope: str, wait: Wait, at: datetime) -> list[Entry]:
        self._scopes[scope] = wait
        self._written += 1
        body = {"since": encode(wait.since), "until": encode(wait.until)}
        return [
            Entry(kind=WAIT, subject=scope, at=at, body=body, key=f"{WAIT}:{self._mark}:{self._written}", is_open=wait.since is not None)
        ]
