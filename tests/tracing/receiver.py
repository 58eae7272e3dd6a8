"""An OTLP/HTTP receiver as a process: keeps every span that it gets, and gives them as JSON.

``POST /v1/traces`` takes what exporters send, ``GET /spans`` gives a list of `Span`. Run with
``python -m tests.tracing.receiver``; the first line printed names the port.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_received: list[dict[str, Any]] = []


def spans_of(body: bytes) -> list[dict[str, Any]]:
    """Read an export request; give the spans as JSON has them, by the names of `Span`."""
    found = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _attributes(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            found += [{"service": service, **_span(span)} for span in scope.spans]
    return found


def _span(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "links": [link.span_id.hex() for link in span.links],
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "error": span.status.code == span.status.STATUS_CODE_ERROR,
        "attributes": _attributes(span.attributes),
    }


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._give(json.dumps(_received).encode(), "application/json")

    def do_POST(self) -> None:
        _received.extend(spans_of(self.rfile.read(int(self.headers["Content-Length"]))))
        self._give(ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

    def _give(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(f"receives on {server.server_port}", flush=True)
    server.serve_forever()
