"""The upstream of the tests: an event stream and a WebSocket without an end of their own."""

from __future__ import annotations

import asyncio

from tests.support.origins import Connection, chunk
from tests.support.websocket_origin import FramePeer, accepting

__all__ = ["Endless"]

_CLOSE = 8


class Endless:
    """Sends one event and waits; accepts a WebSocket and waits for its close frame.

    Attributes:
        finish: Set to let streams end in order.
        code: Close code that the WebSocket got from the gateway, ``None`` for an abrupt end.
    """

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.code: int | None = None

    async def __call__(self, connection: Connection) -> None:
        received = await connection.read_head()
        if received.target == b"/live":
            await connection.send(accepting(received))
            peer = FramePeer(connection.reader, connection.writer)
            try:
                opcode, payload = await peer.read()
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            assert opcode == _CLOSE
            self.code = int.from_bytes(payload[:2])
            peer.send(_CLOSE, payload)
            return
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"data: first\n\n")
        )
        leaving = asyncio.create_task(connection.peer_left(), name="peer left")
        finishing = asyncio.create_task(self.finish.wait(), name="finish")
        await asyncio.wait((leaving, finishing), return_when=asyncio.FIRST_COMPLETED)
        for task in (leaving, finishing):
            task.cancel()
        if self.finish.is_set():
            await connection.send(chunk(b""))
