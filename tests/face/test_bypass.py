"""A proxied request passes by FastAPI's own middlewares, and nobody else's; errors rise in them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_proxy_di import Upstream, UpstreamConnectError, proxy_router
from fastapi_proxy_di.bypass import Bypass
from tests.clients import fetch
from tests.forwarding.asgi_server import AsgiServer
from tests.gateways import billing, gateway_app, pass_through
from tests.origins import ScriptedOrigin
from tests.servers import dead_port, run_app


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


async def test_middlewares_whose_methods_were_replaced_see_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tools that watch an app do so; names and attributes are as before, as they leave them."""
    original, paths = ExceptionMiddleware.__call__, []

    async def watched(
        self: ExceptionMiddleware, scope: Scope, receive: Receive, send: Send
    ) -> None:
        paths.append(scope.get("path"))
        await original(self, scope, receive, send)

    watched.__module__ = original.__module__
    watched.__qualname__ = original.__qualname__
    monkeypatch.setattr(ExceptionMiddleware, "__call__", watched)
    async with ScriptedOrigin() as origin, run_app(gateway_app(origin.url)) as running:
        await fetch(running.address, target="/billing/x")

    assert "/billing/x" in paths


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
        super().__init__(app, extensions=())
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


async def test_handlers_see_the_request() -> None:
    """A handler gets what it would from a route: the request, its app and the error."""
    told: list[object] = []
    app = gateway_app(f"http://127.0.0.1:{dead_port()}")

    @app.exception_handler(UpstreamConnectError)
    async def own(request: Request, error: UpstreamConnectError) -> Response:
        told.extend((request.app, request.url.path, await request.body(), error.status))
        return JSONResponse({"own": True}, 418)

    seen = _Seen(app)
    async with run_app(seen) as running:
        reply = await fetch(running.address, method="POST", target="/billing/x", body=b"")

    assert (reply.status, reply.json()) == (418, {"own": True})
    assert told == [app, "/billing/x", b"", 502]


class _Falls:
    """A policy with a fault."""

    name = "falls"

    def pick(self, available: Sequence[object], request: object) -> NoReturn:
        raise LookupError("fell over")


@pytest.mark.parametrize("debug", [False, True])
async def test_unexpected_error_is_answered_as_ever(debug: bool) -> None:
    """By Starlette's 500, in debug mode with the traceback."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, app=FastAPI(debug=debug), policy=_Falls())
        async with run_app(app) as running:
            assert isinstance(app.middleware_stack, Bypass)
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 500
    assert (b"LookupError: fell over" in reply.body) is debug
    assert debug or reply.body == b"Internal Server Error"


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
