"""Builds and reads WebSocket frames as bytes (RFC 6455 section 5.2), for peers of tests."""

from __future__ import annotations

import os
import struct
from typing import Final, NamedTuple, Protocol

__all__ = [
    "BINARY",
    "CLOSE",
    "CONT",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "frame",
    "read_frame",
    "split_frame",
]

CONT: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10


class Frame(NamedTuple):
    """One frame, unmasked.

    Attributes:
        opcode: What it is.
        payload: Its payload.
        fin: Whether it is the last fragment.
        masked: Whether it came masked, as a client's must.
        compressed: Whether RSV1 is set (RFC 7692).
    """

    opcode: int
    payload: bytes
    fin: bool
    masked: bool
    compressed: bool


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    masked: bool = False,
    compressed: bool = False,
) -> bytes:
    """Build a frame as a server sends it, or a masked one as a client does.

    Args:
        opcode: What it is.
        payload: Its payload; of a compressed message, the compressed bytes.
        fin: Whether it is the last fragment.
        masked: Whether to mask it.
        compressed: Sets RSV1 (RFC 7692).
    """
    size = len(payload)
    mask_bit = 0x80 if masked else 0
    if size < 126:
        length = bytes([size | mask_bit])
    elif size < 65536:
        length = struct.pack("!BH", 126 | mask_bit, size)
    else:
        length = struct.pack("!BQ", 127 | mask_bit, size)
    head = bytes([opcode | (0x80 if fin else 0) | (0x40 if compressed else 0)]) + length
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + _xor(payload, mask)


class _Reader(Protocol):
    async def readexactly(self, n: int) -> bytes: ...


class _Bytes:
    """Bytes with the method of ``asyncio.StreamReader`` that a frame is read by."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    async def readexactly(self, n: int) -> bytes:
        data, self.left = self.left[:n], self.left[n:]
        assert len(data) == n, "the frame is not whole"
        return data


def split_frame(data: bytes) -> tuple[Frame, bytes]:
    """Read one frame at the beginning of ``data``; give the bytes after it as well."""
    rest = _Bytes(data)
    try:
        read_frame(rest).send(None)
    except StopIteration as done:
        return done.value, rest.left
    raise AssertionError  # pragma: no cover - bytes are never waited for


async def read_frame(reader: _Reader) -> Frame:
    """Read one frame.

    Raises:
        asyncio.IncompleteReadError: The connection ended.
    """
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    masked = bool(second & 0x80)
    mask = await reader.readexactly(4) if masked else b""
    payload = await reader.readexactly(size)
    return Frame(
        opcode=first & 0x0F,
        payload=_xor(payload, mask) if masked else payload,
        fin=bool(first & 0x80),
        masked=masked,
        compressed=bool(first & 0x40),
    )


def _xor(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask by one large integer, because a loop over bytes takes seconds at 20 MiB."""
    size = len(payload)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(pattern)).to_bytes(size)
