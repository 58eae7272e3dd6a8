"""Host routing and ``root_path``, which are in front of a mount but not in its path."""

import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import Host, Router

from fastapi_proxy_di import UpstreamSettings, proxy_lifespan, proxy_router
from tests.support.gateways import billing, gateway_app
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Headers, ScriptedOrigin, always, response_bytes
from tests.support.servers import run_app
from tests.support.websocket_client import open_websocket
from tests.websocket.gateways import serving
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


_HANDSHAKE: Headers = [
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]


class Users(UpstreamSettings, name="users"):
    """A second upstream."""


def _router_per_host(first: str, second: str) -> FastAPI:
    """Make one app, whose lifespan starts the upstreams of routers behind hosts."""
    app = FastAPI(lifespan=proxy_lifespan)
    for host, settings in (
        ("billing.test", billing(first)),
        ("{tenant}.users.test", Users(destinations=[second])),
    ):
        router = APIRouter()
        router.include_router(proxy_router(settings))
        app.router.routes.append(Host(host, app=router))
    return app


def _app_per_host(first: str, second: str) -> FastAPI:
    """Make an app behind each host, started by the outer app."""
    apps = {"billing.test": FastAPI(), "{tenant}.users.test": FastAPI()}
    apps["billing.test"].include_router(proxy_router(billing(first)))
    apps["{tenant}.users.test"].include_router(proxy_router(Users(destinations=[second])))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for app in apps.values():
                await stack.enter_async_context(proxy_lifespan(app))
            yield

    outer = FastAPI(lifespan=lifespan)
    for host, app in apps.items():
        outer.host(host, app)
    return outer


@pytest.mark.parametrize("build", [_router_per_host, _app_per_host])
async def test_host_picks_the_upstream(build: Callable[[str, str], FastAPI]) -> None:
    """The same path goes to the upstream of its Host; another Host reaches none."""
    async with (
        ScriptedOrigin(always(response_bytes(body=b"billing"))) as first,
        ScriptedOrigin(always(response_bytes(body=b"users"))) as second,
        run_app(build(first.url, second.url)) as running,
    ):
        replies = [
            await fetch(running.address, "POST", "/x%2Fy?q=1", host=host)
            for host in (b"billing.test", b"acme.users.test", b"other.test")
        ]

    assert [reply.status for reply in replies] == [200, 200, 404]
    assert [reply.body for reply in replies[:2]] == [b"billing", b"users"]
    assert second.request.target == b"/x%2Fy?q=1"
    assert second.request.one(b"x-forwarded-host") == b"acme.users.test"


@pytest.mark.parametrize("build", [_router_per_host, _app_per_host])
async def test_host_picks_the_upstream_of_a_websocket(build: Callable[[str, str], FastAPI]) -> None:
    """Another Host dials no upstream."""
    app = EchoApp()
    async with (
        echo_server(app) as echo,
        ScriptedOrigin() as second,
        serving(build(echo.url, second.url)) as gateway,
    ):
        async with connect(gateway.address) as stranger:
            await stranger.send(request("GET", "/live", _HANDSHAKE, host=b"other.test"))
            refused = await stranger.read_response()
        async with connect(gateway.address) as client:
            await client.send(request("GET", "/live", _HANDSHAKE, host=b"billing.test"))
            accepted = await client.read_head()

    assert refused.status in (403, 404)
    assert accepted.status == 101
    assert second.connections == 0


@pytest.mark.parametrize("target", ["/billing/x%2Fy", "/gate/billing/x%2Fy"])
async def test_root_path_of_the_app_is_no_part_of_the_target(target: str) -> None:
    """``FastAPI(root_path=...)``, whether the proxy in front has removed it or not."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        app.root_path = "/gate"
        async with run_app(app) as running:
            reply = await fetch(running.address, target=target)

    assert reply.status == 200
    assert origin.request.target == b"/x%2Fy"
    assert origin.request.one(b"x-forwarded-prefix") == b"/gate/billing"


async def test_root_path_of_the_server_is_no_part_of_the_target() -> None:
    """Uvicorn's ``--root-path`` is for a proxy in front that removes it."""
    async with (
        ScriptedOrigin() as origin,
        run_app(gateway_app(origin.url), root_path="/gate") as running,
    ):
        reply = await fetch(running.address, target="/billing/x%2Fy")

    assert reply.status == 200
    assert origin.request.target == b"/x%2Fy"
    assert origin.request.one(b"x-forwarded-prefix") == b"/gate/billing"


async def test_root_path_is_no_part_of_the_target_of_a_websocket() -> None:
    """The same for tunnels."""
    app = EchoApp()
    async with (
        echo_server(app) as echo,
        serving(gateway_app(echo.url), uvicorn={"root_path": "/gate"}) as gateway,
        open_websocket(gateway.address, "/billing/live?q=1") as client,
    ):
        await client.send("hello")
        said = await client.recv()

    assert said == "hello"
    assert app.scope["path"] == "/live"
    assert app.all(b"x-forwarded-prefix") == [b"/gate/billing"]


async def test_mounted_router_is_started_by_the_app() -> None:
    """A mounted router has no lifespan, a mounted app has one."""
    async with ScriptedOrigin() as origin:
        inner = APIRouter()
        inner.include_router(proxy_router(billing(origin.url)), prefix="/billing")
        app = FastAPI(lifespan=proxy_lifespan)
        app.mount("/sub", Router(routes=inner.routes))
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/sub/billing/x%2Fy")

    assert reply.status == 200
    assert origin.request.target == b"/x%2Fy"
    assert origin.request.one(b"x-forwarded-prefix") == b"/sub/billing"
