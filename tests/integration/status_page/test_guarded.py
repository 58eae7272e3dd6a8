"""Apps with an open status router do not start."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Response, Security
from fastapi.security import HTTPBasic
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di import (
    ProxyNotStarted,
    SettingsError,
    Upstream,
    proxy_lifespan,
    proxy_router,
    status_router,
)
from tests.integration.status_page.gateway import UP, admin, gateway


def guarded_by_app() -> FastAPI:
    """Make an app with a dependency of its own."""
    app = FastAPI(dependencies=[Depends(admin)])
    app.include_router(status_router(), prefix="/upstreams")
    return app


def included_twice(inner: list[Any], outer: list[Any]) -> FastAPI:
    """Include the router in a router in an app."""
    router = APIRouter(dependencies=outer)
    router.include_router(status_router(), prefix="/upstreams", dependencies=inner)
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.include_router(router)
    return app


def included_openly_too() -> FastAPI:
    """Include the router with a guard and again without."""
    router = status_router()
    app = gateway(router, dependencies=[Depends(admin)])
    app.include_router(router, prefix="/open")
    return app


basic = HTTPBasic()
GUARD = Depends(admin)


@pytest.mark.parametrize(
    "app",
    [
        gateway(status_router(dependencies=[GUARD])),
        gateway(status_router(), dependencies=[GUARD]),
        gateway(status_router(), dependencies=[Security(admin, scopes=["ops"])]),
        gateway(status_router(), dependencies=[Depends(basic)]),
        gateway(status_router(unguarded=True)),
        guarded_by_app(),
        included_twice([GUARD], []),
        included_twice([], [GUARD]),
    ],
)
def test_guarded_routers_start(app: FastAPI) -> None:
    """By the router, an include, an include of the include, the app, or something in front."""
    with TestClient(app) as client:
        client.headers["authorization"] = "Basic YTpi"

        assert client.get("/upstreams/status.json").status_code == 200


@pytest.mark.parametrize(
    ("app", "path"),
    [
        (gateway(status_router()), "/upstreams/"),
        (gateway(status_router(dependencies=[])), "/upstreams/"),
        (gateway(status_router(actions=True)), "/upstreams/"),
        (gateway(status_router(), dependencies=[Depends(Upstream("billing"))]), "/upstreams/"),
        (included_twice([], []), "/upstreams/"),
        (included_openly_too(), "/open/"),
    ],
)
def test_routers_without_a_guard_do_not_start(app: FastAPI, path: str) -> None:
    """A dependency that gives an upstream is no guard, nor is one of another include."""
    client = TestClient(app)
    with pytest.raises(SettingsError, match=rf"status_router at {path} is open to everybody"):
        client.__enter__()


class Login:
    """A middleware with a login."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on requests with the password."""
        known = scope["type"] != "http" or Headers(scope=scope).get("authorization")
        await (self.app if known else Response(status_code=401))(scope, receive, send)


def mounted_router() -> FastAPI:
    """Mount the router as an application in a middleware."""
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.mount("/upstreams", Login(status_router(actions=True, unguarded=True)))
    return app


def app_in_a_middleware() -> FastAPI:
    """Include the router in an app with a middleware."""
    app = gateway(status_router(actions=True, unguarded=True))
    app.add_middleware(Login)
    return app


@pytest.mark.parametrize("app", [mounted_router(), app_in_a_middleware()])
def test_login_of_a_middleware(app: FastAPI) -> None:
    """Guards data and actions."""
    with TestClient(app) as client:
        body = {"destination": UP}
        refused = [
            client.get("/upstreams/status.json"),
            client.post("/upstreams/billing/drain", json=body),
        ]
        client.headers["authorization"] = "Basic YTpi"

        assert [one.status_code for one in refused] == [401, 401]
        assert client.get("/upstreams/").status_code == 200
        assert client.post("/upstreams/billing/drain", json=body).status_code == 200


@pytest.mark.parametrize(
    ("router", "place"),
    [
        (status_router(), "status_router at / is open"),
        (GZipMiddleware(status_router()), "status_router inside a mounted middleware is open"),
        (Login(status_router()), "status_router inside a mounted middleware is open"),
    ],
)
def test_open_router_that_is_mounted(router: Any, place: str) -> None:
    """No lifespan of its own runs, so it is refused when it is asked; a login is not seen."""
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.mount("/upstreams", router)
    with TestClient(app) as client, pytest.raises(SettingsError, match=place):
        client.get("/upstreams/status.json", headers={"authorization": "Basic YTpi"})


def test_router_of_a_mounted_app() -> None:
    """Shows the upstreams of that app, not those of the app around."""
    inner = FastAPI()
    inner.include_router(status_router(unguarded=True), prefix="/upstreams")
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.mount("/admin", inner)
    with (
        TestClient(app) as client,
        pytest.raises(ProxyNotStarted, match="upstreams of the app that includes it"),
    ):
        client.get("/admin/upstreams/status.json")


def test_open_router_of_a_mounted_app() -> None:
    """Whose lifespan did not run is refused when it is asked."""
    inner = FastAPI()
    inner.include_router(status_router(), prefix="/upstreams")

    def lifespan(_: Starlette) -> Any:
        return proxy_lifespan(inner)

    outer = Starlette(routes=[Mount("/inner", inner)], lifespan=lifespan)
    with (
        TestClient(outer) as client,
        pytest.raises(SettingsError, match="is open to everybody"),
    ):
        client.get("/inner/upstreams/status.json")
