"""What ASGI cannot express: other upgrades, half-closed connections, early messages, trailers."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from fastapi_proxy_di.forwarding import watcher
from tests.support.gateways import gateway_app
from tests.support.http_client import Client, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.servers import Running, run_app, run_hypercorn
from tests.support.websocket_frames import TEXT, frame
from tests.support.websocket_origin import FramePeer, accepting

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


HANDSHAKE = request(
    target="/billing/live",
    headers=[
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Sec-WebSocket-Version", b"13"),
    ],
)
EARLY = frame(TEXT, b"early", masked=True) + frame(TEXT, b"early too", masked=True)


class Accepting:
    """An upstream that sends its 101 when it may, and keeps the first frame after that."""

    def __init__(self) -> None:
        self.asked, self.may = asyncio.Event(), asyncio.Event()
        self.first: asyncio.Future[tuple[int, bytes]] = asyncio.Future()

    async def __call__(self, connection: Connection) -> None:
        """Serve one connection."""
        head = await connection.read_head()
        self.asked.set()
        await self.may.wait()
        await connection.send(accepting(head))
        peer = FramePeer(connection.reader, connection.writer)
        self.first.set_result(await peer.read())

    async def asked_before(self, client: Client, running: Running, *, together: bool) -> None:
        """Let the client send its messages before the 101, in the packet of its request or later.

        The server has read them when it responds to a request that was sent after them.
        """
        await client.send(HANDSHAKE + (EARLY if together else b""))
        await self.asked.wait()
        await client.send(b"" if together else EARLY)
        assert (await fetch(running.address, "GET", "/none")).status == 404


async def first_message(server: dict[str, str], *, together: bool) -> bytes:
    """Give the first message that the upstream gets, if the client sends more after the 101."""
    upstream = Accepting()
    async with (
        ScriptedOrigin(upstream) as origin,
        run_app(gateway_app(origin.url), **server) as running,
        connect(running.address) as client,
    ):
        await upstream.asked_before(client, running, together=together)
        upstream.may.set()
        assert (await client.read_head()).status == 101
        await client.send(frame(TEXT, b"after", masked=True))
        opcode, message = await upstream.first

    assert opcode == TEXT
    return message


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The `websockets` implementation is deprecated"
)
@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto", "websockets"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_messages_in_the_packet_of_the_handshake_are_dropped_by_uvicorn(
    http: str, ws: str
) -> None:
    """The upstream gets the first one after the 101."""
    assert await first_message({"http": http, "ws": ws}, together=True) == b"after"


@pytest.mark.parametrize(("seconds", "first"), [(0.0, b"after"), (30.0, b"early")])
async def test_messages_before_the_101_are_dropped_by_the_gateway_once_it_watches_the_client(
    seconds: float, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads messages to see the client leave; after a quicker 101 they are forwarded."""
    assert watcher.UNWATCHED_SECONDS == 0.02
    monkeypatch.setattr(watcher, "UNWATCHED_SECONDS", seconds)

    assert await first_message({}, together=False) == first


class Leaving(Accepting):
    """An upstream that closes the WebSocket when it may, and notes whether it got a byte."""

    def __init__(self) -> None:
        super().__init__()
        self.may_leave = asyncio.Event()
        self.told: asyncio.Future[bool] = asyncio.Future()

    async def __call__(self, connection: Connection) -> None:
        """Serve one connection."""
        head = await connection.read_head()
        self.asked.set()
        await self.may.wait()
        await connection.send(accepting(head))
        reading = asyncio.ensure_future(connection.reader.read(1))
        await self.may_leave.wait()
        self.told.set_result(reading.done())
        reading.cancel()


@pytest.mark.parametrize("together", [True, False])
async def test_messages_before_the_101_are_400_under_hypercorn(together: bool) -> None:
    """The gateway is told neither of the 400 nor of the client's end."""
    upstream = Leaving()
    async with (
        ScriptedOrigin(upstream) as origin,
        served("hypercorn", origin) as running,
    ):
        async with connect(running.address) as client:
            await upstream.asked_before(client, running, together=together)
            refused = await client.read_response()
            upstream.may.set()
        for _ in range(3):
            assert (await fetch(running.address, "GET", "/none")).status == 404
        upstream.may_leave.set()
        told = await upstream.told

    assert refused.status == 400
    assert not told


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
