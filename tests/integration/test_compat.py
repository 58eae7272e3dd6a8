"""Missing undocumented names of FastAPI and Starlette: an error at start, or a slower way."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import fastapi.routing
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.dependencies import models
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from fastapi_proxy_di import Balancer, Upstream, proxy_app, proxy_lifespan, proxy_router
from fastapi_proxy_di.integration import compat
from fastapi_proxy_di.upstream import client_request
from tests.support.gateways import billing, gateway_app, until
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import StartupFailed, dead_port, run_app
from tests.support.websocket_client import open_websocket
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


async def refuse() -> None:
    """Refuse every request."""
    raise HTTPException(401)


def _hide_effective_route(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden: Any = fastapi.routing
    monkeypatch.setattr(compat, "fastapi", _WithoutVariable(hidden))


class _WithoutVariable:
    """The package ``fastapi`` without the variable, as seen by `compat`."""

    def __init__(self, routing: Any) -> None:
        self.routing = _Without(routing, "_effective_route_context_var")
        self.__version__ = "0.999"


class _Without:
    def __init__(self, hidden: Any, name: str) -> None:
        self._hidden = hidden
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(name)
        return getattr(self._hidden, name)


def _hide_route_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fastapi.routing, "iter_route_contexts")


def _hide_dependant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(models, "Dependant")


def _hide_attribute(hidden: str) -> Callable[[pytest.MonkeyPatch], None]:
    def has(owner: object, name: str) -> bool:
        return name != hidden and hasattr(owner, name)

    return lambda monkeypatch: monkeypatch.setattr(compat, "hasattr", has, raising=False)


def _hide_in_request(*names: str) -> Callable[[pytest.MonkeyPatch], None]:
    class Renamed(Request):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            for name in names:
                delattr(self, name)

        async def body(self) -> bytes:
            return b"x"  # and keeps it elsewhere

    return lambda monkeypatch: monkeypatch.setattr(client_request, "Request", Renamed)


@pytest.mark.parametrize(
    ("hide", "named"),
    [
        (_hide_effective_route, "_effective_route_context_var"),
        (_hide_route_contexts, "iter_route_contexts"),
        (_hide_dependant, "Dependant"),
        (_hide_attribute("original_route"), "original_route"),
        (_hide_attribute("request_param_name"), "Dependant.request_param_name"),
        (_hide_attribute("middleware_stack"), "middleware_stack"),
        (_hide_in_request("_receive"), "_receive"),
        (_hide_in_request("_stream_consumed"), "_stream_consumed"),
        (_hide_in_request(), "_body"),
    ],
)
async def test_missing_name_is_a_fault_at_start(
    hide: Callable[[pytest.MonkeyPatch], None], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the name, and asks for another version; no guard is skipped."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, include={"dependencies": [Depends(refuse)]})
        hide(monkeypatch)
        with pytest.raises(StartupFailed, match=named):
            async with run_app(app):
                pass


async def test_missing_dependencies_of_the_app_are_a_fault_at_start_of_a_mount(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise an app whose dependencies a mounted ``proxy_app`` does not run would start."""
    app = FastAPI(lifespan=proxy_lifespan, dependencies=[Depends(refuse)])
    app.mount("/billing", proxy_app(billing(f"http://127.0.0.1:{dead_port()}")))
    _hide_attribute("dependencies")(monkeypatch)
    with pytest.raises(StartupFailed, match=r"APIRouter\.dependencies"):
        async with run_app(app):
            pass


class _HidesHandlers:
    """A middleware that hides the table of exception handlers."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hidden = {key: at for key, at in scope.items() if key != "starlette.exception_handlers"}
        await self._app(hidden, receive, send)


class _HidesInnerApp:
    """A middleware that does not have its inner app as ``app``."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._inner(scope, receive, send)


