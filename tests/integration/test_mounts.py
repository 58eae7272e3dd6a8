"""Mounts of proxy routers: places, shared pools, parameters."""

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import HTTPConnection

from fastapi_proxy_di import Balancer, Upstream, UpstreamSettings, proxy_router
from tests.support.gateways import Billing, billing, gateway, gateway_app
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e


class Users(UpstreamSettings, name="users"):
    """A second upstream."""


def users(*destinations: str) -> Users:
    """Settings of the second upstream."""
    return Users(destinations=list(destinations))


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_root_of_the_mount_is_forwarded(method: str) -> None:
    """The mount with its slash is the root of the upstream."""
    target = "/billing/"
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, method, target)

    assert reply.status == 200
    assert origin.request.target == b"/"


async def test_nested_routers_serve() -> None:
    """Routers may be nested to any depth."""
    async with ScriptedOrigin() as origin:
        app, outer, inner = FastAPI(), APIRouter(prefix="/a"), APIRouter(prefix="/b")
        inner.include_router(proxy_router(billing(origin.url)), prefix="/c")
        outer.include_router(inner)
        app.include_router(outer)
        async with run_app(app) as running:
            await fetch(running.address, target="/a/b/c/x%2Fy?q=1")

    assert origin.request.target == b"/x%2Fy?q=1"


async def test_two_mounts_share_one_pool() -> None:
    """Two routers of one upstream have one balancer and one set of connections."""
    async with ScriptedOrigin() as origin:
        app, settings = FastAPI(), billing(origin.url)
        app.include_router(proxy_router(settings), prefix="/one")
        app.include_router(proxy_router(settings), prefix="/two")
        app.include_router(proxy_router("billing"), prefix="/three")
        async with run_app(app) as running:
            statuses = [
                (await fetch(running.address, target=f"/{name}/x")).status
                for name in ("one", "two", "three")
            ]

    assert statuses == [200, 200, 200]
    assert origin.connections == 1
    assert [seen.one(b"x-forwarded-prefix") for seen in origin.requests] == [
        b"/one",
        b"/two",
        b"/three",
    ]


async def test_two_different_settings_of_one_name_are_a_fault() -> None:
    """It would be undecided which ones apply."""
    app = FastAPI()
    app.include_router(proxy_router(billing("http://127.0.0.1:1")), prefix="/one")
    app.include_router(proxy_router(billing("http://127.0.0.1:2")), prefix="/two")

    with pytest.raises(Exception, match="billing"):
        await run_app(app).__aenter__()


def _several(first: str, second: str, **include: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(
        proxy_router(billing(first), users(second), path="/{upstream}/{path:path}"), **include
    )
    return app


async def test_several_upstreams_by_name() -> None:
    """Each name in the path goes to its own upstream."""
    async with (
        ScriptedOrigin(always(response_bytes(body=b"billing"))) as first,
        ScriptedOrigin(always(response_bytes(body=b"users"))) as second,
        run_app(_several(first.url, second.url, prefix="/api")) as running,
    ):
        one = await fetch(running.address, target="/api/billing/x")
        two = await fetch(running.address, target="/api/users/x")

    assert (one.body, two.body) == (b"billing", b"users")
    assert first.request.target == b"/x"
    assert second.request.one(b"x-forwarded-prefix") == b"/api/users"


@pytest.mark.parametrize("name", ["orders", "Billing", "billing2", "", "%2e%2e"])
async def test_unknown_upstream_is_not_found(name: str) -> None:
    """404, and no upstream is reached."""
    async with (
        ScriptedOrigin() as first,
        ScriptedOrigin() as second,
        run_app(_several(first.url, second.url)) as running,
    ):
        reply = await fetch(running.address, target=f"/{name}/x")

    assert reply.status == 404
    assert first.connections + second.connections == 0


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/acme/billing/x", b"/x"),
        ("/acme/billing/", b"/"),
        ("/a%20b/billing/x%2Fy", b"/x%2Fy"),
        ("/%C3%A9/billing/x", b"/x"),
    ],
)
async def test_parameters_of_the_mount_are_not_sent(target: str, sent: bytes) -> None:
    """They belong to the mount, in any encoding."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, prefix="/{tenant}/billing") as gate,
    ):
        await fetch(gate.address, target=target)

    assert origin.request.target == sent


async def test_parameter_of_the_mount_is_one_segment() -> None:
    """An encoded slash in the parameter gives a 404."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, prefix="/{tenant}/billing") as gate,
    ):
        reply = await fetch(gate.address, target="/a%2Fb/billing/x")

    assert reply.status == 404
    assert origin.connections == 0


async def test_mount_at_the_root_serves_everything() -> None:
    """Without a prefix every path is forwarded."""
    async with ScriptedOrigin() as origin, gateway(origin.url, prefix="") as gate:
        for target in ("/", "/x", "//x", "/docs-of-theirs"):
            assert (await fetch(gate.address, target=target)).status == 200

    assert [seen.target for seen in origin.requests] == [b"/", b"/x", b"//x", b"/docs-of-theirs"]


async def test_proxied_routes_are_not_in_the_schema() -> None:
    """By default the documentation has only the app's own routes."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        schema = (await fetch(gate.address, target="/openapi.json")).json()

    assert schema["paths"] == {}


async def test_class_with_defaults_serves_the_name() -> None:
    """A class given once applies to every mention of its name."""
    async with ScriptedOrigin() as origin:

        class Declared(UpstreamSettings, name="billing"):
            """Its destinations are in the code."""

            destinations: Any = [origin.url]

        app = FastAPI()
        app.include_router(proxy_router("billing"), prefix="/one")
        app.include_router(proxy_router(Declared), prefix="/two")
        async with run_app(app) as running:
            one = await fetch(running.address, target="/one/x")
            two = await fetch(running.address, target="/two/x")

    assert (one.status, two.status) == (200, 200)


async def test_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of code and one variable are a gateway."""
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"{one.url},{two.url}")
        monkeypatch.setenv("UPSTREAM_BILLING_POLICY", "round_robin")
        app = FastAPI()
        app.include_router(proxy_router("billing"), prefix="/billing")
        async with run_app(app) as running:
            for _ in range(4):
                assert (await fetch(running.address, target="/billing/x")).status == 200

    assert (len(one.requests), len(two.requests)) == (2, 2)


async def test_http_route_finds_its_balancer_without_solving_the_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An endpoint that injects the upstream calls the dependency; a proxied one does not."""
    solved: list[str] = []
    call = Upstream.__call__

    async def counted(
        self: Upstream, connection: HTTPConnection | None = None, balancer: Any = None
    ) -> Balancer:
        solved.append(self.name)
        return await call(self, connection, balancer)

    monkeypatch.setattr(Upstream, "__call__", counted)
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)

        @app.get("/own", dependencies=[Depends(Upstream("billing"))])
        async def own() -> str:
            return "own"

        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x")
            by_the_route = list(solved)
            await fetch(running.address, target="/own")

    assert reply.status == 200
    assert (by_the_route, solved) == ([], ["billing"])


def test_upstream_is_one_dependency() -> None:
    """Equal mentions are one dependency; a class and a name are not equal."""
    assert Upstream("billing") == Upstream("billing")
    assert hash(Upstream("billing")) == hash(Upstream("billing"))
    assert Upstream(Billing) == Upstream(Billing) != Upstream("billing")
    assert Upstream("billing") != Upstream("users")


async def test_both_protocols_can_be_left_out() -> None:
    """``http=False`` leaves no HTTP route."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url, router={"http": False})
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 404
    assert origin.connections == 0
