"""A gateway with a status router, and its upstream with one destination up and one down."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.testclient import TestClient

from fastapi_proxy_di import proxy_router

UP = "asgi://tests.integration.status_page.gateway:origin"
DOWN = "http://127.0.0.1:9"

origin = FastAPI()


@origin.get("/{path:path}")
async def found(path: str) -> str:
    """Respond to every request."""
    return path


def admin(request: Request) -> None:
    """Let those in who have the password."""
    if request.headers.get("authorization") != "Basic YTpi":
        raise HTTPException(401)


def gateway(router: APIRouter, **include: Any) -> FastAPI:
    """Make a gateway of one upstream with a status router."""
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.include_router(router, prefix="/upstreams", **include)
    return app


def destinations(client: TestClient) -> dict[str, dict[str, Any]]:
    """Give the state of each destination, by address."""
    (upstream,) = client.get("/upstreams/status.json").json()["upstreams"]
    return {one["url"]: one for one in upstream["destinations"]}
