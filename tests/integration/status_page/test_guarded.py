"""Apps with an open status router do not start."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_proxy_di import SettingsError, proxy_lifespan, status_router
from tests.integration.status_page.gateway import admin, gateway


def test_open_router_is_refused() -> None:
    """The app does not start; the message says what to add."""
    with (
        pytest.raises(SettingsError, match=r"status_router at /upstreams/ is open to everybody"),
        TestClient(gateway(status_router())),
    ):
        pass


def test_one_open_include_is_refused() -> None:
    """Although another one is guarded."""
    router = status_router()
    app = gateway(router, dependencies=[Depends(admin)])
    app.include_router(router, prefix="/open")

    with pytest.raises(SettingsError, match=r"status_router at /open/"), TestClient(app):
        pass


def guarded_by_app() -> FastAPI:
    """Make an app with a dependency of its own."""
    app = FastAPI(dependencies=[Depends(admin)])
    app.include_router(status_router(), prefix="/upstreams")
    return app


@pytest.mark.parametrize(
    "app",
    [
        gateway(status_router(dependencies=[Depends(admin)])),
        gateway(status_router(unguarded=True)),
        guarded_by_app(),
    ],
)
def test_guarded_routers_start(app: FastAPI) -> None:
    """By the router, by the app, or by something in front."""
    with TestClient(app) as client:
        client.headers["authorization"] = "Basic YTpi"

        assert client.get("/upstreams/status.json").status_code == 200


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
