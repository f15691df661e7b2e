"""The HTTP server under the platforms that speak JSON: it listens on a free port of the loopback and knows no platform."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class QuietServer(ThreadingHTTPServer):
    """A server that says nothing of a client that is gone: killed clients are what it is for."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Loopback:
    """Serve while the context lasts; ``serve(handler, method)`` answers each request."""

    def __init__(self, serve: Callable[[BaseHTTPRequestHandler, str], None]) -> None:

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def log_message(self, *args: Any) -> None:
                return

            def do_GET(self) -> None:
                serve(self, "GET")

            def do_POST(self) -> None:
                serve(self, "POST")

        self.http = QuietServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    @staticmethod
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        """Close the connection without an answer."""
        handler.close_connection = True
        handler.connection.close()

    @staticmethod
    def reply(handler: BaseHTTPRequestHandler, http: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """Answer with JSON, or with HTML where the body is text."""
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        handler.send_response(http)
        handler.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
        handler.send_header("Content-Length", str(len(raw)))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(raw)
        handler.wfile.flush()