@pytest.mark.parametrize(("in_scope", "status"), [(True, 502), (False, 500)])
async def test_missing_table_of_handlers_makes_failures_a_500(in_scope: bool, status: int) -> None:
    """Neither the app nor the request has the table; if the request has it, they stay 502."""
    app = gateway_app(f"http://127.0.0.1:{dead_port()}")
    app.add_middleware(_HidesInnerApp)
    if not in_scope:
        app.router.middleware_stack = _HidesHandlers(app.router.middleware_stack)
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/billing/x")

    assert reply.status == status


async def test_missing_exit_stack_closes_a_response_when_it_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A response that is not returned keeps no connection."""
    monkeypatch.setattr("fastapi_proxy_di.upstream.balancer.exit_stack", lambda scope: None)
    app = FastAPI(lifespan=proxy_lifespan)
    async with ScriptedOrigin() as origin:
        upstream = Upstream(billing(origin.url))

        @app.get("/x")
        async def x(request: Request, balancer: Balancer = Depends(upstream)) -> str:
            await balancer.forward(request)
            return "not that one"

        async with run_app(app) as running:
            reply = await fetch(running.address, target="/x")
            await until(lambda: not upstream.of(app).destinations[0].in_flight)

    assert reply.json() == "not that one"


async def test_missing_send_passes_no_early_hints() -> None:
    """Everything else works."""

    class Renamed(Request):
        def __init__(self, request: Request) -> None:
            super().__init__(request.scope, request.receive)
            del self._send

    app = FastAPI(lifespan=proxy_lifespan)
    async with ScriptedOrigin() as origin:
        upstream = Upstream(billing(origin.url))

        @app.get("/x")
        async def x(request: Request, balancer: Balancer = Depends(upstream)) -> Response:
            return await balancer.forward(Renamed(request))

        async with run_app(app) as running:
            reply = await fetch(running.address, target="/x")

    assert (reply.status, reply.body) == (200, b"ok")


async def test_missing_channel_tunnels_through_starlette(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its state machine, which is slower."""
    used: list[WebSocket] = []
    channel_of = client_request.channel_of

    def channel(websocket: WebSocket) -> tuple[Receive, Send]:
        used.append(websocket)
        return channel_of(_Without(_Without(websocket, "_send"), "_receive"))  # type: ignore[arg-type]

    monkeypatch.setattr(client_request, "channel_of", channel)
    async with (
        echo_server(EchoApp()) as origin,
        run_app(gateway_app(origin.url)) as running,
        open_websocket(running.address, "/billing/x") as client,
    ):
        await client.send("hello")
        heard = await client.recv()

    assert (heard, len(used)) == ("hello", 1)


@pytest.mark.parametrize("scope", [{}, {"fastapi.telemetry": object()}])
def test_missing_span_of_the_request_leaves_the_current_one(scope: Scope) -> None:
    """Attempts are then below FastAPI's span of the endpoint."""
    current = SimpleNamespace(name="fastapi.endpoint")

    assert compat.request_span(scope, current) is current


def test_missing_path_pattern_is_a_fault() -> None:
    """The routes cannot be made without it."""
    router = proxy_router("billing")
    del router.routes[0].path_regex  # type: ignore[attr-defined]
    with pytest.raises(compat.UnknownFastAPI, match="path_regex"):
        router.routes[0].get_route_handler()  # type: ignore[attr-defined]


def test_unknown_path_pattern_is_a_fault() -> None:
    """Else some paths would not match."""
    router = proxy_router("billing")
    router.routes[0].path_regex = re.compile("^/(?P<path>.+)$")  # type: ignore[attr-defined]
    with pytest.raises(compat.UnknownFastAPI, match="pattern"):
        router.routes[0].get_route_handler()  # type: ignore[attr-defined]


def test_route_without_the_effective_one_is_that_of_the_router() -> None:
    """Access records then lack the prefix of the include; nothing else changes."""
    router = proxy_router(billing("http://127.0.0.1:1"))
    (route, *_) = router.routes

    assert compat.route_template({"route": route}) == "/{path:path}"
    assert compat.route_template({"route": object()}) is None
