"""103 Early Hints on their way to the client (RFC 8297), where the server can send them.

The ASGI extension ``http.response.early_hint`` says so; hypercorn offers it on HTTP/2.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from starlette.requests import Request
from starlette.types import Send

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.transport.protocol import Headers

EARLY_HINT: Final = "http.response.early_hint"
"""The ASGI extension, and the message that sends a hint."""

_EARLY_HINTS: Final = 103


def may_hint(exchange: Exchange) -> bool:
    """Whether hints reach a server that offers the extension.

    A ``BaseHTTPMiddleware`` takes the first message for the response and fails at a hint. It
    cannot be seen from here but by its ``receive``: the server's own is a method of the
    server, Starlette's a method of a ``Request``, other middlewares' a function.
    """
    owner = getattr(exchange.receive, "__self__", None)
    return owner is not None and not isinstance(owner, Request)


class EarlyHints:
    """Passes on the hints of one exchange, in order.

    Args:
        name: The upstream's, for the task's name.
        send: The server's.
    """

    __slots__ = ("_links", "_name", "_send", "_sender")

    def __init__(self, name: str, send: Send) -> None:
        self._name = name
        self._send = send
        self._links: list[list[bytes]] = []
        self._sender: asyncio.Task[None] | None = None

    def take(self, status: int, headers: Headers) -> None:
        """Pass on a 1xx response, if it is a hint."""
        links = [value for name, value in headers if name == b"link"]
        if status != _EARLY_HINTS or not links:
            return
        self._links.append(links)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(
                self._send_links(), name=f"early hints of {self._name}"
            )

    async def sent(self) -> None:
        """Wait until every hint is sent: what follows is the response."""
        if self._sender is not None:
            await self._sender

    async def _send_links(self) -> None:
        # The watcher notices a client that has left.
        with contextlib.suppress(OSError):
            while self._links:
                await self._send({"type": EARLY_HINT, "links": self._links.pop(0)})
