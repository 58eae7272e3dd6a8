"""``destination`` in FastAPI: options of mounts, endpoints, stand-ins, readiness."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, Response, WebSocket
from fastapi.testclient import TestClient

from fastapi_proxy_di import (
    Balancer,
    ForwardOptions,
    Upstream,
    UpstreamSettings,
    proxy_lifespan,
    proxy_router,
    upstreams_ready,
)
from fastapi_proxy_di.testing import accept, reply, stand_in
from tests.support.gateways import billing
from tests.support.given import given_app, to
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.websocket_client import open_websocket
from tests.websocket.gateways import serving
from tests.websocket.upstreams import EchoApp, echo_server

ALICE = "http://alice.notebooks.test:8888"
ALLOWED = {"origins": ["http://*.notebooks.test:8888"]}


class Notebooks(UpstreamSettings, name="notebooks"):
    """An upstream without destinations of its own."""


def notebooks() -> FastAPI:
    """An app with a mount and endpoints to addresses of notebooks."""
    app = FastAPI()

    async def of_user(name: str) -> ForwardOptions:
        return ForwardOptions(destination=f"http://{name}.notebooks.test:8888")

    settings = Notebooks(allowed_destinations=ALLOWED)
    app.include_router(proxy_router(settings, options=of_user), prefix="/user/{name}")
    return app


def test_stand_in_is_asked_for_the_address() -> None:
    """A destination of the test has the address, HTTP and WebSocket; nothing is dialled."""
    app = notebooks()
    places = {"alice.notebooks.test:8888": reply({"of": "alice"}), "pool": reply({"of": "pool"})}
    with (
        stand_in(app, "notebooks", places, allowed_destinations=ALLOWED) as stand,
        TestClient(app) as client,
    ):
        found = client.get("/user/alice/tree", headers={"cookie": "session=secret"})
        refused = client.get("/user/a.b/tree")

    assert found.json() == {"of": "alice"}
    assert (refused.status_code, refused.json()["failure"]) == (502, "refused_address")
    assert stand.tried == ["alice.notebooks.test:8888"]
    assert "cookie" not in stand.received[0].headers


def test_websocket_of_a_stand_in_goes_to_the_address() -> None:
    """The handshake of a mount with options."""
    app = notebooks()
    places = {"alice.notebooks.test:8888": accept(), "pool": reply()}
    with (
        stand_in(app, "notebooks", places, allowed_destinations=ALLOWED) as stand,
        TestClient(app) as client,
        client.websocket_connect("/user/alice/live"),
    ):
        pass

    assert stand.tried == ["alice.notebooks.test:8888"]


HTTPS = {"origins": ["https://*.notebooks.test:8888", "http://*.notebooks.test:8888"]}


def anywhere() -> FastAPI:
    """An app whose requests name their address."""
    app = FastAPI()

    async def chosen(to: str) -> ForwardOptions:
        return ForwardOptions(destination=to)

    app.include_router(
        proxy_router(Notebooks(allowed_destinations=HTTPS), options=chosen), prefix="/at"
    )
    return app


def test_name_of_a_stand_in_may_have_a_scheme_and_a_path() -> None:
    """Two schemes are two addresses."""
    places = {
        "https://alice.notebooks.test:8888/base": reply("secure"),
        "alice.notebooks.test:8888": reply("plain"),
    }
    app = anywhere()
    with (
        stand_in(app, "notebooks", places, allowed_destinations=HTTPS) as stand,
        TestClient(app) as client,
    ):
        bodies = [
            client.get("/at/x", params={"to": address}).text
            for address in ("https://Alice.notebooks.test:8888/base/", ALICE)
        ]
        with pytest.raises(
            ValueError,
            match=r"notebooks has no destination https://a\.notebooks\.test:8888; it has"
            r" https://alice\.notebooks\.test:8888/base, http://alice\.",
        ):
            client.get("/at/x", params={"to": "https://a.notebooks.test:8888"})

    assert bodies == ["secure", "plain"]
    assert stand.tried == list(places)
    assert stand.received[0].path == "/base/x"


def test_single_source_responds_at_every_allowed_address() -> None:
    """Its steps follow each other there; the record has the address. Others stay refused."""
    app, secure = anywhere(), "https://bob.notebooks.test:8888/base"
    with (
        stand_in(app, "notebooks", [reply("1"), reply("2")], allowed_destinations=HTTPS) as stand,
        TestClient(app) as client,
    ):
        found = [client.get("/at/x", params={"to": one}) for one in (ALICE, secure)]
        refused = client.get("/at/x", params={"to": "http://evil.test"})

    assert [one.text for one in found] == ["1", "2"]
    assert refused.json()["failure"] == "refused_address"
    assert stand.tried == [ALICE, secure]


class Fake:
    """A test's own object in place of a balancer."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []

    async def forward(self, request: Request, path: str, **given: Any) -> Response:
        self.given.append(given)
        return Response()

    async def forward_websocket(self, websocket: WebSocket, path: str, **given: Any) -> None:
        self.given.append(given)
        await websocket.accept()
        await websocket.close()


