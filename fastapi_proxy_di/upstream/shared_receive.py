"""Shares the client's ``receive`` between a wait for the disconnect and a read of the body.

This is for a dependency that forwards the request with another body, before the endpoint reads
the client's body.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from starlette.types import Message, Receive

__all__ = ["SharedReceive"]

_HELD_BYTES: Final = 65536


class SharedReceive:
    """Holds the messages read while waiting for the disconnect until the body is read.

    Args:
        receive: The ASGI ``receive`` of the server.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._held: deque[Message] = deque()
        self._size = 0
        self._lock = asyncio.Lock()

    async def watch(self) -> Message:
        """Return the next message and hold it for the reader of the body.

        Waits for ever once 64 KiB are held; then only a deadline ends the exchange.
        """
        if self._size >= _HELD_BYTES:
            await asyncio.get_running_loop().create_future()
        async with self._lock:
            message = await self._receive()
            self._held.append(message)
        self._size += len(message.get("body", b""))
        return message

    async def read(self) -> Message:
        """Return the next message of the body."""
        if not self._held:
            async with self._lock:  # the message that ``watch`` waits for comes first
                if not self._held:
                    return await self._receive()
        return self._held.popleft()
