"""A proxied request passes by FastAPI's own middlewares, and nobody else's; errors rise in them.

It is long because one promise is tried from every side: whatever may stand in the way, at start
and while the app runs, and whatever may fail, before and behind the start of an answer.
"""

import functools
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_proxy_di import Upstream, proxy_router
from fastapi_proxy_di.integration.bypass import Bypass
from tests.forwarding.asgi_server import AsgiServer
from tests.support.gateways import billing, gateway_app, pass_through
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import dead_port, run_app


class _Seen:
    """An app with an eye on its scopes; an ASGI application to be run in its place."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.scopes.append(scope)
        await self._app(scope, receive, send)

    def passed_by(self) -> list[bool]:
        """Of each request, whether no middleware of FastAPI's has left its mark in the scope."""
        return [
            not {"fastapi_middleware_astack", "starlette.exception_handlers"} & scope.keys()
            for scope in self.scopes
        ]


async def test_nothing_of_fastapi_stands_in_the_way() -> None:
    """Neither an exit stack nor a table of handlers is made for the request."""
    async with ScriptedOrigin() as origin:
        seen = _Seen(gateway_app(origin.url))
        async with run_app(seen) as running:
            replies = [
                await fetch(running.address, target=target)
                for target in ("/billing/x", "/billing", "/billing/a%2Fb?c=1", "/elsewhere")
            ]

    assert [reply.status for reply in replies] == [200, 200, 200, 404]
    assert [request.target for request in origin.requests] == [b"/x", b"/", b"/a%2Fb?c=1"]
    assert seen.passed_by() == [True, True, True, False]


async def test_mount_that_travels_encoded_goes_the_usual_way() -> None:
    """What needs a closer look gets it behind the middlewares, and its 404 from the handlers."""
    async with ScriptedOrigin() as origin:
        seen = _Seen(gateway_app(origin.url))
        async with run_app(seen) as running:
            other_letters = await fetch(running.address, target="/bill%69ng/x")
            other_segments = await fetch(running.address, target="/billing%2Fx")

    assert (other_letters.status, other_segments.status) == (200, 404)
    assert [request.target for request in origin.requests] == [b"/x"]
    assert seen.passed_by() == [False, False]


async def test_mount_as_long_as_what_it_travels_as_is_no_border() -> None:
    """A slash behind as many bytes as the mount has need not be the one that ends it."""
    async with ScriptedOrigin() as origin:
        seen = _Seen(gateway_app(origin.url, prefix="/a/b"))
        async with run_app(seen) as running:
            reply = await fetch(running.address, target="/%61/b/x")

    assert reply.status == 200
    assert [request.target for request in origin.requests] == [b"/x"]
    assert seen.passed_by() == [False]


class _Tags:
    """A middleware of an app's own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-tag", b"1")]
            await send(message)

        await self.app(scope, receive, tagged)


class _BuildsItsOwn(FastAPI):
    """An app with something around FastAPI's middlewares."""

    def build_middleware_stack(self) -> ASGIApp:
        return _Tags(super().build_middleware_stack())


def _added(app: FastAPI) -> FastAPI:
    app.add_middleware(_Tags)
    return app


def _around_the_routes(app: FastAPI) -> FastAPI:
    app.router.middleware_stack = _Tags(app.router.middleware_stack)
    return app


def _decorated(app: FastAPI) -> FastAPI:
    @app.middleware("http")
    async def tags(request: Request, call_next: Callable[[Request], Any]) -> Response:
        response: Response = await call_next(request)
        response.headers["x-tag"] = "1"
        return response

    return app


def _built(app: FastAPI) -> FastAPI:
    app.__class__ = _BuildsItsOwn
    return app


@pytest.mark.parametrize("change", [_added, _around_the_routes, _decorated, _built])
async def test_every_other_middleware_sees_the_request(
    change: Callable[[FastAPI], FastAPI],
) -> None:
    """However it came in front of the routes."""
    async with ScriptedOrigin() as origin:
        app = change(gateway_app(origin.url))
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x")
            assert not isinstance(app.middleware_stack, Bypass)

    assert (reply.status, reply.all(b"x-tag")) == (200, [b"1"])


