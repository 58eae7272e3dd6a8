"""103 Early Hints reach the client if the server can send them."""

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from fastapi import Depends
from starlette.types import Message

from tests.forwarding.asgi_server import asgi_gateway
from tests.support.gateways import gateway
from tests.support.http_client import fetch
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-A: 1\r\nLink: </b.js>\r\n\r\n"
LINKS = [b"</a.css>; rel=preload", b"</b.js>"]
EXTENSIONS = ["http.response.early_hint"]


@pytest.mark.parametrize("include", [{}, {"dependencies": [Depends(lambda: None)]}])
async def test_hints_come_before_the_response(include: dict[str, Any]) -> None:
    """Only their links are sent, with dependencies and without."""
    script = always(HINT + response_bytes(body=b"ok"))
    async with (
        ScriptedOrigin(script) as origin,
        asgi_gateway(origin.url, include=include, extensions=EXTENSIONS) as server,
    ):
        messages = await server.get()

    assert server.types == ["early_hint", "start", "body"]
    assert messages[0]["links"] == LINKS
    assert messages[1]["status"] == 200
    assert messages[2]["body"] == b"ok"


async def test_hints_are_forwarded_at_once() -> None:
    """Early hints are not held until the response."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        for _ in range(2):
            server.hinted.clear()
            await connection.send(HINT)
            await server.hinted.wait()
        await connection.send(HINT + HINT + response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        asgi_gateway(origin.url, extensions=EXTENSIONS) as server,
    ):
        await server.get()
    assert server.types == ["early_hint"] * 4 + ["start", "body"]


async def test_hints_are_sent_in_the_context_of_their_request() -> None:
    """Not of the request that has opened the connection on which they arrive."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []
    script = always(HINT + response_bytes(body=b"ok"))
    async with (
        ScriptedOrigin(script) as origin,
        asgi_gateway(origin.url, extensions=EXTENSIONS) as server,
    ):
        send = server.send

        async def seeing(message: Message) -> None:
            seen.append(request.get())
            await send(message)

        server.send = seeing  # type: ignore[method-assign]
        for name in ("first", "second"):
            _ = request.set(name)
            await server.get()

    assert origin.connections == 1
    assert seen == ["first"] * 3 + ["second"] * 3


@pytest.mark.parametrize(
    "early",
    [
        b"HTTP/1.1 103 Early Hints\r\nX-A: 1\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\nLink: </a.css>\r\n\r\n",
    ],
)
async def test_other_informational_responses_are_not_forwarded(early: bytes) -> None:
    """The extension only supports links."""
    async with (
        ScriptedOrigin(always(early + response_bytes(body=b"ok"))) as origin,
        asgi_gateway(origin.url, extensions=EXTENSIONS) as server,
    ):
        await server.get()
    assert server.types == ["start", "body"]


@pytest.mark.e2e
async def test_hints_are_dropped_without_the_extension() -> None:
    """As with uvicorn."""
    async with ScriptedOrigin(always(HINT + response_bytes(body=b"ok"))) as origin:
        async with asgi_gateway(origin.url, extensions=[]) as server:
            await server.get()
        async with gateway(origin.url) as gate:
            reply = await fetch(gate.address, target="/billing/x")
    assert server.types == ["start", "body"]
    assert (reply.informational, reply.body) == ([], b"ok")


async def test_hints_are_dropped_behind_base_http_middleware() -> None:
    """``BaseHTTPMiddleware`` takes the first message for the response."""
    async with (
        ScriptedOrigin(always(HINT + response_bytes(body=b"ok"))) as origin,
        asgi_gateway(origin.url, middlewares=1, extensions=EXTENSIONS) as server,
    ):
        messages = await server.get()
    assert server.types[0] == "start"
    assert b"".join(message.get("body", b"") for message in messages) == b"ok"


async def test_hints_are_dropped_behind_a_wrapped_receive() -> None:
    """Such a ``receive`` may hide a middleware that would fail."""
    async with (
        ScriptedOrigin(always(HINT + response_bytes(body=b"ok"))) as origin,
        asgi_gateway(origin.url, extensions=EXTENSIONS) as server,
    ):

        async def receive() -> Message:
            return await server.receive()

        await server.get(receive=receive)
    assert server.types == ["start", "body"]


async def test_hint_to_a_disconnected_client_is_ignored() -> None:
    """The server's ``OSError`` means a disconnect, which the watcher handles."""
    async with (
        ScriptedOrigin(always(HINT + response_bytes(body=b"ok"))) as origin,
        asgi_gateway(origin.url, extensions=EXTENSIONS) as server,
    ):
        server.fault = ConnectionResetError()
        await server.get()
    assert server.types == ["start", "body"]


async def test_hint_that_fails_leaks_nothing() -> None:
    """Another exception of the server ends the request and the exchange."""
    async with (
        ScriptedOrigin(always(HINT + response_bytes(body=b"ok"))) as origin,
        asgi_gateway(origin.url, extensions=EXTENSIONS) as server,
    ):
        server.fault = RuntimeError("broken")
        with pytest.raises(RuntimeError, match="broken"):
            await server.get()
        assert [one.in_flight for one in server.balancer.destinations] == [0]
        assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("early hints")]
