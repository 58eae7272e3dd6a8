"""Upstreams that speak WebSocket frame by frame, after a handshake that is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence

from websockets.utils import accept_key

from tests.support.origins import Connection, Received, ScriptedOrigin
from tests.support.websocket_frames import CLOSE, frame, read_frame

__all__ = ["FramePeer", "FrameScript", "accepting", "frames_from", "until_left"]


class FramePeer:
    """The server's end of one WebSocket, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self) -> tuple[int, bytes]:
        """Read one frame: its opcode and unmasked payload."""
        received = await read_frame(self.reader)
        assert received.masked, "a client's frame must be masked"
        assert received.fin, "we send whole messages"
        return received.opcode, received.payload

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        """Send one frame."""
        self.writer.write(frame(opcode, payload, fin=fin))

    def reset(self) -> None:
        """Break the TCP connection off with RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


FrameScript = Callable[[FramePeer], Awaitable[None]]


def accepting(head: Received, headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """Build the 101 for a handshake."""
    key = head.one(b"sec-websocket-key")
    assert key is not None
    pairs = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", accept_key(key.decode()).encode()),
        *headers,
    ]
    lines = [b"HTTP/1.1 101 Switching Protocols", *(b"%s: %s" % pair for pair in pairs)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def frames_from(
    script: FrameScript,
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    leftover: bytes = b"",
) -> ScriptedOrigin:
    """Make an origin that accepts each handshake, then lets ``script`` speak in frames.

    Args:
        script: Runs after the handshake; it ends quietly when its peer leaves.
        headers: Of the 101.
        leftover: Bytes in the same packet as the 101.
    """

    async def run(connection: Connection) -> None:
        await connection.send(accepting(await connection.read_head(), headers) + leftover)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await script(FramePeer(connection.reader, connection.writer))

    return ScriptedOrigin(run)


async def until_left(peer: FramePeer) -> None:
    """Drop everything until the gateway closes the connection or breaks it off."""
    while (await peer.read())[0] != CLOSE:
        pass
