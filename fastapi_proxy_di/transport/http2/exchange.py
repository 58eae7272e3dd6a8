"""One request and its response on a stream of an HTTP/2 connection.

Flow control is that of HTTP/2: unread bytes are not acknowledged, so the destination stops
sending on this stream and on no other. Frames and the socket are in ``connection``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastapi_proxy_di.errors import (
    Failure,
    ProxyError,
    UpstreamDisconnected,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from fastapi_proxy_di.transport.exchange import BODY_HIGH_WATER_BYTES, BaseExchange
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.transport.signal import Signal

if TYPE_CHECKING:
    from fastapi_proxy_di.transport.http2.connection import Http2Connection


class Http2Exchange(BaseExchange):
    """A `TransportExchange` on one stream; see there for the meaning of its members.

    Args:
        connection: The connection that carries the exchange.
        stream_id: Identifier of the stream.
        reused: Whether the connection has served before.
        now: The loop's time.
    """

    trailers: Headers
    last_activity: float

    def __init__(
        self,
        connection: Http2Connection,
        stream_id: int,
        *,
        reused: bool,
        now: float,
    ) -> None:
        self.reused = reused
        self.last_activity = now
        self.stream_id = stream_id
        self._connection: Http2Connection | None = connection
        self._loop = connection.loop
        self._unacknowledged = 0
        self._outgoing = bytearray()
        self._finished = True
        self._end_sent = True
        self._sent = Signal()

    # -- what the forwarder calls -----------------------------------------------------

    @property
    def stalled_by_reader(self) -> bool:
        return self._buffered >= BODY_HIGH_WATER_BYTES

    def offer(self, data: bytes) -> bool:
        self._outgoing += data
        self.flush()
        if self._error is not None:
            raise self._error
        return not self._blocked

    async def drain(self) -> None:
        while self._blocked:
            await self._sent.wait()
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        self._finished = True
        self.flush()

    def fail(self, error: BaseException) -> None:
        connection = self._connection
        super().fail(error)
        if connection is not None and isinstance(error, UpstreamTimeout):
            connection.doubt()

    def close(self) -> None:
        self._let_go()
        self._wake()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        raise UpstreamProtocolError("a stream has no socket to hand over")

    # -- what the connection calls --------------------------------------------------

    def begin_body(self, body: bytes, *, more: bool) -> None:
        """Send the first piece of the body; ``more``: ``write`` and ``finish`` follow."""
        self._outgoing += body
        self._finished = not more
        self._end_sent = False
        self.flush()

    def flush(self) -> None:
        """Send as much of the body as the destination's windows allow."""
        connection = self._connection
        if connection is None:
            return
        if not self._end_sent:
            sent = connection.send(self.stream_id, self._outgoing, end=self._finished)
            if sent:
                self.last_activity = self._loop.time()
                del self._outgoing[:sent]
            self._end_sent = self._finished and not self._outgoing
        if not self._outgoing:
            self._sent.notify()

    def on_headers(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Handle the head of a response, final or informational."""
        headers = [(name, value) for name, value in pairs if name != b":status"]
        status = int(next(value for name, value in pairs if name == b":status"))
        if status < 200:
            if status == 100:
                self._body_wanted = True
                self._release_body()
            if self.on_informational is not None:
                self.on_informational(status, headers)
        else:
            self.headers = headers
            self.status = status
        self._received()

    def on_data(self, data: bytes, flow: int) -> None:
        """Handle a piece of the body that used ``flow`` bytes of the window."""
        self._unacknowledged += flow
        if data:
            self._keep(data)
            self._buffered += len(data)
        self._received()

    def on_trailers(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Handle the trailers."""
        self.trailers = list(pairs)
        self._received()

    def on_end(self) -> None:
        """Handle the end of the response."""
        self.complete = True
        self._received()

    def on_broken(
        self,
        reason: str,
        cause: Exception | None = None,
        *,
        malformed: bool = False,
        counts: bool = True,
    ) -> bool:
        """Handle the reset of the stream, or the end of its connection.

        Args:
            reason: What the destination did, or what is wrong with its bytes.
            cause: The exception of the connection, if there was one.
            malformed: Whether the stream ends because of malformed bytes.
            counts: Whether the failure counts against the destination.

        Returns:
            Whether the exchange fails by it.
        """
        failed = not self.complete and self._error is None
        if failed:
            error: ProxyError
            if malformed:
                failure = Failure.RESPONSE_BODY if self.status else Failure.RESPONSE_MALFORMED
                error = UpstreamProtocolError(f"malformed response: {reason}", failure=failure)
            else:
                error = self._disconnected(f"the destination {reason}", cause)
            error.counts = counts
            self._error = error
        self._connection = None
        self._wake()
        return failed

    def on_not_processed(self, reason: str) -> None:
        """Handle that the destination has not processed the request (RFC 9113 section 8.7)."""
        if self.answered:
            self.on_broken(reason)
            return
        self._error = UpstreamDisconnected(
            f"the destination {reason} before it processed the request",
            failure=Failure.NOT_PROCESSED,
        )
        self._connection = None
        self._wake()

    def give_back(self) -> None:
        """Let the destination send on other streams what is not read of this one."""
        unacknowledged, self._unacknowledged = self._unacknowledged, 0
        if self._connection is not None:
            self._connection.acknowledge(unacknowledged, self.stream_id)

    # -- inside -----------------------------------------------------------------------

    @property
    def _blocked(self) -> bool:
        connection = self._connection
        return connection is not None and bool(self._outgoing or connection.write_paused)

    def _received(self) -> None:
        self.answered = True
        self.last_activity = self._loop.time()
        self._wake()

    def _take(self) -> bytes:
        data = super()._take()
        self.give_back()
        return data

    def _let_go(self) -> None:
        self.give_back()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.end(self, whole=self.complete and self._end_sent)

    def _wake(self) -> None:
        super()._wake()
        self._sent.notify()
