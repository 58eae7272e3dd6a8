import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from fastapi_proxy_di import proxy_lifespan, proxy_router


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with proxy_lifespan(app):
        gc.collect()
        gc.freeze()  # the collector no longer examines the objects made at start
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(proxy_router("billing"), prefix="/billing")
