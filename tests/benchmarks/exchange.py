"""One HTTP request of the load generator, by hand on an asyncio protocol.

Counts the received bytes and keeps none of them.
"""

import asyncio
import time
from typing import Final, cast

import httptools

from tests.benchmarks.wire_format import EVENT_BYTES, event_stamp

_WRITE_BYTES: Final = 256 * 1024


class HttpExchange(asyncio.Protocol):
    """One HTTP request on a connection of its own; `finished` resolves when the response has ended.

    Args:
        head: Request line and header block.
        upload_bytes: Size of the body that follows it.
        events: Whether the response is read as timestamped events.
    """

    def __init__(self, head: bytes, *, upload_bytes: int = 0, events: bool = False) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.body_bytes = 0
        self.small_body = b""
        self.delays_ms: list[float] = []
        self._head = head
        self._unsent = upload_bytes
        self._events = events
        self._partial = b""
        self._parser = httptools.HttpResponseParser(self)
        self._writable = True
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request head."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._head)
        self._send()

    def pause_writing(self) -> None:
        """Stop the upload until the socket has room."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on with the upload."""
        self._writable = True
        self._send()

    def _send(self) -> None:
        while self._writable and self._unsent > 0:
            size = min(_WRITE_BYTES, self._unsent)
            self._unsent -= size
            self._transport.write(bytes(size))

    def data_received(self, data: bytes) -> None:
        """Feed the received bytes to the parser."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_body(self, body: bytes) -> None:
        """Count the body; the parser calls it."""
        self.body_bytes += len(body)
        if self._events:
            self._read_events(body)
        elif self.body_bytes < 64:
            self.small_body += body

    def _read_events(self, body: bytes) -> None:
        now = time.monotonic_ns()
        data = self._partial + body
        complete = len(data) - len(data) % EVENT_BYTES
        for start in range(0, complete, EVENT_BYTES):
            stamp = event_stamp(data[start : start + EVENT_BYTES])
            self.delays_ms.append((now - stamp) / 1e6)
        self._partial = data[complete:]

    def on_message_complete(self) -> None:
        """Resolve `finished`; the parser calls it."""
        status = self._parser.get_status_code()
        if status != 200:
            self._fail(OSError(f"status {status}"))
        elif not self.finished.done():
            self.finished.set_result(None)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail everything that is still waited for."""
        self._fail(exc or OSError("connection closed before the end"))

    def _fail(self, error: Exception) -> None:
        if not self.finished.done():
            self.finished.set_exception(error)
        self._transport.abort()
