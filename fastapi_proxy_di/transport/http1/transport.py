"""HTTP/1.1 to one destination: an idle set of connections, and dialling new ones.

The idle set is last in, first out: the connection used last serves next, and the connections
idle for longest are closed. Taking a connection and giving it back cost O(1) at any number of
connections. The number of connections in use has no limit.

Under load every connection is idle for a moment between two requests. If connections over the
limit were closed at once, 512 clients and a limit of 100 would make every third request dial,
which costs more than the rest of the request. So they are closed after a second without use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final

from fastapi_proxy_di.errors import InvalidRequest
from fastapi_proxy_di.settings import LimitSettings, TimeoutSettings
from fastapi_proxy_di.transport.dialling.dialler import Dialler
from fastapi_proxy_di.transport.http1.connection import Http1Connection
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from fastapi_proxy_di.transport.protocol import OutgoingRequest
from fastapi_proxy_di.wire.headers import TitleNames

_SURPLUS_SECONDS: Final = 1.0

_field_line: Final = b": ".join

_COALESCE_BYTES: Final = 65536
"""A body up to this size is sent with its head in one write: one packet, one system call."""


class Http1Transport:
    """A `Transport` over our own HTTP/1.1 connections.

    Args:
        dialler: Opens the connections.
        limits: The limits of idle connections and of the size of a response's head.
        title_case: Whether header names are sent as ``Content-Length``, not in lower case.
    """

    def __init__(
        self, dialler: Dialler, limits: LimitSettings, *, title_case: bool = False
    ) -> None:
        self._dialler = dialler
        self._read(limits, title_case=title_case)
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Http1Connection, None] = {}
        self._all: set[Http1Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._trim: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Number of open connections, idle or in use."""
        return len(self._all)

    @property
    def idle(self) -> int:
        """Number of idle connections."""
        return len(self._idle)

    @property
    def dialling(self) -> bool:
        """Whether a connection is being opened."""
        return self._dialler.dialling

    def reuse(self, request: OutgoingRequest, body: bytes, *, more: bool) -> Http1Exchange | None:
        idle = self._idle
        now = self._loop.time()
        within = min(request.reuse_within, self._idle_seconds)
        while idle:
            connection, _ = idle.popitem()
            if now - connection.idle_since > within:
                # The connection used last is too old for this request, so all others are as well.
                idle[connection] = None
                return None
            if connection.is_usable():
                return self._begin(connection, request, body, more, reused=True, now=now)
            connection.abort()
        return None

    async def start(self, request: OutgoingRequest, body: bytes, *, more: bool) -> Http1Exchange:
        connection = await self._dial()
        return self._begin(connection, request, body, more, reused=False, now=self._loop.time())

    async def probe(self) -> None:
        """Open a connection and close it."""
        (await self._dial()).abort()

    def configure(
        self, limits: LimitSettings, timeouts: TimeoutSettings, *, title_case: bool
    ) -> None:
        self._dialler.configure(timeouts)
        self._read(limits, title_case=title_case)
        # Idle connections were given their time, or their number, by the settings before.
        for timer in (self._sweep, self._trim):
            if timer is not None:
                timer.cancel()
        self._expire()
        self._close_surplus()

    def retire(self) -> None:
        self._idle_connections = 0
        for connection in tuple(self._idle):
            connection.abort()
        self._idle.clear()

    async def aclose(self) -> None:
        self._dialler.close()
        for timer in (self._sweep, self._trim):
            if timer is not None:
                timer.cancel()
        self._sweep = self._trim = None
        self._idle.clear()
        for connection in tuple(self._all):
            connection.break_off()
        # Sockets close in the loop's next turns; the caller should find them closed.
        while self._all:  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0)

    # -- what connections call ----------------------------------------------------------

    def keep(self, connection: Http1Connection) -> None:
        """Store a connection that can be used for another request."""
        if self._dialler.closed or self._idle_connections == 0:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle[connection] = None
        if self._trim is None and len(self._idle) > self._idle_connections:
            self._trim = self._later(_SURPLUS_SECONDS, self._close_surplus)
        if self._sweep is None:
            self._sweep = self._later(self._idle_seconds, self._expire)

    def forget(self, connection: Http1Connection) -> None:
        """Remove a connection that has ended or is about to."""
        self._idle.pop(connection, None)
        self._all.discard(connection)

    # -- inside ---------------------------------------------------------------------------

    def _read(self, limits: LimitSettings, *, title_case: bool) -> None:
        # Read once, because each request needs them several times.
        self._idle_connections = limits.idle_connections
        self._idle_seconds = limits.idle_seconds
        self._header_limit = limits.max_response_header_bytes
        self._titles = TitleNames() if title_case else None

    def _begin(
        self,
        connection: Http1Connection,
        request: OutgoingRequest,
        body: bytes,
        more: bool,
        *,
        reused: bool,
        now: float,
    ) -> Http1Exchange:
        words = [request.method, request.target, b"HTTP/1.1"]
        line = b" ".join(words)
        headers, titles = request.headers, self._titles
        if titles is not None:
            headers = [(titles[name], value) for name, value in headers]
        head = b"\r\n".join((line, *map(_field_line, headers)))
        # Lenient servers split the request line at any whitespace (RFC 9112 section 3).
        if not is_safe_head(head, len(headers)) or line.split() != words:
            connection.abort()
            raise InvalidRequest("the request has CR, LF, NUL or a space where none may be")
        owed = 0 if request.chunked else (request.content_length or 0) - len(body)
        if owed < 0 or (owed and not more):
            # The destination would see the beginning of the next request at another byte.
            connection.abort()
            raise ValueError("the request body is not as long as its Content-Length")
        exchange = Http1Exchange(
            connection,
            bodyless=request.method == b"HEAD",
            upgrade=request.upgrade,
            header_limit=self._header_limit,
            reused=reused,
            now=now,
            parser=connection.parser,
        )
        connection.begin(exchange)
        if body and len(body) <= _COALESCE_BYTES:
            if request.chunked:
                connection.write(b"%b\r\n\r\n%x\r\n%b\r\n" % (head, len(body), body))
            else:
                connection.write(b"%b\r\n\r\n%b" % (head, body))
        else:
            connection.write(head + b"\r\n\r\n")
            if body:
                connection.write(b"%x\r\n%b\r\n" % (len(body), body) if request.chunked else body)
        if more or request.chunked:
            exchange.expect_body(chunked=request.chunked, length=owed)
            if not more:
                exchange.finish()
        return exchange

    async def _dial(self) -> Http1Connection:
        connection = await self._dialler.dial(Http1Connection(self, self._loop))
        self._all.add(connection)
        return connection

    def _expire(self) -> None:
        """Close connections that were idle for too long; one timer serves all."""
        wait = self._close_oldest(self._idle_seconds, 0)
        self._sweep = None if wait is None else self._later(wait, self._expire)

    def _close_surplus(self) -> None:
        """Close connections over the limit that were not used lately; one timer serves all."""
        wait = self._close_oldest(_SURPLUS_SECONDS, self._idle_connections)
        self._trim = None if wait is None else self._later(wait, self._close_surplus)

    def _later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Start a timer that all connections share, so with the context of no request."""
        return self._loop.call_later(seconds, call, context=Context())

    def _close_oldest(self, seconds: float, kept: int) -> float | None:
        """Close connections that were idle for ``seconds``, but keep a number of them.

        Returns:
            Seconds until the next connection is due, ``None`` if only that number is left.
        """
        limit = self._loop.time() - seconds
        while len(self._idle) > kept:
            oldest = next(iter(self._idle))
            if oldest.idle_since > limit:
                return oldest.idle_since - limit
            del self._idle[oldest]
            oldest.abort()
        return None


def is_safe_head(head: bytes, lines: int) -> bool:
    """Whether a serialised head of ``lines`` lines has no CR, LF or NUL beyond its line ends.

    A line end within a name or value changes the count, so no part needs a check of its own.
    """
    bare = len(head.translate(None, b"\r\n\0"))
    return len(head) - bare == 2 * lines and head.count(b"\r\n") == lines
