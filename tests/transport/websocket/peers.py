"""One upstream WebSocket opened to a peer that speaks frame by frame."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi_proxy_di.transport.websocket.connection import UpstreamWebSocket
from tests.support.websocket_dial import dial
from tests.support.websocket_origin import FramePeer, frames_from

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
Script = Callable[[FramePeer], Awaitable[None]]


async def until_left(peer: FramePeer) -> None:
    """Read and drop everything until the client disconnects."""
    while await peer.reader.read(65536):
        pass


def sends(*frames: bytes, then: Script = until_left) -> Script:
    """Make a script that sends these bytes and continues with ``then``."""

    async def script(peer: FramePeer) -> None:
        peer.writer.write(b"".join(frames))
        await then(peer)

    return script


@contextlib.asynccontextmanager
async def opened(
    script: Script, leftover: bytes = b"", **options: Any
) -> AsyncIterator[UpstreamWebSocket]:
    """Connect to a peer that runs the script."""
    async with frames_from(script, leftover=leftover) as origin:
        upstream, _ = await dial(*origin.address, **options)
        try:
            yield upstream
        finally:
            upstream.abort()
            await upstream.wait_closed()


async def receive_all(upstream: UpstreamWebSocket) -> list[str | bytes]:
    """Receive until the end."""
    messages = []
    while (message := await upstream.recv()) is not None:
        messages.append(message)
    return messages
