import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan, proxy_router

log = logging.getLogger("operations")


# --8<-- [start:subscribe]
@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with proxy_lifespan(app):
        billing = Upstream("billing").of(app)
        end = billing.subscribe(lambda event: log.warning("page somebody: %s", event))
        yield
        end()


# --8<-- [end:subscribe]
app = FastAPI(lifespan=lifespan)
app.include_router(proxy_router("billing"), prefix="/billing")

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


# --8<-- [start:configure]
@app.post("/admin/limit")
async def limit(url: str, billing: Billing, max_requests: int | None = None) -> None:
    billing.configure_destination(url, max_requests=max_requests)


@app.post("/admin/probe")
async def probe(path: str, interval: float, billing: Billing) -> None:
    billing.configure_health(path=path, interval=interval)


# --8<-- [end:configure]
@app.post("/admin/destinations")
async def replace(urls: list[str], billing: Billing) -> None:
    billing.replace_destinations(urls)
