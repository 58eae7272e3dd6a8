"""One WebSocket of the demo's load, on the sans-I/O client of ``websockets``.

``websockets.connect`` would use proxies from the environment, and the parameter that stops it
differs between major versions.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

_READ_BYTES: Final = 65536


class WebSocketEnded(Exception):
    """The WebSocket was closed or refused, or the connection broke; the text says how."""


class LoadWebSocket:
    """A text WebSocket to 127.0.0.1.

    Args:
        port: Port on 127.0.0.1.
        path: Path and query.
    """

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}{path}"))
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._messages: list[str] = []
        self.headers: dict[str, str] = {}

    async def open(self) -> None:
        """Connect and shake hands; sets ``headers`` to those of the response.

        Raises:
            OSError: No connection.
            WebSocketEnded: The handshake was refused; the text says why.
        """
        self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        self._protocol.send_request(self._protocol.connect())
        await self._flush()
        while self._protocol.state is State.CONNECTING:
            await self._step()
        if self._protocol.handshake_exc is not None:
            raise WebSocketEnded(str(self._protocol.handshake_exc))

    async def send(self, text: str) -> None:
        """Send one message."""
        self._protocol.send_text(text.encode())
        await self._flush()

    async def receive(self) -> str:
        """Give the next message.

        Raises:
            WebSocketEnded: The WebSocket is closed or broken.
        """
        while not self._messages:
            if self._protocol.state is not State.OPEN:
                close = self._protocol.close_rcvd
                raise WebSocketEnded(f"closed with {1006 if close is None else close.code}")
            await self._step()
        return self._messages.pop(0)

    async def close(self) -> None:
        """Send a close frame if the WebSocket is open, and close the connection. Idempotent."""
        if self._streams is None:
            return
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            await self._flush()
        self._streams[1].close()
        self._streams = None

    async def _step(self) -> None:
        """Read once, send what the protocol requires (e.g. pongs), and keep text messages."""
        assert self._streams is not None
        try:
            data = await self._streams[0].read(_READ_BYTES)
        except ConnectionError:
            data = b""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self.headers = {name.lower(): value for name, value in event.headers.raw_items()}
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._messages.append(bytes(event.data).decode())
        await self._flush()

    async def _flush(self) -> None:
        assert self._streams is not None
        writer = self._streams[1]
        # If the connection broke meanwhile, the next read finds it.
        with contextlib.suppress(OSError):
            for data in self._protocol.data_to_send():
                if data:
                    writer.write(data)
                else:
                    writer.write_eof()
            await writer.drain()
