"""HTTP/2 towards destinations: against hypercorn, and against scripted servers on ``h2``.

Long, because all tests share one scripted HTTP/2 peer, which is of use nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme
from fastapi import FastAPI, WebSocket
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, StreamReset
from h2.settings import SettingCodes, Settings
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.sync.client import connect as connect_websocket

from fastapi_proxy_di import Balancer, SettingsError, proxy_router
from fastapi_proxy_di.errors import (
    Failure,
    InvalidRequest,
    ProxyError,
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from fastapi_proxy_di.transport.http1.transport import READ_BUFFER_BYTES, Http1Transport
from fastapi_proxy_di.transport.http2.transport import Http2Transport
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.transport.protocol import Request as WireRequest
from fastapi_proxy_di.wire.urls import parse_address
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin
from tests.support.servers import StartupFailed, blackhole, dead_port, free_port, run_app

E = TypeVar("E", bound=Event)


# -- servers --------------------------------------------------------------------------------


def inner_app() -> ASGIApp:
    """An app that says what it saw."""
    app = FastAPI()

    async def echo(request: Request) -> Response:
        seen = {
            "version": request.scope["http_version"],
            "method": request.method,
            "target": request.scope["raw_path"].decode(),
            "query": request.scope["query_string"].decode(),
            "headers": [(name.decode(), value.decode()) for name, value in request.headers.raw],
            "size": len(await request.body()),
        }
        return JSONResponse(seen, headers={"x-a": "1"})

    @app.websocket("/ws")
    async def websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.scope["http_version"])
        # websockets 12 forgets a message that it has not given out when a close arrives.
        await websocket.receive()

    app.add_route("/{path:path}", echo, methods=["GET", "POST", "HEAD"])

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != "/stream":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({**message, "type": "http.response.body"})

    return server


@contextlib.asynccontextmanager
async def hypercorn(tls: tuple[str, str] | None = None) -> AsyncIterator[int]:
    """Serve ``inner_app``: HTTP/2 by ALPN with TLS, by prior knowledge without."""
    port = free_port()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    config.graceful_timeout = 0.1
    if tls is not None:
        config.certfile, config.keyfile = tls
    stop = asyncio.Event()
    task = asyncio.create_task(
        serve(inner_app(), config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
    )
    try:
        async with asyncio.timeout(5):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    break
        writer.close()
        yield port
    finally:
        stop.set()
        await task


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Paths of a certificate for 127.0.0.1, its key, and the authority's certificate."""
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return str(folder / "cert.pem"), str(folder / "key.pem"), str(folder / "ca.pem")


