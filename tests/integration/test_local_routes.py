"""Local routes in front of a proxied mount, to replace an upstream step by step."""

import pytest
from fastapi import FastAPI

from fastapi_proxy_di import proxy_router
from tests.support.gateways import billing, gateway, gateway_app
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e


def _with_local(app: FastAPI) -> FastAPI:
    @app.get("/billing/local")
    async def local() -> str:
        return "local"

    return app


async def test_local_route_declared_before_wins() -> None:
    """The app serves its own paths; the rest is forwarded."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, app=_with_local(FastAPI())) as gate,
    ):
        local = await fetch(gate.address, target="/billing/local")
        other = await fetch(gate.address, target="/billing/other")

    assert local.json() == "local"
    assert other.body == b"ok"
    assert origin.request.target == b"/other"


async def test_local_route_shadows_its_own_methods_only() -> None:
    """POST and HEAD on the path of a local GET are forwarded."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, app=_with_local(FastAPI())) as gate,
    ):
        for method in ("POST", "DELETE"):
            assert (await fetch(gate.address, method, "/billing/local")).body == b"ok"
        assert (await fetch(gate.address, "HEAD", "/billing/local")).status == 200

    assert [seen.method for seen in origin.requests] == [b"POST", b"DELETE", b"HEAD"]


async def test_local_route_declared_after_is_shadowed() -> None:
    """The order decides, as always in FastAPI."""
    async with (
        ScriptedOrigin() as origin,
        run_app(_with_local(gateway_app(origin.url))) as running,
    ):
        reply = await fetch(running.address, target="/billing/local")

    assert reply.body == b"ok"


async def test_own_documentation_stays_in_front_of_a_root_mount() -> None:
    """FastAPI's own routes are first, unless they are off."""
    async with ScriptedOrigin() as origin:
        ours, theirs = FastAPI(), FastAPI(openapi_url=None)
        for app in (ours, theirs):
            app.include_router(proxy_router(billing(origin.url)))
        async with run_app(ours) as running:
            own = await fetch(running.address, target="/openapi.json")
        async with run_app(theirs) as running:
            forwarded = await fetch(running.address, target="/openapi.json")

    assert own.json()["openapi"]
    assert forwarded.body == b"ok"
