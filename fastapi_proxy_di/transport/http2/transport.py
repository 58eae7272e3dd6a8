"""HTTP/2 to one destination, on ``h2``: connections with room, and dialling new ones.

``https`` destinations must choose ``h2`` by ALPN, ``http`` destinations speak HTTP/2 from the
first byte (prior knowledge). WebSockets go over HTTP/1.1, by a second transport.

httpx is not used, because its HTTP/2 sends no RST_STREAM for an abandoned exchange, so that the
destination works for nothing; reads no response while it sends a body; and passes on neither
1xx responses nor trailers.
"""

from __future__ import annotations

import asyncio
import re
from contextvars import Context
from itertools import chain
from typing import Final

from fastapi_proxy_di.errors import InvalidRequest, UpstreamConnectError
from fastapi_proxy_di.settings import LimitSettings, TimeoutSettings
from fastapi_proxy_di.transport.dialling.dialler import Dialler
from fastapi_proxy_di.transport.http2.connection import Http2Connection
from fastapi_proxy_di.transport.protocol import (
    Headers,
    OutgoingRequest,
    Transport,
    TransportExchange,
)

_LATE_SECONDS: Final = 1.0
"""Seconds that a connection stays idle at most, if it was opened after its transport retired."""

_LINE_END_OR_NUL: Final = re.compile(rb"[\r\n\0]")
_NOT_SENT: Final = frozenset({b"host", b"connection", b"transfer-encoding"})
"""Headers that HTTP/2 replaces by ``:authority`` and by frames (RFC 9113 section 8.2.2)."""


