"""Scripted origins: raw sockets that send exact bytes, or fail as real ones do.

A test gives a coroutine that talks to one connection. The origin records everything that reached
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

__all__ = [
    "Connection",
    "Headers",
    "PeerLeft",
    "Received",
    "Script",
    "ScriptedOrigin",
    "always",
    "chunk",
    "echo",
    "response_bytes",
]

Headers = list[tuple[bytes, bytes]]
_DEADLINE_SECONDS: Final = 10.0


class PeerLeft(Exception):
    """The peer closed the connection while the script waited for bytes; ends the script quietly."""


@dataclass(slots=True)
class Received:
    """One request exactly as received.

    Attributes:
        head: Raw bytes of the head, with the empty line at its end.
        method: Method token.
        target: Raw request target.
        headers: Pairs in order, names in their original case.
        body: The body without its framing.
        chunks: Sizes of the chunks, if it came chunked.
        complete: The body arrived to its end.
    """

    head: bytes
    method: bytes
    target: bytes
    headers: Headers
    body: bytes = b""
    chunks: list[int] = field(default_factory=list)
    complete: bool = False

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
    def chunked(self) -> bool:
        """Whether the body was chunked."""
        return self.one(b"transfer-encoding") == b"chunked"


class Connection:
    """One accepted connection, which a script uses."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        requests: list[Received],
        number: int,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number
        self._requests = requests

    async def read_head(self) -> Received:
        """Read and record the head of a request; ``read_body`` reads its body.

        Raises:
            PeerLeft: The connection ended before it was whole.
        """
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise PeerLeft from error
        request_line, *lines = head[:-4].split(b"\r\n")
        method, target, _ = request_line.split(b" ")
        pairs = [(name, value.strip()) for name, _, value in (s.partition(b":") for s in lines)]
        received = Received(head, method, target, pairs)
        self._requests.append(received)
        return received

    async def read_body(self, received: Received) -> bytes:
        """Read and record the body, with any framing.

        Raises:
            PeerLeft: The connection ended before it was whole.
        """
        try:
            pieces: list[bytes] = []
            if received.chunked:
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    received.chunks.append(size)
                    pieces.append(await self.reader.readexactly(size))
                    assert await self.reader.readexactly(2) == b"\r\n"
                while await self.reader.readuntil(b"\r\n") != b"\r\n":
                    pass
            elif length := int(received.one(b"content-length") or 0):
                while length:
                    piece = await self.reader.read(min(length, 1 << 20))
                    if not piece:
                        raise PeerLeft
                    pieces.append(piece)
                    length -= len(piece)
            received.body = b"".join(pieces)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise PeerLeft from error
        received.complete = True
        return received.body

    async def read_request(self) -> Received:
        """Read and record one whole request.

        Raises:
            PeerLeft: The connection ended before it was whole.
        """
        received = await self.read_head()
        await self.read_body(received)
        return received

    async def send(self, data: bytes) -> None:
        """Send exact bytes and wait until the transport has taken them."""
        self.writer.write(data)
        try:
            await self.writer.drain()
        except ConnectionError as error:
            raise PeerLeft from error

    async def peer_left(self) -> None:
        """Wait until the peer has closed or reset the connection; drop bytes that arrive."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    def close(self) -> None:
        """Close in order (FIN)."""
        self.writer.close()

    def reset(self) -> None:
        """Break the connection with a RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Connection], Awaitable[None]]


class ScriptedOrigin:
    """A listening origin; every connection runs the script once.

    Args:
        script: What to do with a connection; by default 200 with ``ok`` for ever.
        unix_path: Listen there instead of on a port of 127.0.0.1.
        tls: Context for TLS.
        port: Port of 127.0.0.1 to listen on, 0 for any.

    Attributes:
        requests: Everything that came in, in order of arrival.
        connections: Number of connections accepted.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        unix_path: str | None = None,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.port = port
        self._script = script or always(response_bytes(body=b"ok"))
        self._unix_path = unix_path
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []
        self._server: asyncio.Server | None = None
        self._ended = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port for a client."""
        return ("127.0.0.1", self.port)

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address of the origin as a destination."""
        if self._unix_path is not None:
            return "http+unix://" + self._unix_path.replace("/", "%2F")
        return f"{'https' if self._tls else 'http'}://{self.authority}"

    @property
    def request(self) -> Received:
        """The only request that was received."""
        assert len(self.requests) == 1, f"{len(self.requests)} requests came in"
        return self.requests[0]

    @property
    def open_connections(self) -> int:
        """Connections whose script still runs."""
        return len(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = Connection(reader, writer, self.requests, self.connections)
        try:
            await self._script(connection)
        except PeerLeft:
            pass
        except Exception as error:
            self._errors.append(error)
        finally:
            writer.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._ended:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="origin connection")
        self._tasks.add(task)

        def done(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            # A task that is cancelled before its first step never reaches its own ``finally``.
            writer.close()

        task.add_done_callback(done)

    async def all_left(self, seconds: float = _DEADLINE_SECONDS) -> None:
        """Wait until every script has ended.

        Raises:
            TimeoutError: One still runs after that many seconds.
        """
        async with asyncio.timeout(seconds):
            while self._tasks:
                await asyncio.wait(set(self._tasks))

    async def __aenter__(self) -> Self:
        if self._unix_path is not None:
            self._server = await asyncio.start_unix_server(
                self._accept, self._unix_path, ssl=self._tls
            )
        else:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, ssl=self._tls
            )
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._ended = True
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._errors and error is None:
            raise ExceptionGroup("the origin's script failed", self._errors)


def response_bytes(
    status: int = 200,
    body: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    reason: bytes = b"X",
    length: bool = True,
) -> bytes:
    """Build the bytes of a response; a length is added unless ``length`` is false."""
    lines = [b"HTTP/1.1 %d %s" % (status, reason)]
    lines += [name + b": " + value for name, value in headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunk(data: bytes) -> bytes:
    """Build a chunk; ``b""`` gives the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def always(reply: bytes) -> Script:
    """Make a script that sends the same bytes for every request of a connection."""

    async def script(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.send(reply)

    return script


async def echo(connection: Connection) -> None:
    """Respond to every request with a description of the request, as JSON."""
    while True:
        received = await connection.read_request()
        seen = {
            "method": received.method.decode("latin-1"),
            "target": received.target.decode("latin-1"),
            "body": received.body.decode("latin-1"),
        }
        await connection.send(
            response_bytes(
                body=json.dumps(seen).encode(), headers=[(b"Content-Type", b"application/json")]
            )
        )
