"""``proxy_app`` in a ``Mount`` or ``Host``: its paths, its start, its shared pool.

Long because each mount, wrapper and fault of a start is tested around the same app.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute, Host, Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di import (
    ProxyApp,
    ProxyNotStarted,
    Upstream,
    proxy_app,
    proxy_lifespan,
    proxy_router,
)
from fastapi_proxy_di.transforms import OutboundRequest, OutboundResponse
from tests.support.gateways import billing, pass_through
from tests.support.http_client import connect, fetch, request
from tests.support.origins import ScriptedOrigin, echo
from tests.support.servers import StartupFailed, dead_port, run_app
from tests.support.websocket_client import open_websocket, shake_hands
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


def in_fastapi(proxy: ASGIApp) -> FastAPI:
    """Mount the application in FastAPI."""
    app = FastAPI(lifespan=proxy_lifespan)
    app.mount("/billing", proxy)
    return app


def in_starlette(proxy: ASGIApp) -> Starlette:
    """Mount the application in Starlette."""
    return Starlette(routes=[Mount("/billing", proxy)], lifespan=proxy_lifespan)


def by_hand(proxy: ProxyApp) -> Starlette:
    """Start the application in the framework's own lifespan."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with proxy.running():
            yield

    return Starlette(routes=[Mount("/billing", proxy)], lifespan=lifespan)


every_mount = pytest.mark.parametrize("mounted", [in_fastapi, in_starlette, by_hand])


@every_mount
async def test_requests_below_the_mount_are_sent(
    mounted: Callable[[ProxyApp], ASGIApp],
) -> None:
    """Raw path, query and body; the mount is sent as X-Forwarded-Prefix."""
    async with ScriptedOrigin(echo) as origin:
        app = mounted(proxy_app(billing(origin.url)))
        async with run_app(app) as running:
            reply = await fetch(running.address, "POST", "/billing/a%2Fb//c;d?q=%20", body=b"hello")

    assert reply.json() == {"method": "POST", "target": "/a%2Fb//c;d?q=%20", "body": "hello"}
    assert origin.request.one(b"x-forwarded-prefix") == b"/billing"


@every_mount
async def test_websockets_below_the_mount_work(
    mounted: Callable[[ProxyApp], ASGIApp],
) -> None:
    """Messages both ways, at the raw path."""
    upstream = EchoApp(subprotocols=["v1"])
    async with echo_server(upstream) as origin:
        app = mounted(proxy_app(billing(origin.url)))
        async with (
            run_app(app) as running,
            open_websocket(running.address, "/billing/a%2Fb?q", subprotocols=["v1"]) as client,
        ):
            await client.send("hello")
            heard = await client.recv()
            closed = await client.close(4001, "done")

    assert (client.subprotocol, heard, closed.code) == (b"v1", "hello", 4001)
    assert upstream.scope["raw_path"] == b"/a%2Fb"


@pytest.mark.parametrize("method", ["PROPFIND", "OPTIONS", "TRACE", "QUERY"])
async def test_every_method_is_forwarded(method: str) -> None:
    """A mount has no list of methods."""
    async with (
        ScriptedOrigin() as origin,
        run_app(in_fastapi(proxy_app(billing(origin.url)))) as running,
    ):
        reply = await fetch(running.address, method, "/billing/x")

    assert (reply.status, origin.request.method) == (200, method.encode())


async def test_connect_is_not_forwarded() -> None:
    """A CONNECT gets 405."""
    async with (
        ScriptedOrigin() as origin,
        run_app(in_fastapi(proxy_app(billing(origin.url)))) as running,
    ):
        reply = await fetch(running.address, "CONNECT", "/billing/x")

    assert (reply.status, origin.connections) == (405, 0)
    assert reply.one(b"content-type") == b"application/problem+json"