_CALLS: list[tuple[type, str]] = [
    (ServerErrorMiddleware, "__call__"),
    (ExceptionMiddleware, "__call__"),
    (AsyncExitStackMiddleware, "__call__"),
    (Router, "__call__"),
    (APIRouter, "__call__"),
    (APIRouter, "app"),
]


def _guarded(kind: type, name: str) -> Any:
    """The method, once it lets no request through."""
    original: Any = getattr(kind, name)

    async def guarded(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Response(status_code=403)(scope, receive, send)
        else:
            await original(self, scope, receive, send)

    return guarded


class _Wrapped:
    """A callable that looks like what it wraps, as some tools have it."""

    __slots__ = ("guarded", "wrapped")

    def __init__(self, wrapped: Any, guarded: Any) -> None:
        self.wrapped = wrapped
        self.guarded = guarded

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else self.guarded.__get__(instance, owner)


def _bare(original: Any, guarded: Any) -> Any:
    return guarded


def _dressed(original: Any, guarded: Any) -> Any:
    return functools.update_wrapper(guarded, original)


@pytest.mark.parametrize(("kind", "name"), _CALLS)
@pytest.mark.parametrize("dress", [_bare, _dressed, _Wrapped])
@pytest.mark.parametrize("running", [False, True])
async def test_methods_that_were_replaced_see_the_request(
    kind: type, name: str, dress: Any, running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools that watch or guard an app replace them in the classes, whenever they come."""
    guarded = dress(getattr(kind, name), _guarded(kind, name))
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        if not running:
            monkeypatch.setattr(kind, name, guarded)
            # A router binds it when it is made.
            app.router.middleware_stack = app.router.app
        async with run_app(app) as server:
            monkeypatch.setattr(kind, name, guarded)
            reply = await fetch(server.address, target="/billing/x")
            if running and name == "app":
                assert reply.status == 200
                return

    assert reply.status == 403
    assert not origin.requests


@pytest.mark.parametrize("same_file", [False, True])
async def test_methods_whose_code_was_replaced_see_the_request(
    same_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools that trace put other code into a function and leave the function where it is."""
    call: Any = AsyncExitStackMiddleware.__call__

    async def guarded(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body"})
        else:
            await self.app(scope, receive, send)

    code = guarded.__code__
    if same_file:
        code = code.replace(co_filename=call.__code__.co_filename)
        monkeypatch.setattr(call, "wrapped", call.__code__, raising=False)
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        monkeypatch.setattr(call, "__code__", code)
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 403
    assert not origin.requests


def _inside_the_outermost(app: FastAPI) -> None:
    outermost: Any = app.middleware_stack
    outermost.app = _Refuses(outermost.app)


def _around_the_router(app: FastAPI) -> None:
    innermost: Any = app.middleware_stack
    while innermost.app is not app.router:
        innermost = innermost.app
    innermost.app = _Refuses(app.router)


def _in_the_router(app: FastAPI) -> None:
    app.router.middleware_stack = _Refuses(app.router.middleware_stack)


class _RefusingRouter(APIRouter):
    """A router that lets nothing through."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Response(status_code=403)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _of_the_router(app: FastAPI) -> None:
    app.router.__class__ = _RefusingRouter


class _Refuses:
    """A guard that an app put up."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Response(status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


@pytest.mark.parametrize(
    "put_up", [_inside_the_outermost, _around_the_router, _in_the_router, _of_the_router]
)
@pytest.mark.parametrize("running", [False, True])
async def test_guards_that_were_put_up_see_the_request(
    running: bool,
    put_up: Callable[[FastAPI], None],
) -> None:
    """Wherever between the server and the routes, and whenever."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        app.middleware_stack = app.build_middleware_stack()
        if not running:
            put_up(app)
        async with run_app(app) as server:
            if running:
                assert (await fetch(server.address, target="/billing/x")).status == 200
                put_up(app)
            reply = await fetch(server.address, target="/billing/x")

    assert reply.status == 403
    assert len(origin.requests) == running


async def test_middlewares_put_in_front_while_running_see_the_request() -> None:
    """Either around what stands there, or built anew; the end of the app leaves them alone."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        async with run_app(app) as running:
            assert isinstance(app.middleware_stack, Bypass)
            app.middleware_stack = tags = _Tags(app.middleware_stack)
            reply = await fetch(running.address, target="/billing/x")

        assert reply.all(b"x-tag") == [b"1"]
        assert app.middleware_stack is tags
        async with run_app(app) as running:
            again = await fetch(running.address, target="/billing/x")

    assert (again.status, again.all(b"x-tag")) == (200, [b"1"])


async def test_app_is_left_as_it_was() -> None:
    """Its middlewares are those of before, start after start."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        app.middleware_stack = stack = app.build_middleware_stack()
        for _ in range(2):
            async with run_app(app) as running:
                assert isinstance(app.middleware_stack, Bypass)
                assert (await fetch(running.address, target="/billing/x")).status == 200
            assert app.middleware_stack is stack


async def test_two_mounts_have_one_bypass() -> None:
    """The lifespan of each router comes by; one looks after all."""
    app = FastAPI()
    async with ScriptedOrigin() as origin:
        settings = billing(origin.url)
        for prefix in ("/one", "/two"):
            app.include_router(proxy_router(settings), prefix=prefix)
        seen = _Seen(app)
        async with run_app(seen) as running:
            assert isinstance(app.middleware_stack, Bypass)
            assert not isinstance(app.middleware_stack.app, Bypass)
            for target in ("/one/x", "/two/x"):
                assert (await fetch(running.address, target=target)).status == 200

    assert seen.passed_by() == [True, True]


async def test_overrides_made_while_running_count() -> None:
    """A stand-in for the balancer is asked from the next request on."""
    asked = []

    class StandIn:
        async def forward(self, request: Request, path: str) -> Response:
            asked.append(path)
            return Response("stand-in")

    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        async with run_app(app) as running:
            before = await fetch(running.address, target="/billing/x")
            app.dependency_overrides[Upstream("billing")] = StandIn
            during = await fetch(running.address, target="/billing/y")
            app.dependency_overrides.clear()
            after = await fetch(running.address, target="/billing/z")

    assert [before.body, during.body, after.body] == [b"ok", b"stand-in", b"ok"]
    assert asked == ["/y"]


async def test_upstream_that_is_not_started_is_told_as_ever() -> None:
    """Overridden at start and not any more: the app's handler for its own errors answers."""
    app = gateway_app("http://127.0.0.1:9")
    app.dependency_overrides[Upstream("billing")] = lambda: None
    errors = []

    @app.exception_handler(Exception)
    async def own(request: Request, error: Exception) -> Response:
        errors.append(type(error).__name__)
        return JSONResponse({}, 500)

    async with run_app(app) as running:
        app.dependency_overrides.clear()
        reply = await fetch(running.address, target="/billing/x")

    assert (reply.status, errors) == (500, ["ProxyNotStarted"])


class _Refusing(AsgiServer):
    """A server that raises when it is sent a message of one type."""

    def __init__(self, app: FastAPI, refused: str) -> None:
        super().__init__(app)
        self._refused = refused

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        if message["type"] == self._refused:
            raise OSError("the client has left")


@pytest.mark.parametrize("middlewares", [0, 1])
@pytest.mark.parametrize("refused", ["start", "body"])
async def test_server_that_refuses_an_answer_is_told_to_the_handlers(
    refused: str, middlewares: int
) -> None:
    """As from an endpoint: the handler of every exception sees it, it rises, nothing is added."""
    handled = []
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)

        @app.exception_handler(Exception)
        async def own(request: Request, error: Exception) -> Response:
            handled.append(error)
            return JSONResponse({}, 500)

        for _ in range(middlewares):
            app.add_middleware(_Tags)
        server = _Refusing(app, f"http.response.{refused}")
        async with run_app(app):
            with pytest.raises(OSError, match="has left") as raised:
                await server.get()
            in_flight = [one.in_flight for one in server.balancer.destinations]

    assert handled == [raised.value]
    assert server.types == ["start", "body"][: server.types.index(refused) + 1]
    assert in_flight == [0]


@pytest.mark.parametrize("middlewares", [0, 1])
async def test_handler_for_an_error_behind_the_start_cannot_answer_any_more(
    middlewares: int,
) -> None:
    """Starlette says so, to whoever runs the app."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)

        @app.exception_handler(OSError)
        async def own(request: Request, error: OSError) -> Response:
            return JSONResponse({}, 500)

        for _ in range(middlewares):
            app.add_middleware(_Tags)
        server = _Refusing(app, "http.response.body")
        async with run_app(app):
            with pytest.raises(RuntimeError, match="response already started") as raised:
                await server.get()

    assert isinstance(raised.value.__cause__, OSError)
    assert server.types == ["start", "body"]


class _Fault(Exception):
    """What nobody expects."""


class _Falls:
    """A policy with a fault."""

    name = "falls"

    def pick(self, available: Sequence[object], request: object) -> NoReturn:
        raise _Fault("fell over")


async def test_handlers_see_the_request() -> None:
    """A handler gets what it would from a route: the request, its app and the error."""
    told: list[object] = []
    app = gateway_app("http://127.0.0.1:9", policy=_Falls())  # fails before it has to wait

    @app.exception_handler(_Fault)
    async def own(request: Request, error: _Fault) -> Response:
        told.extend((request.app, request.url.path, await request.body(), str(error)))
        told.append(request.scope["router"])
        return JSONResponse({"own": True}, 418)

    seen = _Seen(app)
    async with run_app(seen) as running:
        reply = await fetch(running.address, method="POST", target="/billing/x", body=b"")

    assert (reply.status, reply.json()) == (418, {"own": True})
    assert told == [app, "/billing/x", b"", "fell over", app.router]


@pytest.mark.parametrize("debug", [False, True])
async def test_unexpected_error_is_answered_as_ever(debug: bool) -> None:
    """By Starlette's 500, in debug mode with the traceback."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, app=FastAPI(debug=debug), policy=_Falls())
        async with run_app(app) as running:
            assert isinstance(app.middleware_stack, Bypass)
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 500
    assert (b"_Fault: fell over" in reply.body) is debug
    assert debug or reply.body == b"Internal Server Error"


async def test_handlers_that_were_replaced_while_running_count() -> None:
    """Those of an app are looked up when a request fails."""

    async def first(request: Request, error: Exception) -> Response:
        return JSONResponse({}, 521)

    async def second(request: Request, error: Exception) -> Response:
        return JSONResponse({}, 522)

    app = gateway_app(f"http://127.0.0.1:{dead_port()}")
    app.add_exception_handler(Exception, first)
    async with run_app(app) as running:
        before = await fetch(running.address, target="/billing/x")
        outermost: Any = app.middleware_stack
        outermost.app.handler = second
        after = await fetch(running.address, target="/billing/x")

    assert (before.status, after.status) == (521, 522)


async def test_route_that_cannot_be_read_leaves_requests_their_usual_way() -> None:
    """One that was spoilt while the app runs costs the short way, and no request."""
    async with ScriptedOrigin() as origin:
        app = FastAPI()
        app.add_api_route("/own", lambda: "own")
        app = gateway_app(origin.url, app=app)
        seen = _Seen(app)
        async with run_app(seen) as running:
            before = await fetch(running.address, target="/billing/x")
            route: Any = next(one for one in app.router.routes if isinstance(one, APIRoute))
            route.path = "/{twice}/{twice}"
            app.router.routes.append(route)
            after = [await fetch(running.address, target="/billing/x") for _ in range(2)]

    assert [before.status, *(reply.status for reply in after)] == [200, 200, 200]
    assert seen.passed_by() == [True, False, False]


async def test_request_that_failed_is_forgotten_at_once() -> None:
    """Its error holds no frame that holds the error, so nothing waits for the collector."""
    errors: list[weakref.ref[_Fault]] = []
    app = gateway_app("http://127.0.0.1:9", policy=_Falls())
    server = AsgiServer(app)
    gc.collect()
    gc.disable()
    try:
        async with run_app(app):
            for _ in range(3):
                try:
                    await server.get()
                except _Fault as error:
                    errors.append(weakref.ref(error))
        assert [error() for error in errors] == [None] * 3
    finally:
        gc.enable()


async def test_mounted_app_has_its_own() -> None:
    """What a server runs is the outer app; the middlewares of both see the request."""
    async with ScriptedOrigin() as origin:
        inner = gateway_app(origin.url)

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            async with inner.router.lifespan_context(inner):
                yield

        outer = FastAPI(lifespan=lifespan)
        outer.middleware("http")(pass_through)
        outer.mount("/inner", inner)
        seen = _Seen(outer)
        async with run_app(seen) as running:
            reply = await fetch(running.address, target="/inner/billing/x")

    assert reply.status == 200
    assert origin.requests[0].target == b"/x"
