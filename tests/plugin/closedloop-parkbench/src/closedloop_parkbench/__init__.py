"""Park benches as an advertising platform: a complete adapter in one file.

The network (invented for this example) speaks JSON over HTTP: ``GET /benches/<id>`` and ``PATCH /benches/<id>`` with ``cents`` or
``on``; a key travels in a header. What an adapter has to get right is in the comments.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from closedloop.errors import AuthenticationError, NotSentError, RejectedError
from closedloop.records.action import AttemptResult, AttemptStatus, Change, TargetState
from closedloop.records.decision import Target
from closedloop.records.money import Money

_CENT = 10_000  # millionths of a euro
_STATUS: dict[int, AttemptStatus] = {200: "accepted", 401: "not_sent", 403: "rejected", 404: "rejected", 422: "rejected", 429: "throttled"}


class ParkbenchPlatform:
    """Steer the budgets of benches.

    Args:
        url: Address of the network.
        key: The account's key.
        name: Name of the platform, as registered with the loop.
    """

    # A change without an answer is applied within 30 seconds or never: the network says so.
    quiet_period = 30.0

    def __init__(self, url: str, key: str, *, name: str = "parkbench") -> None:
        self._address = urlsplit(url)
        self._key = key
        self.name = name

    def __repr__(self) -> str:  # the key must not show
        return f"ParkbenchPlatform({self._address.netloc!r})"

    def read(self, target: Target, *, now: datetime) -> TargetState:
        """Return a bench's budget and switch, as the network has them now: nothing is remembered here."""
        status, answer, _ = self._ask("GET", f"/benches/{quote(target.resource, safe='')}", None, 10.0)
        if status == 401:
            raise AuthenticationError("the key does not serve", "key", None, "renew it")
        if status in (403, 404):
            raise RejectedError(str(answer.get("error")), "target", str(target))
        if status != 200:
            raise NotSentError(f"the network cannot be read: {status} {answer.get('error', '')}", "target", str(target))
        return TargetState(target=target, budget=Money(answer["cents"] * _CENT, "EUR"), active=answer["on"], read_at=now)

    def send(self, change: Change, *, now: datetime, timeout: float = 10.0) -> AttemptResult:
        """Send one change, once. Never raise for what a network can do; never guess."""
        if change.kind == "set_budget":
            if change.budget is None or change.budget.currency != "EUR" or change.budget.micros % _CENT:
                return AttemptResult(status="rejected", code="budget", message=f"{change.budget} is no amount of whole euro cents")
            body: dict[str, Any] = {"cents": change.budget.micros // _CENT}  # absolute, in whole cents, without a float
        elif change.kind in ("pause", "resume"):
            body = {"on": change.kind == "resume"}
        else:  # what an adapter does not know, such as "create", it must refuse: never do something else instead
            return AttemptResult(status="rejected", code="kind", message=f"a bench cannot {change.kind}")
        status, answer, connected = self._ask("PATCH", f"/benches/{quote(change.target.resource, safe='')}", body, timeout)
        if status is None:  # no answer: surely not sent only when there was no connection, else perhaps applied
            result: AttemptStatus = "unknown" if connected else "not_sent"
            return AttemptResult(status=result, code="connection", message=str(answer["error"]))
        retry_at = now + timedelta(seconds=float(answer.get("retry_after", 60))) if status == 429 else None
        scope = "parkbench/requests" if status == 429 else ""
        # a server's failure may come after the change was applied: everything that is not listed is unknown
        meaning = _STATUS.get(status, "unknown")
        return AttemptResult(status=meaning, code=str(status), message=str(answer.get("error", "")), retry_at=retry_at, scope=scope)

    def limits(self, target: Target) -> Sequence[tuple[str, float, float]]:
        """Return the network's quota: 600 requests a minute."""
        return (("parkbench/requests", 600.0, 60.0),)

    def cost(self, change: Change | None) -> float:
        """Return the units of a request: one."""
        return 1.0

    def report(self, *, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """Return what each bench cost on each day of ``[since, until)``, as rows of the event table."""
        status, answer, _ = self._ask("GET", f"/spend?since={since.date()}&until={until.date()}", None, 60.0)
        if status != 200:
            raise NotSentError(f"no report: {status} {answer.get('error', '')}")
        return [
            {
                "event_id": f"{self.name}/{line['bench']}/{line['day']}",  # the same day reported again has the same id
                "kind": "spend",
                "occurred_at": datetime.fromisoformat(line["day"]).replace(tzinfo=UTC),
                "platform": self.name,
                "campaign": line["bench"],
                "cost": line["cents"] / 100,
                "currency": "EUR",
            }
            for line in answer["lines"]
        ]

    def _ask(self, method: str, path: str, body: Any, timeout: float) -> tuple[int | None, dict[str, Any], bool]:
        """Return the status (None for no answer), the JSON object answered, and whether there was a connection."""
        connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=timeout)
        connected = False
        try:
            connection.connect()
            connected = True
            connection.request(method, path, None if body is None else json.dumps(body), {"X-Key": self._key})
            response = connection.getresponse()
            raw = response.read()
            answer = json.loads(raw)
            return response.status, answer if isinstance(answer, dict) else {"error": "no JSON object"}, connected
        except ValueError:  # an HTML page, say: whatever its status, it is no answer of the network's
            return 502, {"error": "the answer is no JSON"}, connected
        except (OSError, http.client.HTTPException) as error:
            return None, {"error": type(error).__name__}, connected  # the name only: a message may repeat the request
        finally:
            connection.close()
