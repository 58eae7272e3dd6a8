"""One keep-alive HTTP/1.1 connection of the demo's load, on h11.

httpx is not used: the gateway runs in the same process, so the CPU time of httpx would add to the
latencies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

import h11

_READ_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and headers of a response; names in lower case."""

    status: int
    headers: dict[str, str]


class HttpConnection:
    """Sends one request after another; opens a new connection when the last one is closed.

    Args:
        port: Port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._state = h11.Connection(h11.CLIENT)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: AsyncIterator[bytes] | None = None,
    ) -> ResponseHead:
        """Send a request and wait for the head of the response; then read ``body()``.

        Args:
            method: HTTP method.
            target: Path and query.
            headers: Headers besides ``host``; with a body they include its framing.
            body: Pieces of the body.

        Raises:
            OSError: The connection broke.
            h11.RemoteProtocolError: The response ended early, or is not HTTP.
        """
        if self._streams is None:
            self._state = h11.Connection(h11.CLIENT)
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        _, writer = self._streams
        request = h11.Request(
            method=method, target=target, headers=[("host", f"127.0.0.1:{self._port}"), *headers]
        )
        writer.write(self._state.send(request) or b"")
        head = asyncio.create_task(self._head(), name="demo load: response head")
        try:
            # The connection may close before the body is sent when the response is early (a 502).
            with contextlib.suppress(ConnectionError):
                async for data in _pieces(body):
                    if head.done():
                        break
                    writer.write(self._state.send(h11.Data(data)) or b"")
                    await writer.drain()
                else:
                    writer.write(self._state.send(h11.EndOfMessage()) or b"")
                    await writer.drain()
            return await head
        finally:
            head.cancel()

    async def _head(self) -> ResponseHead:
        """Wait for the head of the final response."""
        event = await self._next_event()
        while isinstance(event, h11.InformationalResponse):
            event = await self._next_event()
        assert isinstance(event, h11.Response)
        return ResponseHead(
            event.status_code, {name.decode(): value.decode() for name, value in event.headers}
        )

    async def body(self) -> AsyncIterator[bytes]:
        """Give the pieces of the response body as they arrive.

        Raises:
            OSError: The connection broke.
            h11.RemoteProtocolError: The body ended early.
        """
        while isinstance(event := await self._next_event(), h11.Data):
            yield bytes(event.data)
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
        else:
            self.close()

    async def read(self) -> bytes:
        """Give the whole response body; raises as ``body`` does."""
        return b"".join([data async for data in self.body()])

    def close(self) -> None:
        """Close the connection; the next request opens another. Idempotent."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        assert self._streams is not None
        while (event := self._state.next_event()) is h11.NEED_DATA:
            data = await self._streams[0].read(_READ_BYTES)
            if not data and self._state.their_state is h11.SEND_RESPONSE:
                raise ConnectionResetError("the connection closed without a response")
            self._state.receive_data(data)
        assert not isinstance(event, type) or event is h11.PAUSED
        return event


async def _pieces(body: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    """Give the pieces of a body, none if there is no body."""
    if body is not None:
        async for data in body:
            yield data
