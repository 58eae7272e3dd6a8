"""``max_body_size`` of FastAPI applies to proxied routes, wherever it is given."""

from collections.abc import Callable
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan, proxy_router
from tests.support.gateways import billing
from tests.support.http_client import connect, fetch, request
from tests.support.origins import ScriptedOrigin, chunk
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e


_LIMIT = 10


def _on_include(url: str) -> FastAPI:
    app = FastAPI()
    app.include_router(proxy_router(billing(url)), prefix="/billing", max_body_size=_LIMIT)
    return app


def _on_router(url: str) -> FastAPI:
    app, router = FastAPI(), APIRouter(max_body_size=_LIMIT)
    router.include_router(proxy_router(billing(url)), prefix="/billing")
    app.include_router(router)
    return app


def _on_include_of_router(url: str) -> FastAPI:
    app, router = FastAPI(), APIRouter()
    router.include_router(proxy_router(billing(url)), prefix="/billing")
    app.include_router(router, max_body_size=_LIMIT)
    return app


def _on_app(url: str) -> FastAPI:
    app = FastAPI(max_body_size=_LIMIT)
    app.include_router(proxy_router(billing(url)), prefix="/billing")
    return app


def _on_route(url: str) -> FastAPI:
    app = FastAPI(lifespan=proxy_lifespan)
    upstream = Upstream(billing(url))

    @app.api_route("/billing/{path:path}", methods=["GET", "POST", "PUT"], max_body_size=_LIMIT)
    async def forward(
        request: Request, balancer: Annotated[Balancer, Depends(upstream)]
    ) -> Response:
        return await balancer.forward(request)

    return app


_PLACES: list[Callable[[str], FastAPI]] = [
    _on_include,
    _on_router,
    _on_include_of_router,
    _on_app,
    _on_route,
]


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_body_over_the_limit_is_refused(place: Callable[[str], FastAPI], method: str) -> None:
    """By its length with 413, before anything is sent."""
    async with ScriptedOrigin() as origin, run_app(place(origin.url)) as running:
        reply = await fetch(running.address, method, "/billing/x", body=b"x" * (_LIMIT + 1))

    assert reply.status == 413
    assert origin.requests == []


@pytest.mark.parametrize("place", _PLACES)
async def test_body_within_the_limit_is_forwarded(place: Callable[[str], FastAPI]) -> None:
    """The limit itself is allowed, and so is a request without a body."""
    async with ScriptedOrigin() as origin, run_app(place(origin.url)) as running:
        full = await fetch(running.address, "POST", "/billing/x", body=b"x" * _LIMIT)
        empty = await fetch(running.address, "GET", "/billing/x")

    assert (full.status, empty.status) == (200, 200)
    assert [len(seen.body) for seen in origin.requests] == [_LIMIT, 0]


@pytest.mark.parametrize("place", _PLACES)
async def test_body_that_grows_over_the_limit_is_refused(place: Callable[[str], FastAPI]) -> None:
    """A body without a length is 413 once it is too long; the upstream gets no complete one."""
    async with (
        ScriptedOrigin() as origin,
        run_app(place(origin.url)) as running,
        connect(running.address) as client,
    ):
        head = request("POST", "/billing/x", [(b"Transfer-Encoding", b"chunked")])
        await client.send(head + chunk(b"x" * _LIMIT) + chunk(b"x") + b"0\r\n\r\n")
        reply = await client.read_response()

    assert reply.status == 413
    assert not any(seen.complete for seen in origin.requests)


async def test_other_include_has_no_limit() -> None:
    """Each mount has its own limit."""
    async with ScriptedOrigin() as origin:
        app, router = FastAPI(), proxy_router(billing(origin.url))
        app.include_router(router, prefix="/small", max_body_size=_LIMIT)
        app.include_router(router, prefix="/large")
        async with run_app(app) as running:
            large = await fetch(running.address, "POST", "/large/x", body=b"x" * 100)
            small = await fetch(running.address, "POST", "/small/x", body=b"x" * 100)

    assert (large.status, small.status) == (200, 413)
