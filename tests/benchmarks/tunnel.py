"""One WebSocket of the load generator, by hand on an asyncio protocol.

Sends one fixed message and compares its echo byte by byte.
"""

import asyncio
import time
from typing import Final, cast

from tests.benchmarks.wire_format import MESSAGE_BYTES

_MASK: Final = b"\x12\x34\x56\x78"
_TEXT: Final = b"m" * MESSAGE_BYTES
_ECHOED: Final = b"\x81\x7e" + MESSAGE_BYTES.to_bytes(2, "big") + _TEXT


def _masked(first_byte: int, payload: bytes) -> bytes:
    """A client frame (RFC 6455 5.2); the payload is at most 65,535 bytes long."""
    size = len(payload)
    if size > 125:
        head = bytes((first_byte, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first_byte, 0x80 | size))
    mask = _MASK * (size // 4 + 1)
    return head + _MASK + bytes(a ^ b for a, b in zip(payload, mask, strict=False))


_MESSAGE: Final = _masked(0x81, _TEXT)


class Tunnel(asyncio.Protocol):
    """One WebSocket that echoes in lock step, and responds to pings.

    Args:
        head: The handshake request.
        latencies_ms: Receives the round-trip time of each message.
    """

    def __init__(self, head: bytes, latencies_ms: list[float]) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.echoed: asyncio.Future[None] = loop.create_future()
        self.broken = False
        self.repeat = False
        self._head = head
        self._latencies_ms = latencies_ms
        self._sent_at = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request head."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._head)

    def send(self) -> None:
        """Send one message; the next follows its echo while `repeat` is set."""
        self._sent_at = time.perf_counter()
        self._transport.write(_MESSAGE)

    def data_received(self, data: bytes) -> None:
        """Handle received bytes."""
        self._buffer += data
        if not self.opened.done():
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._break(f"handshake got {head[:40]!r}")
                return
            self._buffer = rest
            self.opened.set_result(None)
        while self._next_frame():
            pass

    def _next_frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        if buffer[0] == 0x81:
            if len(buffer) < len(_ECHOED):
                return False
            if not buffer.startswith(_ECHOED):
                self._break("not an echo")
                return False
            self._buffer = buffer[len(_ECHOED) :]
            self._echoed()
            return True
        end = 2 + (buffer[1] & 0x7F)
        if len(buffer) < end:
            return False
        if buffer[0] != 0x89:
            self._break(f"unexpected frame {buffer[:8]!r}")
            return False
        self._transport.write(_masked(0x8A, buffer[2:end]))
        self._buffer = buffer[end:]
        return True

    def _echoed(self) -> None:
        self._latencies_ms.append((time.perf_counter() - self._sent_at) * 1e3)
        if self.repeat:
            self.send()
        elif not self.echoed.done():
            self.echoed.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail everything that is still waited for."""
        self._break("connection lost")

    def _break(self, reason: str) -> None:
        self.broken = True
        for future in (self.opened, self.echoed):
            if not future.done():
                future.set_exception(OSError(reason))
                # Retrieved at once, because no one may wait for one of them.
                future.exception()
        self._transport.abort()