class Rooted:
    """A middleware that adds to ``root_path`` and leaves the path, as some servers do."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._root_path and scope["type"] == "http":
            scope["root_path"] = self._root_path
        await self._app(scope, receive, send)


@pytest.mark.parametrize(
    ("server", "root_path", "target"),
    [
        # uvicorn puts its own root_path in front of the path; a proxy in front has taken it off.
        ({"root_path": "/api"}, "", "/billing/x%2Fy"),
        ({}, "/api", "/billing/x%2Fy"),
        ({}, "/api", "/api/billing/x%2Fy"),
    ],
)
async def test_root_path_is_part_of_the_prefix(
    server: dict[str, Any], root_path: str, target: str
) -> None:
    """Whether or not the path has it, only the part below the mount is sent."""
    async with ScriptedOrigin() as origin:
        app = Rooted(in_fastapi(proxy_app(billing(origin.url))), root_path)
        async with run_app(app, **server) as running:
            reply = await fetch(running.address, target=target)

    assert reply.status == 200
    assert origin.request.target == b"/x%2Fy"
    assert origin.request.one(b"x-forwarded-prefix") == b"/api/billing"


async def test_mounts_nest_and_have_parameters() -> None:
    """The raw path of all mounts is the prefix."""
    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url))
        inner = Starlette(routes=[Mount("/{tenant}/billing", proxy)])
        app = FastAPI(lifespan=proxy_lifespan)
        app.mount("/in ner", inner)
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/in%20ner/%C3%A9/billing/x")

    assert (reply.status, origin.request.target) == (200, b"/x")
    assert origin.request.one(b"x-forwarded-prefix") == b"/in%20ner/%C3%A9/billing"


async def test_encoded_slash_at_the_border_is_not_found() -> None:
    """``/billing%2Fx`` is another segment."""
    async with (
        ScriptedOrigin() as origin,
        run_app(in_fastapi(proxy_app(billing(origin.url)))) as running,
    ):
        reply = await fetch(running.address, target="/billing%2Fx")
        async with connect(running.address) as client:
            refused = await shake_hands(client, "/billing%2Fx")

    assert (reply.status, refused.status, origin.connections) == (404, 404, 0)
    assert reply.one(b"content-type") == b"application/problem+json"


async def test_host_route_forwards() -> None:
    """By name, at the root; other names are not found."""
    async with ScriptedOrigin(echo) as origin:
        app = FastAPI(lifespan=proxy_lifespan)
        app.host("billing.test", proxy_app(billing(origin.url)))
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/a%2Fb", host=b"billing.test")
            other = await fetch(running.address, target="/a", host=b"other.test")

    assert reply.json()["target"] == "/a%2Fb"
    assert other.status == 404
    assert origin.request.one(b"x-forwarded-prefix") is None


async def test_included_router_may_mount_the_application() -> None:
    """Its prefix is part of the mount."""
    async with ScriptedOrigin() as origin:
        router = APIRouter(prefix="/ignored-by-mount")
        router.mount("/billing", proxy_app(billing(origin.url)))
        app = FastAPI(lifespan=proxy_lifespan)
        app.include_router(router, prefix="/v1")
        async with run_app(app) as running:
            replies = [
                await fetch(running.address, target=target)
                for target in ("/v1/billing/x", "/v1/ignored-by-mount/billing/x")
            ]

    assert sorted(reply.status for reply in replies) == [200, 404]
    assert origin.request.target == b"/x"


WRAPPERS: dict[str, Callable[[ProxyApp], BaseRoute]] = {
    "middleware": lambda proxy: Mount("/billing", CORSMiddleware(proxy, allow_origins=["*"])),
    "two middlewares": lambda proxy: Mount(
        "/billing", GZipMiddleware(CORSMiddleware(proxy, allow_origins=["*"]))
    ),
    "host": lambda proxy: Host("gateway.test", Router([Mount("/billing", GZipMiddleware(proxy))])),
    "app within": lambda proxy: Mount(
        "/", GZipMiddleware(Starlette(routes=[Mount("/billing", proxy)]))
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_application_is_found_inside_wrappers(wrapper: str) -> None:
    """Wrappers that keep the wrapped application as ``app``."""
    async with ScriptedOrigin() as origin:
        route = WRAPPERS[wrapper](proxy_app(billing(origin.url)))
        app = FastAPI(lifespan=proxy_lifespan, routes=[route])
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x")

    assert (reply.status, origin.request.target) == (200, b"/x")


class Ring:
    """A wrapper that wraps itself."""

    def __init__(self) -> None:
        self.app = self


async def test_wrapper_around_itself_ends_the_search() -> None:
    """No application is found, and the app starts."""
    app = Starlette(routes=[Mount("/billing", Ring())], lifespan=proxy_lifespan)  # type: ignore[arg-type]
    async with run_app(app):
        pass


async def test_pool_is_shared_with_routes() -> None:
    """One balancer and one set of connections for all mentions."""
    async with ScriptedOrigin() as origin:
        app, settings = FastAPI(), billing(origin.url)
        app.include_router(proxy_router(settings), prefix="/routed")
        proxy = proxy_app("billing")
        app.mount("/one", proxy)
        app.mount("/two", proxy)
        async with run_app(app) as running:
            for mount in ("routed", "one", "two"):
                await fetch(running.address, target=f"/{mount}/x")
            balancer = Upstream("billing").of(app)

    assert origin.connections == 1
    assert sum(one.successes for one in balancer.destinations) == 3


async def test_two_different_settings_of_one_name_are_a_fault() -> None:
    """As for routes."""
    app = FastAPI()
    app.include_router(proxy_router(billing("http://127.0.0.1:1")), prefix="/one")
    app.mount("/two", proxy_app(billing("http://127.0.0.1:2")))

    with pytest.raises(StartupFailed, match="two different settings"):
        await run_app(app).__aenter__()


async def test_transforms_change_requests_and_responses() -> None:
    """Functions and models, as for routes."""

    def stamp(request: OutboundRequest) -> None:
        request.headers["x-seen"] = "up"

    def stamp_back(response: OutboundResponse) -> None:
        response.headers["x-seen"] = "down"

    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url), transforms=[stamp, stamp_back])
        async with run_app(in_fastapi(proxy)) as running:
            reply = await fetch(running.address, target="/billing/x")

    assert (origin.request.one(b"x-seen"), reply.one(b"x-seen")) == (b"up", b"down")


async def test_failures_are_problem_documents() -> None:
    """Without a handler in the outer app, for HTTP and WebSocket."""
    proxy = proxy_app(billing(f"http://127.0.0.1:{dead_port()}"))
    app = in_starlette(proxy)
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/billing/x")
        async with connect(running.address) as client:
            refused = await shake_hands(client, "/billing/x")

    for one in (reply, refused):
        assert one.status == 502
        assert one.one(b"content-type") == b"application/problem+json"
        assert json.loads(one.body)["failure"] == "connect"


async def test_failures_register_nothing_in_the_app() -> None:
    """Its table of handlers is not changed."""
    app = in_fastapi(proxy_app(billing(f"http://127.0.0.1:{dead_port()}")))
    before = dict(app.exception_handlers)
    async with run_app(app) as running:
        await fetch(running.address, target="/billing/x")

    assert app.exception_handlers == before


async def test_body_that_a_middleware_has_read_is_sent() -> None:
    """``BaseHTTPMiddleware`` replays it."""
    async with ScriptedOrigin(echo) as origin:
        app = in_fastapi(proxy_app(billing(origin.url)))
        app.middleware("http")(pass_through)
        async with run_app(app) as running:
            reply = await fetch(running.address, "POST", "/billing/x", body=b"hello")

    assert reply.json()["body"] == "hello"


async def nobody() -> None:
    """A dependency."""


async def test_app_level_dependencies_are_a_fault() -> None:
    """A mount does not run them, so the app does not start."""
    app = FastAPI(lifespan=proxy_lifespan, dependencies=[Depends(nobody)])
    app.mount("/billing", proxy_app(billing("http://127.0.0.1:1")))

    with pytest.raises(StartupFailed, match=r"app-level dependencies.*guard=.*unguarded=True"):
        await run_app(app).__aenter__()


async def test_unguarded_allows_app_level_dependencies() -> None:
    """They do not run for the mount."""

    async def refuse() -> None:
        raise AssertionError("a mount runs no dependencies")

    async with ScriptedOrigin() as origin:
        app = FastAPI(lifespan=proxy_lifespan, dependencies=[Depends(refuse)])
        app.mount("/billing", proxy_app(billing(origin.url), unguarded=True))
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 200


async def test_app_level_dependencies_are_a_fault_for_one_started_by_hand() -> None:
    """Its first request fails, because its start does not see the app."""
    proxy = proxy_app(billing("http://127.0.0.1:1"))
    app = FastAPI(dependencies=[Depends(nobody)])
    app.mount("/billing", proxy)
    async with proxy.running(), run_app(app) as running:
        replies = [await fetch(running.address, target="/billing/x") for _ in range(2)]

    assert [reply.status for reply in replies] == [500, 500]


def test_not_started_is_500_with_the_line_to_add() -> None:
    """The server logs a traceback."""
    app = FastAPI()
    app.mount("/billing", proxy_app(billing("http://127.0.0.1:1")))

    with pytest.raises(ProxyNotStarted, match=r"lifespan=proxy_lifespan.*billing\.running"):
        TestClient(app).get("/billing/x")
    reply = TestClient(app, raise_server_exceptions=False).get("/billing/x")
    assert reply.status_code == 500
    assert "FastAPI(lifespan=proxy_lifespan)" in reply.json()["detail"]
    assert "async with billing.running():" in reply.json()["detail"]


async def test_not_started_refuses_websockets() -> None:
    """With the same 500."""
    app = FastAPI()
    app.mount("/billing", proxy_app(billing("http://127.0.0.1:1")))
    async with run_app(app) as running, connect(running.address) as client:
        refused = await shake_hands(client, "/billing/x")

    assert refused.status == 500


async def test_application_can_be_started_again() -> None:
    """Each start has its own runtime."""
    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url))
        statuses = []
        for mounted in (in_fastapi, in_starlette, by_hand):
            async with run_app(mounted(proxy)) as running:
                statuses.append((await fetch(running.address, target="/billing/x")).status)

    assert statuses == [200, 200, 200]
    assert origin.connections == 3


async def test_one_in_two_running_apps_is_a_fault() -> None:
    """It would be undecided which runtime it uses."""
    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url))
        async with run_app(in_fastapi(proxy)) as running:
            with pytest.raises(StartupFailed, match="two apps"):
                await run_app(in_starlette(proxy)).__aenter__()
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 200


async def test_failed_start_leaves_it_startable() -> None:
    """All faults are in one message; a later start works."""
    proxy = proxy_app("billing")
    with pytest.raises(StartupFailed, match="UPSTREAM_BILLING_DESTINATIONS"):
        await run_app(in_fastapi(proxy)).__aenter__()
    with pytest.raises(StartupFailed, match="UPSTREAM_BILLING_DESTINATIONS"):
        await run_app(in_starlette(proxy)).__aenter__()


async def test_running_within_running_does_nothing() -> None:
    """The outer block starts and closes the upstream."""
    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url))
        async with proxy.running():
            first = Upstream("billing").of(proxy)
            async with proxy.running():
                assert Upstream("billing").of(proxy) is first
            async with run_app(in_fastapi(proxy)) as running:
                reply = await fetch(running.address, target="/billing/x")
            assert Upstream("billing").of(proxy) is first
        with pytest.raises(ProxyNotStarted):
            Upstream("billing").of(proxy)

    assert reply.status == 200


async def test_upstream_of_gives_the_balancer() -> None:
    """In FastAPI and in Starlette."""
    async with ScriptedOrigin() as origin:
        for mounted in (in_fastapi, in_starlette):
            app = mounted(proxy_app(billing(origin.url)))
            async with run_app(app) as running:
                await fetch(running.address, target="/billing/x")
                (destination,) = Upstream("billing").of(app).destinations
                assert destination.successes == 1


async def test_keepalive_connection_serves_after_a_refusal() -> None:
    """The client's connection stays open."""
    proxy = proxy_app(billing(f"http://127.0.0.1:{dead_port()}"))
    async with run_app(in_fastapi(proxy)) as running, connect(running.address) as client:
        for _ in range(2):
            await client.send(request(target="/billing/x"))
            assert (await client.read_response()).status == 502


def test_name_is_checked_at_once() -> None:
    """A bad name raises before the start."""
    with pytest.raises(ValueError, match="name"):
        proxy_app("Not A Name")


def test_repr_has_the_upstreams_name() -> None:
    """For messages and debuggers."""
    assert repr(proxy_app("billing")) == "proxy_app('billing')"


async def test_dependencies_of_a_second_app_are_a_fault() -> None:
    """One application in two apps: 500 in the one with dependencies."""

    async def refuse() -> None:
        raise AssertionError("a mount runs no dependencies")

    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url))
        app = FastAPI(lifespan=proxy_lifespan)
        admin = FastAPI(dependencies=[Depends(refuse)])
        admin.mount("/billing", proxy)
        app.mount("/billing", proxy)
        app.mount("/admin", admin)
        async with run_app(app) as running:
            served = await fetch(running.address, target="/billing/x")
            refused = [await fetch(running.address, target="/admin/billing/x") for _ in range(2)]

    assert served.status == 200
    assert [one.status for one in refused] == [500, 500]
    assert len(origin.requests) == 1
