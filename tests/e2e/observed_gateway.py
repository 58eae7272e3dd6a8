"""A gateway with metrics and the actions of an operator, for tests with Prometheus and workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, FastAPI

from fastapi_proxy_di import Balancer, Upstream, metrics_router, proxy_router

__all__ = ["app"]

Billing = Annotated[Balancer, Depends(Upstream("billing"))]

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")
app.include_router(metrics_router())


@app.post("/drain")
async def drain(billing: Billing, url: Annotated[str, Body()]) -> None:
    """Drain a destination."""
    _ = billing.drain(url)


@app.post("/undrain")
async def undrain(billing: Billing, url: Annotated[str, Body()]) -> None:
    """End its draining."""
    billing.undrain(url)


@app.post("/replace")
async def replace(billing: Billing, urls: Annotated[list[str], Body()]) -> None:
    """Replace all destinations."""
    billing.replace_destinations(urls)


@app.post("/weight")
async def weight(billing: Billing, url: Annotated[str, Body()]) -> None:
    """Change a destination."""
    billing.configure_destination(url, weight=2)
