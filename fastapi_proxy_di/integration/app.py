"""``proxy_app("billing")``: an upstream as a plain ASGI application, to mount or to serve.

FastAPI does three things for a proxied route that this application has to do itself: run
guards, turn exceptions into responses, and start the upstream where no app starts it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from fastapi_proxy_di.errors import ProxyError, ProxyNotStarted, SettingsError
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.integration.added_headers import take_headers, with_headers
from fastapi_proxy_di.integration.balancers import GivesBalancer
from fastapi_proxy_di.integration.broken_responses import BrokenResponses
from fastapi_proxy_di.integration.compat import app_dependencies, route_template
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.integration.lifespan import RUNTIME, forget_runtime
from fastapi_proxy_di.integration.mentions import is_overridden, overridden_upstreams
from fastapi_proxy_di.integration.mounts import MountedUpstream
from fastapi_proxy_di.integration.problems import (
    http_exception_response,
    problem,
    problem_response,
    send_response,
)
from fastapi_proxy_di.integration.rate_limit import STARTER, Refused
from fastapi_proxy_di.integration.request_ids import RequestIds
from fastapi_proxy_di.integration.runtime import Runtime
from fastapi_proxy_di.limiting.limiter import CountsRequests
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.settings import Mention
from fastapi_proxy_di.transforms.pipeline import Transform, pipeline_of
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.wire.targets import PathOutsideMount, target_in_mount

Guard = Callable[[HTTPConnection], Awaitable[Response | None]]
"""An async function that returns ``None`` to allow a request, or a response to refuse it. A
`rate_limit` is one."""


def proxy_app(
    upstream: Mention | Upstream,
    *,
    guard: Guard | Iterable[Guard] | None = None,
    transforms: Iterable[Transform] = (),
    unguarded: bool = False,
) -> ProxyApp:
    """Give an ASGI application that forwards every request, and runs no FastAPI dependencies.

    No mount runs dependencies, so the application is protected by its ``guard``:

    ```python
    async def check_key(connection: HTTPConnection) -> Response | None:
        if connection.headers.get("x-api-key") != KEY:
            raise HTTPException(401)
        return None

    app.mount("/billing", proxy_app("billing", guard=check_key))
    ```

    The application forwards HTTP and WebSockets. It can be mounted in FastAPI, Starlette or
    any other ASGI framework, or served alone: ``uvicorn gateway:billing``. Its upstream is
    started

    - by the server's lifespan, when the application is served alone;
    - by ``proxy_lifespan`` or a proxy router of a FastAPI or Starlette app that has the
      application in a ``Mount`` or ``Host``, also inside middlewares that keep the wrapped
      application as ``app``;
    - by ``async with billing.running():``, in any framework.

    The application only gets requests that the framework's mount passes on: Starlette's
    ``Mount`` does not match its path without the slash, nor paths with line ends.

    Args:
        upstream: Name, settings class or instance.
        guard: One or several functions ``async (HTTPConnection) -> Response | None``, called
            in order before the body is read or a destination is dialled. The first response
            or ``HTTPException`` ends the request. A WebSocket handshake is denied with this
            response, or with 403 where the server cannot send a denial response.
        transforms: Changes to requests and responses, as for ``proxy_router``.
        unguarded: Allows the application in a FastAPI app with app-level ``dependencies``,
            which do not run for its requests. Without it such an app fails to start.

    Returns:
        The application.

    Raises:
        SettingsError: The name is not valid.
        TypeError: A guard is not an async function.
    """
    return ProxyApp(upstream, guard=guard, transforms=transforms, unguarded=unguarded)


class ProxyApp(MountedUpstream):
    """An ASGI application in front of one upstream, made by ``proxy_app``; runs no dependencies.

    Attributes:
        upstream: The upstream that requests are forwarded to. Its `Balancer` is
            ``billing.upstream.of(app)`` if ``app`` started the upstream, and
            ``billing.upstream.of(billing)`` if the application is served alone.

    Args:
        upstream: As for ``proxy_app``.
        guard: As for ``proxy_app``.
        transforms: As for ``proxy_app``.
        unguarded: As for ``proxy_app``.
    """

    def __init__(
        self,
        upstream: Mention | Upstream,
        *,
        guard: Guard | Iterable[Guard] | None = None,
        transforms: Iterable[Transform] = (),
        unguarded: bool = False,
    ) -> None:
        self.upstream: Upstream = upstream if isinstance(upstream, Upstream) else Upstream(upstream)
        self._guards = _guards(guard)
        self.counts_requests: bool = any(isinstance(one, CountsRequests) for one in self._guards)
        pipeline = pipeline_of(transforms)
        self._overrides = None if pipeline is None else Overrides(transforms=pipeline)
        self._unguarded = unguarded
        self._balancer: Balancer | None = None
        self._starter: object = None  # the app that started the upstream, or our own runtime
        self._app: FastAPI | None = None  # the starter, if it is a FastAPI app
        self._checked: FastAPI | None = None  # the last other app that passed `_check`
        self._inner: ASGIApp = self._respond  # or a wrapper around it
        self._alone: ASGIApp | None = None  # responds while the server's lifespan runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request or a WebSocket; called by the server or the framework."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._alone is not None:
            await self._alone(scope, receive, send)
        else:
            await self._inner(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._guards:
                scope[STARTER] = self._starter
                refusal = await self._refusal(HTTPConnection(scope))
                if refusal is not None:
                    await send_response(refusal, scope, receive, send)
                    return
                if added := take_headers(scope):
                    send = with_headers(send, added)
            balancer = self._balancer
            app = self._overriding_app(scope.get("app"))
            if app is not None:
                balancer = await self._override(app).balancer()
            if balancer is None:
                raise self._not_started()
            if scope["type"] == "http":
                if scope["method"] == "CONNECT":
                    await problem(405)(scope, receive, send)
                    return
                path, prefix = target_in_mount(scope)
                await balancer.forwarder.asgi(scope, receive, send, path, prefix, self._overrides)
            else:
                path, prefix = target_in_mount(scope)
                websocket = WebSocket(scope, receive, send)
                await balancer.forwarder.websocket(websocket, path, prefix, self._overrides)
        except ProxyError as error:
            # No byte of a response was sent yet: a later failure breaks the transfer instead.
            response = await problem_response(HTTPConnection(scope), error)
            await send_response(response, scope, receive, send)
        except Refused as error:
            await send_response(error.response(), scope, receive, send)
        except HTTPException as error:
            response = await http_exception_response(error)
            await send_response(response, scope, receive, send)
        except WebSocketException as error:
            await send({"type": "websocket.close", "code": error.code, "reason": error.reason})
        except PathOutsideMount:
            await send_response(problem(404), scope, receive, send)
        except ProxyNotStarted as error:
            await send_response(problem(500, str(error)), scope, receive, send)
            raise

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the upstream within the block, for example in any framework's lifespan.

        Does nothing if the upstream runs already.

        Raises:
            SettingsError: Every fault of the upstream.
        """
        async with running_together([self]):
            yield

    def claim(self, app: Starlette) -> bool:
        if self._starter is not None:
            if isinstance(self._starter, Starlette):
                raise SettingsError(
                    f"{self!r} stands in two apps that run at the same time; make one for each"
                )
            return False
        if isinstance(app, FastAPI):
            self._check(app)
            self._app = app
        self._starter = app
        return True

    def bind(self, balancer: Balancer | None) -> None:
        self._balancer = balancer

    def release(self) -> None:
        self._balancer = self._starter = self._app = None
        self._inner = self._respond

    def __repr__(self) -> str:
        return f"proxy_app({self.upstream.name!r})"

    async def _refusal(self, connection: HTTPConnection) -> Response | None:
        for guard in self._guards:
            refusal: object = await guard(connection)
            if isinstance(refusal, Response):
                return refusal
            if refusal is not None:
                # A guard that returns True or False must not let a request through.
                raise TypeError(f"guard: {guard!r} gave {refusal!r}; give a Response, or None")
        return None

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Run the upstream between the server's startup and shutdown messages."""
        await receive()
        started = False
        try:
            async with self.running():
                # Middlewares may be around an application that is served alone, too.
                self._alone = BrokenResponses(self._inner, raises=True)
                await send({"type": "lifespan.startup.complete"})
                started = True
                await receive()
        except Exception as error:
            kind = "shutdown" if started else "startup"
            await send({"type": f"lifespan.{kind}.failed", "message": str(error)})
            raise
        finally:
            self._alone = None
        await send({"type": "lifespan.shutdown.complete"})

    def _overriding_app(self, around: object) -> FastAPI | None:
        """Return the FastAPI app that overrides the upstream now, ``None`` for no override.

        An override of ``around``, the app that the request came through, comes before an
        override of the app that started the upstream.
        """
        name = self.upstream.name
        if around is not self._app and isinstance(around, FastAPI):
            if around is not self._checked:
                self._check(around)
                self._checked = around
            if is_overridden(around, name):
                return around
        return self._app if self._app is not None and is_overridden(self._app, name) else None

    def _check(self, app: FastAPI) -> None:
        """Refuse an app whose dependencies or override would silently not run.

        Raises:
            SettingsError: The app has app-level dependencies, or an override of the upstream
                that needs FastAPI.
        """
        if app_dependencies(app) and not self._unguarded:
            raise SettingsError(
                f"{self!r} is mounted in an app with app-level dependencies, and a mount runs "
                "none of them. Give what must run as proxy_app(..., guard=...) and say "
                "unguarded=True, or include proxy_router instead, which runs them"
            )
        if is_overridden(app, self.upstream.name):
            self._override(app)

    def _override(self, app: FastAPI) -> GivesBalancer:
        override = overridden_upstreams(app)[self.upstream.name]
        if isinstance(override, GivesBalancer):
            return override
        raise SettingsError(
            f"app.dependency_overrides[{self.upstream!r}] is {override!r}, and {self!r} runs no "
            "dependencies; override it by a stand-in of fastapi_proxy_di.testing"
        )

    def _not_started(self) -> ProxyNotStarted:
        if self._app is not None:
            return ProxyNotStarted(
                f"{self!r} is not started: its upstream was overridden when the app started"
            )
        return ProxyNotStarted(
            f"{self!r} is not started, because no lifespan that starts it ran. Add "
            "FastAPI(lifespan=proxy_lifespan) to the app that mounts it, or `async with "
            "proxy_lifespan(app):` to a lifespan of its own; in any other framework `async with "
            "billing.running():`; served by itself it needs the server's lifespan; in tests "
            "`with TestClient(app) as client:`"
        )


