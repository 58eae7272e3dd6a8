"""Where nothing records a request, the destination gets the same bytes as without telemetry."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_proxy_di import ProxySettings, proxy_app, proxy_lifespan
from tests.observability.traced import TRACE, Exported
from tests.support.gateways import billing, gateway_app
from tests.support.http_client import connect, request
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e

SENT = [
    (b"X-First", b"1"),
    (b"TraceParent", TRACE.encode()),
    (b"tracestate", b"a=1"),
    (b"baggage", b"user=1"),
    (b"X-Middle", b"2"),
    (b"baggage", b"session=2;p=1"),
    (b"b3", b"0"),
    (b"X-B3-TraceId", b"4bf92f3577b34da6a3ce929d0e0e4736"),
    (b"X-Last", b"3"),
]
"""Headers of a client, with the trace headers of several systems between others."""


async def head_of(app: FastAPI | Starlette, origin: ScriptedOrigin) -> bytes:
    """Give the bytes of the head that the origin gets."""
    async with run_app(app) as running, connect(running.address) as client:
        await client.send(request(target="/billing/x", headers=SENT))
        assert (await client.read_response()).status == 200
    return origin.requests[-1].head


async def without_telemetry(origin: ScriptedOrigin) -> bytes:
    """Give the head that a gateway sends whose settings turn all of this off."""
    app = gateway_app(origin.url)
    settings = ProxySettings(telemetry={"tracing": False, "metrics": False, "propagate": "pass"})
    proxy_lifespan.configure(app, settings)
    return await head_of(app, origin)


@pytest.mark.parametrize(
    "telemetry",
    [
        {},
        {"tracer_provider": Exported(sampler=ALWAYS_OFF).provider},
        {"tracer_provider": Exported().provider, "exclude": lambda scope: True},
        {"tracer_provider": Exported().provider, "tracing": False},
    ],
    ids=["no provider", "sampled out", "excluded", "off"],
)
async def test_request_is_sent_as_without_telemetry(telemetry: dict[str, Any]) -> None:
    """Byte for byte, and with each trace header of the client in its place."""
    async with ScriptedOrigin(always(response_bytes())) as origin:
        app = gateway_app(origin.url, app=FastAPI(telemetry=telemetry))  # type: ignore[arg-type]
        head = await head_of(app, origin)
        expected = await without_telemetry(origin)

    assert head == expected
    lower = [(name.lower(), value) for name, value in SENT]
    assert [pair for pair in origin.requests[0].headers if pair in lower] == lower


async def test_request_in_plain_starlette_is_sent_as_without_telemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A global provider changes nothing, since no span is current."""
    provider = Exported().provider
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    async with ScriptedOrigin(always(response_bytes())) as origin:
        mount = Mount("/billing", proxy_app(billing(origin.url)))
        head = await head_of(Starlette(routes=[mount], lifespan=proxy_lifespan), origin)
        expected = await without_telemetry(origin)

    assert head == expected
