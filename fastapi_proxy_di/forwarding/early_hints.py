"""Forwards 103 Early Hints to the client (RFC 8297), if the server can send them.

A server that can has the ASGI extension ``http.response.early_hint``: hypercorn on HTTP/2.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import copy_context
from typing import Final

from starlette.requests import Request
from starlette.types import Send

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.transport.protocol import Headers

EARLY_HINT: Final = "http.response.early_hint"
"""The ASGI extension, and the message that sends a hint."""

_EARLY_HINTS: Final = 103


def may_hint(exchange: Exchange) -> bool:
    """Whether hints may be sent to a server that offers the extension.

    A ``BaseHTTPMiddleware`` takes the first message for the response and fails at a hint. Such
    a middleware is recognised by its ``receive``: that of a server is a method of the server,
    that of Starlette a method of a ``Request``, that of other middlewares a function.
    """
    owner = getattr(exchange.receive, "__self__", None)
    return owner is not None and not isinstance(owner, Request)


class EarlyHints:
    """Forwards the hints of one exchange, in order and in the context in which this is made.

    Args:
        name: Name of the upstream, for the task's name.
        send: The ASGI ``send`` of the server.
        held: Whether the hints are sent with the head, because nothing may be sent before.
    """

    __slots__ = ("_context", "_held", "_links", "_name", "_send", "_sender")

    def __init__(self, name: str, send: Send, *, held: bool = False) -> None:
        self._held = held
        self._name = name
        self._send = send
        self._links: list[list[bytes]] = []
        self._sender: asyncio.Task[None] | None = None
        # Hints arrive in the context of the connection, which has none of the request's variables.
        self._context = copy_context()

    def take(self, status: int, headers: Headers) -> None:
        """Forward a 1xx response, if it is a hint."""
        links = [value for name, value in headers if name == b"link"]
        if status != _EARLY_HINTS or not links:
            return
        self._links.append(links)
        if not self._held and (self._sender is None or self._sender.done()):
            self._sender = asyncio.get_running_loop().create_task(
                self._send_links(), name=f"early hints of {self._name}", context=self._context
            )

    async def sent(self) -> None:
        """Wait until every hint is sent, so that the response can follow."""
        if self._held:
            await self._send_links()
        elif self._sender is not None:
            await self._sender

    async def _send_links(self) -> None:
        # The watcher notices a client that has disconnected.
        with contextlib.suppress(OSError):
            while self._links:
                await self._send({"type": EARLY_HINT, "links": self._links.pop(0)})