@asynccontextmanager
async def running_together(proxies: Iterable[ProxyApp]) -> AsyncIterator[None]:
    """Run the upstreams of several applications in one runtime, within the block.

    Raises:
        SettingsError: Every fault of every upstream.
    """
    runtime = Runtime()
    own = [one for one in proxies if one._starter is None]  # noqa: SLF001
    for one in own:
        one._starter = runtime  # noqa: SLF001
        setattr(one, RUNTIME, runtime)
    try:
        await runtime.start(
            {one.upstream.name: one.upstream.source for one in own},
            telemetry_of=partial(Telemetry, route_of=route_template),
        )
        if any(one.counts_requests for one in own):
            runtime.warn_of_limits()
        for one in own:
            one.bind(runtime.balancers[one.upstream.name])
            if runtime.request_id:
                one._inner = RequestIds(one._respond)  # noqa: SLF001
        yield
    finally:
        for one in own:
            one.release()
            forget_runtime(one)
        await runtime.aclose()


def _guards(guard: Guard | Iterable[Guard] | None) -> tuple[Guard, ...]:
    if guard is None:
        return ()
    guards = (guard,) if callable(guard) else tuple(guard)
    for one in guards:
        # A callable object is asynchronous if its __call__ is.
        call = one if inspect.isroutine(one) else type(one).__call__
        if not inspect.iscoroutinefunction(one) and not inspect.iscoroutinefunction(call):
            raise TypeError(f"guard: {one!r} must be an async function of an HTTPConnection")
    return guards
