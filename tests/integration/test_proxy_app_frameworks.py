"""``proxy_app`` mounted in other ASGI frameworks, each started by its own lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypercorn.middleware import DispatcherMiddleware
from litestar import Litestar, asgi
from quart import Quart
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp

from fastapi_proxy_di import ProxyApp, proxy_app
from tests.support.gateways import billing
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin, echo
from tests.support.servers import run_app
from tests.support.websocket_client import open_websocket, shake_hands
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


def in_litestar(proxy: ProxyApp) -> ASGIApp:
    """Litestar removes the mount from the path, and does not name it anywhere."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with proxy.running():
            yield

    mount = asgi("/billing", is_mount=True, copy_scope=True)(proxy)
    return Litestar([mount], lifespan=[lifespan])  # type: ignore[return-value]


def in_quart(proxy: ProxyApp) -> ASGIApp:
    """Quart has no mounts; its documentation uses hypercorn's dispatcher."""
    app = Quart(__name__)
    return DispatcherMiddleware({"/billing": proxy, "/": app})  # type: ignore[dict-item, return-value]


every_framework = pytest.mark.parametrize("mounted", [in_litestar, in_quart])


async def refuse(connection: HTTPConnection) -> Response | None:
    """Refuse requests without the key."""
    known = connection.headers.get("x-key") == "s3cret"
    return None if known else Response(status_code=401)


@every_framework
@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/billing/x", b"/x"),
        ("/billing/x/", b"/x/"),
        ("/billing/a%2Fb/c%20d?q=%20", b"/a%2Fb/c%20d?q=%20"),
        ("/billing/billing/x", b"/billing/x"),
        ("/billing/%C3%A9", b"/%C3%A9"),
        ("/billing/", b"/"),
    ],
)
async def test_requests_are_forwarded_below_the_mount(
    mounted: Callable[[ProxyApp], ASGIApp], target: str, sent: bytes
) -> None:
    """With the raw path, whatever the framework makes of the decoded one."""
    async with (
        ScriptedOrigin(echo) as origin,
        run_app(mounted(proxy_app(billing(origin.url)))) as running,
    ):
        reply = await fetch(running.address, "POST", target, body=b"hello")

    assert (reply.status, reply.json()["body"]) == (200, "hello")
    assert origin.request.target == sent
    assert origin.request.one(b"x-forwarded-prefix") == b"/billing"


@every_framework
async def test_websockets_are_forwarded(mounted: Callable[[ProxyApp], ASGIApp]) -> None:
    """Messages both ways, at the raw path."""
    upstream = EchoApp()
    async with (
        echo_server(upstream) as origin,
        run_app(mounted(proxy_app(billing(origin.url)))) as running,
        open_websocket(running.address, "/billing/a%2Fb") as client,
    ):
        await client.send("hello")
        heard = await client.recv()

    assert heard == "hello"
    assert upstream.scope["raw_path"] == b"/a%2Fb"


@every_framework
async def test_guard_refuses(mounted: Callable[[ProxyApp], ASGIApp]) -> None:
    """HTTP and WebSocket, before anything is dialled."""
    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url), guard=refuse)
        async with run_app(mounted(proxy)) as running, connect(running.address) as client:
            reply = await fetch(running.address, target="/billing/x")
            handshake = await shake_hands(client, "/billing/x")
            known = await fetch(
                running.address, target="/billing/x", headers=[(b"X-Key", b"s3cret")]
            )

    assert (reply.status, handshake.status, known.status) == (401, 401, 200)
    assert origin.connections == 1


async def test_path_that_litestar_rewrites_is_not_found() -> None:
    """In a path with empty segments the end of the mount cannot be found."""
    async with (
        ScriptedOrigin() as origin,
        run_app(in_litestar(proxy_app(billing(origin.url)))) as running,
    ):
        reply = await fetch(running.address, target="/billing/a//b")

    assert (reply.status, origin.connections) == (404, 0)
