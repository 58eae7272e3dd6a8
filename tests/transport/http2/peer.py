"""A hypercorn server and a scripted peer on ``h2``, for tests of HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import FastAPI, WebSocket
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, RequestReceived
from h2.settings import SettingCodes, Settings
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di.settings import LimitSettings, TimeoutSettings
from fastapi_proxy_di.transport.dialling.dialler import Dialler
from fastapi_proxy_di.transport.http1.transport import Http1Transport
from fastapi_proxy_di.transport.http2.transport import Http2Transport
from fastapi_proxy_di.transport.protocol import OutgoingRequest
from fastapi_proxy_di.wire.addresses import parse_address
from tests.support.servers import free_port

E = TypeVar("E", bound=Event)


def inner_app() -> ASGIApp:
    """An app that responds with the request it got."""
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
        if scope.get("path") == "/large":
            # Of several fields, since the encoder takes minutes for one of this size.
            headers = [(b"x-large", b"y" * 1000)] * int(scope["query_string"])
            headers.append((b"x-kept", b"in the table"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        if scope.get("path") == "/unchanged":
            headers = [(b"content-length", b"5")]
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body"})
            return
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
        async with asyncio.timeout(10):
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


class Peer:
    """One accepted connection, which a script uses."""

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
        """Send the pending bytes of ``h2``."""
        self.writer.write(self.h2.data_to_send())

    async def next(self, kind: type[E]) -> E:
        """Give the next event of a kind; events before it are dropped."""
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
        """Give stream and headers of the next request."""
        event = await self.next(RequestReceived)
        return event.stream_id, dict(event.headers)

    def respond(self, stream: int, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        """Send the head of a response."""
        self.h2.send_headers(stream, [(b":status", b"%d" % status), *headers])
        self.flush()

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send a piece of a body."""
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    async def left(self) -> None:
        """Wait until the other side has closed the connection."""
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
async def transport_to(
    url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    connect_timeout: float = 5.0,
    ping: float | None = None,
    **limits: Any,
) -> AsyncIterator[Http2Transport]:
    """A transport to ``url``, closed at the end."""
    address = parse_address(url)
    dialler = Dialler(address, ssl_context, None, TimeoutSettings(connect=connect_timeout))
    http1 = Http1Transport(dialler, LimitSettings())
    made = Http2Transport(dialler, LimitSettings(**limits), ping, http1)
    try:
        yield made
    finally:
        await made.aclose()


def asks(
    method: bytes = b"GET", *headers: tuple[bytes, bytes], within: float = 4.0, **more: Any
) -> OutgoingRequest:
    """Make a request as the forwarder does."""
    return OutgoingRequest(
        method, b"/x?y=%20", [(b"host", b"billing.example"), *headers], within, **more
    )


async def respond_to_all(peer: Peer) -> None:
    """Respond to every request."""
    while True:
        stream, _ = await peer.request()
        peer.respond(stream)
        peer.send(stream, b"ok", end=True)
