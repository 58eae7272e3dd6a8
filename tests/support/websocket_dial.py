"""Opens the package's upstream WebSocket with an upgrade request that is written here.

For tests of the WebSocket transport and the tunnel, without the HTTP/1.1 transport below them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from fastapi_proxy_di.transport.websocket.connection import UpstreamWebSocket
from fastapi_proxy_di.transport.websocket.handshake import (
    Accepted,
    check_accept,
    new_key,
    upgrade_headers,
)

__all__ = ["dial"]


class _Head(asyncio.Protocol):
    """Reads the head of the response, and keeps the bytes after it."""

    def __init__(self) -> None:
        self.received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by inheritance.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if b"\r\n\r\n" in self.received:  # pragma: no branch
            assert self.transport is not None
            self.transport.pause_reading()
            self.done.set_result(None)


async def dial(
    host: str,
    port: int,
    *,
    offered: Sequence[str] = (),
    compression: bool = False,
    **options: Any,
) -> tuple[UpstreamWebSocket, Accepted]:
    """Open a WebSocket with a request written by hand.

    Args:
        host: Address of the upstream.
        port: Its port.
        offered: Subprotocols to offer.
        compression: Whether to offer permessage-deflate.
        **options: More for ``UpstreamWebSocket``.
    """
    transport, head = await asyncio.get_running_loop().create_connection(_Head, host, port)
    key = new_key()
    headers = [(b"host", b"upstream.test"), *upgrade_headers(key, offered, compression=compression)]
    transport.write(
        b"GET / HTTP/1.1\r\n" + b"".join(b"%s: %s\r\n" % pair for pair in headers) + b"\r\n"
    )
    await head.done
    raw, _, leftover = head.received.partition(b"\r\n\r\n")
    status, *lines = raw.split(b"\r\n")
    pairs = [line.partition(b":")[::2] for line in lines]
    accepted = check_accept(
        int(status.split(b" ")[1]),
        [(name.lower(), value.strip()) for name, value in pairs],
        key,
        offered,
        compression=compression,
    )
    options.setdefault("ping_interval", None)
    websocket = UpstreamWebSocket(transport, leftover, extensions=accepted.extensions, **options)
    return websocket, accepted
