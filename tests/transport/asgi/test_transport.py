"""The scope, the context and the task of an in-process app."""

from __future__ import annotations

import asyncio
import contextvars

import pytest
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.errors import UpstreamConnectError
from fastapi_proxy_di.transport.asgi.inner_app import InnerApp
from fastapi_proxy_di.transport.asgi.transport import AsgiTransport
from fastapi_proxy_di.transport.protocol import OutgoingRequest
from fastapi_proxy_di.wire.addresses import parse_address
from tests.support.gateways import billing, gateway
from tests.support.http_client import fetch
from tests.transport.asgi.apps import Inner, body, plain, start


@pytest.mark.e2e
async def test_asgi_app_gets_a_scope_of_its_own(inner: Inner) -> None:
    """As from a server whose client is the gateway; nothing of the client's scope is in it."""
    seen: list[Scope] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(start(204))
        await send(body())

    async with gateway(inner(plain(handle)) + "/base%20x") as gate:
        reply = await fetch(gate.address, "GET", "/billing/a%2Fb/%C3%A9;x?q=%20", [(b"X-A", b"1")])

    scope = dict(seen[0])
    headers = dict(scope.pop("headers"))
    assert reply.status == 204
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/base x/a/b/é;x",
        "raw_path": b"/base%20x/a%2Fb/%C3%A9;x",
        "query_string": b"q=%20",
        "root_path": "/base x",
        "client": ("127.0.0.1", 0),
        "server": ("localhost", 80),
        "state": {},
        "extensions": {"http.response.trailers": {}},
    }
    assert headers[b"host"] == b"localhost"
    assert headers[b"x-a"] == b"1"
    assert headers[b"x-forwarded-prefix"] == b"/billing"


async def test_asgi_app_sees_no_context_of_the_proxied_request(inner: Inner) -> None:
    """Context variables set while a request is handled are not seen by the app."""
    variable = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        await send(start())
        await send(body())

    async with Balancer.from_settings(billing(inner(plain(handle)))) as balancer:
        variable.set("ours")
        await balancer.client.get("/")

    assert seen == ["none"]


async def test_asgi_app_that_never_ends_is_stopped_at_shutdown(inner: Inner) -> None:
    """It gets a disconnect, is cancelled after a second, and the client's transfer breaks."""
    cancelled = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    url = inner(plain(handle))
    inner_app = InnerApp(url.removeprefix("asgi://"))
    transport = AsgiTransport(inner_app, parse_address(url))
    exchange = await transport.start(OutgoingRequest(b"GET", b"/", [], 1.0), b"", more=False)
    await exchange.head()
    await transport.aclose()
    await transport.aclose()

    assert cancelled.is_set()
    with pytest.raises(UpstreamConnectError, match="shut down"):
        await exchange.read()
    with pytest.raises(UpstreamConnectError, match="shut down"):
        await transport.start(OutgoingRequest(b"GET", b"/", [], 1.0), b"", more=False)
    assert transport.reuse(OutgoingRequest(b"GET", b"/", [], 1.0), b"", more=False) is None


@pytest.mark.e2e
async def test_asgi_app_cancelled_from_outside_breaks_its_response(inner: Inner) -> None:
    """Else the client would wait for ever."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("request of"):
                task.cancel()
        await receive()
        await receive()

    async with gateway(inner(plain(handle))) as gate:
        reply = await fetch(gate.address, "GET", "/billing/")

    assert reply.status == 502
