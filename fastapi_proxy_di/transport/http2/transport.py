"""HTTP/2 to one destination, on ``h2``: connections with room, and dialling new ones.

``https`` destinations must choose ``h2`` by ALPN, ``http`` ones speak it from the first byte
(prior knowledge). WebSockets go over HTTP/1.1, for which a second transport stands behind.

Not on httpx, whose HTTP/2 sends no RST_STREAM for an exchange that is given up, so that the
destination works on for nobody; reads no answer while it sends a body; and passes on neither
1xx answers nor trailers.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from fastapi_proxy_di.errors import InvalidRequest, ProxyError, UpstreamConnectError
from fastapi_proxy_di.transport.http1.transport import connect_error
from fastapi_proxy_di.transport.http2.connection import Http2Connection
from fastapi_proxy_di.transport.protocol import Headers, Request, Transport, TransportExchange
from fastapi_proxy_di.wire.headers import is_safe_block
from fastapi_proxy_di.wire.urls import Address

_NOT_SENT: Final = frozenset({b"host", b"connection", b"transfer-encoding"})
"""Said in other ways: ``:authority``, and the frames themselves (RFC 9113 section 8.2.2)."""


class Http2Transport:
    """A `Transport` over HTTP/2.

    Args:
        address: Where to connect.
        ssl_context: For ``https``; offers ``h2`` alone.
        server_name: Name for SNI and certificate.
        connect_timeout: Seconds for TCP, TLS and the destination's settings together.
        idle_seconds: How long a connection without streams stays open.
        header_limit: Largest answer head in bytes.
        http1: The way for WebSockets.
    """

    def __init__(
        self,
        address: Address,
        *,
        ssl_context: ssl.SSLContext | None,
        server_name: str,
        connect_timeout: float,
        idle_seconds: float,
        header_limit: int,
        http1: Transport,
    ) -> None:
        self._address = address
        self._scheme = b"http" if ssl_context is None else b"https"
        self._ssl = ssl_context
        self._server_name = server_name if ssl_context is not None else None
        self._connect_timeout = connect_timeout
        self._idle_seconds = idle_seconds
        self._header_limit = header_limit
        self._http1 = http1
        self._loop = asyncio.get_running_loop()
        self._connections: dict[Http2Connection, asyncio.TimerHandle | None] = {}
        # Those above take further streams; these only finish theirs, too.
        self._open: set[Http2Connection] = set()
        self._dialling: asyncio.Task[Http2Connection] | None = None
        self._closed = False

    @property
    def connections(self) -> int:
        """Connections open."""
        return len(self._open)

    def reuse(self, request: Request, body: bytes, *, more: bool) -> TransportExchange | None:
        if request.upgrade:
            return self._http1.reuse(request, body, more=more)
        freshest = self._loop.time() - request.reuse_within
        for connection in self._connections:
            if connection.has_room and (connection.streams or connection.idle_since >= freshest):
                return self._begin(connection, request, body, more)
        return None

    async def start(self, request: Request, body: bytes, *, more: bool) -> TransportExchange:
        if request.upgrade:
            return await self._http1.start(request, body, more=more)
        while True:
            connection = await self._fresh()
            if connection.has_room:
                return self._begin(connection, request, body, more)

    async def probe(self) -> None:
        """Connect and close again."""
        (await self._dial()).abort()

    async def aclose(self) -> None:
        self._closed = True
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.wait((self._dialling,))
        for connection in tuple(self._open):
            connection.abort()
        await self._http1.aclose()
        # Sockets close in the loop's next turns; a caller that returns sees them gone.
        while self._open:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)

    # -- what connections call ----------------------------------------------------------

    def became_idle(self, connection: Http2Connection) -> None:
        """Close it after a while, unless a stream is opened before."""
        if connection in self._connections:
            self._connections[connection] = self._loop.call_later(
                self._idle_seconds, self._expire, connection
            )
        else:
            connection.retire()

    def forget(self, connection: Http2Connection) -> None:
        """It takes no more streams."""
        timer = self._connections.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def lost(self, connection: Http2Connection) -> None:
        """It is closed."""
        self.forget(connection)
        self._open.discard(connection)

    # -- inside ---------------------------------------------------------------------------

    def _begin(
        self, connection: Http2Connection, request: Request, body: bytes, more: bool
    ) -> TransportExchange:
        headers = self._fields(request)
        timer = self._connections[connection]
        if timer is not None:
            timer.cancel()
            self._connections[connection] = None
        return connection.begin(headers, body, more=more, bodied=more or bool(body))

    def _fields(self, request: Request) -> Headers:
        authority = self._address.authority
        fields: Headers = []
        for name, value in request.headers:
            if name == b"host":
                authority = value
            elif name not in _NOT_SENT:
                fields.append((name, value))
        block = b"\r\n".join([request.target, authority, *(b"%b: %b" % pair for pair in fields)])
        if not is_safe_block(block, len(fields) + 1) or b" " in request.target:
            raise InvalidRequest("the request has CR, LF, NUL or a space where none may be")
        return [
            (b":method", request.method),
            (b":scheme", self._scheme),
            (b":authority", authority),
            (b":path", request.target),
            *fields,
        ]

    async def _fresh(self) -> Http2Connection:
        """A connection that was made after this was called; those who wait share one."""
        if self._dialling is None:
            self._dialling = self._loop.create_task(self._dial(), name=f"dial {self._address.url}")
            self._dialling.add_done_callback(self._dialled)
        return await asyncio.shield(self._dialling)

    def _dialled(self, task: asyncio.Task[Http2Connection]) -> None:
        self._dialling = None
        if not task.cancelled():
            task.exception()  # those who waited may all have left

    async def _dial(self) -> Http2Connection:
        if self._closed:
            raise UpstreamConnectError("the upstream is shut down")
        connection = Http2Connection(self, self._header_limit, self._loop)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._connect(connection)
                await connection.ready
        except (TimeoutError, OSError) as error:
            connection.abandon()
            raise connect_error(error, self._address.url) from error
        except (ProxyError, asyncio.CancelledError):
            connection.abandon()
            raise
        self._open.add(connection)
        self._connections[connection] = None
        self.became_idle(connection)
        return connection

    async def _connect(self, connection: Http2Connection) -> None:
        address = self._address
        if address.socket_path is not None:
            await self._loop.create_unix_connection(lambda: connection, address.socket_path)
        else:
            await self._loop.create_connection(
                lambda: connection,
                address.host,
                address.port,
                ssl=self._ssl,
                server_hostname=self._server_name,
            )

    def _expire(self, connection: Http2Connection) -> None:
        self.forget(connection)
        connection.retire()
