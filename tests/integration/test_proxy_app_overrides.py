"""Overrides in front of ``proxy_app`` are used or refused, never ignored silently."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_proxy_di import ProxyApp, Upstream, proxy_app, proxy_lifespan, proxy_router
from fastapi_proxy_di.testing import echo as websocket_echo
from fastapi_proxy_di.testing import reply, stand_in
from tests.support.gateways import billing
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import StartupFailed, run_app

pytestmark = pytest.mark.e2e


def mounted(proxy: ProxyApp) -> FastAPI:
    """Make an app that mounts the application."""
    app = FastAPI(lifespan=proxy_lifespan)
    app.mount("/billing", proxy)
    return app


def test_stand_in_responds_for_the_mount() -> None:
    """It needs no settings, and gets the paths below the mount."""
    app = mounted(proxy_app("billing"))
    with stand_in(app, "billing", reply({"total": 70})) as double, TestClient(app) as client:
        found = client.get("/billing/invoices/7")

    assert found.json() == {"total": 70}
    assert [one.path for one in double.received] == ["/invoices/7"]


def test_stand_in_serves_websockets() -> None:
    """As on routes."""
    app = mounted(proxy_app("billing"))
    with (
        stand_in(app, "billing", websocket_echo()),
        TestClient(app) as client,
        client.websocket_connect("/billing/live") as session,
    ):
        session.send_text("hello")
        assert session.receive_text() == "hello"


def test_stand_in_is_shared_with_routes() -> None:
    """One stand-in for all mentions of the upstream."""
    app = mounted(proxy_app("billing"))
    app.include_router(proxy_router("billing"), prefix="/routed")
    with stand_in(app, "billing", reply("ok")) as double, TestClient(app) as client:
        client.get("/billing/a")
        client.get("/routed/b")

    assert [one.path for one in double.received] == ["/a", "/b"]


async def test_late_stand_in_responds_instead_of_the_upstream() -> None:
    """Also while the app runs; after its end the upstream serves again."""
    async with ScriptedOrigin() as origin:
        app = mounted(proxy_app(billing(origin.url)))
        async with run_app(app) as running:
            async with stand_in(app, "billing", reply("double")):
                first = await fetch(running.address, target="/billing/x")
            reached = origin.connections
            second = await fetch(running.address, target="/billing/x")

    assert (first.body, reached, second.body) == (b"double", 0, b"ok")


async def test_upstream_is_not_started_after_a_stand_in_of_the_start() -> None:
    """500, and the real upstream is not reached."""
    app = mounted(proxy_app("billing"))
    double = stand_in(app, "billing", reply("double"))
    async with run_app(app) as running:
        await double.aclose()
        refused = await fetch(running.address, target="/billing/x")

    assert refused.status == 500
    assert "overridden when the app started" in refused.json()["detail"]


async def test_stand_in_counts_for_one_started_by_hand() -> None:
    """The app around the application has the override."""
    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url))
        app = FastAPI()
        app.mount("/billing", proxy)
        double = stand_in(app, "billing", reply("double"))
        async with proxy.running(), run_app(app) as running, double:
            found = await fetch(running.address, target="/billing/x")

    assert (found.body, origin.connections) == (b"double", 0)


async def test_stand_in_counts_within_a_starlette_app() -> None:
    """The app that started it has the overrides, not the nearest one."""
    async with ScriptedOrigin() as origin:
        app = FastAPI(lifespan=proxy_lifespan)
        proxy = proxy_app(billing(origin.url))
        app.mount("/inner", Starlette(routes=[Mount("/billing", proxy)]))
        async with run_app(app) as running, stand_in(app, "billing", reply("double")):
            found = await fetch(running.address, target="/inner/billing/x")

    assert (found.body, origin.connections) == (b"double", 0)


async def test_misspelt_stand_in_is_a_fault() -> None:
    """Else the test would reach the real upstream."""
    app = mounted(proxy_app(billing("http://127.0.0.1:1")))
    with stand_in(app, "biling", reply("ok")), pytest.raises(StartupFailed, match="biling"):
        await run_app(app).__aenter__()


async def test_other_overrides_are_a_fault_at_start() -> None:
    """A mount solves no dependencies, so it cannot call a function."""
    app = mounted(proxy_app(billing("http://127.0.0.1:1")))
    app.dependency_overrides[Upstream("billing")] = lambda: None

    with pytest.raises(StartupFailed, match=r"runs no dependencies.*stand-in"):
        await run_app(app).__aenter__()


async def test_other_overrides_that_come_late_reach_no_upstream() -> None:
    """500, and no connection to the upstream."""
    async with ScriptedOrigin() as origin:
        app = mounted(proxy_app(billing(origin.url)))
        async with run_app(app) as running:
            app.dependency_overrides[Upstream("billing")] = lambda: None
            refused = await fetch(running.address, target="/billing/x")

    assert (refused.status, origin.connections) == (500, 0)


async def test_overrides_of_other_upstreams_change_nothing() -> None:
    """They are for other names."""
    async with ScriptedOrigin() as origin:
        app = mounted(proxy_app(billing(origin.url)))
        app.dependency_overrides[Upstream("users")] = lambda: None
        async with run_app(app) as running:
            found = await fetch(running.address, target="/billing/x")

    assert found.status == 200


@pytest.mark.parametrize("overridden", ["outer", "inner"])
async def test_stand_in_of_either_app_around_it_responds(overridden: str) -> None:
    """Of the app that starts it, and of the mounted app that the request comes through."""
    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url))
        apps = {"outer": mounted(proxy), "inner": FastAPI()}
        apps["inner"].mount("/billing", proxy)
        apps["outer"].mount("/inner", apps["inner"])
        async with (
            run_app(apps["outer"]) as running,
            stand_in(apps[overridden], "billing", reply("double")),
        ):
            found = await fetch(running.address, target="/inner/billing/x")

    assert (found.body, origin.requests) == (b"double", [])
