"""A gateway whose spans a test reads, in front of an origin that gives the headers it got."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request
from opentelemetry import propagate
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from fastapi_proxy_di import proxy_router

__all__ = ["ORIGIN", "TRACE", "Exported", "gateway", "origin", "propagating"]

ORIGIN = "asgi://tests.observability.traced:origin"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

origin = FastAPI(telemetry={"tracing": False})


@origin.api_route("/{path:path}", methods=["GET", "PURGE"])
async def headers(request: Request) -> list[tuple[str, str]]:
    """Give the headers that the request has, in order."""
    return [(name.decode(), value.decode()) for name, value in request.headers.raw]


class Exported:
    """A provider of spans that keeps what has ended."""

    def __init__(self, **options: Any) -> None:
        self.provider = TracerProvider(**options)
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def spans(self, kind: SpanKind) -> list[ReadableSpan]:
        """Give the spans of one kind that have ended."""
        return [span for span in self._exporter.get_finished_spans() if span.kind is kind]

    def parent(self, span: ReadableSpan) -> str | None:
        """Give the name of a span's parent, ``None`` for a root or a parent elsewhere."""
        for one in self._exporter.get_finished_spans():
            if span.parent and one.context and one.context.span_id == span.parent.span_id:
                return one.name
        return None


def gateway(monkeypatch: pytest.MonkeyPatch, **telemetry: Any) -> FastAPI:
    """Make a gateway with these settings of FastAPI's telemetry, which proxies ``/billing``."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", ORIGIN)
    app = FastAPI(telemetry=telemetry)  # type: ignore[arg-type]
    app.include_router(proxy_router("billing"), prefix="/billing")
    return app


@contextmanager
def propagating(propagator: TextMapPropagator) -> Iterator[None]:
    """Use a propagator as the global one until the end of the block."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(propagator)
    try:
        yield
    finally:
        propagate.set_global_textmap(before)