class Http2Transport:
    """A `Transport` over HTTP/2.

    Args:
        dialler: Opens the connections; TLS connections offer only ``h2``.
        limits: The limits of idle connections and of the size of a response's head.
        ping_seconds: ``timeouts.ping``.
        http1: The transport for WebSockets.
    """

    def __init__(
        self, dialler: Dialler, limits: LimitSettings, ping_seconds: float | None, http1: Transport
    ) -> None:
        self._dialler = dialler
        self._scheme = b"https" if dialler.tls else b"http"
        self._idle_seconds = limits.idle_seconds
        self._header_limit = limits.max_response_header_bytes
        self._ping_seconds = ping_seconds
        self._http1 = http1
        self._loop = asyncio.get_running_loop()
        # Connections that take further streams, each with its idle timer.
        self._connections: dict[Http2Connection, asyncio.TimerHandle | None] = {}
        # All connections that are not closed yet.
        self._open: set[Http2Connection] = set()
        self._dialling: asyncio.Task[Http2Connection] | None = None

    @property
    def connections(self) -> int:
        """Number of open connections, those for WebSockets included."""
        return len(self._open) + self._http1.connections

    @property
    def idle(self) -> int:
        """Number of connections without a stream."""
        connections = tuple(self._connections)  # metrics may be read in another thread
        return sum(not one.streams for one in connections) + self._http1.idle

    @property
    def dialling(self) -> bool:
        """Whether a connection is being opened, one for a WebSocket included."""
        return self._dialler.dialling or self._http1.dialling

    def reuse(
        self, request: OutgoingRequest, body: bytes, *, more: bool
    ) -> TransportExchange | None:
        if request.upgrade:
            return self._http1.reuse(request, body, more=more)
        freshest = self._loop.time() - request.reuse_within
        for connection in self._connections:
            if connection.has_room and (connection.streams or connection.idle_since >= freshest):
                return self._begin(connection, request, body, more)
        return None

    async def start(
        self, request: OutgoingRequest, body: bytes, *, more: bool
    ) -> TransportExchange:
        if request.upgrade:
            return await self._http1.start(request, body, more=more)
        while True:
            connection = await self._fresh()
            if connection.has_room:
                return self._begin(connection, request, body, more)
            if connection.fresh:
                # Dialling again would not end: only a connection that others have filled
                # is progress.
                raise UpstreamConnectError(
                    "the destination takes no stream on a new connection: it ended the"
                    " connection, or its SETTINGS_MAX_CONCURRENT_STREAMS is 0"
                )

    async def probe(self) -> None:
        """Open a connection and close it."""
        (await self._dial()).abort()

    def configure(
        self, limits: LimitSettings, timeouts: TimeoutSettings, *, title_case: bool
    ) -> None:
        self._dialler.configure(timeouts)
        self._http1.configure(limits, timeouts, title_case=title_case)
        self._idle_seconds = limits.idle_seconds
        self._header_limit = limits.max_response_header_bytes
        self._ping_seconds = timeouts.ping
        for connection, timer in self._connections.items():
            if timer is not None:
                timer.cancel()
                self.became_idle(connection)

    def retire(self) -> None:
        self._http1.retire()
        # For a connection that is being dialled, whose stream has yet to begin.
        self._idle_seconds = min(self._idle_seconds, _LATE_SECONDS)
        for connection in tuple(self._connections):
            self._expire(connection)

    async def aclose(self) -> None:
        self._dialler.close()
        if self._dialling is not None:
            # Not cancelled, because the requests that wait for it are not.
            await asyncio.wait((self._dialling,))
        for connection in tuple(self._open):
            connection.abort()
        await self._http1.aclose()
        # Sockets close in the loop's next turns; the caller should find them closed.
        while self._open:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)

    # -- what connections call ----------------------------------------------------------

    def became_idle(self, connection: Http2Connection) -> None:
        """Close ``connection`` after the idle time, unless a stream is opened before."""
        if connection in self._connections:
            self._connections[connection] = self._loop.call_later(
                self._idle_seconds, self._expire, connection, context=Context()
            )
        else:
            connection.retire()

    def forget(self, connection: Http2Connection) -> None:
        """Open no more streams on ``connection``."""
        timer = self._connections.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def lost(self, connection: Http2Connection) -> None:
        """Remove ``connection``, which has closed."""
        self.forget(connection)
        self._open.discard(connection)

    # -- inside ---------------------------------------------------------------------------

    def _begin(
        self, connection: Http2Connection, request: OutgoingRequest, body: bytes, more: bool
    ) -> TransportExchange:
        headers = self._headers(request)
        timer = self._connections[connection]
        if timer is not None:
            timer.cancel()
            self._connections[connection] = None
        return connection.begin(headers, body, more=more, bodied=more or bool(body))

    def _headers(self, request: OutgoingRequest) -> Headers:
        authority = self._dialler.address.authority
        headers: Headers = []
        for name, value in request.headers:
            if name == b"host":
                authority = value
            elif name not in _NOT_SENT:
                headers.append((name, value))
        parts = b" ".join([request.target, authority, *chain.from_iterable(headers)])
        if _LINE_END_OR_NUL.search(parts) or b" " in request.target:
            raise InvalidRequest("the request has CR, LF, NUL or a space where none may be")
        return [
            (b":method", request.method),
            (b":scheme", self._scheme),
            (b":authority", authority),
            (b":path", request.target),
            *headers,
        ]

    async def _fresh(self) -> Http2Connection:
        """Open a connection; callers share a dial that is under way."""
        if self._dialling is None:
            self._dialling = self._loop.create_task(
                self._dial(), name=f"dial {self._dialler.address.url}"
            )
            self._dialling.add_done_callback(self._dialled)
        return await asyncio.shield(self._dialling)

    def _dialled(self, task: asyncio.Task[Http2Connection]) -> None:
        self._dialling = None
        if not task.cancelled():
            task.exception()  # else asyncio logs it if all waiting callers were cancelled

    async def _dial(self) -> Http2Connection:
        connection = await self._dialler.dial(
            Http2Connection(self, self._header_limit, self._ping_seconds, self._loop)
        )
        self._open.add(connection)
        self._connections[connection] = None
        self.became_idle(connection)
        return connection

    def _expire(self, connection: Http2Connection) -> None:
        self.forget(connection)
        connection.retire()
