"""Telemetry that fails or hangs fails and delays no request."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di import Balancer, Upstream
from tests.observability.traced import TRACE, Exported, gateway


def failing(method: str) -> TracerProvider:
    """Give a provider of which one method raises: its own, its tracer's, or its spans'."""
    provider = TracerProvider()

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError(f"{method} of this provider fails")

    def failing_at(made: Any) -> Any:
        if hasattr(made, method):
            setattr(made, method, fail)
        return made

    def tracer_of(*given: Any, **named: Any) -> Any:
        tracer = TracerProvider().get_tracer(*given, **named)
        start = tracer.start_span

        def start_span(*given: Any, **named: Any) -> Any:
            return failing_at(start(*given, **named))

        vars(tracer)["start_span"] = start_span
        return failing_at(tracer)

    vars(provider)["get_tracer"] = tracer_of
    return failing_at(provider)  # type: ignore[no-any-return]


class FailingSpan(NonRecordingSpan):
    """A span that fails when it is asked whether it records, and for its ids."""

    def is_recording(self) -> bool:
        raise RuntimeError("is_recording fails")

    def get_span_context(self) -> SpanContext:
        raise RuntimeError("get_span_context fails")


class BelowFailing:
    """A middleware that puts requests below a span that fails."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with trace.use_span(FailingSpan(trace.INVALID_SPAN_CONTEXT)):
            await self._app(scope, receive, send)


class Below:
    """A middleware that puts requests below a span of its own."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self._app = app
        self._tracer = provider.get_tracer("app")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._tracer.start_as_current_span("server", kind=SpanKind.SERVER):
            await self._app(scope, receive, send)


@pytest.mark.parametrize(
    "method",
    [
        "get_tracer",
        "start_span",
        "is_recording",
        "get_span_context",
        "set_attribute",
        "set_status",
        "end",
    ],
)
def test_provider_that_raises_fails_no_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """Three requests, the last one with a 404, and one warning with the exception."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=failing(method), tracing=False)
    app.add_middleware(Below, provider=exported.provider)
    with TestClient(app) as client:
        statuses = [
            client.request(verb, "/billing/x", headers={"traceparent": TRACE}).status_code
            for verb in ("GET", "GET", "DELETE")
        ]

    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert statuses == [200, 200, 405]
    assert [one.name for one in warnings] == ["fastapi_proxy_di.tracing"]
    text = warnings[0].getMessage()
    assert text.startswith("billing: tracing failed, requests go on without spans: RuntimeError(")
    assert warnings[0].exc_info
    assert len(exported.spans(SpanKind.SERVER)) == 3


def test_current_span_that_raises_fails_no_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A span of somebody else's provider that is current."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)

    async def call(balancer: Balancer) -> int:
        with trace.use_span(FailingSpan(trace.INVALID_SPAN_CONTEXT)):
            return (await balancer.client.get("/x")).status_code

    with TestClient(app) as client:
        assert client.portal is not None
        assert client.portal.call(call, Upstream("billing").of(app)) == 200

    assert [one.name for one in caplog.records] == ["fastapi_proxy_di.tracing"]


def test_current_span_that_raises_fails_no_request_with_a_record(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The access record has no ids then."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.access")
    app = gateway(monkeypatch, tracing=False)
    app.add_middleware(BelowFailing)
    with TestClient(app) as client:
        assert client.get("/billing/x").status_code == 200

    (record,) = (one for one in caplog.records if one.name == "fastapi_proxy_di.access")
    assert (vars(record)["trace_id"], vars(record)["span_id"]) == (None, None)


class Hanging(SpanExporter):
    """An exporter whose export does not end until the test ends."""

    def __init__(self) -> None:
        self.called = Event()
        self.released = Event()

    def export(self, spans: object) -> SpanExportResult:
        self.called.set()
        self.released.wait(100)
        return SpanExportResult.SUCCESS


@contextmanager
def hanging_provider() -> Iterator[tuple[TracerProvider, Hanging]]:
    """Give a provider whose exporter hangs, with a queue of eight spans."""
    exporter, provider = Hanging(), TracerProvider()
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter, max_queue_size=8, max_export_batch_size=1, schedule_delay_millis=1
        )
    )
    yield provider, exporter
    exporter.released.set()
    provider.shutdown()


def test_exporter_that_hangs_delays_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are responded to while the exporter is stuck, far more than its queue holds."""
    with hanging_provider() as (provider, exporter):
        app = gateway(monkeypatch, tracer_provider=provider)
        with TestClient(app) as client:
            client.get("/billing/x")
            assert exporter.called.wait(100)
            statuses = [client.get("/billing/x").status_code for _ in range(50)]
            assert not exporter.released.is_set()

    assert statuses == [200] * 50
