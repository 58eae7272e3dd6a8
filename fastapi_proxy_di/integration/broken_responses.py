"""An ASGI wrapper that keeps a response which broke off from being ended by a middleware.

A ``BaseHTTPMiddleware`` or ``GZipMiddleware`` ends a response with a last body message when
the application in it returns, so the client would take half a response for a whole one. The
wrapper stands outermost around an app. It puts an object into the scope that the forwarder
marks (``forwarding.response.break_off``), and raises instead of passing on that last message.
It changes nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_proxy_di.errors import ClientDisconnected
from fastapi_proxy_di.forwarding.response import TRANSFER, TransferBroken
from fastapi_proxy_di.integration.compat import middleware_stack


class BrokenResponses:
    """ASGI wrapper that withholds the last message of a response that broke off.

    Attributes:
        app: What it stands around, under the name that Starlette's middlewares have for it.

    Args:
        app: The same.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Call what is within. Not a coroutine itself: each one costs every request a frame."""
        if scope["type"] != "http" or TRANSFER in scope:
            return self.app(scope, receive, send)
        transfer = scope[TRANSFER] = _Transfer(send)
        return self.app(scope, receive, transfer.send)


class _Transfer:
    """One response on its way.

    Attributes:
        broken_by: The failure that broke it off, ``None`` while it is whole.
    """

    __slots__ = ("_send", "broken_by")

    def __init__(self, send: Send) -> None:
        self.broken_by: BaseException | None = None
        self._send = send

    def send(self, message: Message) -> Awaitable[None]:
        if self.broken_by is None or message["type"] != "http.response.body":
            return self._send(message)
        if message.get("more_body", False):
            return self._send(message)
        if isinstance(self.broken_by, ClientDisconnected):
            return _nothing()  # the client has left, which is no error to log
        raise TransferBroken("the response of the upstream broke off")


async def _nothing() -> None:
    """Send nothing."""


@contextmanager
def kept_broken(app: Starlette) -> Iterator[None]:
    """Have a `BrokenResponses` stand around the middlewares of ``app`` meanwhile."""
    before, stack = app.middleware_stack, middleware_stack(app)
    wrapper = BrokenResponses(stack)
    app.middleware_stack = wrapper
    try:
        yield
    finally:
        if app.middleware_stack is wrapper:
            # What was not built stays so: middlewares may be added until an app starts.
            app.middleware_stack = before
