"""An ASGI wrapper that gives each request an ``X-Request-ID``.

The destination gets the id, and the client with the response.

The wrapper is put around all middlewares of an app, and only where ``ProxySettings.request_id``
is on. The id takes the place of the client's header, so everything that reads or forwards headers
has the same id, and the scope has it for access records. Every response of the app carries it:
proxied ones, problem documents, denied handshakes and those of local routes. A server makes a
response of its own, 403, of an app that closes a WebSocket instead of accepting it; where the
server can send one of the app, the wrapper gives it the same response with the id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_proxy_di.integration.compat import middleware_stack
from fastapi_proxy_di.wire.request_id import (
    HEADER,
    REQUEST_ID,
    current_request_id,
    request_id_of,
    without_request_id,
)

_REQUESTS: Final = frozenset({"http", "websocket"})
_DENIAL: Final = "websocket.http.response"
"""The ASGI extension of servers that can deny a handshake with a response of the app."""
_HEADS: Final = frozenset({"http.response.start", "websocket.accept", f"{_DENIAL}.start"})


class RequestIds:
    """ASGI wrapper that sets ``X-Request-ID`` of each request and its response.

    Attributes:
        app: The wrapped application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in _REQUESTS or REQUEST_ID in scope:
            await self.app(scope, receive, send)  # an app around this one has set the id
            return
        request_id = scope[REQUEST_ID] = request_id_of(scope["headers"])
        pair = (HEADER, request_id.encode("ascii"))
        scope["headers"] = [*without_request_id(scope["headers"]), pair]

        can_deny = scope["type"] == "websocket" and _DENIAL in (scope.get("extensions") or ())

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal can_deny
            if can_deny and message["type"] == "websocket.close":
                return _deny(send, pair)
            if message["type"] in _HEADS:
                can_deny = False
                headers = without_request_id(message.get("headers") or ())
                message = {**message, "headers": [*headers, pair]}
            return send(message)

        before = current_request_id.set(request_id)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            current_request_id.reset(before)


async def _deny(send: Send, request_id: tuple[bytes, bytes]) -> None:
    """Deny a handshake as servers do for ``websocket.close``, with the id."""
    headers = [(b"content-length", b"0"), request_id]
    await send({"type": f"{_DENIAL}.start", "status": 403, "headers": headers})
    await send({"type": f"{_DENIAL}.body", "body": b""})


@contextmanager
def identified(app: Starlette, *, wanted: bool) -> Iterator[None]:
    """Wrap the middlewares of ``app`` in a `RequestIds` until the end of the block, if wanted."""
    if not wanted:
        yield
        return
    stack = middleware_stack(app)
    wrapper = RequestIds(stack)
    app.middleware_stack = wrapper
    try:
        yield
    finally:
        if app.middleware_stack is wrapper:
            app.middleware_stack = stack
