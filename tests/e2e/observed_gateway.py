"""A gateway with metrics and the actions of an operator, for tests with Prometheus and workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, FastAPI

from fastapi_proxy_di import (
    Balancer,
    Tap,
    TapExchange,
    Upstream,
    metrics_router,
    proxy_router,
)
from fastapi_proxy_di.transforms import JsonBody

__all__ = ["app"]

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


class Amounts(Tap):
    """Reads JSON, which the tests say that their responses are."""

    def answer(self, body: JsonBody) -> None:
        """Do nothing with it."""


def amounts(exchange: TapExchange) -> Tap:
    """Give the tap of an exchange."""
    return Amounts()


app = FastAPI()
app.include_router(proxy_router("billing", tap=amounts), prefix="/billing")
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
