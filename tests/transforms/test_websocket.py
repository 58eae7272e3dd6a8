"""Transforms of WebSocket handshakes."""

from typing import Any

import pytest
from fastapi import Depends
from websockets.utils import accept_key

from fastapi_proxy_di.transforms import (
    CookiePath,
    LocationRewrite,
    MethodChange,
    OutboundRequest,
    OutboundResponse,
    PathPrefix,
    QueryParameter,
    RequestHeader,
    RequestHeadersAllowed,
    ResponseHeader,
)
from tests.support.gateways import gateway
from tests.support.http_client import connect
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.websocket_client import shake_hands

pytestmark = pytest.mark.e2e


def add_tenant(request: OutboundRequest) -> None:
    """Change a header of a handshake."""
    assert request.inbound.is_websocket
    request.headers["x-tenant"] = "acme"


def stamp(response: OutboundResponse) -> None:
    """Add a header to a response."""
    response.headers["x-stamp"] = str(response.status)


TRANSFORMS: list[Any] = [
    PathPrefix(prefix="/v2"),
    QueryParameter(name="key", set="1"),
    RequestHeadersAllowed(names=()),
    RequestHeader(name="x-set", set="ours"),
    MethodChange(method="GET", set="POST"),
    CookiePath(),
    LocationRewrite(),
    ResponseHeader(name="x-back", set="ours", when="always"),
]


async def _accepting(connection: Connection) -> None:
    received = await connection.read_head()
    key = received.one(b"sec-websocket-key")
    assert key is not None
    await connection.send(
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(key.decode()).encode() + b"\r\n"
        b"Set-Cookie: a=1; Path=/\r\n\r\n"
    )
    await connection.peer_left()


@pytest.mark.parametrize("options", [False, True])
async def test_handshake_gets_the_transforms(options: bool) -> None:
    """The request stays a GET with its handshake headers."""
    router: dict[str, Any] = {"transforms": [add_tenant, stamp]}
    include = {"dependencies": [Depends(lambda: None)]} if options else {}
    async with (
        ScriptedOrigin(_accepting) as origin,
        gateway(origin.url, router=router, include=include, transforms=TRANSFORMS) as gate,
        connect(gate.address) as client,
    ):
        reply = await shake_hands(client, "/billing/live?a=1", [(b"Cookie", b"c=1")])

    seen = origin.request
    assert (seen.method, seen.target) == (b"GET", b"/v2/live?a=1&key=1")
    assert (seen.one(b"x-set"), seen.one(b"x-tenant")) == (b"ours", b"acme")
    assert seen.one(b"cookie") is None
    assert seen.one(b"upgrade") == b"websocket"
    assert seen.one(b"sec-websocket-version") == b"13"
    assert reply.status == 101
    assert reply.one(b"set-cookie") == b"a=1; Path=/billing"
    assert (reply.one(b"x-back"), reply.one(b"x-stamp")) == (b"ours", b"101")


async def test_refusal_gets_the_transforms() -> None:
    """A redirect to a login page leads through the mount."""

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(response_bytes(302, b"", [(b"Location", b"/login")]))
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, transforms=TRANSFORMS) as gate,
        connect(gate.address) as client,
    ):
        reply = await shake_hands(client, "/billing/live")

    assert (reply.status, reply.one(b"location")) == (302, b"/billing/login")
    assert reply.one(b"x-back") == b"ours"


async def test_transform_that_raises_leaks_nothing() -> None:
    """The client gets no 101, the upstream's connection is closed, no exchange stays in flight."""

    def broken(response: OutboundResponse) -> None:
        raise RuntimeError("broken")

    async with (
        ScriptedOrigin(_accepting) as origin,
        gateway(origin.url, router={"transforms": [broken]}) as gate,
        connect(gate.address) as client,
    ):
        reply = await shake_hands(client, "/billing/live")
        await origin.all_left()
        assert gate.in_flight == 0
    assert reply.status == 500
