"""Opening an upstream WebSocket by hand, and upstreams that speak it frame by frame.

Owns what tests of the WebSocket transport and tunnel share. Knows nothing of our HTTP
engine: the upgrade request is written here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

from fastapi_proxy_di.transport.websocket.connection import UpstreamWebSocket
from fastapi_proxy_di.wire.handshake import (
    Accepted,
    accept_for,
    check_accept,
    new_key,
    upgrade_headers,
)

__all__ = ["FramePeer", "dial", "eventually", "frame", "frame_server"]


class _Head(asyncio.Protocol):
    """Reads the head of the answer and keeps what came behind it."""

    def __init__(self) -> None:
        self.received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by inheritance.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if b"\r\n\r\n" in self.received:  # pragma: no branch
            assert self.transport is not None
            self.transport.pause_reading()
            self.done.set_result(None)


async def dial(
    host: str,
    port: int,
    *,
    offered: Sequence[str] = (),
    compression: bool = False,
    **options: Any,
) -> tuple[UpstreamWebSocket, Accepted]:
    """Open a WebSocket with a request written by hand.

    Args:
        host: Address of the upstream.
        port: Its port.
        offered: Subprotocols to offer.
        compression: Whether to offer permessage-deflate.
        **options: More for ``UpstreamWebSocket``.
    """
    transport, head = await asyncio.get_running_loop().create_connection(_Head, host, port)
    key = new_key()
    fields = [(b"host", b"upstream.test"), *upgrade_headers(key, offered, compression=compression)]
    transport.write(
        b"GET / HTTP/1.1\r\n" + b"".join(b"%s: %s\r\n" % pair for pair in fields) + b"\r\n"
    )
    await head.done
    raw, _, leftover = head.received.partition(b"\r\n\r\n")
    status, *lines = raw.split(b"\r\n")
    pairs = [line.partition(b":")[::2] for line in lines]
    accepted = check_accept(
        int(status.split(b" ")[1]),
        [(name.lower(), value.strip()) for name, value in pairs],
        key,
        offered,
        compression=compression,
    )
    options.setdefault("ping_interval", None)
    return UpstreamWebSocket(transport, leftover, deflate=accepted.deflate, **options), accepted


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Build an unmasked frame, as a server sends it."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 65536:
        length = b"\x7e" + struct.pack("!H", size)
    else:
        length = b"\x7f" + struct.pack("!Q", size)
    return bytes([opcode | (0x80 if fin else 0)]) + length + payload


class FramePeer:
    """The server's end of one WebSocket, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def accept(self, leftover: bytes = b"") -> None:
        """Read the upgrade request and answer it, with ``leftover`` in the same packet."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        self.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-accept: "
            + accept_for(fields[b"sec-websocket-key"])
            + b"\r\n\r\n"
            + leftover
        )

    async def read(self) -> tuple[int, bytes]:
        """Read one frame: its opcode and unmasked payload."""
        first, second = await self.reader.readexactly(2)
        assert second & 0x80, "a client's frame must be masked"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        mask = await self.reader.readexactly(4)
        masked = await self.reader.readexactly(size)
        assert first & 0x80, "we send whole messages"
        pattern = (mask * (size // 4 + 1))[:size]
        payload = int.from_bytes(masked) ^ int.from_bytes(pattern)
        return first & 0x0F, payload.to_bytes(size)

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        """Send one frame."""
        self.writer.write(frame(opcode, payload, fin=fin))

    def reset(self) -> None:
        """Break the TCP connection off with RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def frame_server(
    script: Callable[[FramePeer], Awaitable[None]], leftover: bytes = b""
) -> AsyncIterator[tuple[str, int]]:
    """Serve connections with a script, which runs after the handshake.

    A script that fails lets the test fail; one that waits for a peer that left ends.

    Yields:
        Host and port.
    """
    tasks: list[asyncio.Task[Any]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(cast("asyncio.Task[Any]", asyncio.current_task()))
        peer = FramePeer(reader, writer)
        try:
            await peer.accept(leftover)
            await script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
