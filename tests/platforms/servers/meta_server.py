"""A loopback server that speaks Meta's Graph protocol, with scripted faults and its own count of the quotas."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from faults import World
from loopback import Loopback

HTML_502 = "<html><head><title>502 Bad Gateway</title></head><body>{word}</body></html>"


def graph_error(
    code: int, message: str, *, subcode: int | None = None, http: int = 400, transient: bool = False, **more: Any
) -> dict[str, Any]:
    """Return a fault that answers with Meta's error object."""
    error = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "TRACE1", **more}
    if subcode:
        error["error_subcode"] = subcode
    if transient:
        error["is_transient"] = True
    return {"http": http, "json": {"error": error}}


class MetaServer(Loopback):
    """One ad account, ``act_100``, in EUR unless told otherwise."""

    def __init__(self, *, token: str, currency: str = "EUR", timezone: str = "Europe/Berlin") -> None:
        super().__init__(self._serve)
        self.world = World()
        self.token = token
        self.ended: set[str] = {"v21.0"}
        self.minimum = 100
        self.insights: list[dict[str, Any]] = []
        self.page = 2
        self.late_by = 2.0
        self.created = 0
        self.budget_changes: dict[str, list[float]] = {}
        self.world.objects = {
            "act_100": {"id": "act_100", "currency": currency, "timezone_name": timezone, "account_status": 1},
            "11": self._adset(daily_budget="5000"),
            "12": self._adset(daily_budget="7000", learning_stage_info={"status": "LEARNING", "conversions": 12}),
            "13": self._adset(),  # its campaign holds the budget
            "14": self._adset(daily_budget="5000", status="DELETED", effective_status="DELETED"),
            "15": self._adset(daily_budget="5000", account_id="999"),
            "16": self._adset(daily_budget="5000", forbidden=True),
            "21": {"id": "21", "kind": "campaign", "status": "ACTIVE", "daily_budget": "90000", "account_id": "100"},
        }

    @staticmethod
    def _adset(**values: Any) -> dict[str, Any]:
        return {"kind": "adset", "status": "ACTIVE", "effective_status": "ACTIVE", "account_id": "100", **values}

    # -- protocol --------------------------------------------------------------------------------------------------------

    def _serve(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        parts = urlsplit(handler.path)
        params = {k: v[0] for k, v in parse_qs(parts.query).items()}
        length = int(handler.headers.get("Content-Length") or 0)
        params.update({k: v[0] for k, v in parse_qs(handler.rfile.read(length).decode()).items()})
        _, version, *path = parts.path.split("/")
        kind = "write" if method == "POST" else "report" if path[-1] == "insights" else "account" if path[-1].startswith("act_") else "read"
        self.world.requests.append((method, "/".join(path), params))
        fault = self.world.fault(kind)
        if fault in ("reset", "lost", "late"):  # no answer; applied now, late, or not at all
            if fault != "reset":
                self._apply(path[-1], params, delay=self.late_by if fault == "late" else 0.0)
            return self.hang_up(handler)
        if fault == "silent":  # says yes and does nothing
            return self._reply(handler, 200, {"success": True})
        if isinstance(fault, dict):
            if fault.get("apply"):
                self._apply(path[-1], params)
            return self._reply(handler, fault["http"], fault.get("json", fault.get("text", "")), fault.get("headers"))
        http, body = self._answer(version, path, kind, params)
        self._reply(handler, http, body)

    def _reply(self, handler: BaseHTTPRequestHandler, http: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.reply(handler, http, body, {"x-fb-request-id": f"R{len(self.world.requests)}", **(headers or {})})

    def _answer(self, version: str, path: list[str], kind: str, params: dict[str, Any]) -> tuple[int, Any]:
        def no(*args: Any, **more: Any) -> tuple[int, Any]:
            fault = graph_error(*args, **more)
            return fault["http"], fault["json"]

        if version in self.ended:
            return no(2635, f"You are calling a deprecated version of the Ads API. Please update to the latest version: {version}")
        if params.get("access_token") != self.token:
            return no(190, "Error validating access token: Session has expired on Monday.", subcode=463, http=401)
        if kind == "report":
            return 200, self._page(params)
        if path[-1] in ("adsets", "campaigns"):
            return self._edge(path[-1], kind, params, no)
        found = self.world.view().get(path[-1])
        if found is None:
            return no(100, f"Unsupported request. Object with ID '{path[-1]}' does not exist, cannot be loaded", subcode=33)
        if kind in ("read", "account"):
            fields = params.get("fields", "id").split(",")
            if found.get("kind") == "campaign" and "learning_stage_info" in fields:
                return no(100, "(#100) Tried accessing nonexisting field (learning_stage_info) on node type (Campaign)")
            return 200, {"id": path[-1], **{k: found[k] for k in fields if k in found}}
        return self._write(path[-1], params, no)

    def _write(self, name: str, params: dict[str, Any], no: Any) -> tuple[int, Any]:
        found = self.world.objects[name]
        if found.get("forbidden"):
            return no(200, "(#200) Ad account owner has NOT grant ads_management permission", http=403)
        if found["status"] == "DELETED":
            return no(100, "Invalid parameter", subcode=1487056, error_user_title="The object is deleted")
        if "daily_budget" in params:
            if found.get("daily_budget") in (None, "0"):
                return no(
                    100, "Invalid parameter", subcode=1885621, error_user_msg="You can only set an ad set budget or a campaign budget."
                )
            if int(params["daily_budget"]) < self.minimum:
                return no(100, "Invalid parameter", subcode=1885272, error_user_msg="Your budget is too low. It must be at least €1.00.")
            recent = [t for t in self.budget_changes.setdefault(name, []) if t > self.world.clock - 3600]
            if found["kind"] == "adset" and len(recent) >= 4:
                return no(613, "You can only change your ad set budget 4 times per hour", subcode=1487632)
        if "validate_only" not in params.get("execution_options", ""):
            self._apply(name, params)
            if "daily_budget" in params:
                self.budget_changes[name].append(self.world.clock)
        return 200, {"success": True}

    def _edge(self, edge: str, kind: str, params: dict[str, Any], no: Any) -> tuple[int, Any]:
        """Create on an edge of the account, or search it by name; a second object of the same name is not refused."""
        if kind == "write":
            if "objective" not in params and "campaign_id" not in params:
                return no(100, "(#100) The parameter objective is required")
            if int(params["daily_budget"]) < self.minimum:
                return no(100, "Invalid parameter", subcode=1885272, error_user_msg="Your budget is too low. It must be at least €1.00.")
            return 200, {"id": self._apply(edge, params)}
        (wanted,) = json.loads(params["filtering"])
        fields = params["fields"].split(",")
        found = [(k, v) for k, v in self.world.view().items() if v.get("kind") == edge[:-1] and wanted["value"] in v.get("name", "")]
        return 200, {"data": [{f: k if f == "id" else v[f] for f in fields if f == "id" or f in v} for k, v in found]}

    def _apply(self, name: str, params: dict[str, Any], delay: float = 0.0) -> str:
        values: dict[str, Any] = {k: params[k] for k in ("daily_budget", "status") if k in params}
        if name in ("adsets", "campaigns"):
            values |= {"kind": name[:-1], "name": params["name"], "account_id": "100"}
            self.created += 1
            name = str(7000 + self.created)
        if "status" in values:
            values["effective_status"] = values["status"]
        self.world.change(name, values, delay)
        return name

    def _page(self, params: dict[str, Any]) -> dict[str, Any]:
        span = json.loads(params["time_range"])
        lines = [x for x in self.insights if span["since"] <= x["date_start"] <= span["until"]]
        start = int(params.get("after", 0))
        page: dict[str, Any] = {"data": lines[start : start + self.page]}
        if start + self.page < len(lines):
            cursor = str(start + self.page)
            page["paging"] = {"cursors": {"after": cursor}, "next": f"{self.address}/x?access_token={self.token}&after={cursor}"}
        return page
