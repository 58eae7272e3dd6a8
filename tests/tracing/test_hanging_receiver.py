"""A receiver of traces that takes the spans and never responds delays no request."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.servers import uvicorn
from tests.support.http_client import fetch
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes

pytestmark = pytest.mark.e2e

REQUESTS = 40
"""Far more than the queue of the exporter takes."""


async def test_requests_do_not_wait_for_the_receiver() -> None:
    """All requests get their responses while the first export still waits."""
    exporting, release = asyncio.Event(), asyncio.Event()

    async def hang(connection: Connection) -> None:
        await connection.read_request()
        exporting.set()
        await release.wait()
        await connection.send(response_bytes(200, b""))

    ok = always(response_bytes(200, b"ok"))
    async with ScriptedOrigin(hang) as receiver, ScriptedOrigin(ok) as destination:
        environment = {
            "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "100",
            "OTEL_BSP_SCHEDULE_DELAY": "1",
            "OTEL_BSP_MAX_QUEUE_SIZE": "8",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",
            "UPSTREAM_MIDDLE_DESTINATIONS": destination.url,
        }
        async with uvicorn("tests.tracing.front:app", environment=environment) as front:
            await fetch(front.address, target="/m/first")
            async with asyncio.timeout(100):
                await exporting.wait()
            replies = [await fetch(front.address, target="/m/x") for _ in range(REQUESTS)]
            exports = len(receiver.requests)
            release.set()

    assert [reply.body for reply in replies] == [b"ok"] * REQUESTS
    assert exports == 1
    assert all(request.one(b"traceparent") for request in destination.requests)
