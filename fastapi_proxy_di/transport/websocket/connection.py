"""One upstream WebSocket after its handshake: whole messages over a connected transport.

The file handles the socket, pings, backpressure on both sides and the closing handshake. Frames
are in ``codec``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from websockets.extensions.base import Extension

from fastapi_proxy_di.errors import ProxyError, UpstreamDisconnected, UpstreamTimeout
from fastapi_proxy_di.transport.read_buffer import read_buffer
from fastapi_proxy_di.transport.signal import wake
from fastapi_proxy_di.transport.websocket.codec import FrameCodec
from fastapi_proxy_di.wire.close import Close

__all__ = ["UpstreamWebSocket"]

# Received and not yet consumed: reading stops above the first and goes on below the second.
_HIGH_WATER_BYTES: Final = 64 * 1024
_LOW_WATER_BYTES: Final = 16 * 1024
# Memory of a message beside its payload (measured: an empty str 49, its slot in the deque 8),
# so that a flood of empty messages stops the reading too.
_MESSAGE_OVERHEAD_BYTES: Final = 64
# For the peer to close the connection, once our close frame is in the kernel.
_CLOSE_SECONDS: Final = 1.0
# For a peer that is too busy to read the data before our close frame.
_CLOSE_FLUSH_SECONDS: Final = 10.0


class UpstreamWebSocket(asyncio.BufferedProtocol):
    """The client's end of a WebSocket to a destination; takes over ``transport``.

    Args:
        transport: The connected transport, after a valid 101.
        leftover: Bytes that came with the 101, after its head.
        max_message_bytes: Longest message in bytes, received or sent; ``None`` is no limit.
            A longer one from the upstream ends the connection with 1009.
        extensions: The agreed compression; empty for none.
        ping_interval: Seconds without a byte from the upstream until a ping is sent; ``None``
            never pings.
        ping_timeout: Seconds for any byte after a ping; ``None`` waits forever.

    Attributes:
        max_message_bytes: Longest message in bytes, either way; ``None`` is no limit.
        close_code: The close code, once ``recv`` gave ``None``: the upstream's code, 1005 for
            its empty close frame, the code of our own close frame, or 1006 if the connection
            broke.
        close_reason: The reason in the close frame of ``close_code``.
        close_received: Whether a close frame of the upstream ended the WebSocket.
        error: Why the WebSocket ended without a close frame of the upstream; ``None`` if
            ``close_received`` or closed by us.
        received_messages: Number of messages from the upstream.
        received_bytes: Payload of these messages in bytes, uncompressed.
        sent_messages: Number of messages to the upstream.
        sent_bytes: Payload of these messages in bytes, uncompressed.
    """

    __slots__ = (
        "_closed",
        "_closed_waiter",
        "_codec",
        "_drain_waiter",
        "_ended",
        "_flush_until",
        "_heard_at",
        "_held_pong",
        "_loop",
        "_messages",
        "_ping_interval",
        "_ping_timeout",
        "_pinged_at",
        "_read_paused",
        "_recv_waiter",
        "_timer",
        "_transport",
        "_unread_bytes",
        "_view",
        "_write_paused",
        "close_code",
        "close_reason",
        "close_received",
        "error",
        "max_message_bytes",
        "received_bytes",
        "received_messages",
        "sent_bytes",
        "sent_messages",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        leftover: bytes = b"",
        *,
        max_message_bytes: int | None = None,
        extensions: Sequence[Extension] = (),
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
    ) -> None:
        self.max_message_bytes: int | None = max_message_bytes
        self.close_code: int = 1006
        self.close_reason: str = ""
        self.close_received: bool = False
        self.error: ProxyError | None = None
        self.received_messages: int = 0
        self.received_bytes: int = 0
        self.sent_messages: int = 0
        self.sent_bytes: int = 0

        self._codec = FrameCodec(max_message_bytes=max_message_bytes, extensions=extensions)
        self._messages: deque[str | bytes] = deque()
        self._unread_bytes = 0
        self._held_pong = b""
        self._ended = False
        self._closed = False
        self._read_paused = False
        self._write_paused = False
        self._recv_waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._closed_waiter: asyncio.Future[None] | None = None

        self._loop = asyncio.get_running_loop()
        self._view = read_buffer()
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._heard_at = self._loop.time()
        self._pinged_at: float | None = None
        self._flush_until = 0.0
        # One timer at a time: for pings, and later for the closing handshake.
        self._timer: asyncio.TimerHandle | None = None
        if ping_interval is not None:
            self._timer = self._loop.call_later(ping_interval, self._check_alive)

        self._transport = transport
        transport.set_protocol(self)
        if leftover:
            self._received(leftover)
        if not self._read_paused:
            # The exchange that read the 101 may have paused reading after its head.
            transport.resume_reading()

    # For the tunnel

    async def recv(self) -> str | bytes | None:
        """Give the next whole message, text as ``str``; ``None`` at the end.

        Messages that arrived whole before the end are given first.
        """
        while not self._messages:
            if self._ended:
                return None
            self._recv_waiter = self._loop.create_future()
            try:
                await self._recv_waiter
            finally:
                self._recv_waiter = None
        message = self._messages.popleft()
        # A text counts by its characters: only the order of size matters here.
        self._unread_bytes -= len(message) + _MESSAGE_OVERHEAD_BYTES
        if self._read_paused and self._unread_bytes <= _LOW_WATER_BYTES:
            self._resume_reading()
        return message

    async def send(self, data: str | bytes) -> None:
        """Send one message; waits while the upstream reads slowly.

        After the end, or after our close frame, data is dropped. The end itself is seen by
        ``recv``, after the messages that came before.
        """
        if self._ended:
            return
        frame, size = self._codec.message(data)
        self.sent_messages += 1
        self.sent_bytes += size
        self._transport.write(frame)
        while self._write_paused and not self._closed:
            self._drain_waiter = self._loop.create_future()
            try:
                await self._drain_waiter
            finally:
                self._drain_waiter = None

    def start_close(self, close: Close) -> None:
        """Send a close frame, drop later messages, and end within a bounded time.

        If the upstream does not end the connection, it is closed one second after our close
        frame was sent, at most ten seconds from now. Does nothing after the end.
        """
        if not self._ended:
            self._codec.close(close)
            self._end(1005 if close.code is None else close.code, close.reason)
            self._discard()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed; for one task at a time."""
        while not self._closed:
            self._closed_waiter = self._loop.create_future()
            try:
                await self._closed_waiter
            finally:
                self._closed_waiter = None

    async def close(self, close: Close) -> None:
        """Close with a handshake, in bounded time: ``start_close`` and ``wait_closed``."""
        self.start_close(close)
        await self.wait_closed()

    def abort(self) -> None:
        """Break the connection off without a close frame."""
        if not self._closed:
            self._end(1006, "")
            self._transport.abort()

    # For the transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give the buffer that the socket is read into."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Handle ``nbytes`` bytes that were read into the buffer."""
        # After a close frame, ours or theirs, only the end of the connection matters.
        if not self._ended:
            self._received(bytes(self._view[:nbytes]))

    def eof_received(self) -> None:
        """Handle an EOF; after a closing handshake the transport closes itself."""
        if not self._ended:
            # A WebSocket is never half-open, so buffered data is of no use.
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake all waiting tasks, because the connection is closed."""
        self._closed = True
        if not self._ended:
            self._end(
                1006, "upstream disconnected", UpstreamDisconnected("the WebSocket broke off")
            )
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake(self._drain_waiter)
        wake(self._closed_waiter)

    def pause_writing(self) -> None:
        """Make senders wait, because the transport's buffer is full."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Let senders go on, and send the pong that waited."""
        self._write_paused = False
        # The upstream has read bytes, so it is alive, even if it is too busy to send a pong.
        self._heard_at = self._loop.time()
        if self._held_pong:
            self._transport.write(self._held_pong)
            self._held_pong = b""
        wake(self._drain_waiter)

    def _received(self, data: bytes) -> None:
        """Turn received bytes into messages."""
        self._heard_at = self._loop.time()
        codec = self._codec
        messages = codec.receive(data)
        if messages:
            self._messages += messages
            self._unread_bytes += sum(map(len, messages)) + _MESSAGE_OVERHEAD_BYTES * len(messages)
            self.received_messages += len(messages)
            self.received_bytes = codec.received_bytes
            wake(self._recv_waiter)
        if codec.end is not None:
            self.close_received = codec.error is None
            code = codec.end.code
            self._end(1005 if code is None else code, codec.end.reason, codec.error)
            self._discard()
            return
        if not codec.plain and (writes := codec.to_send()):
            self._pong(writes)
        if self._unread_bytes > _HIGH_WATER_BYTES and not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def _pong(self, writes: list[bytes]) -> None:
        """Send pongs, or keep only the last one while the upstream does not read.

        RFC 6455 §5.5.3 allows a pong for only the latest ping. If all were kept, a peer that
        pings and never reads could fill our memory.
        """
        if self._write_paused:
            self._held_pong = writes[-1]
        else:
            self._transport.write(b"".join(writes))

    # The end

    def _end(self, code: int, reason: str, error: ProxyError | None = None) -> None:
        """Store the first close code and reason, and wake the receiver."""
        if self._ended:
            return
        self._ended = True
        self.close_code = code
        self.close_reason = reason
        self.error = error
        self._held_pong = b""
        wake(self._recv_waiter)

    def _discard(self) -> None:
        """Send the close frame of the codec, and wait for the upstream to end the connection.

        The server closes TCP first (RFC 6455 §7.1.1), so that its side holds TIME_WAIT and
        not ours, which would run out of ports.
        """
        self._transport.write(b"".join(self._codec.to_send()))
        if self._read_paused:
            self._resume_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._flush_until = self._loop.time() + _CLOSE_FLUSH_SECONDS
        self._timer = self._loop.call_later(_CLOSE_SECONDS, self._cut)

    def _cut(self) -> None:
        """Abort the connection if the upstream has not ended it in time."""
        if self._transport.get_write_buffer_size() and self._loop.time() < self._flush_until:
            self._timer = self._loop.call_later(_CLOSE_SECONDS, self._cut)
        else:
            self._timer = None
            self._transport.abort()

    def _check_alive(self) -> None:
        """Ping a silent upstream, and end a connection that stays silent; re-arms itself."""
        assert self._ping_interval is not None
        now = self._loop.time()
        if self._read_paused:
            # Reading is paused, so silence does not mean that the upstream is dead.
            self._heard_at = now
        if self._pinged_at is not None and self._heard_at >= self._pinged_at:
            self._pinged_at = None
        due = self._heard_at + self._ping_interval
        if due <= now:
            if self._pinged_at is None:
                self._codec.ping()
                self._transport.write(b"".join(self._codec.to_send()))
            due = now + self._ping_interval
            if self._ping_timeout is not None:
                self._pinged_at = self._pinged_at or now
                give_up_at = self._pinged_at + self._ping_timeout
                if give_up_at <= now:
                    self._timer = None
                    self._end(1006, "upstream ping timeout", UpstreamTimeout("no answer to a ping"))
                    self._transport.abort()
                    return
                due = min(due, give_up_at)
        self._timer = self._loop.call_at(due, self._check_alive)

    def _resume_reading(self) -> None:
        self._read_paused = False
        self._transport.resume_reading()