class Peer:
    """One accepted connection in the hands of a script."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        settings: dict[SettingCodes, int],
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        if settings:
            self.h2.local_settings = Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self._events: list[Event] = []

    def flush(self) -> None:
        """Send what ``h2`` has to say."""
        self.writer.write(self.h2.data_to_send())

    async def next(self, kind: type[E]) -> E:
        """Give the next event of a kind; those before it are dropped."""
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, kind):
                    return event
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionResetError
            self._events += self.h2.receive_data(data)
            self.flush()

    async def request(self) -> tuple[int, dict[bytes, bytes]]:
        """Give the next request's stream and header fields."""
        event = await self.next(RequestReceived)
        return event.stream_id, dict(event.headers)

    def answer(self, stream: int, status: int = 200, *fields: tuple[bytes, bytes]) -> None:
        """Send the head of an answer."""
        self.h2.send_headers(stream, [(b":status", b"%d" % status), *fields])
        self.flush()

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send a piece of a body."""
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    async def left(self) -> None:
        """Wait until the other side has closed."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(
    script: Script,
    *,
    settings: dict[SettingCodes, int] | None = None,
    greet: bool = True,
    path: str | None = None,
) -> AsyncIterator[tuple[str, list[Peer]]]:
    """Listen; every connection runs the script once. Gives the address and the peers."""
    peers: list[Peer] = []
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, settings or {})
        peers.append(peer)
        if greet:
            peer.flush()
        try:
            await script(peer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(run(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if path is not None:
        server = await asyncio.start_unix_server(accept, path)
        url = "http+unix://" + path.replace("/", "%2F")
    else:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield url, peers
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def transport_to(url: str, **options: Any) -> AsyncIterator[Http2Transport]:
    """A transport to ``url``, closed at the end."""
    address = parse_address(url)
    http1 = Http1Transport(
        address,
        ssl_context=None,
        server_name=None,
        connect_timeout=5,
        idle_connections=1,
        idle_seconds=4,
        header_limit=65536,
        buffer=memoryview(bytearray(READ_BUFFER_BYTES)),
    )
    made = Http2Transport(
        address,
        **{
            "ssl_context": None,
            "server_name": "127.0.0.1",
            "connect_timeout": 5,
            "idle_seconds": 4,
            "header_limit": 65536,
            "http1": http1,
            **options,
        },
    )
    try:
        yield made
    finally:
        await made.aclose()


def asks(
    method: bytes = b"GET", *fields: tuple[bytes, bytes], within: float = 4.0, **more: Any
) -> WireRequest:
    """A request as the dispatcher makes it."""
    headers: Headers = [(b"host", b"billing.example"), *fields]
    return WireRequest(method, b"/x?y=%20", headers, within, **more)


# -- against hypercorn ----------------------------------------------------------------------


async def test_http2_over_tls(certificates: tuple[str, str, str]) -> None:
    """ALPN chooses HTTP/2; what the client sent arrives as it was."""
    cert, key, ca = certificates
    async with (
        hypercorn((cert, key)) as port,
        gateway(
            f"https://127.0.0.1:{port}/base",
            f"https://127.0.0.1:{port}/other",
            policy="first",
            http_version="2",
            tls={"ca_file": ca},
        ) as gate,
    ):
        reply = await fetch(
            gate.address,
            "POST",
            "/billing/a%2Fb//c?q=%20",
            [(b"X-Two", b"1"), (b"X-Two", b"2")],
            b"x" * 300_000,
        )
        head = await fetch(gate.address, "HEAD", "/billing/x")

    seen = reply.json()
    assert (reply.status, reply.one(b"x-a"), head.status) == (200, b"1", 200)
    assert (seen["version"], seen["method"], seen["size"]) == ("2", "POST", 300_000)
    assert (seen["target"], seen["query"]) == ("/base/a%2Fb//c", "q=%20")
    assert [pair for pair in seen["headers"] if pair[0] == "x-two"] == [
        ["x-two", "1"],
        ["x-two", "2"],
    ]
    names = [name for name, _ in seen["headers"]]
    assert "user-agent" not in names
    assert dict(seen["headers"])["host"] == f"127.0.0.1:{port}"


async def test_http2_by_prior_knowledge_streams_both_ways() -> None:
    """Without TLS from the first byte; pieces come back while others go up."""
    async with (
        hypercorn() as port,
        gateway(f"http://127.0.0.1:{port}", http_version="2") as gate,
        connect(gate.address) as client,
    ):
        await client.send(
            b"POST /billing/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await client.send(b"3\r\none\r\n")
        await client.read_head()
        first = await client.read_chunk()
        await client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        second = await client.read_chunk()

    assert (first, second) == (b"one", b"two")


async def test_http2_requests_share_a_connection() -> None:
    """Those that come at once wait for one dial and travel together."""
    async with (
        hypercorn() as port,
        Balancer.from_settings(
            billing(f"http://127.0.0.1:{port}", http_version="2", health={"path": "/health"})
        ) as balancer,
    ):
        replies = await asyncio.gather(*(balancer.client.get(f"/{n}") for n in range(30)))
        leg = next(iter(balancer._assembly._legs.values()))
        assert isinstance(leg.transport, Http2Transport)
        connections = leg.transport.connections

    assert [one.json()["target"] for one in replies] == [f"/{n}" for n in range(30)]
    assert (connections, balancer.destinations[0].healthy) == (1, True)


async def test_http2_upstream_gets_websockets_over_http1(
    certificates: tuple[str, str, str],
) -> None:
    """They need an upgrade, which HTTP/2 does not have."""
    cert, key, ca = certificates

    def say(url: str) -> str:
        with connect_websocket(url) as websocket:
            return str(websocket.recv(timeout=5))

    async with (
        hypercorn((cert, key)) as port,
        gateway(f"https://127.0.0.1:{port}", http_version="2", tls={"ca_file": ca}) as gate,
    ):
        version = await asyncio.to_thread(say, f"ws://{gate.running.authority}/billing/ws")

    assert version == "1.1"


# -- heads, bodies, trailers ----------------------------------------------------------------


async def test_http2_request_says_what_it_says() -> None:
    """Pseudo-header fields from method, Host and target; no field of HTTP/1.1's framing."""
    seen: list[list[tuple[bytes, bytes]]] = []

    async def script(peer: Peer) -> None:
        event = await peer.next(RequestReceived)
        seen.append([(bytes(name), bytes(value)) for name, value in event.headers])
        peer.answer(event.stream_id, 204)
        peer.h2.end_stream(event.stream_id)
        peer.flush()
        await peer.left()

    fields = ((b"te", b"trailers"), (b"connection", b"te"), (b"transfer-encoding", b"chunked"))
    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(b"POST", *fields, chunked=True), b"", more=False)
        await exchange.head()
        nothing = await exchange.read()
        exchange.close()

    assert (exchange.status, nothing, exchange.complete) == (204, b"", True)
    assert seen == [
        [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"billing.example"),
            (b":path", b"/x?y=%20"),
            (b"te", b"trailers"),
        ]
    ]


async def test_http2_answer_with_informational_ones_and_trailers() -> None:
    """103 is passed on, 100 lets the body go, trailers end the answer."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.h2.send_headers(stream, [(b":status", b"103"), (b"link", b"</a>")])
        peer.flush()
        data = await peer.next(DataReceived)
        peer.answer(stream, 200, (b"x", b"1"), (b"x", b"2"))
        peer.send(stream, data.data)
        peer.h2.send_headers(stream, [(b"x-sum", b"3")], end_stream=True)
        peer.flush()
        await peer.left()

    told: list[tuple[int, Headers]] = []
    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(b"POST"), b"", more=True)
        exchange.on_informational = lambda status, headers: told.append((status, headers))
        await exchange.continued()
        await exchange.write(b"hello")
        exchange.finish()
        await exchange.head()
        pieces = [await exchange.read(), await exchange.read()]
        exchange.close()

    assert told == [(103, [(b"link", b"</a>")])]
    assert (exchange.headers, pieces) == ([(b"x", b"1"), (b"x", b"2")], [b"hello", b""])
    assert exchange.trailers == [(b"x-sum", b"3")]


async def test_http2_informational_answer_that_nobody_asked_for() -> None:
    """Without a listener it is dropped."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.h2.send_headers(stream, [(b":status", b"103")])
        peer.answer(stream, 200)
        peer.send(stream, b"", end=True)
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        await exchange.head()
        assert (exchange.status, await exchange.read()) == (200, b"")
        exchange.close()


async def test_http2_upload_waits_for_windows() -> None:
    """A destination that takes nothing holds the writer up; both windows are heeded."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        await go_on.wait()
        size = 0
        while size < 300_000:
            data = await peer.next(DataReceived)
            size += len(data.data)
            peer.h2.acknowledge_received_data(data.flow_controlled_length, stream)
            peer.flush()
        peer.answer(stream, 200)
        peer.send(stream, b"%d" % size, end=True)
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(b"POST"), b"a" * 100_000, more=True)
        writing = asyncio.create_task(exchange.write(b"b" * 200_000))
        await asyncio.sleep(0.02)  # nothing tells of what does not happen
        held = not writing.done()
        go_on.set()
        await writing
        exchange.finish()
        await exchange.head()
        size = await exchange.read()
        exchange.close()

    assert (held, size) == (True, b"300000")


async def test_http2_upload_heeds_a_socket_that_is_full() -> None:
    """With windows that never close, the socket's own buffer holds the writer up."""
    go_on = asyncio.Event()
    window = 2**30

    async def script(peer: Peer) -> None:
        peer.h2.increment_flow_control_window(window)
        peer.flush()
        stream, _ = await peer.request()
        await go_on.wait()
        size = 0
        while size < 2**24:
            size += len((await peer.next(DataReceived)).data)
        peer.answer(stream, 200)
        peer.send(stream, b"%d" % size, end=True)
        await peer.left()

    settings: dict[SettingCodes, int] = {SettingCodes.INITIAL_WINDOW_SIZE: window}
    async with (
        scripted(script, settings=settings) as (url, _),
        transport_to(url) as transport,
    ):
        exchange = await transport.start(asks(b"POST"), b"", more=True)
        writing = asyncio.create_task(exchange.write(b"b" * 2**24))
        await asyncio.sleep(0.02)  # nothing tells of what does not happen
        held = not writing.done()
        go_on.set()
        await writing
        exchange.finish()
        await exchange.head()
        size = await exchange.read()
        exchange.close()

    assert (held, size) == (True, b"%d" % 2**24)


async def test_http2_answer_that_nobody_reads_holds_up_no_other() -> None:
    """A stream's window is its own."""

    async def script(peer: Peer) -> None:
        slow, _ = await peer.request()
        peer.answer(slow)
        sent = 0
        while sent < 10**6 and (room := peer.h2.local_flow_control_window(slow)):
            peer.send(slow, b"x" * min(room, 16384))
            sent += min(room, 16384)
        held.append(sent)
        other, _ = await peer.request()
        peer.answer(other)
        peer.send(other, b"quick", end=True)
        await peer.left()

    held: list[int] = []
    async with scripted(script) as (url, peers), transport_to(url) as transport:
        slow = await transport.start(asks(), b"", more=False)
        await slow.head()
        await until(lambda: slow.stalled_by_reader)
        quick = transport.reuse(asks(), b"", more=False)
        assert quick is not None
        await quick.head()
        body = await quick.read()
        quick.close()
        size = 0
        while size < held[0]:
            size += len(await slow.read())
        slow.close()

    assert (body, quick.reused, len(peers)) == (b"quick", True, 1)
    assert (size, held) == (256 * 1024, [256 * 1024])


# -- ends -----------------------------------------------------------------------------------


async def test_http2_exchange_that_is_given_up_is_reset() -> None:
    """The destination learns at once that nobody waits; the connection serves on."""
    resets: list[int | None] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        resets.append((await peer.next(StreamReset)).error_code)
        stream, _ = await peer.request()
        peer.answer(stream)
        peer.send(stream, b"next", end=True)
        await peer.left()

    async with scripted(script) as (url, peers), gateway(url, http_version="2") as gate:
        async with connect(gate.address) as client:
            await client.send(request("GET", "/billing/"))
            await until(lambda: gate.in_flight)
        await until(lambda: resets)
        reply = await fetch(gate.address, "GET", "/billing/")

    assert (resets, reply.body, len(peers)) == ([ErrorCodes.CANCEL], b"next", 1)


async def test_http2_early_answer_ends_the_upload() -> None:
    """A refusal comes through in the middle of a body; the stream is reset."""
    resets: list[int | None] = []

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.answer(stream, 413)
        peer.send(stream, b"too large", end=True)
        resets.append((await peer.next(StreamReset)).error_code)
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(b"POST"), b"x", more=True)
        await exchange.head()
        body = await exchange.read()
        exchange.close()
        exchange.close()
        await exchange.write(b"late")
        exchange.finish()
        await until(lambda: resets)

    assert (exchange.status, body, resets) == (413, b"too large", [ErrorCodes.CANCEL])


async def test_http2_destination_that_wants_no_more_of_a_body() -> None:
    """RST_STREAM behind a whole answer is no failure (RFC 9113 section 8.1)."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.answer(stream)
        peer.send(stream, b"enough", end=True)
        peer.h2.reset_stream(stream, ErrorCodes.NO_ERROR)
        peer.flush()
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(b"POST"), b"x", more=True)
        await exchange.head()
        await until(lambda: exchange._connection is None)  # type: ignore[attr-defined]
        await exchange.write(b"late")
        exchange.finish()
        body = await exchange.read()
        exchange.close()

    assert (body, exchange.complete) == (b"enough", True)


@pytest.mark.parametrize("answered", [False, True])
async def test_http2_stream_that_the_destination_resets(answered: bool) -> None:
    """A failure of this exchange alone."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        if answered:
            peer.answer(stream)
        peer.h2.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
        peer.flush()
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        if answered:
            await exchange.head()
        with pytest.raises(UpstreamDisconnected, match="reset the stream") as raised:
            await (exchange.read() if answered else exchange.head())
        exchange.close()
        connections = transport.connections

    failure = Failure.RESPONSE_BODY if answered else Failure.RESPONSE_HEAD
    assert (raised.value.failure, connections) == (failure, 1)


async def test_http2_reset_that_comes_with_a_window() -> None:
    """A window for a stream that the next frame resets is no fault of the connection."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.h2.increment_flow_control_window(1000)
        peer.h2.increment_flow_control_window(1000, stream)
        peer.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        peer.flush()
        await answer_all(peer)

    async with scripted(script) as (url, peers), transport_to(url) as transport:
        refused = await transport.start(asks(b"POST"), b"x" * 100_000, more=False)
        other = transport.reuse(asks(), b"", more=False)
        assert other is not None
        with pytest.raises(UpstreamDisconnected, match="reset the stream"):
            await refused.head()
        await other.head()
        body = await other.read()
        other.close()
        await until(lambda: not next(iter(transport._connections)).streams)

    assert (body, len(peers)) == (b"ok", 1)


async def test_http2_streams_end_with_their_connection() -> None:
    """All of them, and each learns of it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.request()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        one = await transport.start(asks(), b"", more=False)
        two = transport.reuse(asks(b"POST"), b"", more=True)
        assert two is not None
        for exchange in (one, two):
            with pytest.raises(UpstreamDisconnected, match="closed the connection"):
                await exchange.head()
        with pytest.raises(UpstreamDisconnected):
            await two.write(b"x")
        assert transport.connections == 0


async def test_http2_exchange_that_failed_tells_why() -> None:
    """The first reason stands."""

    async def script(peer: Peer) -> None:
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        exchange.fail(UpstreamTimeout("too slow"))
        exchange.fail(UpstreamTimeout("too late"))
        with pytest.raises(UpstreamTimeout, match="too slow"):
            await exchange.head()
        with pytest.raises(UpstreamProtocolError, match="no socket"):
            exchange.detach()


async def test_http2_destination_that_goes_away_finishes_what_it_has() -> None:
    """GOAWAY: what it did not look at fails and may go elsewhere, the rest is finished."""

    async def script(peer: Peer) -> None:
        first, _ = await peer.request()
        if len(peers) > 1:
            peer.answer(first)
            peer.send(first, b"second connection", end=True)
        else:
            await peer.request()
            peer.h2.close_connection(last_stream_id=first)
            peer.flush()
            await go_on.wait()
            # h2 sends nothing behind its own GOAWAY, so these frames are written by hand.
            peer.writer.write(bytes.fromhex("000001 01 04 00000001 88".replace(" ", "")))
            peer.writer.write(bytes.fromhex("000005 00 01 00000001".replace(" ", "")) + b"first")
        await peer.left()

    go_on = asyncio.Event()
    async with scripted(script) as (url, peers), transport_to(url) as transport:
        kept = await transport.start(asks(), b"", more=False)
        dropped = transport.reuse(asks(), b"", more=False)
        assert dropped is not None
        with pytest.raises(UpstreamDisconnected, match="going away"):
            await dropped.head()
        nothing = transport.reuse(asks(), b"", more=False)
        again = await transport.start(asks(), b"", more=False)
        await again.head()
        second = await again.read()
        again.close()
        go_on.set()
        await kept.head()
        first = await kept.read()
        kept.close()
        await until(lambda: transport.connections == 1)

    assert (nothing, first, second) == (None, b"first", b"second connection")


# -- faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [False, True])
async def test_http2_garbage_breaks_the_connection(answered: bool) -> None:
    """What is not HTTP/2 fails every stream that was not whole."""

    async def script(peer: Peer) -> None:
        done, _ = await peer.request()
        peer.answer(done)
        peer.send(done, b"", end=True)
        stream, _ = await peer.request()
        if answered:
            peer.answer(stream)
        await go_on.wait()
        peer.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.left()

    go_on = asyncio.Event()
    async with scripted(script) as (url, _), transport_to(url) as transport:
        whole = await transport.start(asks(), b"", more=False)
        exchange = transport.reuse(asks(), b"", more=False)
        assert exchange is not None
        await whole.head()
        await until(lambda: whole.complete)
        if answered:
            await exchange.head()
        go_on.set()
        with pytest.raises(UpstreamProtocolError, match="malformed") as raised:
            await (exchange.read() if answered else exchange.head())
        end = await whole.read()
        await until(lambda: not transport.connections)

    failure = Failure.RESPONSE_BODY if answered else Failure.RESPONSE_MALFORMED
    assert (raised.value.failure, end) == (failure, b"")


@pytest.mark.parametrize(
    ("status", "fields", "text"),
    [(601, (), "status 601"), (200, ((b"x", b"y" * 2000),), "larger than 1000 bytes")],
)
async def test_http2_answer_that_is_not_acceptable(
    status: int, fields: tuple[tuple[bytes, bytes], ...], text: str
) -> None:
    """An impossible status, a head over the limit: refused, and reset."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.answer(stream, status, *fields)
        await peer.next(StreamReset)
        done.set()

    done = asyncio.Event()
    async with scripted(script) as (url, _), transport_to(url, header_limit=1000) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        with pytest.raises(UpstreamProtocolError, match=text):
            await exchange.head()
        exchange.close()
        await asyncio.wait_for(done.wait(), 10)


@pytest.mark.parametrize("pair", [(b"x", b"1\r\ny: 2"), (b"x\0", b"1")])
async def test_http2_request_that_smuggles_is_never_sent(pair: tuple[bytes, bytes]) -> None:
    """A line end within a field would be one behind the destination's own gateway."""

    async def script(peer: Peer) -> None:
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        with pytest.raises(InvalidRequest):
            await transport.start(asks(b"GET", pair), b"", more=False)


async def test_http2_destination_that_speaks_http1() -> None:
    """By prior knowledge a wrong guess is told as such."""
    refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

    async def script(peer: Peer) -> None:
        peer.writer.write(refusal)
        await peer.left()

    async with scripted(script, greet=False) as (url, _), transport_to(url) as transport:
        with pytest.raises(UpstreamProtocolError, match="not speaking HTTP/2"):
            await transport.start(asks(), b"", more=False)


async def test_http2_destination_that_does_not_choose_h2(
    certificates: tuple[str, str, str],
) -> None:
    """ALPN without h2 is a failed connection that says why."""
    cert, key, ca = certificates
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(cert, key)
    async with (
        ScriptedOrigin(Connection.peer_left, tls=server) as origin,
        gateway(origin.url, http_version="2", tls={"ca_file": ca}) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/billing/")
        with pytest.raises(ProxyError, match="does not speak HTTP/2"):
            await gate.balancer.client.get("/")

    assert (reply.status, reply.json()["failure"]) == (502, "connect")


async def test_http2_destination_that_never_greets() -> None:
    """The connect timeout holds until the destination's settings are there."""

    async def script(peer: Peer) -> None:
        await peer.left()

    async with (
        scripted(script, greet=False) as (url, _),
        transport_to(url, connect_timeout=0.05) as transport,
    ):
        with pytest.raises(UpstreamTimeout) as raised:
            await transport.start(asks(), b"", more=False)

    assert raised.value.failure is Failure.CONNECT_TIMEOUT


async def test_http2_destination_that_refuses_or_closes() -> None:
    """No connection, or one that ends at once, is a connect failure."""

    async def script(peer: Peer) -> None:
        return

    async with transport_to(f"http://127.0.0.1:{dead_port()}") as transport:
        with pytest.raises(UpstreamConnectError):
            await transport.probe()
    async with scripted(script, greet=False) as (url, _), transport_to(url) as transport:
        with pytest.raises(UpstreamConnectError):
            await transport.start(asks(), b"", more=False)


async def test_http2_dial_that_nobody_waits_for() -> None:
    """Whoever leaves leaves; closing ends the dial."""
    with blackhole() as port:
        async with transport_to(f"http://127.0.0.1:{port}") as transport:
            waiting = asyncio.create_task(transport.start(asks(), b"", more=False))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait((waiting,))
        with pytest.raises(UpstreamConnectError, match="shut down"):
            await transport.start(asks(), b"", more=False)

    assert waiting.cancelled()


# -- connections ----------------------------------------------------------------------------


async def answer_all(peer: Peer) -> None:
    """Answer every request."""
    while True:
        stream, _ = await peer.request()
        peer.answer(stream)
        peer.send(stream, b"ok", end=True)


async def test_http2_over_a_unix_socket(tmp_path: Path) -> None:
    """Prior knowledge works on any socket."""
    path = str(tmp_path / "h2.sock")
    async with scripted(answer_all, path=path) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        await exchange.head()
        body = await exchange.read()
        exchange.close()

    assert body == b"ok"


async def test_http2_connection_that_is_full_gets_company() -> None:
    """The destination's limit of streams is heeded: further ones get a connection."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        await release.wait()
        peer.answer(stream)
        peer.send(stream, b"ok", end=True)
        await peer.left()

    settings: dict[SettingCodes, int] = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
    async with (
        scripted(script, settings=settings) as (url, peers),
        transport_to(url) as transport,
    ):
        started = await asyncio.gather(
            *(transport.start(asks(), b"", more=False) for _ in range(3))
        )
        full = transport.reuse(asks(), b"", more=False)
        release.set()
        for exchange in started:
            await exchange.head()
            await exchange.read()
            exchange.close()

    assert (full, len(peers)) == (None, 3)


async def test_http2_idle_connection_closes_after_a_while() -> None:
    """Not while it is used, and not before its time."""
    async with (
        scripted(answer_all) as (url, peers),
        transport_to(url, idle_seconds=0.05) as transport,
    ):
        for _ in range(2):
            exchange = transport.reuse(asks(), b"", more=False) or await transport.start(
                asks(), b"", more=False
            )
            await exchange.head()
            await exchange.read()
            exchange.close()
        used = transport.connections
        unsafe = transport.reuse(asks(b"POST", within=-1.0), b"", more=False)
        await until(lambda: not transport.connections)

    assert (used, unsafe, len(peers)) == (1, None, 1)


async def test_http2_settings_may_change_on_the_way() -> None:
    """A window that a new setting opens lets a body go on."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
        peer.flush()
        # PRIORITY says nothing to a client, and is no fault (RFC 9113 section 5.3.2).
        peer.writer.write(bytes.fromhex("000005 02 00 00000001 00000000 10".replace(" ", "")))
        size = 0
        while size < 50:
            size += len((await peer.next(DataReceived)).data)
        peer.answer(stream)
        peer.send(stream, b"%d" % size, end=True)
        await peer.left()

    settings: dict[SettingCodes, int] = {SettingCodes.INITIAL_WINDOW_SIZE: 10}
    async with (
        scripted(script, settings=settings) as (url, _),
        transport_to(url) as transport,
    ):
        exchange = await transport.start(asks(b"POST"), b"x" * 50, more=False)
        await exchange.head()
        size = await exchange.read()
        exchange.close()

    assert size == b"50"


# -- settings -------------------------------------------------------------------------------


async def test_http2_without_the_extra_is_a_fault_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At start, not at the first request."""
    for name in list(sys.modules):
        if name.startswith("fastapi_proxy_di.transport.http2."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "h2.config", None)
    app = FastAPI()
    app.include_router(proxy_router(billing("http://127.0.0.1:1", http_version="2")))
    with pytest.raises(StartupFailed, match=r"fastapi-proxy-di\[http2\]") as raised:
        await run_app(app).__aenter__()

    assert isinstance(raised.value.__cause__, SettingsError)
    assert "http_version" in json.dumps(str(raised.value))
