"""What ASGI cannot express: other upgrades, half-closed connections, trailers of requests."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest

from tests.support.gateways import gateway_app
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.servers import Running, run_app, run_hypercorn

pytestmark = pytest.mark.e2e

SERVERS = ["h11", "httptools", "hypercorn"]


def served(server: str, origin: ScriptedOrigin) -> AbstractAsyncContextManager[Running]:
    """Run a gateway under hypercorn, or under uvicorn with that parser."""
    app = gateway_app(origin.url)
    return run_hypercorn(app) if server == "hypercorn" else run_app(app, http=server)


@pytest.mark.parametrize("server", SERVERS)
async def test_other_upgrade_is_forwarded_as_an_ordinary_request(server: str) -> None:
    """RFC 9110 section 7.8: a server may ignore ``Upgrade``; the response is an ordinary one."""
    upgrade = [(b"Connection", b"Upgrade"), (b"Upgrade", b"foo/1")]
    async with ScriptedOrigin() as origin, served(server, origin) as running:
        reply = await fetch(running.address, "GET", "/billing/x", upgrade)

    assert (reply.status, reply.body) == (200, b"ok")
    assert origin.request.all(b"upgrade") == []
    assert origin.request.all(b"connection") == []


@pytest.mark.parametrize("server", SERVERS)
async def test_half_closed_connection_counts_as_a_disconnect(server: str) -> None:
    """The server reports a disconnect, so the upstream's exchange ends without a response."""

    async def silent(connection: Connection) -> None:
        await connection.read_request()
        client.writer.write_eof()
        await connection.peer_left()

    async with (
        ScriptedOrigin(silent) as origin,
        served(server, origin) as running,
        connect(running.address) as client,
    ):
        await client.send(request(target="/billing/x"))
        received = await client.reader.read(1 << 16)
        await origin.all_left()

    # hypercorn sends the 499, uvicorn has closed the connection.
    assert received[:12] == (b"HTTP/1.1 499" if server == "hypercorn" else b"")


@pytest.mark.parametrize("server", SERVERS)
async def test_trailers_of_a_request_do_not_follow_its_body(server: str) -> None:
    """ASGI has no message for them; the body is forwarded whole."""
    bodies = []

    async def script(connection: Connection) -> None:
        await connection.read_head()
        bodies.append(await connection.reader.readuntil(b"\r\n\r\n"))
        await connection.send(response_bytes(body=b"ok"))

    head = b"POST /billing/x HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with (
        ScriptedOrigin(script) as origin,
        served(server, origin) as running,
        connect(running.address) as client,
    ):
        await client.send(head + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n")
        reply = await client.read_response()

    assert reply.status == 200
    assert bodies == [b"2\r\nhi\r\n0\r\n\r\n"]


@pytest.mark.parametrize("server", SERVERS)
async def test_header_names_are_lower_case_in_the_order_of_the_client(server: str) -> None:
    """Servers make the names lower case; the order and the repeats stay."""
    sent = [(b"X-First", b"1"), (b"x-SECOND", b"2"), (b"X-First", b"3")]
    async with ScriptedOrigin() as origin, served(server, origin) as running:
        await fetch(running.address, "GET", "/billing/x", sent)

    headers = origin.request.headers
    assert [pair for pair in headers if pair[0] in (b"x-first", b"x-second")] == [
        (b"x-first", b"1"),
        (b"x-second", b"2"),
        (b"x-first", b"3"),
    ]
