"""Every way of injection in FastAPI gives the same balancer, for HTTP and WebSocket."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, TypeAlias

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response, WebSocket
from starlette.requests import HTTPConnection

from fastapi_proxy_di import Balancer, Upstream, UpstreamConnectError, proxy_lifespan
from tests.support.gateways import billing
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port, run_app
from tests.support.websocket_client import Closed, open_websocket
from tests.websocket.gateways import serving
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


Billing: TypeAlias = Annotated[Balancer, Depends(Upstream("billing"))]


def in_a_function(balancer: Billing) -> Balancer:
    """A plain function that takes the alias."""
    return balancer


async def in_a_coroutine(balancer: Billing) -> Balancer:
    """A coroutine that takes the alias."""
    return balancer


async def two_levels_up(balancer: Annotated[Balancer, Depends(in_a_coroutine)]) -> Balancer:
    """A dependency of a dependency."""
    return balancer


async def until_the_end(balancer: Billing) -> AsyncIterator[Balancer]:
    """A dependency with ``yield``."""
    yield balancer


class Service:
    """A class as dependency, made for each request."""

    def __init__(self, balancer: Billing, connection: HTTPConnection) -> None:
        self.balancer = balancer
        self.tenant = connection.headers.get("x-tenant", "")


def in_a_class(service: Annotated[Service, Depends()]) -> Balancer:
    """Give the balancer of the class."""
    return service.balancer


class Chosen:
    """An instance as dependency, with a parameter."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, balancer: Billing) -> Balancer:
        """Give the balancer of the chosen name."""
        assert balancer.name == self.name
        return balancer


_WAYS: list[Callable[..., Any]] = [
    Upstream("billing"),
    in_a_function,
    in_a_coroutine,
    two_levels_up,
    until_the_end,
    in_a_class,
    Chosen("billing"),
]


def _app(way: Callable[..., Any], url: str) -> FastAPI:
    app = FastAPI(lifespan=proxy_lifespan)

    @app.get("/x")
    async def x(request: Request, balancer: Balancer = Depends(way)) -> Response:
        return await balancer.forward(request)

    @app.websocket("/live")
    async def live(websocket: WebSocket, balancer: Balancer = Depends(way)) -> None:
        await balancer.forward_websocket(websocket)

    @app.get("/settings")
    async def settings(_: Annotated[Balancer, Depends(Upstream(billing(url)))]) -> None:
        """Mention the upstream with settings; all others mention its name."""

    return app


@pytest.mark.parametrize("way", _WAYS)
async def test_http_endpoint_gets_the_balancer(way: Callable[..., Any]) -> None:
    """However it is injected, it forwards."""
    async with ScriptedOrigin() as origin, run_app(_app(way, origin.url)) as running:
        reply = await fetch(running.address, target="/x?q=1")

    assert (reply.status, reply.body) == (200, b"ok")
    assert origin.request.target == b"/x?q=1"


@pytest.mark.parametrize("way", _WAYS)
async def test_websocket_endpoint_gets_the_balancer(way: Callable[..., Any]) -> None:
    """The same dependencies work for WebSockets."""
    async with (
        echo_server(EchoApp()) as echo,
        serving(_app(way, echo.url)) as gateway,
        open_websocket(gateway.address, "/live") as client,
    ):
        await client.send("hello")

        assert await client.recv() == "hello"
        assert await client.close() == Closed(1000)


async def test_request_resolves_an_upstream_once() -> None:
    """All mentions in all requests give the same balancer."""
    seen: list[Balancer] = []
    app = FastAPI(lifespan=proxy_lifespan)

    async def keep(
        one: Billing,
        two: Annotated[Balancer, Depends(two_levels_up)],
        service: Annotated[Service, Depends()],
    ) -> None:
        seen.extend((one, two, service.balancer))

    async with ScriptedOrigin() as origin:

        @app.get("/x", dependencies=[Depends(keep)])
        async def x(balancer: Annotated[Balancer, Depends(Upstream(billing(origin.url)))]) -> None:
            seen.append(balancer)

        async with run_app(app) as running:
            for _ in range(2):
                assert (await fetch(running.address, target="/x")).status == 200
            seen.append(Upstream("billing").of(app))

    assert len(seen) == 9
    assert all(balancer is seen[0] for balancer in seen)


