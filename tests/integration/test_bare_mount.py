"""The mount without its slash is redirected for browsers, else forwarded as the root."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from starlette.responses import Response

from fastapi_proxy_di import Upstream, proxy_router
from tests.support.gateways import billing, gateway, gateway_app
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import run_app
from tests.support.websocket_client import open_websocket, shake_hands
from tests.support.websocket_origin import frames_from, until_left

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/billing", b"/billing/"),
        ("/billing?a=1&b=%2F", b"/billing/?a=1&b=%2F"),
        ("/bill%69ng", b"/bill%69ng/"),
    ],
)
async def test_get_is_redirected_to_the_slash(method: str, target: str, location: bytes) -> None:
    """By a path, so that host and scheme of the client stay."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, method, target)

    assert (reply.status, reply.one(b"location"), reply.body) == (307, location, b"")
    assert not origin.connections


async def test_other_methods_are_forwarded() -> None:
    """So that a client need not send a body twice."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, "POST", "/billing?a=1", body=b"x")

    assert (reply.status, origin.request.target, origin.request.body) == (200, b"/?a=1", b"x")


async def test_root_path_is_part_of_the_location() -> None:
    """A proxy in front removes it, so the client needs it."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, server={"root_path": "/api"}) as gate,
    ):
        reply = await fetch(gate.address, target="/billing")

    assert reply.one(b"location") == b"/api/billing/"


async def test_location_never_names_a_host() -> None:
    """However many slashes the root path starts with."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        app.root_path = "//other.example/\\x"
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing")

    assert reply.one(b"location") == b"/other.example/%5Cx/billing/"


def _with_base_path(url: str) -> FastAPI:
    return gateway_app(url + "/v1")


def _without_redirects(url: str) -> FastAPI:
    return gateway_app(url, app=FastAPI(redirect_slashes=False))


def _forwarding(url: str) -> FastAPI:
    return gateway_app(url, router={"bare_mount": "forward"})


@pytest.mark.parametrize(
    ("make", "sent"),
    [(_with_base_path, b"/v1"), (_without_redirects, b"/"), (_forwarding, b"/")],
)
async def test_bare_mount_is_forwarded(make: Callable[[str], FastAPI], sent: bytes) -> None:
    """With a base path, which need not be a folder, or if app or mount turn redirects off."""
    async with ScriptedOrigin() as origin, run_app(make(origin.url)) as running:
        reply = await fetch(running.address, target="/billing")

    assert (reply.status, origin.request.target) == (200, sent)


async def test_redirect_can_be_chosen() -> None:
    """With any base path."""
    router = {"bare_mount": "redirect"}
    async with ScriptedOrigin() as origin, gateway(origin.url + "/v1", router=router) as gate:
        reply = await fetch(gate.address, target="/billing")

    assert (reply.status, reply.one(b"location")) == (307, b"/billing/")


async def _refuse() -> None:
    raise HTTPException(401)


async def test_dependencies_of_the_mount_run_before_the_redirect() -> None:
    """A refused client gets no redirect."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, include={"dependencies": [Depends(_refuse)]}) as gate,
    ):
        reply = await fetch(gate.address, target="/billing")

    assert (reply.status, reply.all(b"location")) == (401, [])


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/billing", b"/"),
        ("/billing/", b"/"),
        ("/billing/x", b"/x"),
        ("/billing/a%0Ab", b"/a%0Ab"),
        ("/billing/x%0A", b"/x%0A"),
        ("/billing//%0A", b"//%0A"),
    ],
)
async def test_websocket_is_forwarded(target: str, sent: bytes) -> None:
    """A handshake follows no redirect; a second route matches the bare mount."""
    async with (
        frames_from(until_left) as origin,
        gateway(origin.url) as gate,
        open_websocket(gate.address, target),
    ):
        assert origin.request.target == sent


@pytest.mark.parametrize("include", [{}, {"dependencies": [Depends(_refuse)]}])
async def test_second_websocket_route_has_the_dependencies_of_the_mount(
    include: dict[str, Any],
) -> None:
    """Both routes refuse."""
    async with (
        frames_from(until_left) as origin,
        gateway(origin.url, prefix="/{tenant}/billing", include=include) as gate,
        connect(gate.address) as client,
    ):
        reply = await shake_hands(client, "/acme/billing")

    assert reply.status == (401 if include else 101)
    assert origin.connections == (0 if include else 1)


def test_router_at_the_root_has_no_bare_mount() -> None:
    """A path always has a slash."""
    app = FastAPI()
    app.include_router(proxy_router("billing"))
    app.dependency_overrides[Upstream("billing")] = _StandIn
    with TestClient(app) as client:
        assert client.get("", follow_redirects=False).text == "/"


class _StandIn:
    async def forward(self, request: Any, path: str, **_: Any) -> Response:
        return Response(path)


def test_stand_in_is_treated_like_an_upstream_without_base_path() -> None:
    """So a test gets the redirects of the app."""
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.dependency_overrides[Upstream("billing")] = _StandIn
    with TestClient(app) as client:
        assert client.get("/billing", follow_redirects=False).headers["location"] == "/billing/"


async def test_nested_routers_redirect_to_themselves() -> None:
    """The whole mount is in the location, with its raw parameters."""
    async with ScriptedOrigin() as origin:
        app, outer = FastAPI(), APIRouter()
        outer.include_router(proxy_router(billing(origin.url)), prefix="/{tenant}/billing")
        app.include_router(outer, prefix="/tenants")
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/tenants/a%20b/billing")

    assert reply.one(b"location") == b"/tenants/a%20b/billing/"


def test_unknown_choice_is_refused() -> None:
    """Only three words are allowed."""
    with pytest.raises(ValueError, match="none of auto, redirect, forward"):
        proxy_router("billing", bare_mount="yes")  # type: ignore[arg-type]
