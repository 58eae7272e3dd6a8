"""Errors become problem documents, or the response of the app's own handler."""

from collections.abc import Callable
from unittest.mock import AsyncMock

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di import (
    Balancer,
    NoAvailableDestination,
    ProxyError,
    Upstream,
    UpstreamConnectError,
    proxy_lifespan,
    proxy_router,
)
from fastapi_proxy_di.errors import ClientDisconnected
from fastapi_proxy_di.integration.problems import problem_response
from tests.support.gateways import Billing, billing, gateway_app, pass_through
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import dead_port, run_app
from tests.support.websocket_client import shake_hands
from tests.websocket.gateways import serving

pytestmark = pytest.mark.e2e


def _proxied(settings: Billing) -> FastAPI:
    return gateway_app(*(one.url for one in settings.destination_settings))


def _injected(settings: Billing) -> FastAPI:
    app = FastAPI(lifespan=proxy_lifespan)

    @app.get("/billing/x")
    async def x(request: Request, balancer: Balancer = Depends(Upstream(settings))) -> Response:
        return await balancer.forward(request, "/x")

    return app


def _guarded(settings: Billing) -> FastAPI:
    async def nothing() -> None:
        pass

    return gateway_app(
        *(one.url for one in settings.destination_settings),
        include={"dependencies": [Depends(nothing)]},
    )


_FACES: list[Callable[[Billing], FastAPI]] = [_proxied, _injected, _guarded]


@pytest.mark.parametrize("face", _FACES)
@pytest.mark.parametrize("middlewares", [0, 1])
async def test_default_response_is_a_problem_document(
    face: Callable[[Billing], FastAPI], middlewares: int
) -> None:
    """RFC 9457, with the status twice and no address."""
    port = dead_port()
    app = face(billing(f"http://127.0.0.1:{port}"))
    for _ in range(middlewares):
        app.middleware("http")(pass_through)
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 502
    assert reply.one(b"content-type") == b"application/problem+json"
    assert reply.json()["status"] == 502
    assert reply.json()["title"]
    assert b"127.0.0.1" not in reply.body
    assert str(port).encode() not in reply.body


@pytest.mark.parametrize("face", _FACES)
async def test_no_destination_gives_retry_after(face: Callable[[Billing], FastAPI]) -> None:
    """All destinations are draining: 503 with Retry-After."""
    async with ScriptedOrigin() as origin:
        app = face(billing(origin.url))
        async with run_app(app) as running:
            await Upstream("billing").of(app).drain(origin.url)
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 503
    assert int(reply.one(b"retry-after") or 0) >= 1
    assert reply.json()["status"] == 503
    assert origin.requests == []


@pytest.mark.parametrize("face", _FACES)
@pytest.mark.parametrize("kind", [ProxyError, UpstreamConnectError])
@pytest.mark.parametrize("by_argument", [False, True])
async def test_own_handler_is_called(
    face: Callable[[Billing], FastAPI], kind: type[ProxyError], by_argument: bool
) -> None:
    """A handler of the class or its base gets the error, with all its attributes."""
    url = f"http://127.0.0.1:{dead_port()}"
    seen: list[ProxyError] = []

    async def handler(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProxyError)
        seen.append(error)
        return JSONResponse({"sorry": request.url.path}, 418)

    app = face(billing(url))
    if by_argument:
        app.exception_handlers[kind] = handler
    else:
        app.add_exception_handler(kind, handler)
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/billing/x")

    assert (reply.status, reply.json()) == (418, {"sorry": "/billing/x"})
    assert [type(error) for error in seen] == [UpstreamConnectError]
    assert seen[0].upstream == "billing"
    assert (seen[0].destination or "").startswith(url)
    assert seen[0].attempts


@pytest.mark.parametrize("face", _FACES)
async def test_handler_of_another_class_is_not_called(face: Callable[[Billing], FastAPI]) -> None:
    """Other errors get the default response."""
    handler = AsyncMock()
    app = face(billing(f"http://127.0.0.1:{dead_port()}"))
    app.add_exception_handler(NoAvailableDestination, handler)
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 502
    assert reply.one(b"content-type") == b"application/problem+json"
    handler.assert_not_called()


async def test_error_can_be_caught_in_an_endpoint() -> None:
    """``forward`` raises, so a fallback is a ``try``."""
    app = FastAPI(lifespan=proxy_lifespan)
    upstream = Upstream(billing(f"http://127.0.0.1:{dead_port()}"))

    @app.get("/x")
    async def x(request: Request, balancer: Balancer = Depends(upstream)) -> Response:
        try:
            return await balancer.forward(request)
        except UpstreamConnectError as error:
            return Response(f"closed: {error.upstream}")

    async with run_app(app) as running:
        reply = await fetch(running.address, target="/x")

    assert (reply.status, reply.body) == (200, b"closed: billing")


@pytest.mark.parametrize("denial", [True, False])
async def test_refused_handshake_is_a_problem_document_or_403(denial: bool) -> None:
    """403 under a server without the denial extension."""

    class WithoutDenial:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope.pop("extensions", None)
            await self.app(scope, receive, send)

    app = gateway_app(f"http://127.0.0.1:{dead_port()}")
    if not denial:
        app.add_middleware(WithoutDenial)
    async with serving(app) as running, connect(running.address) as client:
        refusal = await shake_hands(client, "/billing/live")

    assert refusal.status == (502 if denial else 403)
    assert (b"upstream could not be reached" in refusal.body) is denial


async def test_own_handler_of_every_exception_comes_first() -> None:
    """A handler of ``Exception`` gets our errors as well."""

    async def own(request: Request, error: Exception) -> Response:
        return JSONResponse({"own": type(error).__name__}, 500)

    app = gateway_app(f"http://127.0.0.1:{dead_port()}")
    app.add_exception_handler(Exception, own)
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/billing/x")

    assert (reply.status, reply.json()) == (500, {"own": "UpstreamConnectError"})


async def test_handlers_find_the_body_that_a_dependency_read() -> None:
    """Also for our own errors: the handler's request is the one the dependency had."""

    async def read(request: Request) -> None:
        await request.body()

    async def handle(request: Request, error: Exception) -> Response:
        return Response(b"lost: " + await request.body(), 502)

    app = FastAPI(exception_handlers={ProxyError: handle})
    app.include_router(
        proxy_router(billing(f"http://127.0.0.1:{dead_port()}"), websocket=False),
        prefix="/b",
        dependencies=[Depends(read)],
    )
    async with run_app(app) as running:
        reply = await fetch(running.address, "POST", "/b/x", body=b"order 7")

    assert (reply.status, reply.body) == (502, b"lost: order 7")


async def test_own_handler_of_status_500_comes_first() -> None:
    """Starlette treats it as a handler of ``Exception``."""

    async def own(request: Request, error: Exception) -> Response:
        return JSONResponse({"own": type(error).__name__}, 500)

    app = gateway_app(f"http://127.0.0.1:{dead_port()}")
    app.add_exception_handler(500, own)
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/billing/x")

    assert (reply.status, reply.json()) == (500, {"own": "UpstreamConnectError"})


async def test_error_of_a_client_that_left_has_a_response() -> None:
    """Its status 499 has no name in HTTP."""
    response = await problem_response(HTTPConnection({"type": "http"}), ClientDisconnected())

    assert response.status_code == 499
