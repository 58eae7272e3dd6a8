"""Spans of attempts, below the span that FastAPI makes of a request."""

from __future__ import annotations

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

from fastapi_proxy_di import ProxySettings, SettingsError, proxy_lifespan, proxy_router

ORIGIN = "asgi://tests.integration.test_tracing:origin"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

origin = FastAPI(telemetry={"tracing": False})


@origin.get("/{path:path}")
async def headers(request: Request) -> dict[str, str]:
    """Give the headers that the request has."""
    return dict(request.headers)


class Exported:
    """A provider of spans that keeps what has ended."""

    def __init__(self, **options: object) -> None:
        self.provider = TracerProvider(**options)  # type: ignore[arg-type]
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def spans(self, kind: SpanKind) -> list[ReadableSpan]:
        """Give the spans of one kind that have ended."""
        return [span for span in self._exporter.get_finished_spans() if span.kind is kind]


@pytest.fixture
def exported() -> Exported:
    """Give a provider of spans that keeps what has ended."""
    return Exported()


def gateway(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """Make a gateway whose telemetry has the provider."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", ORIGIN)
    app = FastAPI(telemetry={"tracer_provider": exported.provider, "operation_spans": False})
    app.include_router(proxy_router("billing"), prefix="/billing")
    return app


def test_a_span_per_attempt(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client span is below the server span, and its context is sent."""
    with TestClient(gateway(exported, monkeypatch)) as client:
        sent = client.get("/billing/x?sig=secret&y=1", headers={"traceparent": TRACE}).json()

    (server,) = exported.spans(SpanKind.SERVER)
    (attempt,) = exported.spans(SpanKind.CLIENT)
    assert attempt.parent is not None
    assert attempt.context is not None
    assert server.context is not None
    assert attempt.parent.span_id == server.context.span_id
    assert sent["traceparent"] == (
        f"00-{attempt.context.trace_id:032x}-{attempt.context.span_id:016x}-01"
    )
    assert f"{attempt.context.trace_id:032x}" == TRACE.split("-")[1]
    assert attempt.name == "GET"
    assert dict(attempt.attributes or {}) == {
        "http.request.method": "GET",
        "server.address": "tests.integration.test_tracing:origin",
        "url.full": "http://localhost/x?sig=REDACTED&y=1",
        "proxy.upstream": "billing",
        "proxy.destination": ORIGIN,
        "proxy.pick": "power_of_two_choices",
        "http.response.status_code": 200,
    }
    assert server.end_time is not None
    assert attempt.end_time is not None
    assert attempt.end_time <= server.end_time


def test_sampled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one header changes."""
    exported = Exported(sampler=ALWAYS_OFF)
    with TestClient(gateway(exported, monkeypatch)) as client:
        sent = client.get("/billing/x", headers={"traceparent": TRACE}).json()

    assert sent["traceparent"] == TRACE
    assert not exported.spans(SpanKind.CLIENT)


def test_tracing_off_sends_the_current_span(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The destination's spans are below the server span of the gateway."""
    app = gateway(exported, monkeypatch)
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__TRACING", "false")
    with TestClient(app) as client:
        sent = client.get("/billing/x").json()

    (server,) = exported.spans(SpanKind.SERVER)
    assert server.context is not None
    assert not exported.spans(SpanKind.CLIENT)
    assert sent["traceparent"].split("-")[2] == f"{server.context.span_id:016x}"


def test_no_propagation(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``propagate=off`` the destination gets no trace header, not even the client's."""
    app = gateway(exported, monkeypatch)
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__PROPAGATE", "off")
    with TestClient(app) as client:
        client_headers = {"traceparent": TRACE, "tracestate": "a=1", "baggage": "user=1"}
        sent = client.get("/billing/x", headers=client_headers).json()

    assert not sent.keys() & client_headers.keys()
    assert len(exported.spans(SpanKind.CLIENT)) == 1


def test_propagation_as_the_client_sent(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``propagate=pass``, given in code."""
    app = gateway(exported, monkeypatch)
    proxy_lifespan.configure(app, ProxySettings(telemetry={"propagate": "pass"}))
    with TestClient(app) as client:
        sent = client.get("/billing/x", headers={"traceparent": TRACE}).json()
        with pytest.raises(SettingsError, match="has started; configure it before"):
            proxy_lifespan.configure(app, ProxySettings())

    assert sent["traceparent"] == TRACE
    assert len(exported.spans(SpanKind.CLIENT)) == 1
