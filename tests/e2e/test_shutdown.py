"""SIGTERM while a stream, a tunnel and an upload are open: all end in time and visibly broken."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

import pytest

from tests.e2e.servers import granian, hypercorn, uvicorn
from tests.support.gateways import until
from tests.support.http_client import Ending, connect, request
from tests.support.origins import Connection, Received, ScriptedOrigin, chunk
from tests.support.processes import Process, package
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
        try:
            opcode, self.close = await peer.read()
        except asyncio.IncompleteReadError:
            return  # granian ends its worker by SIGKILL
        assert opcode == _CLOSE
        peer.send(_CLOSE, self.close)
        await connection.peer_left()


Serve = Callable[[str, Mapping[str, str]], AbstractAsyncContextManager[Process]]


def _uvicorn(http: str) -> Serve:
    options = ("--timeout-graceful-shutdown", "1", "--http", http)
    return lambda app, environment: uvicorn(app, *options, environment=environment)


def _hypercorn(app: str, environment: Mapping[str, str]) -> AbstractAsyncContextManager[Process]:
    return hypercorn(app, "--graceful-timeout", "1", environment=environment)


def _granian(app: str, environment: Mapping[str, str]) -> AbstractAsyncContextManager[Process]:
    return granian(app, "--workers-kill-timeout", "1", environment=environment)


@contextlib.asynccontextmanager
async def _command(app: str, environment: Mapping[str, str]) -> AsyncIterator[Process]:
    """Run ``serve``, whose graceful timeout is 10 seconds."""
    async with package("serve", "billing", "--port", "0", environment=environment) as server:
        server.port = int((await server.line(r"billing: http://127\.0\.0\.1:(\d+)"))[1])
        yield server


# From Python 3.12 on, hypercorn waits for open connections before its graceful timeout begins.
_HYPERCORN: Final = [(_hypercorn, "app", "/billing"), (_hypercorn, "alone", "")]


@pytest.mark.parametrize(
    ("serve", "app", "mount"),
    [
        *(_HYPERCORN if sys.version_info < (3, 12) else []),
        (_uvicorn("httptools"), "app", "/billing"),
        (_uvicorn("h11"), "app", "/billing"),
        (_granian, "app", "/billing"),
        (_uvicorn("httptools"), "alone", ""),
        (_uvicorn("h11"), "alone", ""),
        (_granian, "alone", ""),
        pytest.param(_command, "", "", marks=pytest.mark.slow),
    ],
)
async def test_open_streams_leave_no_traceback(serve: Serve, app: str, mount: str) -> None:
    """The server cuts streams and tunnels, and the log has no traceback for each of them."""
    upstream = Upstream()
    async with ScriptedOrigin(upstream) as origin:
        environment = {"UPSTREAM_BILLING_DESTINATIONS": origin.url}
        async with (
            serve(f"tests.e2e.gateway:{app}", environment) as server,
            connect(server.address) as one,
            connect(server.address) as two,
            open_websocket(server.address, f"{mount}/live") as tunnel,
        ):
            for client in (one, two):
                await client.send(request(target=f"{mount}/events"))
            streams = [await client.read_head() for client in (one, two)]
            await until(lambda: upstream.open.total() == 3)
            server.signal(signal.SIGTERM)
            await server.end()
            for client, stream in zip((one, two), streams, strict=True):
                await client.read_body(stream)
            closed = await tunnel.ended()
        await origin.all_left()

    assert [stream.ending for stream in streams] == [Ending.BROKEN] * 2
    assert closed.code in (1006, 1012)
    # hypercorn on Python 3.11 has tracebacks of its own for every open connection.
    ours = ("Exception in ASGI application", "/fastapi_proxy_di/forwarding/")
    assert [line for line in server.lines if any(text in line for text in ours)] == []


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
