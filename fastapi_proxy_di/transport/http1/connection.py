"""One HTTP/1.1 connection to a destination: its socket, reads, writes and backpressure.

A connection carries one `Http1Exchange` at a time, which does the parsing. Between exchanges
the connection is idle. Bytes or an EOF that arrive then make it unusable.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, cast

from fastapi_proxy_di.errors import UpstreamDisconnected
from fastapi_proxy_di.transport.dialling.dialler import DialledConnection
from fastapi_proxy_di.transport.http1.parser import ResponseParser
from fastapi_proxy_di.transport.read_buffer import read_buffer
from fastapi_proxy_di.transport.signal import Signal

if TYPE_CHECKING:
    from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
    from fastapi_proxy_di.transport.http1.transport import Http1Transport


class Http1Connection(DialledConnection, asyncio.BufferedProtocol):
    """The asyncio protocol of one upstream socket.

    Args:
        owner: The transport that keeps the connection while it is idle.
        loop: The running loop.
    """

    __slots__ = (
        "_closed",
        "_detached",
        "_drained",
        "_exchange",
        "_lost",
        "_owner",
        "_transport",
        "_view",
        "idle_since",
        "loop",
        "parser",
        "read_paused",
        "write_paused",
    )

    def __init__(self, owner: Http1Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.parser: ResponseParser = ResponseParser()
        self.idle_since: float = 0.0
        self.read_paused: bool = False
        self.write_paused: bool = False
        self._owner = owner
        self._view = read_buffer()
        self._transport: asyncio.Transport | None = None
        self._exchange: Http1Exchange | None = None
        self._drained = Signal()
        self._closed = False
        self._lost = False
        self._detached: asyncio.Transport | None = None

    # -- what the transport and the exchange call -------------------------------------

    def is_usable(self) -> bool:
        """Whether a request may still be written."""
        transport = self._transport
        return not self._closed and transport is not None and not transport.is_closing()

    async def opened(self) -> None:
        if not self.is_usable():
            raise ConnectionResetError("closed as soon as it was open")

    def abandon(self) -> None:
        self.abort()

    def begin(self, exchange: Http1Exchange) -> None:
        """Carry ``exchange`` until it calls ``release`` or ``abort``."""
        self._exchange = exchange

    def write(self, data: bytes) -> None:
        if not self._closed and self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the destination has read enough of the written bytes."""
        while self.write_paused and not self._closed:
            await self._drained.wait()

    def pause_reading(self) -> None:
        if not self.read_paused and self._transport is not None and not self._closed:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused and self._transport is not None:
            self.read_paused = False
            if not self._closed and not self._transport.is_closing():
                # asyncio keeps the context in which reading resumes, and calls this in it.
                Context().run(self._transport.resume_reading)

    def release(self) -> None:
        """Return the connection to the transport, after an exchange that ended cleanly."""
        self._exchange = None
        if self.read_paused:
            self.resume_reading()
        if self.is_usable() and not self.write_paused:
            self._owner.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once, and drop buffered bytes."""
        self._exchange = None
        if self._transport is not None and not self._closed:
            self._closed = True
            self._transport.abort()
        self._drained.notify()

    def break_off(self) -> None:
        """Close the connection at once, and fail the exchange that it carries."""
        exchange = self._exchange
        self.abort()
        if exchange is not None:
            exchange.fail(UpstreamDisconnected("the upstream is shut down"))

    def detach(self) -> asyncio.Transport:
        """Hand over the socket to a new protocol, which must be set before the next read.

        If the destination has closed the connection already, the new protocol learns that in
        the next turn of the loop, after the bytes that came before.
        """
        transport = self._transport
        if transport is None or (self._closed and not self._lost):
            raise UpstreamDisconnected("the connection is gone")
        self._exchange = None
        self._transport = None
        self._detached = transport
        self._closed = True
        self._owner.forget(self)
        if self._lost:
            self.loop.call_soon(self.connection_lost, None)
        return transport

    # -- what asyncio calls -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.feed(self._view[:nbytes], self.loop.time())
        else:
            # Bytes on an idle connection would be taken for the next response.
            self._owner.forget(self)
            self.abort()

    def eof_received(self) -> bool:
        exchange = self._exchange
        self._owner.forget(self)
        if exchange is not None:
            exchange.ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._detached is not None:
            # TLS schedules the call for the protocol of that moment, before the handover.
            successor = self._detached.get_protocol()
            if successor is not self:
                successor.connection_lost(exc)
            return
        exchange, self._exchange = self._exchange, None
        self._closed = self._lost = True
        self._owner.forget(self)
        if exchange is not None:
            exchange.ended(exc or ConnectionResetError("connection lost"))
        self._drained.notify()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        self._drained.notify()
