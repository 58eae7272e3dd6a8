"""A WebSocket client that shows everything: raw handshakes, single frames, abrupt ends.

Unlike the client of a library it shows every header of the response, sends pongs only when it
reads, closes with any frame or none, and works the same with every version of ``websockets``.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.http_client import Client, RawResponse, connect
from tests.support.websocket_frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame, read_frame

__all__ = ["Closed", "WebSocketClient", "open_websocket", "shake_hands"]

Headers = Sequence[tuple[bytes, bytes]]

_DEADLINE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Closed:
    """How the server ended it.

    Attributes:
        code: The close frame's, ``None`` for an empty one; 1006 if there was none.
        reason: The close frame's.
    """

    code: int | None
    reason: str = ""


class WebSocketClient:
    """A connection after its handshake.

    Attributes:
        response: Head of the 101.
        client: The connection below.
        pings: How many the server has sent so far.
    """

    def __init__(self, client: Client, response: RawResponse) -> None:
        self.client = client
        self.response = response
        self.pings = 0
        self._close_sent = False

    @property
    def subprotocol(self) -> bytes | None:
        """The agreed subprotocol."""
        return self.response.one(b"sec-websocket-protocol")

    async def send_frame(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        """Send one masked frame."""
        await self.client.send(frame(opcode, payload, fin=fin, masked=True))

    async def send(self, *fragments: str | bytes) -> None:
        """Send one message, in as many frames as there are fragments."""
        opcode = TEXT if isinstance(fragments[0], str) else BINARY
        for number, fragment in enumerate(fragments, 1):
            data = fragment.encode() if isinstance(fragment, str) else fragment
            await self.send_frame(opcode, data, fin=number == len(fragments))
            opcode = CONT

    async def send_many(self, texts: Sequence[bytes]) -> None:
        """Send texts in one write, as a very fast client does."""
        await self.client.send(b"".join(frame(TEXT, text, masked=True) for text in texts))

    async def send_compressed(self, payload: bytes) -> None:
        """Send a text whose payload is already compressed (RFC 7692: RSV1)."""
        await self.client.send(frame(TEXT, payload, masked=True, compressed=True))

    async def recv_frame(self) -> tuple[int, bytes, bool]:
        """Read one frame, whatever it is: opcode, payload, whether it is the last fragment.

        Raises:
            asyncio.IncompleteReadError: The connection ended.
        """
        async with asyncio.timeout(_DEADLINE_SECONDS):
            received = await read_frame(self.client.reader)
        return received.opcode, received.payload, received.fin

    async def recv(self) -> str | bytes | Closed:
        """Read the next message, or the end; send a pong for each ping."""
        while True:
            try:
                opcode, payload, fin = await self.recv_frame()
            except (asyncio.IncompleteReadError, ConnectionError):
                self.client.close()
                return Closed(1006)
            if opcode == PING:
                self.pings += 1
                await self.send_frame(PONG, payload)
            elif opcode == CLOSE:
                # As every real client does; some servers wait for it.
                if not self._close_sent:
                    await self.send_frame(CLOSE, payload)
                self.client.close()
                if not payload:
                    return Closed(None)
                return Closed(int.from_bytes(payload[:2]), payload[2:].decode())
            elif opcode != PONG:
                assert fin, "servers send whole messages"
                return payload.decode() if opcode == TEXT else payload

    async def ended(self) -> Closed:
        """Give the end; fail if a message comes before it."""
        message = await self.recv()
        assert isinstance(message, Closed), message
        return message

    async def close(self, code: int | None = 1000, reason: str = "") -> Closed:
        """Send a close frame, empty for ``None``, and wait for the server's close frame."""
        payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
        await self.send_frame(CLOSE, payload)
        self._close_sent = True
        return await self.ended()


async def shake_hands(
    client: Client,
    target: str,
    headers: Headers = (),
    *,
    subprotocols: Sequence[str] = (),
    connection: bytes = b"Upgrade",
) -> RawResponse:
    """Send a handshake and give the response, with its body unless it is a 101."""
    offer = [(b"Sec-WebSocket-Protocol", ", ".join(subprotocols).encode())] if subprotocols else []
    pairs = [
        (b"Host", b"gateway.test"),
        (b"Upgrade", b"websocket"),
        (b"Connection", connection),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Sec-WebSocket-Version", b"13"),
        *offer,
        *headers,
    ]
    lines = [b"GET %s HTTP/1.1" % target.encode(), *(b"%s: %s" % pair for pair in pairs)]
    await client.send(b"\r\n".join(lines) + b"\r\n\r\n")
    response = await client.read_head()
    return response if response.status == 101 else await client.read_body(response)


@contextlib.asynccontextmanager
async def open_websocket(
    address: tuple[str, int],
    target: str = "/billing/live",
    headers: Headers = (),
    *,
    subprotocols: Sequence[str] = (),
    connection: bytes = b"Upgrade",
) -> AsyncIterator[WebSocketClient]:
    """Open a WebSocket; the connection is closed without a close frame at the end."""
    async with connect(address) as client:
        response = await shake_hands(
            client, target, headers, subprotocols=subprotocols, connection=connection
        )
        assert response.status == 101, response
        assert response.one(b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        yield WebSocketClient(client, response)
