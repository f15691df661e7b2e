"""A loopback server that speaks TikTok's Business API: HTTP 200 for almost everything, the verdict in the body."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from faults import World
from loopback import Loopback


def refusal(code: int, message: str, **more: Any) -> dict[str, Any]:
    """Return a fault that answers with a code of TikTok's."""
    return {"http": 200, "json": {"code": code, "message": message, "request_id": "2026112400000000", "data": {}}, **more}


class TikTokServer(Loopback):
    """One advertiser, 700, in USD unless told otherwise."""

    def __init__(self, *, token: str, currency: str = "USD") -> None:
        super().__init__(self._serve)
        self.world = World()
        self.token = token
        self.minimum = 20.0
        self.lines: list[dict[str, Any]] = []
        self.page = 2
        self.bodies: list[dict[str, Any]] = []
        group = {"operation_status": "ENABLE", "budget_mode": "BUDGET_MODE_DAY", "secondary_status": "ADGROUP_STATUS_DELIVERY_OK"}
        self.account = {"currency": currency, "display_timezone": "America/Los_Angeles", "timezone": "Etc/GMT+8", "status": "STATUS_ENABLE"}
        self.world.objects = {
            "11": {**group, "budget": 50.0},
            "12": {**group, "budget": 60.5},
            "13": {**group, "budget": 0.0, "budget_mode": "BUDGET_MODE_INFINITE"},
            "14": {**group, "budget": 50.0, "secondary_status": "ADGROUP_STATUS_DELETE"},
            "16": {**group, "budget": 50.0, "forbidden": True},
            "21": {**group, "budget": 900.0, "campaign": True},
        }

    def _serve(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        parts = urlsplit(handler.path)
        path = parts.path.removeprefix("/open_api/v1.3/")
        params: dict[str, Any] = {k: v[0] for k, v in parse_qs(parts.query).items()}
        length = int(handler.headers.get("Content-Length") or 0)
        if method == "POST":
            params = json.loads(handler.rfile.read(length))
            self.bodies.append(params)
        kind = "write" if method == "POST" else "report" if path.startswith("report") else "account" if path.startswith("adv") else "read"
        self.world.requests.append((method, path, params))
        fault = self.world.fault(kind)
        if fault in ("lost", "late", "reset"):
            if fault != "reset":
                self._apply(params, 2.0 if fault == "late" else 0.0)
            return self.hang_up(handler)
        if fault == "silent":
            return self.reply(handler, 200, {"code": 0, "message": "OK", "request_id": "r", "data": {}})
        if isinstance(fault, dict):
            if fault.get("apply"):
                self._apply(params)
            return self.reply(handler, fault["http"], fault.get("json", fault.get("text", "")))
        if handler.headers.get("Access-Token") != self.token:
            return self.reply(handler, 200, refusal(40105, "Access token is incorrect or has been revoked.")["json"])
        code, message, data = self._answer(path, kind, params)
        self.reply(handler, 200, {"code": code, "message": message, "request_id": f"T{len(self.world.requests)}", "data": data})

    def _answer(self, path: str, kind: str, params: dict[str, Any]) -> tuple[int, str, Any]:
        advertiser = params.get("advertiser_id") or json.loads(params["advertiser_ids"])[0]
        if advertiser != "700":
            return 40001, f"No permission to operate advertiser {advertiser}", {}
        if kind == "account":
            return 0, "OK", {"list": [{k: self.account[k] for k in json.loads(params["fields"]) if k in self.account}]}
        if kind == "report":
            start, page = params["start_date"], int(params["page"])
            lines = [x for x in self.lines if start <= x["dimensions"]["stat_time_day"][:10] <= params["end_date"]]
            metrics = json.loads(params["metrics"])
            cut = lines[(page - 1) * self.page : page * self.page]
            shown = [{"dimensions": x["dimensions"], "metrics": {k: v for k, v in x["metrics"].items() if k in metrics}} for x in cut]
            return 0, "OK", {"list": shown, "page_info": {"page": page, "total_page": max(1, -(-len(lines) // self.page))}}
        level = path.split("/")[0]
        key = f"{level}_id"
        view = {k: v for k, v in self.world.view().items() if v.get("campaign", False) == (level == "campaign")}
        if kind == "read":
            wanted = json.loads(params["filtering"])[f"{key}s"]
            fields = json.loads(params["fields"])
            return 0, "OK", {"list": [{key: w, **{f: view[w][f] for f in fields if f in view[w]}} for w in wanted if w in view]}
        name = params.get(key) or params[f"{key}s"][0]
        found = view.get(name)
        if found is None or found["secondary_status"].endswith("_DELETE"):
            return 40007, f"{key} {name} does not exist", {}
        if found.get("forbidden"):
            return 40001, "No permission to operate this ad group", {}
        if "budget" in params:
            if found["budget_mode"] == "BUDGET_MODE_INFINITE":
                return 40002, "The budget is set at the campaign level.", {}
            if params["budget"] < self.minimum:
                return 40002, f"budget: The minimum daily budget is {self.minimum}", {}
        self._apply(params)
        return 0, "OK", {key: name}

    def _apply(self, params: dict[str, Any], delay: float = 0.0) -> None:
        name = next(
            params[k] if isinstance(params[k], str) else params[k][0] for k in params if k.split("_id")[0] in ("adgroup", "campaign")
        )
        self.world.change(name, {k: params[k] for k in ("budget", "operation_status") if k in params}, delay)
