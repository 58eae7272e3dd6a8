"""103 Early Hints on their way to the client (RFC 8297), where the server can send them.

The ASGI extension ``http.response.early_hint`` says so; hypercorn offers it on HTTP/2.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.forwarding.deadlines import Watch
from fastapi_proxy_di.transport.protocol import Headers, TransportExchange

_EXTENSION: Final = "http.response.early_hint"
_EARLY_HINTS: Final = 103


def may_hint(scope: Scope, receive: Receive) -> bool:
    """Whether hints reach the server.

    A ``BaseHTTPMiddleware`` takes the first message for the answer and fails at a hint. It
    cannot be seen from here but by its ``receive``: the server's own is a method of the
    server, Starlette's a method of a ``Request``, other middlewares' a function.
    """
    if _EXTENSION not in (scope.get("extensions") or ()):
        return False
    owner = getattr(receive, "__self__", None)
    return owner is not None and not isinstance(owner, Request)


class HintingWatch(Watch):
    """A ``Watch`` that passes on the hints of the exchanges it watches.

    Args:
        *arguments: As for ``Watch``.
        send: The server's.
    """

    __slots__ = ("_links", "_send", "_sender")

    def __init__(self, *arguments: Any, send: Send) -> None:
        super().__init__(*arguments)
        self._send = send
        self._links: list[list[bytes]] = []
        self._sender: asyncio.Task[None] | None = None

    def attach(self, exchange: TransportExchange) -> None:
        """``exchange`` is what an interruption ends, and whose hints go on."""
        exchange.on_informational = self._hint
        super().attach(exchange)

    async def told(self) -> None:
        """Wait until every hint is sent: what follows is the answer."""
        if self._sender is not None:
            await self._sender

    def _hint(self, status: int, headers: Headers) -> None:
        links = [value for name, value in headers if name == b"link"]
        if status != _EARLY_HINTS or not links:
            return
        self._links.append(links)
        if self._sender is None or self._sender.done():
            self._sender = self._loop.create_task(
                self._send_links(), name=f"early hints of {self._label}"
            )

    async def _send_links(self) -> None:
        # A client that has left is told of elsewhere.
        with contextlib.suppress(OSError):
            while self._links:
                await self._send({"type": _EXTENSION, "links": self._links.pop(0)})