async def test_two_upstreams_in_one_endpoint() -> None:
    """A dependency takes both and picks that of the tenant."""

    async def of_the_tenant(
        tenant: str, billing: Billing, users: Annotated[Balancer, Depends(Upstream("users"))]
    ) -> Balancer:
        balancers = {"acme": billing, "umbrella": users}
        if tenant not in balancers:
            raise HTTPException(404)
        return balancers[tenant]

    app = FastAPI(lifespan=proxy_lifespan)

    @app.get("/{tenant}/x")
    async def x(
        request: Request, balancer: Annotated[Balancer, Depends(of_the_tenant)]
    ) -> Response:
        return await balancer.forward(request, "/x", additional_headers={"x-of": balancer.name})

    async with (
        ScriptedOrigin(always(response_bytes(body=b"billing"))) as first,
        ScriptedOrigin(always(response_bytes(body=b"users"))) as second,
    ):
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("UPSTREAM_BILLING_DESTINATIONS", first.url)
            environment.setenv("UPSTREAM_USERS_DESTINATIONS", second.url)
            async with run_app(app) as running:
                replies = [
                    await fetch(running.address, target=f"/{tenant}/x")
                    for tenant in ("acme", "umbrella", "unknown")
                ]

    assert [reply.status for reply in replies] == [200, 200, 404]
    assert [reply.body for reply in replies[:2]] == [b"billing", b"users"]
    assert second.request.one(b"x-of") == b"users"


@pytest.mark.parametrize("fails", [False, True])
async def test_yield_dependency_ends_after_the_body(fails: bool) -> None:
    """It ends after the response was streamed."""
    events: list[str] = []

    async def session(balancer: Billing) -> AsyncIterator[Balancer]:
        events.append("begin")
        try:
            yield balancer
        except UpstreamConnectError:
            events.append("failed")
            raise
        finally:
            events.append("end")

    app = FastAPI(lifespan=proxy_lifespan)
    async with ScriptedOrigin() as origin:
        url = f"http://127.0.0.1:{dead_port()}" if fails else origin.url

        @app.get("/x")
        async def x(
            request: Request,
            balancer: Annotated[Balancer, Depends(session)],
            _: Annotated[Balancer, Depends(Upstream(billing(url)))],
        ) -> Response:
            return await balancer.forward(request)

        async with run_app(app) as running:
            reply = await fetch(running.address, target="/x")

    assert reply.status == (502 if fails else 200)
    assert events == (["begin", "failed", "end"] if fails else ["begin", "end"])


async def test_upstream_in_a_dependency_of_a_router_is_started() -> None:
    """Also if only a dependency of a router or of the app mentions it."""
    seen: list[str] = []

    async def on_the_app(balancer: Billing) -> None:
        seen.append(balancer.name)

    async def on_the_router(balancer: Annotated[Balancer, Depends(Upstream("users"))]) -> None:
        seen.append(balancer.name)

    app = FastAPI(lifespan=proxy_lifespan, dependencies=[Depends(on_the_app)])
    router = APIRouter(dependencies=[Depends(on_the_router)])

    @router.get("/x")
    async def x() -> str:
        return "local"

    app.include_router(router, prefix="/in")
    async with ScriptedOrigin() as origin:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("UPSTREAM_BILLING_DESTINATIONS", origin.url)
            environment.setenv("UPSTREAM_USERS_DESTINATIONS", origin.url)
            async with run_app(app) as running:
                reply = await fetch(running.address, target="/in/x")

    assert reply.json() == "local"
    assert seen == ["billing", "users"]
