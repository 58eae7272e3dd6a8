"""One request and its answer on a stream of an HTTP/2 connection.

Flow control is the protocol's own: what nobody reads is not acknowledged, so the
destination stops sending on this stream and on no other. Frames and the socket belong to
``connection``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from fastapi_proxy_di.errors import Failure, UpstreamDisconnected, UpstreamProtocolError
from fastapi_proxy_di.transport.protocol import Headers

if TYPE_CHECKING:
    from fastapi_proxy_di.transport.http2.connection import Http2Connection

BODY_HIGH_WATER_BYTES: Final = 65536
"""Unread bytes from which on the reader is held to be the slow one."""


class Http2Exchange:
    """An `TransportExchange` on one stream; see there for the meaning of its members."""

    def __init__(
        self,
        connection: Http2Connection,
        stream_id: int,
        *,
        header_limit: int,
        reused: bool,
        now: float,
    ) -> None:
        self.status: int = 0
        self.headers: Headers = []
        self.trailers: Headers = []
        self.reused = reused
        self.answered: bool = False
        self.complete: bool = False
        self.on_informational: Callable[[int, Headers], None] | None = None
        self.last_activity: float = now
        self.stream_id = stream_id
        self._connection: Http2Connection | None = connection
        self._loop = connection.loop
        self._header_limit = header_limit
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._unacknowledged = 0
        self._error: BaseException | None = None
        self._outgoing = bytearray()
        self._finished = True
        self._end_sent = True
        self._moved = asyncio.Event()
        self._sent = asyncio.Event()

    # -- what the forwarder calls ---------------------------------------------------

    async def head(self) -> None:
        while not self.status:
            await self._more()

    async def read(self) -> bytes:
        while not self._chunks:
            if self.complete:
                return b""
            await self._more()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        acknowledged, self._unacknowledged = self._unacknowledged, 0
        if self._connection is not None:
            self._connection.acknowledge(acknowledged, self.stream_id)
        return data

    async def continued(self) -> None:
        while not self.answered and self._error is None:
            self._moved.clear()
            await self._moved.wait()

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
            self._sent.clear()
            await self._sent.wait()
        if self._error is not None:
            raise self._error

    async def write(self, data: bytes) -> None:
        self.offer(data)
        await self.drain()

    @property
    def _blocked(self) -> bool:
        connection = self._connection
        return connection is not None and bool(self._outgoing or connection.write_paused)

    def finish(self) -> None:
        self._finished = True
        self.flush()

    def fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.acknowledge(self._unacknowledged, self.stream_id)
            connection.end(self, whole=self.complete and self._end_sent)
        self._wake()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        raise UpstreamProtocolError("a stream has no socket to hand over")

    # -- what the connection calls --------------------------------------------------

    def begin_body(self, body: bytes, *, more: bool) -> None:
        """Send what is at hand; ``more`` says whether ``write`` and ``finish`` follow."""
        self._outgoing += body
        self._finished = not more
        self._end_sent = False
        self.flush()

    def flush(self) -> None:
        """Send as much as the destination's windows take."""
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
            self._sent.set()

    def on_headers(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the head of an answer, final or informational."""
        headers = [(name, value) for name, value in pairs if name != b":status"]
        status = int(next(value for name, value in pairs if name == b":status"))
        self._heard()
        if status < 200:
            if self.on_informational is not None:
                self.on_informational(status, headers)
        elif status > 599:
            self._malformed(f"status {status} is not valid")
        elif sum(len(name) + len(value) + 4 for name, value in headers) > self._header_limit:
            self._malformed(f"the header is larger than {self._header_limit} bytes")
        else:
            self.headers = headers
            self.status = status

    def on_data(self, data: bytes, flow: int) -> None:
        """Take a piece of the body that took ``flow`` bytes of the window."""
        self._unacknowledged += flow
        self._buffered += len(data)
        if data:
            self._chunks.append(data)
        self._heard()

    def on_trailers(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the trailers."""
        self.trailers = list(pairs)
        self._heard()

    def on_end(self) -> None:
        """The answer is whole."""
        self.complete = True
        self._heard()

    def on_broken(self, reason: str, cause: Exception | None = None) -> None:
        """The stream or its connection is gone."""
        if not self.complete and self._error is None:
            failure = Failure.RESPONSE_BODY if self.status else Failure.RESPONSE_HEAD
            self._error = UpstreamDisconnected(f"the destination {reason}", failure=failure)
            self._error.__cause__ = cause
        self._connection = None
        self._wake()

    def on_malformed(self, reason: str) -> None:
        """The connection carries what is not HTTP/2."""
        if not self.complete:
            self._malformed(reason)

    # -- inside ---------------------------------------------------------------------

    def _malformed(self, reason: str) -> None:
        failure = Failure.RESPONSE_BODY if self.status else Failure.RESPONSE_MALFORMED
        self.fail(UpstreamProtocolError(f"malformed answer: {reason}", failure=failure))

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._moved.clear()
        await self._moved.wait()

    def _heard(self) -> None:
        self.answered = True
        self.last_activity = self._loop.time()
        self._moved.set()

    def _wake(self) -> None:
        self._moved.set()
        self._sent.set()
