"""Gateways of one app that share a store, each with its own runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi_proxy_di import (
    ClusterSettings,
    ProxySettings,
    metrics_router,
    proxy_lifespan,
    status_router,
)
from tests.cluster.sharing import KEY
from tests.support.gateways import Gateway, gateway_app
from tests.support.servers import run_app

__all__ = ["A", "B", "shared_gateway", "shared_gateways"]

A = "asgi://tests.integration.status_page.gateway:origin"
B = "http://127.0.0.1:9"


@asynccontextmanager
async def shared_gateway(store: str, **settings: Any) -> AsyncIterator[Gateway]:
    """Run a gateway that shares ``store``, with a status router and the metrics of all.

    Args:
        store: Address of the store.
        **settings: Of the upstream.
    """
    cluster = ClusterSettings(store=store, name="shop", key=KEY, timeout=0.5, snapshot_interval=0.1)
    destinations = settings.pop("destinations", (A, B))
    app = gateway_app(*destinations, **settings)
    app.include_router(status_router(actions=True, unguarded=True), prefix="/upstreams")
    app.include_router(metrics_router(scope="cluster"))
    proxy_lifespan.configure(app, ProxySettings(cluster=cluster))
    async with run_app(app) as running:
        yield Gateway(running, app)


@asynccontextmanager
async def shared_gateways(store: str, number: int) -> AsyncIterator[list[Gateway]]:
    """Run several of them."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(shared_gateway(store)) for _ in range(number)]
