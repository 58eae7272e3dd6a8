"""OpenTelemetry's FastAPI instrumentation sees a proxied mount as an ordinary router."""

from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from tests.monitoring.apps import asked_of_both

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("server", [{}, {"root_path": "/api"}], ids=["", "root_path"])
async def test_spans_have_the_route_of_an_ordinary_router(server: dict[str, Any]) -> None:
    """One server span for each request, with one ``http.route`` for each mount."""
    memory, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))

    def take() -> list[Any]:
        spans = memory.get_finished_spans()
        memory.clear()
        return [
            (span.name, span.attributes.get("http.route"), span.attributes.get("http.status_code"))
            for span in spans
            if span.attributes and span.kind is SpanKind.SERVER
        ]

    app = FastAPI()
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    async with asked_of_both(app, take, **server) as seen:
        for mount, asked in seen.items():
            route = f"{mount}/{{path:path}}"
            assert asked.proxied == asked.ordinary
            assert {of for spans in asked.proxied for _, of, _ in spans} == {route}
            assert [(name, of) for spans in asked.bare for name, of, _ in spans] == [
                (f"GET {route}", route),
                (f"GET {route}", route),
                (f"POST {route}", route),
            ]
