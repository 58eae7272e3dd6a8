"""An origin with phases, and an app that records disconnects, for tests of disconnects."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.http_client import Client, request
from tests.support.origins import Connection, chunk

__all__ = ["PATIENCE_SECONDS", "PHASES", "DisconnectNoted", "PhasedOrigin", "request_up_to"]

PATIENCE_SECONDS: Final = 10.0
PHASES: Final = ["uploading", "thinking", "body", "events"]
"""How far a request has come when its client leaves."""
_SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40)


class DisconnectNoted:
    """An app that records when the server reports a disconnect."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.times: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard = False

        async def noting() -> Message:
            nonlocal heard
            message = await receive()
            if message["type"] == "http.disconnect" and not heard:
                heard = True
                self.times.append(asyncio.get_running_loop().time())
            return message

        await self._app(scope, noting, send)


class PhasedOrigin:
    """Takes every request as far as its path says, then waits for the end.

    Attributes:
        arrived: Released as a request is there, as far as it comes.
        ends: When connections ended.
    """

    def __init__(self) -> None:
        self.arrived = asyncio.Semaphore(0)
        self.ends: list[float] = []

    async def __call__(self, connection: Connection) -> None:
        received = await connection.read_head()
        if received.target == b"/uploading":
            await connection.reader.readexactly(5)
        self.arrived.release()
        try:
            if received.target == b"/events":
                await connection.send(_SSE + chunk(b"data: 1\n\n"))
            if received.target == b"/body":
                await connection.send(_ENDLESS)
                while True:
                    await connection.send(bytes(65536))
            await connection.peer_left()
        finally:
            self.ends.append(asyncio.get_running_loop().time())


async def request_up_to(phase: str, client: Client, arrived: asyncio.Semaphore) -> None:
    """Send a request, and wait until it has reached its phase."""
    framing = [(b"Content-Length", b"9")] if phase == "uploading" else []
    piece = b"hello" if framing else b""
    await client.send(request("POST", f"/billing/{phase}", framing) + piece)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await arrived.acquire()
    if phase in ("body", "events"):
        await client.read_head()
        await client.reader.readexactly(9)
