"""Contrib's ASGI middleware: the spans of messages from the client, below the right request."""

from __future__ import annotations

import asyncio
from typing import Any

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from starlette.types import Message

from tests.observability.traced import Exported
from tests.support.gateways import gateway_app
from tests.support.origins import Connection, ScriptedOrigin, response_bytes


def scope(path: str) -> dict[str, Any]:
    """Give the scope of a GET."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"gateway.test")],
        "client": ("192.0.2.7", 4711),
        "server": ("gateway.test", 80),
    }


def trace_of(span: ReadableSpan) -> int:
    """Give the number of a span's trace."""
    assert span.context is not None
    number: int = span.context.trace_id
    return number


async def test_messages_of_slow_clients_belong_to_their_own_request() -> None:
    """Requests that are slow at the same time: each has its own span of ``receive``."""
    exported = Exported()
    waiting: set[str] = set()
    all_wait = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await connection.read_request()
        await all_wait.wait()
        await connection.send(response_bytes(body=b"ok"))

    async def ask(path: str) -> None:
        async def receive() -> Message:
            waiting.add(path)
            if len(waiting) == 2:
                all_wait.set()
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        async def send(message: Message) -> None:
            pass

        await traced(scope(path), receive, send)

    async with ScriptedOrigin(slow) as origin:
        app = gateway_app(origin.url)
        traced = OpenTelemetryMiddleware(app, tracer_provider=exported.provider)
        async with app.router.lifespan_context(app):
            await asyncio.gather(ask("/billing/a"), ask("/billing/b"))

    servers = exported.spans(SpanKind.SERVER)
    received = [one for one in exported.spans(SpanKind.INTERNAL) if one.name.endswith("receive")]
    assert sorted(map(trace_of, received)) == sorted(map(trace_of, servers))
    assert len(set(map(trace_of, servers))) == 2
