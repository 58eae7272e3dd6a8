"""A raw HTTP/1.1 client: sends exact bytes, and shows the received bytes.

Unlike a real client it shows everything: repeats and order of headers, the chunks, and whether the
transfer ended cleanly or broke off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

__all__ = ["Client", "Ending", "RawResponse", "connect", "fetch", "request"]

_DEADLINE_SECONDS: Final = 10.0
_LIMIT_BYTES: Final = 1 << 20


class Ending(Enum):
    """How a response ended."""

    NO_BODY = "no body"
    LENGTH = "full length"
    LAST_CHUNK = "last chunk"
    CLOSE = "close of an unframed body"
    BROKEN = "broken off"


@dataclass(slots=True)
class RawResponse:
    """One response exactly as received.

    Attributes:
        status: Status code.
        reason: Reason phrase.
        headers: Pairs in order, names in their original case.
        body: The body without its framing, as far as it came.
        chunks: The chunks, if it came chunked.
        trailers: Names and values.
        ending: How it ended.
        informational: The 1xx responses before it.
    """

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    ending: Ending = Ending.BROKEN
    informational: list[RawResponse] = field(default_factory=list)

    def all(self, name: bytes) -> list[bytes]:
        """Values of every header of that name, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: bytes) -> bytes | None:
        """The value of a header that may occur only once."""
        values = self.all(name)
        assert len(values) <= 1, f"{name!r} occurs {len(values)} times"
        return values[0] if values else None

    @property
    def names(self) -> list[bytes]:
        """Lower-case names in order."""
        return [key.lower() for key, _ in self.headers]

    @property
    def whole(self) -> bool:
        """Whether the client can tell that the response is complete."""
        return self.ending not in (Ending.BROKEN, Ending.CLOSE)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def _pairs(lines: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


class Client:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send exact bytes."""
        self.writer.write(data)
        async with asyncio.timeout(_DEADLINE_SECONDS):
            await self.writer.drain()

    async def read_head(self) -> RawResponse:
        """Read one head, informational or final.

        Raises:
            EOFError: The server closed before it was whole.
        """
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("closed before a response") from error
        status_line, *lines = head[:-4].split(b"\r\n")
        _, status, *reason = status_line.split(b" ", 2)
        return RawResponse(int(status), reason[0] if reason else b"", _pairs(lines))

    async def read_chunk(self) -> bytes:
        """Read one chunk; ``b""`` is the last one.

        Raises:
            EOFError: The transfer broke off.
        """
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                if size == 0:
                    return b""
                data = await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
                return data
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("broken off") from error

    async def _read_chunked(self, received: RawResponse) -> None:
        with contextlib.suppress(EOFError, asyncio.IncompleteReadError):
            while data := await self.read_chunk():
                received.chunks.append(data)
            lines = []
            while line := (await self.reader.readuntil(b"\r\n"))[:-2]:
                lines.append(line)
            received.trailers = _pairs(lines)
            received.ending = Ending.LAST_CHUNK
        received.body = b"".join(received.chunks)

    async def _read_up_to(self, length: int | None) -> bytes:
        pieces: list[bytes] = []
        with contextlib.suppress(ConnectionError):
            while length is None or length > 0:
                async with asyncio.timeout(_DEADLINE_SECONDS):
                    piece = await self.reader.read(min(length or _LIMIT_BYTES, _LIMIT_BYTES))
                if not piece:
                    break
                pieces.append(piece)
                if length is not None:
                    length -= len(piece)
        return b"".join(pieces)

    async def read_body(self, received: RawResponse, method: str = "GET") -> RawResponse:
        """Read the body of a response whose head was read; never raises for a broken one."""
        length = received.one(b"content-length")
        if method == "HEAD" or received.status in (204, 304):
            received.ending = Ending.NO_BODY
        elif received.one(b"transfer-encoding") == b"chunked":
            await self._read_chunked(received)
        elif length is not None:
            received.body = await self._read_up_to(int(length))
            if len(received.body) == int(length):
                received.ending = Ending.LENGTH
        else:
            received.body = await self._read_up_to(None)
            received.ending = Ending.CLOSE
        return received

    async def read_response(self, method: str = "GET") -> RawResponse:
        """Read one response to its end, with the informational ones before it.

        Args:
            method: Method of the request: a response to HEAD has no body.

        Raises:
            EOFError: The server closed before the head was whole.
        """
        informational = []
        received = await self.read_head()
        while received.status < 200 and received.status != 101:
            informational.append(received)
            received = await self.read_head()
        received.informational = informational
        return await self.read_body(received, method)

    async def at_end(self) -> bool:
        """Whether the server closes the connection without sending anything more."""
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        """Close in order (FIN)."""
        self.writer.close()

    def reset(self) -> None:
        """Break the connection with a RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connect(address: tuple[str, int]) -> AsyncIterator[Client]:
    """Open one connection, closed at the end."""
    reader, writer = await asyncio.open_connection(*address, limit=_LIMIT_BYTES)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        client.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request(
    method: str = "GET",
    target: str | bytes = "/",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes | None = None,
    *,
    host: bytes = b"gateway.test",
) -> bytes:
    """Build the bytes of a request: Host, the headers, and the length of a body."""
    raw_target = target.encode("latin-1") if isinstance(target, str) else target
    lines = [b"%s %s HTTP/1.1" % (method.encode(), raw_target), b"Host: " + host]
    lines += [name + b": " + value for name, value in headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


async def fetch(
    address: tuple[str, int],
    method: str = "GET",
    target: str | bytes = "/",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes | None = None,
    *,
    host: bytes = b"gateway.test",
) -> RawResponse:
    """Send one request over a connection of its own and read the response to its end."""
    async with connect(address) as client:
        await client.send(request(method, target, headers, body, host=host))
        return await client.read_response(method)
