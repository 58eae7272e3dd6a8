"""Lets a proxied request pass by the middlewares that FastAPI puts around every app.

They turn errors into answers and close what dependencies have opened. A request that has no
dependencies and does not fail needs none of that; for one that fails, its error rises through
them as it would have from a route. As soon as anything else stands there, or one of them is not
as FastAPI made it, every request goes through them all (``plain_stack``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_proxy_di.integration.lifespan import balancer_of
from fastapi_proxy_di.integration.plain_stack import PlainStack
from fastapi_proxy_di.integration.precedence import EarlyRoute
from fastapi_proxy_di.integration.problems import install_handler

if TYPE_CHECKING:
    from fastapi_proxy_di.forwarding.response import LocalResponse, UpstreamResponse

_FAILED: Final = "fastapi_proxy_di.failed"


class _Failed(NamedTuple):
    """A request that failed in front of the middlewares.

    Attributes:
        error: What went wrong.
        start: What the client has been sent of an answer, ``None`` for nothing yet.
    """

    error: Exception
    start: Message | None


class Bypass:
    """An ASGI application in front of an app's middlewares.

    Attributes:
        app: The outermost of them, under the name that all of Starlette's have for it.

    Args:
        app: The same.
        plain: What it was at start.
        early: Knows the short ways.
    """

    def __init__(self, app: ASGIApp, plain: PlainStack, early: EarlyRoute) -> None:
        self.app = app
        self._stack = app
        self._plain = plain
        self._early = early
        self._fail = self._failed  # bound once, not for each request that waits

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Forward the request, or let it through to the middlewares."""
        # Not a coroutine itself: each frame that waits is work for the collector.
        try:
            shortcut = self._early.shortcut(scope)
            if (
                shortcut is None
                or not shortcut.harmless
                or shortcut.context.dependency_overrides_provider.dependency_overrides
                or self.app is not self._stack
                or not self._plain.is_unchanged()
            ):
                return self.app(scope, receive, send)
            rest = shortcut.rest(scope)
            if rest is None:
                return self.app(scope, receive, send)
            balancer = balancer_of(scope["app"], shortcut.upstream)
        except Exception:  # noqa: BLE001  # it comes again behind them, where handlers see it
            return self.app(scope, receive, send)
        scope["route"] = shortcut.context.original_route
        scope["endpoint"] = shortcut.context.endpoint
        scope.setdefault("router", scope["app"].router)
        return balancer.pass_on(scope, receive, send, rest, shortcut.raw_mount, failed=self._fail)

    async def _failed(
        self,
        error: Exception,
        answer: UpstreamResponse | LocalResponse | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        start: Message | None = None
        if answer is not None:
            start = {
                "type": "http.response.start",
                "status": answer.status,
                "headers": answer.headers,
            }
        scope[_FAILED] = _Failed(error, start)
        # Its traceback will hold this frame, which must not hold it: they would live on, with
        # the scope, until the collector comes.
        del error
        # Made anew each time: handlers may be others than at start.
        errors = self._plain.around(_raise)
        await errors(scope, receive, send if start is None else _unsent)


@contextmanager
def around(app: FastAPI, early: EarlyRoute | None) -> Iterator[None]:
    """Have a `Bypass` stand in front of the middlewares of ``app`` meanwhile, if it may."""
    stack = app.middleware_stack
    plain = None if stack is None else PlainStack.of(app)
    if early is None or stack is None or plain is None:
        yield
        return
    bypass = Bypass(stack, plain, early)
    app.middleware_stack = bypass
    try:
        yield
    finally:
        if app.middleware_stack is bypass:
            app.middleware_stack = bypass.app


async def _raise(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise what a request failed with, for all that stands around it to see."""
    failed: _Failed = scope.pop(_FAILED)
    if failed.start is not None:
        await send(failed.start)
    install_handler(scope)
    try:
        raise failed.error
    finally:
        del failed  # as above


async def _unsent(message: Message) -> None:
    """Swallow what comes behind an answer that the client has been sent the start of."""
