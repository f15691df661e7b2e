"""A loopback server that speaks the Google Ads API: gRPC over TLS, with scripted faults and its own count of operations.

The wheel brings no servicers, so the methods are registered by name with the message classes of the client library. Between
client and server stands a small TCP proxy, so that a connection can really be cut after a change was applied.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import re
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from faults import World


def certificate() -> tuple[bytes, bytes]:
    """Return (private key, certificate) in PEM for localhost and 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, signed.public_bytes(pem)


@functools.cache
def process_certificate() -> tuple[bytes, bytes]:
    """Return one certificate for the whole process and let gRPC trust it: gRPC reads its roots once, before its first channel."""
    pair = certificate()
    path = Path(tempfile.mkdtemp(prefix="loopback-roots-")) / "roots.pem"
    path.write_bytes(pair[1])
    os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = str(path)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return pair


class Proxy:
    """Forward bytes between a client and the server until told to cut every connection."""

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.upstream))
            except OSError:
                return
            self.open |= {client, server}
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        self._close(source, sink)

    def _close(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def cut(self) -> None:
        self._close(*self.open)
        self.open.clear()

    def close(self) -> None:
        self._close(self.listener)
        self.cut()


class GoogleServer:
    """One account, 1112223333, in EUR unless told otherwise."""

    def __init__(self, tls: tuple[bytes, bytes], *, token: str, version: str = "v26", currency: str = "EUR") -> None:
        self.world = World()
        self.token = token
        self.version = version
        self.currency = currency
        self.minimum = 1_000_000
        self.operations = 0
        self.calls: list[str] = []
        self.metadata: list[dict[str, str]] = []
        self.delivery: list[dict[str, Any]] = []
        self.conversions: list[dict[str, Any]] = []
        self.actions = {"purchase": 30}
        self.ended = False
        campaign = {"status": "ENABLED", "system": "ENABLED"}
        self.world.objects = {
            "campaigns/11": {**campaign, "budget": "campaignBudgets/91"},
            "campaigns/12": {**campaign, "budget": "campaignBudgets/92", "system": "LEARNING_BUDGET_CHANGE"},
            "campaigns/13": {**campaign, "budget": "campaignBudgets/93"},
            "campaigns/14": {**campaign, "budget": "campaignBudgets/93"},
            "campaigns/15": {**campaign, "budget": "campaignBudgets/95", "status": "REMOVED"},
            "campaigns/16": {**campaign, "budget": "campaignBudgets/96"},
            "campaigns/17": {**campaign, "budget": "campaignBudgets/97"},
            "campaignBudgets/91": {"amount_micros": 50_000_000},
            "campaignBudgets/92": {"amount_micros": 70_000_000},
            "campaignBudgets/93": {"amount_micros": 90_000_000, "shared": True},
            "campaignBudgets/95": {"amount_micros": 10_000_000},
            "campaignBudgets/96": {"amount_micros": 10_000_000, "period": "CUSTOM_PERIOD"},
            "campaignBudgets/97": {"amount_micros": 10_000_000, "forbidden": True},
        }
        import grpc

        self.grpc = grpc
        service = import_module(f"google.ads.googleads.{version}.services.types.google_ads_service")
        self.service = service
        self.errors = import_module(f"google.ads.googleads.{version}.errors.types.errors")
        methods = {
            "SearchStream": grpc.unary_stream_rpc_method_handler(
                self._search, service.SearchGoogleAdsStreamRequest.deserialize, service.SearchGoogleAdsStreamResponse.serialize
            ),
            "Mutate": grpc.unary_unary_rpc_method_handler(
                self._mutate, service.MutateGoogleAdsRequest.deserialize, service.MutateGoogleAdsResponse.serialize
            ),
        }
        self.server = grpc.server(ThreadPoolExecutor(4))
        name = f"google.ads.googleads.{version}.services.GoogleAdsService"
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        self.port = self.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([tls]))
        self.proxy = Proxy(self.port)

    def __enter__(self) -> GoogleServer:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(0)
        self.proxy.close()

    @property
    def endpoint(self) -> str:
        return f"localhost:{self.proxy.port}"

    # -- errors ----------------------------------------------------------------------------------------------------------

    def error(self, family: str, name: str, message: str = "", *, index: int | None = None, **quota: Any) -> Any:
        """Return one GoogleAdsError."""
        error = self.errors.GoogleAdsError()
        pb = error._pb
        field = pb.error_code.DESCRIPTOR.fields_by_name[family]
        setattr(pb.error_code, family, field.enum_type.values_by_name[name].number)
        pb.message = message or f"{name} happened"
        if index is not None:
            element = pb.location.field_path_elements.add()
            element.field_name, element.index = "mutate_operations", index
        if quota:
            details = pb.details.quota_error_details
            details.rate_name, details.rate_scope = quota.get("rate_name", ""), quota.get("rate_scope", 2)
            details.retry_delay.seconds = int(quota.get("seconds", 0))
        return error

    def failure(self, *errors: Any) -> Any:
        return self.errors.GoogleAdsFailure(errors=list(errors))

    def _abort(self, context: Any, status: Any, details: str, failure: Any = None) -> None:
        trailing = [("request-id", f"G{len(self.calls)}")]
        if failure is not None:
            raw = type(failure).serialize(failure)
            trailing.append((f"google.ads.googleads.{self.version}.errors.googleadsfailure-bin", raw))
        context.set_trailing_metadata(tuple(trailing))
        context.abort(status, details)

    def _enter(self, context: Any, kind: str) -> Any:
        code = self.grpc.StatusCode
        self.calls.append(kind)
        seen = dict(context.invocation_metadata())
        self.metadata.append(seen)
        if self.ended:
            self._abort(context, code.INVALID_ARGUMENT, "ended", self.failure(self.error("request_error", "UNSUPPORTED_VERSION")))
        if seen.get("authorization") != f"Bearer {self.token}":
            words = "Request had invalid authentication credentials."
            self._abort(
                context, code.UNAUTHENTICATED, words, self.failure(self.error("authentication_error", "OAUTH_TOKEN_EXPIRED", words))
            )
        fault = self.world.fault(kind)
        if isinstance(fault, dict) and not fault.get("apply"):
            self._abort(context, fault["status"], fault.get("details", ""), fault.get("failure"))
        return fault

    # -- reading ---------------------------------------------------------------------------------------------------------

    def _search(self, request: Any, context: Any) -> Any:
        from google.protobuf.field_mask_pb2 import FieldMask

        resource = re.search(r" FROM (\w+)", request.query)[1]
        self._enter(context, "read" if resource in ("campaign", "campaign_budget") and "segments" not in request.query else "report")
        self.operations += 1
        selected = re.search(r"SELECT (.*?) FROM", request.query)[1].split(", ")
        answer = self.service.SearchGoogleAdsStreamResponse(request_id=f"G{len(self.calls)}")
        for full in self._rows(resource, request.query):
            row = self.service.GoogleAdsRow()
            FieldMask(paths=selected).MergeMessage(full._pb, row._pb)
            answer.results.append(row)
        context.set_trailing_metadata((("request-id", f"G{len(self.calls)}"),))
        yield answer

    def _rows(self, resource: str, query: str) -> list[Any]:
        if resource == "customer":
            return [self._row(resource="customer")]
        if resource == "conversion_action":
            rows = []
            for name, days in self.actions.items():
                row = self._row()
                row.conversion_action.name, row.conversion_action.click_through_lookback_window_days = name, days
                rows.append(row)
            return rows
        if "segments.date" in query:
            first, last = re.search(r"BETWEEN '(\S+)' AND '(\S+)'", query).groups()
            lines = self.conversions if "conversion_lag_bucket" in query else self.delivery
            return [self._line(line) for line in lines if first <= line["date"] <= last]
        wanted = re.search(r"\.id IN \(([\d, ]+)\)", query)[1].split(", ")
        kind = "campaigns" if resource == "campaign" else "campaignBudgets"
        return [self._object(kind, each) for each in wanted if f"{kind}/{each}" in self.world.objects]

    def _row(self, resource: str = "") -> Any:
        row = self.service.GoogleAdsRow()
        row.customer.currency_code, row.customer.time_zone = self.currency, "America/New_York"
        row.customer.status = "ENABLED"
        return row

    def _object(self, kind: str, key: str) -> Any:
        view = self.world.view()
        row = self._row()
        budget_name = f"campaignBudgets/{key}"
        if kind == "campaigns":
            found = view[f"campaigns/{key}"]
            row.campaign.id, row.campaign.status = int(key), found["status"]
            row.campaign.bidding_strategy_system_status = found["system"]
            budget_name = found["budget"]
        budget = view[budget_name]
        sharing = [c for c in view.values() if c.get("budget") == budget_name]
        row.campaign_budget.id = int(budget_name.split("/")[1])
        row.campaign_budget.resource_name = f"customers/1112223333/{budget_name}"
        row.campaign_budget.amount_micros = budget["amount_micros"]
        row.campaign_budget.explicitly_shared = budget.get("shared", False)
        row.campaign_budget.reference_count = len(sharing)
        row.campaign_budget.period = budget.get("period", "DAILY")
        row.campaign_budget.status = "ENABLED"
        return row

    def _line(self, line: dict[str, Any]) -> Any:
        row = self._row()
        row.segments.date, row.campaign.id, row.campaign.name = line["date"], line["id"], line["name"]
        row.ad_group.id, row.ad_group.name = line.get("group_id", 0), line.get("group", "")
        for name in ("cost_micros", "impressions", "clicks", "conversions", "conversions_value"):
            if name in line:
                setattr(row.metrics, name, line[name])
        if "lag" in line:
            row.segments.conversion_lag_bucket, row.segments.conversion_action_name = line["lag"], line["action"]
        return row

    # -- writing ---------------------------------------------------------------------------------------------------------

    def _mutate(self, request: Any, context: Any) -> Any:
        code = self.grpc.StatusCode
        fault = self._enter(context, "write")
        errors, changes = [], []
        for at, operation in enumerate(request.mutate_operations):
            self.operations += 1
            found = self._checked(operation, at)
            (changes if isinstance(found, tuple) else errors).append(found)
        if fault == "hidden quota":
            n = len(request.mutate_operations)
            errors = [
                self.error("quota_error", "RESOURCE_TEMPORARILY_EXHAUSTED", index=i, seconds=7, rate_name="Requests per account")
                for i in range(n)
            ]
            changes = []
        if errors and not request.partial_failure:
            self._abort(context, code.INVALID_ARGUMENT, "Request contains an invalid argument.", self.failure(*errors))
        if fault == "dropped":  # never acted on, never answered
            self.proxy.cut()
            self._abort(context, code.UNAVAILABLE, "cut")
        if not request.validate_only and fault != "silent":
            for name, values in changes:
                self.world.change(name, values, 2.0 if fault == "late" else 0.0)
        if fault in ("lost", "late"):
            self.proxy.cut()
            self._abort(context, code.UNAVAILABLE, "cut")
        if fault == "slow":
            while context.is_active():
                time.sleep(0.01)
        if isinstance(fault, dict):
            self._abort(context, fault["status"], fault.get("details", ""), fault.get("failure"))
        context.set_trailing_metadata((("request-id", f"G{len(self.calls)}"),))
        answer = self.service.MutateGoogleAdsResponse()
        if not request.validate_only:
            for _ in request.mutate_operations:
                answer.mutate_operation_responses.append(self.service.MutateOperationResponse())
        if errors:
            answer._pb.partial_failure_error.code = 3
            answer._pb.partial_failure_error.message = "Multiple errors in ‘details’."
            answer._pb.partial_failure_error.details.add().Pack(self.failure(*errors)._pb)
        return answer

    def _checked(self, operation: Any, at: int) -> Any:
        kind = operation._pb.WhichOneof("operation")
        inner = getattr(operation, kind)
        name = "/".join(inner.update.resource_name.split("/")[2:])
        if name not in self.world.objects:
            return self.error("request_error", "RESOURCE_NOT_FOUND", f"Resource was not found: {name}", index=at)
        found = self.world.objects[name]
        if found.get("forbidden"):
            return self.error("authorization_error", "USER_PERMISSION_DENIED", "User doesn't have permission to access customer.", index=at)
        if list(inner.update_mask.paths) == ["status"]:
            return name, {"status": inner.update.status.name}
        amount = inner.update.amount_micros
        if amount < self.minimum:
            error = self.error("campaign_budget_error", "BUDGET_BELOW_PER_DAY_MINIMUM", "The budget is too low.", index=at)
            error._pb.details.budget_per_day_minimum_error_details.minimum_budget_amount_micros = self.minimum
            error._pb.details.budget_per_day_minimum_error_details.currency_code = self.currency
            return error
        if amount % 10_000:
            return self.error("campaign_budget_error", "NON_MULTIPLE_OF_MINIMUM_CURRENCY_UNIT", index=at)
        return name, {"amount_micros": amount}
