"""Certify the adapter against a server that behaves like the network, faults included."""

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from closedloop_parkbench import ParkbenchPlatform

from closedloop.records.action import Change
from closedloop.records.decision import Target
from closedloop.records.money import Money
from closedloop.testing import PlatformConformance, PlatformSubject

KEY = "parkbench-key-0123456789"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Network:
    """The network: benches, a clock moved by hand, and faults on command."""

    def __init__(self):
        self.benches = {"oak": {"cents": 5000, "on": True}, "elm": {"cents": 6000, "on": True}}
        self.key, self.fault, self.late, self.writes = KEY, None, [], 0
        network = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                return

            def do_GET(self):
                if self.headers["X-Key"] != network.key:
                    return self.answer(401, {"error": "bad key"})
                if self.path.startswith("/spend"):
                    return self.answer(200, {"lines": [{"bench": "oak", "day": "2026-05-30", "cents": 4711}]})
                bench = network.benches.get(self.path.removeprefix("/benches/"))
                return self.answer(200, bench) if bench else self.answer(404, {"error": "no such bench"})

            def do_PATCH(self):
                network.writes += 1
                change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                bench = network.benches.get(self.path.removeprefix("/benches/"))
                fault, network.fault = network.fault, None
                if self.headers["X-Key"] != network.key:
                    return self.answer(401, {"error": "bad key"})
                if bench is None:
                    return self.answer(404, {"error": "no such bench"})
                if change.get("cents", 100) < 100:
                    return self.answer(422, {"error": "a bench costs at least 1.00 a day"})
                if fault == "throttle":
                    return self.answer(429, {"error": "slow down", "retry_after": 20})
                if fault == "late":
                    network.late.append((bench, change))
                elif fault not in ("ignore", "lose_request"):
                    bench.update(change)
                if fault in ("lose_reply", "lose_request", "late"):
                    return self.connection.close()
                return self.answer(500, {"error": "oops"}) if fault == "server_error" else self.answer(200, {})

            def answer(self, status, body):
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def advance(self, step):
        if step.total_seconds() > 1:
            for bench, change in self.late:
                bench.update(change)
            self.late = []

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class TestParkbench(PlatformConformance):
    @pytest.fixture
    def subject(self):
        network = Network()
        faults = ("throttle", "lose_reply", "lose_request", "late", "ignore", "server_error")
        yield PlatformSubject(
            platform=ParkbenchPlatform(f"http://127.0.0.1:{network.server.server_port}", KEY),
            target=Target("parkbench", "oak"),
            other=Target("parkbench", "elm"),
            unknown=Target("parkbench", "ash"),
            amounts=(Money.of("71.23", "EUR"), Money.of("1.15", "EUR")),
            refused=Change(action_id="r", target=Target("parkbench", "oak"), budget=Money.of("0.50", "EUR")),
            now=NOW,
            advance=network.advance,
            writes=lambda: network.writes,
            alter=lambda budget: network.benches["oak"].update(cents=budget.micros // 10_000),
            secrets=(KEY,),
            report_span=(datetime(2026, 5, 30, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)),
            faults={
                **{name: (lambda name=name: setattr(network, "fault", name)) for name in faults},
                "unreachable": network.stop,
                "revoke": lambda: setattr(network, "key", "another"),
            },
        )
        network.stop()
