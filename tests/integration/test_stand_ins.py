"""``dependency_overrides`` with objects of all kinds, on every route."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import AsyncMock, create_autospec

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response, WebSocket
from fastapi.testclient import TestClient

from fastapi_proxy_di import (
    Balancer,
    Destinations,
    ForwardOptions,
    Upstream,
    UpstreamSettings,
    proxy_lifespan,
    proxy_router,
)
from tests.support.gateways import billing
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import StartupFailed, run_app


class Declared(UpstreamSettings, name="billing"):
    """Settings with a destination where nothing listens."""

    destinations: Destinations = ("http://127.0.0.1:1",)


class Recorder:
    """An object with only the two methods that a route needs.

    Attributes:
        calls: Path and keyword arguments of each call.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str | None, dict[str, Any]]] = []

    async def forward(self, request: Request, path: str | None = None, **given: Any) -> Response:
        """Record the call, and give a response."""
        self.calls.append((path, given))
        return Response(b"stand-in " + request.method.encode() + b" " + await request.body())

    async def forward_websocket(
        self, websocket: WebSocket, path: str | None = None, **given: Any
    ) -> None:
        """Record the call, and send a message."""
        self.calls.append((path, given))
        await websocket.accept()
        await websocket.send_text("stand-in")
        await websocket.close()


async def options() -> ForwardOptions:
    """Give a value for every option."""
    return ForwardOptions(
        headers={"x-tenant": "acme"}, timeout=3, affinity_key="k", override_host="acme.test"
    )


