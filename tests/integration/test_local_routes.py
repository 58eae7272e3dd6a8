"""Local routes in front of a proxied mount, to replace an upstream step by step."""

import pytest
from fastapi import FastAPI

from fastapi_proxy_di import proxy_app, proxy_router
from tests.support.gateways import billing, gateway, gateway_app, pass_through
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


async def test_shadowed_routes_are_one_warning_at_start(caplog: pytest.LogCaptureFixture) -> None:
    """The record names each route and its mount, and says what to do."""
    async with ScriptedOrigin() as origin, run_app(_with_local(gateway_app(origin.url))):
        pass
    warnings = [one for one in caplog.records if one.levelname == "WARNING"]

    assert [one.name for one in warnings] == ["fastapi_proxy_di.lifespan"]
    assert "GET /billing/local (behind 'billing' at /billing)" in warnings[0].getMessage()
    assert "before the include_router(...)" in warnings[0].getMessage()


async def test_routes_in_front_are_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """FastAPI's documentation is in front of a mount at the root."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, prefix="", app=_with_local(FastAPI())),
    ):
        pass

    assert [one for one in caplog.records if one.levelname == "WARNING"] == []


async def test_shadowed_routes_of_several_mounts_are_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each proxy router runs the lifespan; the warning is the app's."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        app.include_router(proxy_router("billing"), prefix="/other")
        app.mount("/mounted", proxy_app("billing"))
        for path in ("/billing/x", "/other/x", "/mounted/x"):
            app.add_api_route(path, pass_through)
        async with run_app(app):
            pass
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]

    assert len(warnings) == 1
    assert warnings[0].count("(behind 'billing' at ") == 3
