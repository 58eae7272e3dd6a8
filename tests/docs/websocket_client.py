"""A WebSocket client in a thread, for tests of the documentation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import httpx
from websockets.sync.client import connect
from websockets.typing import Subprotocol

__all__ = ["say"]


async def say(
    client: httpx.AsyncClient,
    path: str,
    text: str,
    *,
    subprotocols: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> tuple[str, str | None]:
    """Send one text message and receive one message.

    Args:
        client: Has the gateway's base URL.
        path: Path to connect to.
        text: The message.
        subprotocols: Subprotocols to offer.
        headers: Further headers.

    Returns:
        The first message from the gateway, and the chosen subprotocol.
    """
    url = str(client.base_url.join(path)).replace("http", "ws", 1)

    def exchange() -> tuple[str, str | None]:
        offer = [Subprotocol(name) for name in subprotocols] or None
        with connect(url, subprotocols=offer, additional_headers=headers or {}) as websocket:
            websocket.send(text)
            return str(websocket.recv(timeout=10)), websocket.subprotocol

    return await asyncio.to_thread(exchange)
