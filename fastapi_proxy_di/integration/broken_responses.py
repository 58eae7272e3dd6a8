"""An ASGI wrapper that stops middlewares from completing a response that broke off.

A ``BaseHTTPMiddleware`` or ``GZipMiddleware`` sends a last body message when the application
inside it returns, so the client would take half a response for a whole one. The wrapper is
put around all middlewares of an app. It puts an object into the scope, in which the forwarder
notes a broken response (``forwarding.response.break_off``); the wrapper then raises an
exception instead of sending the last body message. When the server cancels a response whose body
is being sent, the wrapper returns without that message. Headers of a response are added there too,
where something asks for it (``integration.added_headers``). It changes nothing else.

The wrapper also notes the request of the context (``REQUEST_SCOPE``).
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_proxy_di.errors import ClientDisconnected
from fastapi_proxy_di.forwarding.response import TRANSFER, TransferBroken
from fastapi_proxy_di.integration.compat import middleware_stack
from fastapi_proxy_di.observability.telemetry import REQUEST_SCOPE


class BrokenResponses:
    """ASGI wrapper that withholds the last message of a response that broke off.

    Attributes:
        app: The wrapped application.

    Args:
        app: The application to wrap.
        raises: Whether a response that broke off ends with an exception, for middlewares
            around the wrapper.
    """

    def __init__(self, app: ASGIApp, *, raises: bool = False) -> None:
        self.app = app
        self._raises = raises

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transfer: _Transfer | None = None
        request = REQUEST_SCOPE.set(scope)
        try:
            if scope["type"] == "http" and TRANSFER not in scope:
                transfer = scope[TRANSFER] = _Transfer(send)
                send = transfer.send
            await self.app(scope, receive, send)
        except CancelledError:
            # The server ends an open stream, at shutdown. To return before the last body message
            # breaks the response off as the exception does, but without a traceback in the log.
            if transfer is None or not transfer.cancelled:
                raise
        finally:
            REQUEST_SCOPE.reset(request)
        if self._raises and transfer is not None and transfer.is_failure:
            raise TransferBroken


class _Transfer:
    """One response that is being sent.

    Attributes:
        broken_by: The failure that broke off the response, ``None`` if it is complete so far.
        cancelled: Whether the response was cancelled while its body was sent.
    """

    __slots__ = ("_added", "_send", "broken_by", "cancelled")

    def __init__(self, send: Send) -> None:
        self.broken_by: BaseException | None = None
        self.cancelled: bool = False
        self._added: Sequence[tuple[bytes, bytes]] = ()
        self._send = send

    @property
    def is_failure(self) -> bool:
        """Whether the response broke off while the client was connected."""
        return self.broken_by is not None and not isinstance(self.broken_by, ClientDisconnected)

    def add_headers(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Add headers to the response when it begins."""
        self._added = [*self._added, *pairs] if self._added else pairs

    def send(self, message: Message) -> Awaitable[None]:
        if self._added and message["type"] == "http.response.start":
            message = {**message, "headers": [*(message.get("headers") or ()), *self._added]}
            self._added = ()
        if self.broken_by is None or message["type"] != "http.response.body":
            return self._send(message)
        if message.get("more_body", False):
            return self._send(message)
        if self.is_failure:
            raise TransferBroken
        return _nothing()  # the client disconnected, which is no error to log


async def _nothing() -> None:
    """Send nothing."""


@contextmanager
def kept_broken(app: Starlette) -> Iterator[None]:
    """Wrap the middlewares of ``app`` in a `BrokenResponses` until the end of the block."""
    before, stack = app.middleware_stack, middleware_stack(app)
    wrapper = BrokenResponses(stack)
    app.middleware_stack = wrapper
    try:
        yield
    finally:
        if app.middleware_stack is wrapper:
            # If the stack was not built before, middlewares may be added again after the block.
            app.middleware_stack = before
