"""The protocol of transports, which send requests to one destination and read the responses.

Implementations: ``http1``, ``http2`` and ``asgi`` (apps of this process). ``websocket`` takes
over the socket of an HTTP/1.1 exchange after its 101. Transports raise the ``ProxyError`` tree
without upstream and destination, which the forwarder adds. They know no pools and no policies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fastapi_proxy_di.errors import ProxyError

if TYPE_CHECKING:
    from fastapi_proxy_di.wire.close import Close

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True, eq=False)
class Request:
    """A request as it leaves: validated, hop-by-hop free, framing decided.

    Attributes:
        method: As sent, e.g. ``b"GET"``.
        target: Origin form, percent-encoded: path and query.
        headers: Lower-case names, in order, with ``host`` and the framing header
            (``content-length`` or ``transfer-encoding: chunked``) among them.
        reuse_within: Seconds a reused connection may have been idle.
        content_length: Length of the body, ``None`` if unknown or there is none.
        chunked: The body goes in chunks.
        upgrade: A WebSocket handshake: 101 is a final response.
    """

    method: bytes
    target: bytes
    headers: Headers
    reuse_within: float
    content_length: int | None = None
    chunked: bool = False
    upgrade: bool = False


class TransportExchange(Protocol):
    """One request under way and its response. Ends with ``close``, whatever happened.

    Attributes:
        status: Final status, after ``head()``.
        headers: Lower-case names, in order, repeats kept, after ``head()``.
        reused: The connection had served before, so the destination may have closed
            it while the request was on its way.
        answered: At least one byte of the response has arrived.
        complete: The whole response has arrived; ``read()`` will not wait.
        last_activity: Loop time at which a byte last moved, either way.
        on_informational: Called with status and headers of each 1xx but 101.
    """

    status: int
    headers: Headers
    reused: bool
    answered: bool
    complete: bool
    last_activity: float
    on_informational: Callable[[int, Headers], None] | None

    def head(self) -> Awaitable[None]:
        """Wait for the final status and headers (101 is final)."""

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """After a 101: hand over the socket and what has been read past the head."""
        ...

    async def read(self) -> bytes:
        """Give the next piece of the body; ``b""`` at its end.

        Raises:
            ProxyError: The response broke off.
        """

    async def continued(self) -> None:
        """Wait until the destination asks for the body (100), responds, or breaks off."""

    @property
    def trailers(self) -> Headers:
        """Trailers, after ``read()`` gave ``b""``."""
        ...

    @property
    def stalled_by_reader(self) -> bool:
        """Whether the destination has to wait because the response is not read."""
        ...

    def offer(self, data: bytes) -> bool:
        """Send a piece of the request body; return false if ``drain`` is due before the next.

        Raises:
            ProxyError: The exchange broke off.
        """
        ...

    async def drain(self) -> None:
        """Wait while the destination reads slowly; raises as ``offer`` does."""

    async def write(self, data: bytes) -> None:
        """Send a piece of the request body and wait while the destination reads slowly."""

    def finish(self) -> None:
        """End the request body."""

    def fail(self, error: BaseException) -> None:
        """End the exchange; waiting calls, such as ``read`` and ``drain``, raise ``error``."""

    def close(self) -> None:
        """Give the connection back if the exchange ended cleanly, else close it."""


class OpenWebSocket(Protocol):
    """An upstream WebSocket past its handshake, whatever carries it.

    Attributes:
        max_message_bytes: Longest message in bytes, either way; ``None`` is no limit.
        close_code: How it ended, once ``recv`` gave ``None``: the upstream's code, 1005 for
            its empty close, the code we failed it with, or 1006 if it broke off.
        close_reason: The reason that came or went with it.
        error: Why it ended without a close of either side.
        received_messages: Count of messages from the upstream.
        received_bytes: Their payload.
        sent_messages: Count of messages to the upstream.
        sent_bytes: Their payload.
    """

    max_message_bytes: int | None
    close_code: int
    close_reason: str
    error: ProxyError | None
    received_messages: int
    received_bytes: int
    sent_messages: int
    sent_bytes: int

    async def recv(self) -> str | bytes | None:
        """Return the next whole message; ``None`` at the end, after all earlier messages."""

    async def send(self, data: str | bytes) -> None:
        """Send one message; waits while the upstream reads slowly. Drops it after the end."""

    def start_close(self, close: Close) -> None:
        """Start to close the WebSocket and drop later messages; do nothing if it has ended."""

    async def wait_closed(self) -> None:
        """Wait until the WebSocket is closed, which takes a bounded time after its end."""

    def abort(self) -> None:
        """End the WebSocket at once, without a close frame."""


@runtime_checkable
class OpensWebSocket(Protocol):
    """A `TransportExchange` without a socket: after its 101 it gives the WebSocket itself."""

    def websocket(self, *, max_message_bytes: int | None) -> OpenWebSocket:
        """Return the WebSocket that the 101 opened; takes the place of ``detach``."""
        ...


class Transport(Protocol):
    """Sends requests to one destination."""

    def reuse(self, request: Request, body: bytes, *, more: bool) -> TransportExchange | None:
        """Like ``start``, at once, on a connection that is at hand; ``None`` if none is."""
        ...

    async def start(self, request: Request, body: bytes, *, more: bool) -> TransportExchange:
        """Connect, then send the head and what is at hand of the body.

        Args:
            request: The request head.
            body: First piece of the body, ``b""`` if none is at hand.
            more: Whether ``write`` and ``finish`` follow.

        Raises:
            UpstreamConnectError: No connection.
            UpstreamTimeout: No connection in time.
            LocalResourcesExhausted: No socket of our own.
        """
        ...

    async def probe(self) -> None:
        """Connect and close again; raises as ``start`` does."""

    async def aclose(self) -> None:
        """Close idle connections and break those in use."""
