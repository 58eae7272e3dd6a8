"""Access records name the route and the span that a request belongs to."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from fastapi_proxy_di import proxy_app, proxy_lifespan, proxy_router
from tests.testing.apps import gateway_app

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ORIGIN = "asgi://tests.observability.test_access_record_context:origin"

origin = FastAPI(telemetry={"tracing": False})


@origin.api_route("/{path:path}", methods=["GET", "POST"])
async def ok() -> None:
    """Respond to any request."""


@origin.websocket("/{path:path}")
async def accepted(websocket: WebSocket) -> None:
    """Accept a WebSocket and close it."""
    await websocket.accept()
    await websocket.close()


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Record the access records."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.access")
    return caplog


def records(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Give the attributes of the records."""
    return [vars(one) for one in caplog.records if one.name == "fastapi_proxy_di.access"]


def only(record: dict[str, Any], *names: str) -> tuple[Any, ...]:
    """Give some attributes of a record."""
    return tuple(record[name] for name in names)


def in_routers(telemetry: dict[str, Any]) -> FastAPI:
    """An app whose mount lies in a router that is included with a prefix."""
    app = FastAPI(telemetry=telemetry)  # type: ignore[arg-type]
    parent = APIRouter(prefix="/tenants/{tenant}")
    parent.include_router(proxy_router("billing"), prefix="/billing")
    app.include_router(parent)
    return app


def test_record_names_the_route(
    access: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record has the path template with prefixes, for HTTP and WebSockets."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", ORIGIN)
    with TestClient(in_routers({"tracing": False})) as client:
        client.get("/tenants/7/billing/a/b")
        with client.websocket_connect("/tenants/7/billing/a"):
            pass
        client.get("/tenants/7/billing/")

    assert [one["route"] for one in records(access)] == [
        "/tenants/{tenant}/billing/{path:path}"
    ] * 3
    assert only(records(access)[0], "trace_id", "span_id", "request_id") == (None, None, None)


@pytest.mark.parametrize(
    ("app", "route"),
    [
        (
            Starlette(
                routes=[Mount("/api", routes=[Mount("/billing", proxy_app("billing"))])],
                lifespan=proxy_lifespan,
            ),
            "/billing/{path:path}",
        ),
        (proxy_app("billing"), None),
    ],
)
def test_record_names_the_mount(
    app: ASGIApp,
    route: str | None,
    access: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of an application; one that is served alone has none."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", ORIGIN)
    with TestClient(app) as client:
        client.get("/api/billing/x")

    assert [one["route"] for one in records(access)] == [route]


def test_record_of_a_forwarded_request_names_the_apps_own_route(
    access: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``balancer.forward`` in an endpoint belongs to its route."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", ORIGIN)
    with TestClient(gateway_app()) as client:
        client.post("/pay")

    assert [one["route"] for one in records(access)] == ["/pay"]


def test_record_has_the_current_span(
    access: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids are those of FastAPI's span, so the trace of a log line can be found."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", ORIGIN)
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with TestClient(in_routers({"tracer_provider": provider})) as client:
        client.get("/tenants/7/billing/x", headers={"traceparent": f"00-{TRACE}-{'1' * 16}-01"})

    (server,) = (one for one in exporter.get_finished_spans() if one.kind is SpanKind.SERVER)
    assert server.context is not None
    (record,) = records(access)
    assert only(record, "trace_id", "span_id") == (TRACE, f"{server.context.span_id:016x}")
