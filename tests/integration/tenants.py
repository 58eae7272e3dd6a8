"""An app whose tenants start and end while it runs, for the tests of ``proxy_upstream``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, Request, Response, WebSocket

from fastapi_proxy_di import (
    Balancer,
    UpstreamSettings,
    metrics_router,
    proxy_lifespan,
    proxy_upstream,
    status_router,
    upstreams_ready,
)
from tests.support.http_client import fetch
from tests.support.servers import Running, run_app

__all__ = ["Gateway", "running_gateway", "tenant"]


class Tenant(UpstreamSettings, name="tenant"):
    """The settings of all tenants."""


def tenant(name: str, url: str, **settings: Any) -> Tenant:
    """Settings of one tenant."""
    return Tenant(**{"destinations": [url], **settings}).named(name)


class Gateway:
    """An app that serves each of its tenants at ``/<name>/``.

    Attributes:
        app: The app.
        balancers: The tenants, by name.
        running: Where the app listens.
    """

    running: Running

    def __init__(self) -> None:
        self.app = FastAPI(lifespan=proxy_lifespan, openapi_url=None)
        self.balancers: dict[str, Balancer] = {}
        self.app.include_router(status_router(unguarded=True), prefix="/-/status")
        self.app.include_router(metrics_router("/-/metrics"))
        self.app.get("/-/ready", dependencies=[Depends(upstreams_ready)])(_ready)

        @self.app.api_route("/{tenant}/{path:path}", methods=["GET", "POST"])
        async def forward(request: Request, tenant: str) -> Response:
            return await self.balancers[tenant].forward(request, mount=f"/{tenant}")

        @self.app.websocket("/{tenant}/{path:path}")
        async def tunnel(websocket: WebSocket, tenant: str) -> None:
            await self.balancers[tenant].forward_websocket(websocket, mount=f"/{tenant}")

    @contextlib.asynccontextmanager
    async def tenant(
        self, name: str, url: str, *, drain: float = 10.0, **settings: Any
    ) -> AsyncIterator[Balancer]:
        """Run a tenant; the endpoints keep its balancer, as if they had taken it before its end."""
        async with proxy_upstream(self.app, tenant(name, url, **settings), drain=drain) as balancer:
            self.balancers[name] = balancer
            yield balancer

    async def text(self, target: str) -> str:
        """Give the body of a page of the gateway."""
        return (await fetch(self.running.address, target=target)).body.decode()


async def _ready() -> str:
    return "ready"


@contextlib.asynccontextmanager
async def running_gateway() -> AsyncIterator[Gateway]:
    """Run a gateway without tenants."""
    made = Gateway()
    async with run_app(made.app) as made.running:
        yield made