def _app(**router: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(proxy_router(Declared, **router), prefix="/tenants/{tenant}/billing")

    @app.get("/own")
    async def own(request: Request, balancer: Balancer = Depends(Upstream("billing"))) -> Response:
        return await balancer.forward(request, "/own")

    @app.websocket("/own/live")
    async def live(
        websocket: WebSocket, balancer: Annotated[Balancer, Depends(Upstream(Declared))]
    ) -> None:
        await balancer.forward_websocket(websocket, "/live")

    return app


def test_object_with_the_public_methods_replaces_a_balancer() -> None:
    """On proxied routes and in endpoints it gets the same calls."""
    app, stand_in = _app(), Recorder()
    app.dependency_overrides[Upstream("billing")] = lambda: stand_in

    with TestClient(app) as client:
        got = client.get("/tenants/acme/billing/x%2Fy?q=1")
        posted = client.request("PROPFIND", "/tenants/acme/billing", content=b"data")
        own = client.get("/own")
        with client.websocket_connect("/tenants/acme/billing/live") as websocket:
            proxied_text = websocket.receive_text()
        with client.websocket_connect("/own/live") as websocket:
            own_text = websocket.receive_text()

    assert (got.content, posted.content) == (b"stand-in GET ", b"stand-in PROPFIND data")
    assert own.content == b"stand-in GET "
    assert (proxied_text, own_text) == ("stand-in", "stand-in")
    assert stand_in.calls == [
        ("/x%2Fy", {}),
        ("/", {}),
        ("/own", {}),
        ("/live", {}),
        ("/live", {}),
    ]


def test_stand_in_gets_the_options() -> None:
    """The options are given as public arguments."""
    app, stand_in = _app(options=options), Recorder()
    app.dependency_overrides[Upstream("billing")] = lambda: stand_in

    with TestClient(app) as client:
        client.get("/tenants/acme/billing/x")
        with client.websocket_connect("/tenants/acme/billing/live") as websocket:
            websocket.receive_text()

    assert stand_in.calls == [
        (
            "/x",
            {
                "additional_headers": {"x-tenant": "acme"},
                "override_host": "acme.test",
                "timeout": 3,
            },
        ),
        ("/live", {"additional_headers": {"x-tenant": "acme"}, "open_timeout": 3}),
    ]


@pytest.mark.parametrize("make", [AsyncMock, create_autospec])
def test_mock_replaces_a_balancer(make: Callable[..., Any]) -> None:
    """Also a mock with a ``spec`` is called by the public methods."""
    mock = make(spec=Balancer) if make is AsyncMock else make(Balancer, instance=True)
    mock.forward.return_value = Response("mocked", 418)
    app = _app()
    app.dependency_overrides[Upstream("billing")] = lambda: mock

    with TestClient(app) as client:
        reply = client.get("/tenants/acme/billing/x")

    assert (reply.status_code, reply.text) == (418, "mocked")
    assert mock.forward.await_args.args[1] == "/x"


@pytest.mark.e2e
async def test_other_balancer_replaces_a_balancer() -> None:
    """One made from settings gets raw paths and all options."""
    async with (
        ScriptedOrigin(always(response_bytes(body=b"stand-in"))) as origin,
        Balancer.from_settings(billing(origin.url)) as balancer,
    ):
        app = _app(options=options)
        app.dependency_overrides[Upstream("billing")] = lambda: balancer
        async with run_app(app) as running:
            proxied = await fetch(running.address, target="/tenants/a/billing/x%2Fy?q=1")
            own = await fetch(running.address, target="/own")

    assert (proxied.body, own.body) == (b"stand-in", b"stand-in")
    assert [seen.target for seen in origin.requests] == [b"/x%2Fy?q=1", b"/own"]
    assert origin.requests[0].one(b"x-tenant") == b"acme"
    assert origin.requests[0].one(b"host") == b"acme.test"


@pytest.mark.parametrize(
    "variable", [None, "ftp://nonsense"], ids=["no settings", "settings that are not valid"]
)
def test_overridden_upstream_needs_no_settings(
    variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on proxied routes nor where it is injected."""
    if variable:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", variable)

    async def deep(balancer: Annotated[Balancer, Depends(Upstream("billing"))]) -> Balancer:
        return balancer

    app = FastAPI(lifespan=proxy_lifespan)
    app.include_router(proxy_router("billing"), prefix="/billing")

    @app.get("/own")
    async def own(request: Request, balancer: Annotated[Balancer, Depends(deep)]) -> Response:
        return await balancer.forward(request)

    app.dependency_overrides[Upstream("billing")] = Recorder
    with TestClient(app) as client:
        statuses = [client.get(path).status_code for path in ("/own", "/billing/x")]

    assert statuses == [200, 200]


@pytest.mark.e2e
async def test_override_may_have_dependencies_of_its_own() -> None:
    """It may take the request, and end after it."""
    seen: list[str] = []

    async def by_tenant(request: Request) -> AsyncIterator[Recorder]:
        seen.append(request.path_params["tenant"])
        yield Recorder()
        seen.append("end")

    app = _app()
    app.dependency_overrides[Upstream("billing")] = by_tenant
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/tenants/acme/billing/x")

    assert (reply.body, seen) == (b"stand-in GET ", ["acme", "end"])


@pytest.mark.e2e
async def test_override_of_one_upstream_leaves_the_other() -> None:
    """The other one starts and serves."""
    async with ScriptedOrigin() as origin:

        class Users(UpstreamSettings, name="users"):
            destinations: Destinations = (origin.url,)

        app = _app()
        app.include_router(proxy_router(Users), prefix="/users")
        app.dependency_overrides[Upstream("billing")] = Recorder
        async with run_app(app) as running:
            users = await fetch(running.address, target="/users/x")
            replaced = await fetch(running.address, target="/tenants/a/billing/x")

    assert (users.body, replaced.body) == (b"ok", b"stand-in GET ")
    assert [seen.target for seen in origin.requests] == [b"/x"]


@pytest.mark.e2e
async def test_override_by_settings_is_refused_at_start() -> None:
    """FastAPI would not apply it where the upstream is mentioned by name."""
    app = _app()
    app.dependency_overrides[Upstream(Declared)] = Recorder

    with pytest.raises(StartupFailed, match=r"overridden by its name.*Upstream\('billing'\)"):
        async with run_app(app):
            pass


@pytest.mark.e2e
@pytest.mark.parametrize("target", ["/tenants/acme/billing/x", "/own"])
async def test_override_by_settings_never_reaches_the_real_upstream(target: str) -> None:
    """Set while the app runs, it fails every request."""
    async with ScriptedOrigin() as origin:
        app = FastAPI()
        app.include_router(proxy_router(billing(origin.url)), prefix="/tenants/{tenant}/billing")

        @app.get("/own")
        async def own(
            request: Request, balancer: Balancer = Depends(Upstream("billing"))
        ) -> Response:
            return await balancer.forward(request)

        async with run_app(app) as running:
            app.dependency_overrides[Upstream(Declared)] = Recorder
            reply = await fetch(running.address, target=target)

    assert reply.status == 500
    assert not origin.requests


@pytest.mark.e2e
def test_override_is_set_at_the_top_level_of_a_script(tmp_path: Path) -> None:
    """Hashing an upstream works in any module."""
    script = tmp_path / "script.py"
    script.write_text(
        "from fastapi import FastAPI\n"
        "from fastapi_proxy_di import Upstream\n"
        "app = FastAPI()\n"
        "app.dependency_overrides[Upstream('billing')] = print\n"
        "print(app.dependency_overrides)\n"
    )

    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)

    assert "Upstream('billing')" in ended.stdout


@pytest.mark.e2e
async def test_tasks_of_an_override_run_after_the_response() -> None:
    """Background tasks of the mount's dependencies run as well."""
    ran: list[str] = []

    async def of_the_mount(tasks: BackgroundTasks) -> None:
        tasks.add_task(ran.append, "mount")

    async def of_the_override(tasks: BackgroundTasks) -> Recorder:
        tasks.add_task(ran.append, "override")
        return Recorder()

    app = FastAPI()
    app.include_router(
        proxy_router(Declared), prefix="/billing", dependencies=[Depends(of_the_mount)]
    )
    app.dependency_overrides[Upstream("billing")] = of_the_override
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/billing/x")

    assert reply.body == b"stand-in GET "
    assert sorted(ran) == ["mount", "override"]
