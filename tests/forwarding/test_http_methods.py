"""Methods: every method that the server accepts is forwarded unchanged."""

from typing import Any

import pytest
from fastapi import Depends

from tests.support.gateways import gateway
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "method",
    [
        *("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"),
        # The rest of llhttp's list, which is uvicorn's.
        *("COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "SEARCH", "UNLOCK", "BIND"),
        *("REBIND", "UNBIND", "ACL", "REPORT", "MKACTIVITY", "CHECKOUT", "MERGE", "M-SEARCH"),
        *("NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PURGE", "MKCALENDAR", "LINK", "UNLINK"),
    ],
)
async def test_method_is_sent_unchanged(method: str) -> None:
    """The destination gets the client's method."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, method, "/billing/x")

    assert reply.status == 200
    assert reply.body == b"ok"
    assert origin.request.method == method.encode()


@pytest.mark.parametrize("method", ["BREW", "x-custom", "get"])
async def test_custom_method_is_sent_unchanged(method: str) -> None:
    """Uvicorn's h11 accepts any token; its case is kept."""
    async with ScriptedOrigin() as origin, gateway(origin.url, server={"http": "h11"}) as gate:
        reply = await fetch(gate.address, method, "/billing/x")

    assert reply.status == 200
    assert origin.request.method == method.encode()


async def test_methods_can_be_narrowed() -> None:
    """``methods=`` leaves other methods unrouted."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, router={"methods": ["GET"]}) as gate,
    ):
        refused = await fetch(gate.address, "POST", "/billing/x", body=b"x")
        served = await fetch(gate.address, "GET", "/billing/x")

    assert refused.status == 405
    assert served.status == 200
    assert origin.request.method == b"GET"


async def test_head_keeps_length_and_connections() -> None:
    """A response to HEAD has a length and no body, and both connections are used again."""
    async with (
        ScriptedOrigin(always(b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n")) as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        for _ in range(3):
            await client.send(request("HEAD", "/billing/x"))
            reply = await client.read_response("HEAD")

            assert reply.status == 200
            assert reply.one(b"content-length") == b"42"
            assert reply.one(b"transfer-encoding") is None

    assert [seen.method for seen in origin.requests] == [b"HEAD"] * 3
    assert origin.connections == 1


async def test_head_with_chunked_ends_at_its_headers() -> None:
    """Transfer-Encoding in a response to HEAD announces no chunks."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with ScriptedOrigin(always(chunked)) as origin, gateway(origin.url) as gate:
        first = await fetch(gate.address, "HEAD", "/billing/x")
        second = await fetch(gate.address, "HEAD", "/billing/x")

    assert (first.status, second.status) == (200, 200)
    assert origin.connections == 1


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS"])
async def test_max_forwards_counts_down(method: str) -> None:
    """RFC 9110 section 7.6.2: a proxy sends one less."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, method, "/billing/x", [(b"Max-Forwards", b"5")])

    assert origin.request.one(b"max-forwards") == b"4"


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS"])
async def test_max_forwards_zero_is_not_forwarded(method: str) -> None:
    """RFC 9110 section 7.6.2."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, method, "/billing/x", [(b"Max-Forwards", b"0")])

    assert reply.status < 500
    assert reply.ending is not Ending.BROKEN
    assert origin.connections == 0


async def test_max_forwards_on_get_is_unchanged() -> None:
    """The header is only for TRACE and OPTIONS."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        await fetch(gate.address, "GET", "/billing/x", [(b"Max-Forwards", b"0")])

    assert origin.request.one(b"max-forwards") == b"0"


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("target", ["/billing/x", "origin.test:443"])
@pytest.mark.parametrize("include", [{}, {"dependencies": [Depends(lambda: None)]}])
async def test_connect_is_refused(include: dict[str, Any], target: str, http: str) -> None:
    """A gateway opens no tunnels to arbitrary hosts."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, include=include, server={"http": http}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("CONNECT", target))
        reply = await client.read_response()

    assert 400 <= reply.status < 600
    assert origin.connections == 0


async def test_options_star_never_reaches_a_destination() -> None:
    """``OPTIONS *`` is about the server itself."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("OPTIONS", "*"))
        reply = await client.read_response()

    assert 400 <= reply.status < 500
    assert origin.connections == 0


async def test_response_to_get_after_head_is_its_own() -> None:
    """The length announced for HEAD is not read from the next response."""

    async def script(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            whole = response_bytes(body=b"hello")
            await connection.send(whole[:-5] if received.method == b"HEAD" else whole)

    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        head = await fetch(gate.address, "HEAD", "/billing/x")
        reply = await fetch(gate.address, "GET", "/billing/x")

    assert head.one(b"content-length") == b"5"
    assert reply.body == b"hello"
    assert origin.connections == 1
