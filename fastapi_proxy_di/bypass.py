"""Lets a proxied request pass by the middlewares that FastAPI puts around every app.

They turn errors into answers and close what dependencies have opened. A request that has no
dependencies and does not fail needs none of that; for one that fails, its error rises through
them as it would have from a route. As soon as there is a further middleware, or one of them is
not as FastAPI made it, every request goes through them all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from copy import copy
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_proxy_di.errors import ProxyNotStarted
from fastapi_proxy_di.lifespan import balancer_of
from fastapi_proxy_di.precedence import EarlyRoute
from fastapi_proxy_di.problems import install_handler

if TYPE_CHECKING:
    from fastapi_proxy_di.forwarding.answer import Answer, OwnAnswer

_FAILED: Final = "fastapi_proxy_di.failed"
_FASTAPIS_OWN: Final = frozenset(
    {
        "starlette.middleware.errors.ServerErrorMiddleware",
        "starlette.middleware.exceptions.ExceptionMiddleware",
        "fastapi.middleware.asyncexitstack.AsyncExitStackMiddleware",
        "fastapi.telemetry._asgi.ExceptionTelemetryMiddleware",
        "fastapi._body_limit.AppBodyLimitMiddleware",
    }
)
"""By name, because two are private and in newer FastAPIs alone. An app with a limit for bodies
has a further middleware behind the last one."""


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
        errors: The same middlewares around `raise_here` instead of the app's routes.
        early: Knows the short ways.
    """

    def __init__(self, app: ASGIApp, errors: ASGIApp, early: EarlyRoute) -> None:
        self.app = app
        self._errors = errors
        self._early = early
        self._fail = self._failed

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Forward the request, or let it through to the middlewares."""
        # Not a coroutine itself: each frame that waits is work for the collector.
        shortcut = self._early.shortcut(scope)
        if (
            shortcut is None
            or not shortcut.harmless
            or shortcut.context.dependency_overrides_provider.dependency_overrides
        ):
            return self.app(scope, receive, send)
        rest = shortcut.rest(scope)
        if rest is None:
            return self.app(scope, receive, send)
        try:
            balancer = balancer_of(scope["app"], shortcut.upstream)
        except ProxyNotStarted:
            return self.app(scope, receive, send)
        scope["route"] = shortcut.context.original_route
        scope["endpoint"] = shortcut.context.endpoint
        return balancer.pass_on(scope, receive, send, rest, shortcut.raw_mount, failed=self._fail)

    async def _failed(
        self,
        error: Exception,
        answer: Answer | OwnAnswer | None,
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
        await self._errors(scope, receive, send if start is None else _unsent)


@contextmanager
def around(app: FastAPI, early: EarlyRoute | None) -> Iterator[None]:
    """Have a `Bypass` stand in front of the middlewares of ``app`` meanwhile, if it may."""
    stack = app.middleware_stack
    if early is None or stack is None or not _is_fastapis_own(stack, app.router):
        yield
        return
    bypass = Bypass(stack, _around_errors(stack, app.router), early)
    app.middleware_stack = bypass
    try:
        yield
    finally:
        if app.middleware_stack is bypass:
            app.middleware_stack = stack


def _is_fastapis_own(stack: Any, router: APIRouter) -> bool:
    """Whether nothing but FastAPI's own middlewares stand before the routes."""
    while stack is not router:
        kind = type(stack)
        call = kind.__call__
        if (
            f"{kind.__module__}.{kind.__qualname__}" not in _FASTAPIS_OWN
            # Tools that watch an app replace the methods of classes.
            or not isinstance(call, FunctionType)
            or call.__globals__["__name__"] != kind.__module__
        ):
            return False
        stack = stack.app
    return type(router) is APIRouter and router.middleware_stack == router.app


def _around_errors(stack: Any, router: APIRouter) -> ASGIApp:
    """The same middlewares, with the same handlers, around what raises."""
    if stack is router:
        return raise_here
    middleware = copy(stack)
    middleware.app = _around_errors(stack.app, router)
    return middleware  # type: ignore[no-any-return]


async def raise_here(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise what a request failed with, for all that stands around it to see."""
    failed: _Failed = scope.pop(_FAILED)
    if failed.start is not None:
        await send(failed.start)
    install_handler(scope)
    raise failed.error


async def _unsent(message: Message) -> None:
    """Swallow what comes behind an answer that the client has been sent the start of."""
