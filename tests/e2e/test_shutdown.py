"""SIGTERM while a stream, a tunnel and an upload are open: all end in time and visibly broken."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from tests.e2e.servers import uvicorn
from tests.support.gateways import until
from tests.support.http_client import Ending, connect, request
from tests.support.origins import Connection, Received, ScriptedOrigin, chunk
from tests.support.websocket_client import Closed, open_websocket
from tests.support.websocket_origin import FramePeer, accepting

pytestmark = pytest.mark.e2e


_GRACE_SECONDS = 2
_CLOSE = 8


class Upstream:
    """The upstream of the stream, the tunnel and the upload; records how each of them ended.

    Attributes:
        open: Requests that are under way, by path.
        ends: Paths whose connection the gateway has ended.
        close: Payload of the close frame that came, empty if none did.
    """

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.close = b""

    async def __call__(self, connection: Connection) -> None:
        received = await connection.read_head()
        path = received.target.decode()
        await {"/events": self._stream, "/upload": self._upload, "/live": self._live}[path](
            connection, received
        )
        self.ends[path] += 1

    async def _stream(self, connection: Connection, received: Received) -> None:
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"data: first\n\n")
        )
        self.open["/events"] += 1
        await connection.peer_left()

    async def _upload(self, connection: Connection, received: Received) -> None:
        await connection.reader.readexactly(5)
        self.open["/upload"] += 1
        await connection.peer_left()

    async def _live(self, connection: Connection, received: Received) -> None:
        await connection.send(accepting(received))
        self.open["/live"] += 1
        peer = FramePeer(connection.reader, connection.writer)
        opcode, self.close = await peer.read()
        assert opcode == _CLOSE
        peer.send(_CLOSE, self.close)
        await connection.peer_left()


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_open_streams_leave_no_traceback(http: str) -> None:
    """Uvicorn cancels the streams, and the log has no traceback for each of them."""
    upstream = Upstream()
    async with ScriptedOrigin(upstream) as origin:
        environment = {"UPSTREAM_BILLING_DESTINATIONS": origin.url}
        options = ("--timeout-graceful-shutdown", "1", "--http", http)
        async with (
            uvicorn("tests.e2e.gateway:app", *options, environment=environment) as server,
            connect(server.address) as one,
            connect(server.address) as two,
        ):
            for client in (one, two):
                await client.send(request(target="/billing/events"))
            streams = [await client.read_head() for client in (one, two)]
            server.signal(signal.SIGTERM)
            for client, stream in zip((one, two), streams, strict=True):
                await client.read_body(stream)
            await server.end()

        await origin.all_left()

    assert [stream.ending for stream in streams] == [Ending.BROKEN] * 2
    assert [line for line in server.lines if "Traceback" in line] == []


async def test_sigterm_ends_open_exchanges_within_the_graceful_timeout() -> None:
    """No response looks complete, and both sides of every exchange are closed."""
    upstream = Upstream()
    async with ScriptedOrigin(upstream) as origin:
        environment = {"UPSTREAM_BILLING_DESTINATIONS": origin.url}
        grace = ("--timeout-graceful-shutdown", str(_GRACE_SECONDS))
        async with (
            uvicorn("tests.e2e.gateway:app", *grace, environment=environment) as server,
            connect(server.address) as streaming,
            connect(server.address) as uploading,
            open_websocket(server.address, "/billing/live") as tunnel,
        ):
            await streaming.send(request(target="/billing/events"))
            stream = await streaming.read_head()
            event = await streaming.read_chunk()
            length = (b"Content-Length", b"10")
            await uploading.send(request("POST", "/billing/upload", [length]) + b"12345")
            await until(lambda: upstream.open.total() == 3, 10)

            started = time.monotonic()
            server.signal(signal.SIGTERM)
            closed = await tunnel.ended()
            await streaming.read_body(stream)
            refused = await uploading.read_response()
            status = await server.end()
            taken = time.monotonic() - started
            await origin.all_left()

    assert event == b"data: first\n\n"
    assert closed == Closed(1012)
    assert stream.ending is Ending.BROKEN
    assert refused.status >= 500  # uvicorn's own: no response has begun
    assert upstream.ends == {"/events": 1, "/upload": 1, "/live": 1}
    assert upstream.close[:2] == (1012).to_bytes(2)
    assert _GRACE_SECONDS <= taken < _GRACE_SECONDS + 20
    assert status == -signal.SIGTERM