@pytest.mark.parametrize("destination", [None, ALICE])
def test_object_of_a_test_gets_the_argument_only_if_it_is_given(destination: str | None) -> None:
    """An object that was written before there was the argument still works."""
    app, fake = FastAPI(), Fake()
    app.include_router(
        proxy_router("billing", options=lambda: ForwardOptions(destination=destination)),
        prefix="/billing",
    )
    app.dependency_overrides[Upstream("billing")] = lambda: fake
    client = TestClient(app)

    assert client.get("/billing/x").status_code == 200
    with client.websocket_connect("/billing/live"):
        pass

    assert [one.get("destination") for one in fake.given] == [destination] * 2
    assert ["destination" in one for one in fake.given] == [destination is not None] * 2


def test_override_with_options_and_no_address_uses_the_pool() -> None:
    """A stand-in behind a mount whose options give none."""
    app = FastAPI()
    app.include_router(proxy_router("billing", options=ForwardOptions), prefix="/billing")
    with stand_in(app, "billing", reply()) as stand, TestClient(app) as client:
        assert client.get("/billing/x").status_code == 200

    assert stand.tried == ["billing"]


def test_mount_without_the_setting_fails() -> None:
    """A mistake of the programmer: 500, and the error says what to set."""
    app = FastAPI()
    app.include_router(
        proxy_router(billing("http://a"), options=lambda: ForwardOptions(destination=ALICE)),
        prefix="/billing",
    )
    with (
        TestClient(app) as client,
        pytest.raises(ValueError, match="none of the destinations of billing"),
    ):
        client.get("/billing/x")


def test_upstream_without_destinations_is_ready() -> None:
    """Unless it has some, and none of them is available."""
    app = FastAPI(lifespan=proxy_lifespan)

    @app.get(
        "/ready", dependencies=[Depends(upstreams_ready(Notebooks(allowed_destinations=ALLOWED)))]
    )
    async def ready() -> str:
        return "ready"

    with TestClient(app) as client:
        without = client.get("/ready")
        balancer = Upstream("notebooks").of(app)
        balancer.replace_destinations(["http://a"])
        _ = balancer.drain("http://a")
        drained = client.get("/ready")

    assert (without.status_code, drained.status_code) == (200, 503)


@pytest.mark.e2e
async def test_endpoints_give_addresses() -> None:
    """HTTP and WebSocket, beside a mount to the pool."""
    app, echo = given_app("http://unused.test"), EchoApp()
    async with ScriptedOrigin() as origin, echo_server(echo) as peer:

        @app.get("/page")
        async def page(request: Request, to: Balancer = Depends(Upstream("billing"))) -> Response:
            return await to.forward(request, "/x", destination=origin.url)

        @app.websocket("/live")
        async def live(websocket: WebSocket, to: Balancer = Depends(Upstream("billing"))) -> None:
            await to.forward_websocket(websocket, "/y", destination=peer.url)

        async with serving(app) as gateway:
            response = await fetch(gateway.address, target="/page")
            async with open_websocket(gateway.address, "/live") as client:
                await client.send("hello")
                assert await client.recv() == "hello"
            mounted = await fetch(gateway.address, target="/billing/", headers=to(origin.url))

    assert (response.status, mounted.status) == (200, 200)
    assert [one.target for one in origin.requests] == [b"/x", b"/"]
    assert echo.scope["path"] == "/y"
