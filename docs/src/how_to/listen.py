import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from fastapi_proxy_di import Upstream, proxy_lifespan, proxy_router

log = logging.getLogger("operations")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with proxy_lifespan(app):
        billing = Upstream("billing").of(app)
        unsubscribe = billing.subscribe(lambda event: log.warning("state changed: %s", event))
        yield
        unsubscribe()


app = FastAPI(lifespan=lifespan)
app.include_router(proxy_router("billing"), prefix="/billing")
