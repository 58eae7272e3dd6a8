"""An upstream that no lifespan has started raises a clear error."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.testclient import TestClient

from fastapi_proxy_di import (
    Balancer,
    ProxyError,
    ProxyNotStarted,
    Upstream,
    proxy_lifespan,
    proxy_router,
)
from tests.support.gateways import billing, gateway_app
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import dead_port, run_app


def _injecting(app: FastAPI, url: str) -> FastAPI:
    upstream = Upstream(billing(url))

    @app.get("/x")
    async def x(request: Request, balancer: Balancer = Depends(upstream)) -> Response:
        return await balancer.forward(request)

    return app


def _dead() -> str:
    return f"http://127.0.0.1:{dead_port()}"


def test_app_that_only_injects_names_the_lifespan() -> None:
    """The error has the line to add."""
    with (
        TestClient(_injecting(FastAPI(), _dead())) as client,
        pytest.raises(ProxyNotStarted, match="proxy_lifespan"),
    ):
        client.get("/x")


def test_test_client_without_with_gets_an_error_that_says_so() -> None:
    """A ``TestClient`` runs no lifespan unless it is entered."""
    client = TestClient(gateway_app(_dead()))

    with pytest.raises(ProxyNotStarted, match="with"):
        client.get("/billing/x")


def test_lookup_outside_requests_raises_an_error_that_says_so() -> None:
    """``Upstream.of`` an app that has not started."""
    with pytest.raises(ProxyNotStarted):
        Upstream("billing").of(gateway_app(_dead()))


@pytest.mark.e2e
async def test_not_started_is_an_internal_error() -> None:
    """It is a programming error: 500, and no connection."""
    async with ScriptedOrigin() as origin, run_app(_injecting(FastAPI(), origin.url)) as running:
        reply = await fetch(running.address, target="/x")

    assert reply.status == 500
    assert origin.connections == 0


def test_not_started_is_no_proxy_error() -> None:
    """A handler for ``ProxyError`` does not hide it."""
    assert not issubclass(ProxyNotStarted, ProxyError)


@pytest.mark.e2e
async def test_app_with_the_lifespan_works() -> None:
    """With the line of the error."""
    app = FastAPI(lifespan=proxy_lifespan)
    async with ScriptedOrigin() as origin, run_app(_injecting(app, origin.url)) as running:
        reply = await fetch(running.address, target="/x")

    assert reply.status == 200


@pytest.mark.e2e
async def test_lifespan_within_one_of_ones_own_works() -> None:
    """``async with proxy_lifespan(app)`` starts the upstream at once."""
    seen: list[Balancer] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with proxy_lifespan(app):
            seen.append(Upstream("billing").of(app))
            yield

    app = FastAPI(lifespan=lifespan)
    async with ScriptedOrigin() as origin, run_app(_injecting(app, origin.url)) as running:
        reply = await fetch(running.address, target="/x")

    assert reply.status == 200
    assert len(seen) == 1


@pytest.mark.e2e
async def test_lifespan_and_router_start_once() -> None:
    """Both in one app share a runtime."""
    seen: list[Balancer] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with proxy_lifespan(app):
            seen.append(Upstream("billing").of(app))
            yield

    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, app=FastAPI(lifespan=lifespan))
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x")
            same = Upstream("billing").of(app) is seen[0]

    assert reply.status == 200
    assert same


@pytest.mark.e2e
async def test_mounted_app_gets_an_error_that_says_so() -> None:
    """Starlette runs no lifespan of a mounted app."""
    async with ScriptedOrigin() as origin:
        outer = FastAPI()
        outer.mount("/sub", gateway_app(origin.url))
        async with run_app(outer) as running:
            reply = await fetch(running.address, target="/sub/billing/x")

    assert reply.status == 500
    assert origin.connections == 0


@pytest.mark.e2e
async def test_mounted_app_works_with_its_lifespan_in_ours() -> None:
    """The outer lifespan starts the inner app's upstreams; the prefix has the mount."""
    async with ScriptedOrigin() as origin:
        inner = gateway_app(origin.url)

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            async with proxy_lifespan(inner):
                yield

        outer = FastAPI(lifespan=lifespan)
        outer.mount("/sub", inner)
        async with run_app(outer) as running:
            reply = await fetch(running.address, target="/sub/billing/a%2Fb")

    assert reply.status == 200
    assert origin.request.target == b"/a%2Fb"
    assert origin.request.one(b"x-forwarded-prefix") == b"/sub/billing"


@pytest.mark.e2e
async def test_app_can_be_started_again() -> None:
    """After a shutdown, with new pools."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        for _ in range(2):
            async with run_app(app) as running:
                reply = await fetch(running.address, target="/billing/x")
            assert reply.status == 200
        with pytest.raises(ProxyNotStarted):
            Upstream("billing").of(app)


def test_router_without_an_app_is_only_a_router() -> None:
    """Building a router reads no settings and starts nothing."""
    assert proxy_router("never-configured").routes
