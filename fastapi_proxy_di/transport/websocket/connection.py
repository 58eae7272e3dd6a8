"""One upstream WebSocket after its handshake: whole messages over a connected transport.

Owns the socket, pings, backpressure on both sides and the closing handshake. Frames are
``codec``'s. Knows no pools, no ASGI and nothing of the client's side.
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
# What a message weighs beside its payload (measured: an empty str 49, its slot in the deque
# 8), so that a flood of empty ones stops the reading too.
_MESSAGE_OVERHEAD_BYTES: Final = 64
# For the peer's close frame and its end of the connection, once ours is with the kernel.
_CLOSE_SECONDS: Final = 1.0
# For a peer too busy to take the data that stands before our close frame.
_CLOSE_FLUSH_SECONDS: Final = 10.0


class UpstreamWebSocket(asyncio.BufferedProtocol):
    """The client's end of a WebSocket to a destination. Takes over ``transport``.

    Args:
        transport: Connected, and past a valid 101.
        leftover: Bytes that came with the 101, after its head.
        max_message_bytes: Longest message in bytes, received or sent; ``None`` is no limit.
            A longer one from the upstream ends the connection with 1009.
        extensions: Agreed compression, empty without.
        ping_interval: Seconds without a byte from the upstream after which it is pinged;
            ``None`` never pings.
        ping_timeout: Seconds for any byte after a ping; ``None`` waits forever.

    Attributes:
        max_message_bytes: Longest message in bytes, either way; ``None`` is no limit.
        close_code: How it ended, once ``recv`` gave ``None``: the upstream's code, 1005 for
            its empty close, the code we failed it with, or 1006 if it broke off.
        close_reason: The reason that came or went with it.
        close_received: A close frame of the upstream ended it.
        error: Why it ended without one; ``None`` if ``close_received`` or closed by us.
        received_messages: Count of messages from the upstream.
        received_bytes: Their payload, uncompressed.
        sent_messages: Count of messages to the upstream.
        sent_bytes: Their payload, uncompressed.
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
        # One timer at a time: the pings' until the closing handshake starts, then its own.
        self._timer: asyncio.TimerHandle | None = None
        if ping_interval is not None:
            self._timer = self._loop.call_later(ping_interval, self._check_alive)

        self._transport = transport
        transport.set_protocol(self)
        if leftover:
            self._received(leftover)
        if not self._read_paused:
            # The exchange that read the 101 may have stopped behind its head.
            transport.resume_reading()

    # For the tunnel

    async def recv(self) -> str | bytes | None:
        """Give the next whole message, text as ``str``; ``None`` at the end.

        Whatever had arrived whole before the end is given first.
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
        # A text weighs as many characters as it has: only its order of size matters here.
        self._unread_bytes -= len(message) + _MESSAGE_OVERHEAD_BYTES
        if self._read_paused and self._unread_bytes <= _LOW_WATER_BYTES:
            self._resume_reading()
        return message

    async def send(self, data: str | bytes) -> None:
        """Send one message; waits while the upstream reads slowly.

        After the end, or behind our close frame, data is dropped: ``recv`` tells how it
        ended, after the messages that came before.
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
        """Send a close frame, drop what still comes, and end within a bounded time.

        Without an end from the upstream the connection is cut one second after our close
        frame has left, at most ten seconds from now. Does nothing once it has ended.
        """
        if not self._ended:
            self._codec.close(close)
            self._end(1005 if close.code is None else close.code, close.reason)
            self._discard()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone. For one task at a time."""
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
        """Give the buffer to read into."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has been read."""
        # Behind our close frame or theirs only the end of the connection matters.
        if not self._ended:
            self._received(bytes(self._view[:nbytes]))

    def eof_received(self) -> None:
        """Take the upstream's end; after a closing handshake the transport closes itself."""
        if not self._ended:
            # WebSocket knows no half-open connection: what is buffered cannot arrive.
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everybody who waits: nothing more can come or go."""
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
        """Stop senders: the transport's buffer is full."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Let senders go on, and send the pong that waited."""
        self._write_paused = False
        # The upstream has taken bytes, so it lives, though it may be too busy to send a pong.
        self._heard_at = self._loop.time()
        if self._held_pong:
            self._transport.write(self._held_pong)
            self._held_pong = b""
        wake(self._drain_waiter)

    def _received(self, data: bytes) -> None:
        """Turn bytes into messages."""
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
        """Send pongs, or keep the last one while the upstream does not read.

        RFC 6455 §5.5.3 allows to answer only the latest ping; keeping them all would let a
        peer that pings and never reads fill our memory.
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
        """Send the close frame at hand and wait for the upstream to end the connection.

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
        """End a closing handshake that the upstream leaves open."""
        if self._transport.get_write_buffer_size() and self._loop.time() < self._flush_until:
            self._timer = self._loop.call_later(_CLOSE_SECONDS, self._cut)
        else:
            self._timer = None
            self._transport.abort()

    def _check_alive(self) -> None:
        """Ping a silent upstream, end one that stays silent; re-arms itself."""
        assert self._ping_interval is not None
        now = self._loop.time()
        if self._read_paused:
            # We do not listen, so silence says nothing.
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
