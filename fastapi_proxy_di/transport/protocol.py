"""The protocol of transports, which send requests to one destination and read the responses.

Implementations: ``http1``, ``http2`` and ``asgi`` (apps of this process). ``websocket`` takes
over the socket of an HTTP/1.1 exchange after its 101. Transports raise the ``ProxyError`` tree
without upstream and destination, which the forwarder adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fastapi_proxy_di.errors import ProxyError

if TYPE_CHECKING:
    from fastapi_proxy_di.settings import LimitSettings, TimeoutSettings
    from fastapi_proxy_di.wire.close import Close

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True, eq=False)
class OutgoingRequest:
    """A request to send: validated, without hop-by-hop headers, with its framing.

    Attributes:
        method: The method, e.g. ``b"GET"``.
        target: Path and query in origin form, percent-encoded.
        headers: The headers in order, names in lower case, with ``host`` and the framing
            header (``content-length`` or ``transfer-encoding: chunked``) among them.
        reuse_within: Seconds a reused connection may have been idle.
        content_length: Length of the body, ``None`` if unknown or if there is no body.
        chunked: Whether the body is sent in chunks.
        upgrade: Whether this is a WebSocket handshake, for which 101 is a final response.
    """

    method: bytes
    target: bytes
    headers: Headers
    reuse_within: float
    content_length: int | None = None
    chunked: bool = False
    upgrade: bool = False


class TransportExchange(Protocol):
    """One request under way and its response; must be ended with ``close``.

    Attributes:
        status: The final status, after ``head()``.
        headers: The response headers, after ``head()``: in order, repeats kept, names in
            lower case.
        reused: Whether the connection had served before, so that the destination may have
            closed it while the request was sent.
        answered: Whether at least one byte of the response has arrived.
        complete: Whether the whole response has arrived, so that ``read()`` does not wait.
        last_activity: Loop time at which a byte was last sent or received.
        on_informational: Called with status and headers of each 1xx except 101.
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
        """Hand over the socket after a 101, with the bytes that were read after the head."""
        ...

    async def read(self) -> bytes:
        """Give the next piece of the body; ``b""`` at its end.

        Raises:
            ProxyError: The response broke off.
        """

    def unread(self, data: bytes) -> None:
        """Put back what ``read`` has given, in front of what is not read yet."""

    async def continued(self) -> None:
        """Wait until the destination asks for the body (100), responds, or breaks off."""

    @property
    def trailers(self) -> Headers:
        """The trailers, after ``read()`` gave ``b""``."""
        ...

    @property
    def stalled_by_reader(self) -> bool:
        """Whether the destination has to wait because the response is not read."""
        ...

    def offer(self, data: bytes) -> bool:
        """Send a piece of the request body; return false if ``drain`` must come before the next.

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
        close_code: The close code, once ``recv`` gave ``None``: the upstream's code, 1005 for
            its empty close frame, the code of our own close frame, or 1006 if the connection
            broke.
        close_reason: The reason in the close frame of ``close_code``.
        error: Why the WebSocket ended without a close frame of either side.
        received_messages: Number of messages from the upstream.
        received_bytes: Payload of these messages in bytes.
        sent_messages: Number of messages to the upstream.
        sent_bytes: Payload of these messages in bytes.
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
    """A `TransportExchange` without a socket, which gives the WebSocket itself after its 101."""

    def websocket(self, *, max_message_bytes: int | None) -> OpenWebSocket:
        """Return the WebSocket that the 101 opened; used instead of ``detach``."""
        ...


class Transport(Protocol):
    """Sends requests to one destination."""

    @property
    def connections(self) -> int:
        """Number of open connections, idle or in use; without those that tunnels took over."""
        ...

    @property
    def idle(self) -> int:
        """Number of idle connections."""
        ...

    @property
    def dialling(self) -> bool:
        """Whether a connection is being opened, which is not among ``connections`` yet."""
        ...

    def reuse(
        self, request: OutgoingRequest, body: bytes, *, more: bool
    ) -> TransportExchange | None:
        """Start a request at once on an idle connection; ``None`` if there is none."""
        ...

    async def start(
        self, request: OutgoingRequest, body: bytes, *, more: bool
    ) -> TransportExchange:
        """Connect, then send the head and the first piece of the body.

        Args:
            request: The request head.
            body: The first piece of the body, ``b""`` if none has arrived yet.
            more: Whether ``write`` and ``finish`` follow.

        Raises:
            UpstreamConnectError: No connection.
            UpstreamTimeout: No connection in time.
            LocalResourcesExhausted: No socket of our own.
        """
        ...

    async def probe(self) -> None:
        """Open a connection and close it; raises as ``start`` does."""

    def configure(
        self, limits: LimitSettings, timeouts: TimeoutSettings, *, title_case: bool
    ) -> None:
        """Go by other settings from now on; open connections stay.

        Args:
            limits: The limits of idle connections and of the size of a response's head.
            timeouts: The timeouts of dials, and of pings of new connections.
            title_case: Whether header names are sent as ``Content-Length``, not in lower case.
        """

    def retire(self) -> None:
        """Close idle connections; those in use are closed when they become idle."""

    async def aclose(self) -> None:
        """Close idle connections, and break off the connections in use."""
