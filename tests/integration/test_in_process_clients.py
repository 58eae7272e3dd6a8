"""Tests of apps that proxy, by ``TestClient`` and by async clients without a server."""

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.testclient import TestClient

from fastapi_proxy_di import Balancer, ProxyNotStarted, Upstream, proxy_lifespan
from tests.support.gateways import Gateway, billing, gateway_app
from tests.support.origins import ScriptedOrigin
from tests.support.servers import Running, run_app_in_thread
from tests.websocket.upstreams import EchoApp


def _echoing() -> FastAPI:
    """Make the app of an upstream that echoes: HTTP and WebSocket."""
    app = FastAPI()
    app.mount("/live", EchoApp())

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def whatever(request: Request) -> Response:
        return Response(request.url.path.encode() + b" " + await request.body())

    return app


@contextlib.asynccontextmanager
async def _upstream() -> AsyncIterator[Running]:
    async with run_app_in_thread(_echoing()) as running:
        yield running


@pytest.mark.e2e
async def test_test_client_that_is_entered_proxies() -> None:
    """``with TestClient(app)`` runs the lifespan."""
    async with _upstream() as upstream:
        app = gateway_app(upstream.url)
        with TestClient(app) as client:
            got = client.get("/billing/x")
            posted = client.post("/billing/y", content=b"data")
            with client.websocket_connect("/billing/live/") as websocket:
                websocket.send_text("hello")
                said = websocket.receive_text()

    assert (got.status_code, got.content) == (200, b"/x ")
    assert (posted.status_code, posted.content) == (200, b"/y data")
    assert said == "hello"


@pytest.mark.e2e
async def test_test_client_can_be_entered_again() -> None:
    """Each ``with`` starts the upstreams in a new loop; between them none runs."""
    async with _upstream() as upstream:
        app = gateway_app(upstream.url)
        contents = []
        for _ in range(2):
            with TestClient(app) as client:
                contents.append(client.get("/billing/x").content)
            with pytest.raises(ProxyNotStarted):
                TestClient(app).get("/billing/x")

    assert contents == [b"/x ", b"/x "]


@contextlib.asynccontextmanager
async def _async_client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Make the client of async tests: no server, the lifespan by hand."""
    async with (
        proxy_lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        yield client


async def test_async_client_with_the_lifespan_proxies() -> None:
    """An async test only needs ``async with proxy_lifespan(app)``."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        async with _async_client(app) as client:
            replies = [await client.get(f"/billing/{number}") for number in range(3)]

    assert [(reply.status_code, reply.content) for reply in replies] == [(200, b"ok")] * 3
    assert [seen.target for seen in origin.requests] == [b"/0", b"/1", b"/2"]
    assert origin.connections == 1


async def test_async_client_reaches_injected_upstreams() -> None:
    """By endpoints, and by ``Upstream.of``."""
    async with ScriptedOrigin() as origin:
        upstream = Upstream(billing(origin.url))
        app = FastAPI()

        @app.get("/x")
        async def x(request: Request, balancer: Annotated[Balancer, Depends(upstream)]) -> Response:
            return await balancer.forward(request)

        async with _async_client(app) as client:
            reply = await client.get("/x")
            called = await upstream.of(app).client.get("/y")

    assert (reply.status_code, called.status_code) == (200, 200)
    assert [seen.target for seen in origin.requests] == [b"/x", b"/y"]


async def test_async_client_without_the_lifespan_gets_an_error_that_says_so() -> None:
    """The error has the line to add; nothing is dialled."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://app"
        ) as client:
            with pytest.raises(ProxyNotStarted, match="proxy_lifespan"):
                await client.get("/billing/x")

    assert origin.connections == 0


async def test_async_tests_leave_no_connection() -> None:
    """After the lifespan the upstream's connections are gone, and no request is in flight."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        async with _async_client(app) as client:
            await client.get("/billing/x")
            gate = Gateway(Running("app", 80), app)
            in_flight = gate.in_flight
        await origin.all_left()

    assert in_flight == 0
    assert origin.open_connections == 0
