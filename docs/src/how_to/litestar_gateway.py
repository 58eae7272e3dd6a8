from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from litestar import Litestar, asgi

from fastapi_proxy_di import proxy_app

billing = proxy_app("billing")


@asynccontextmanager
async def lifespan(_: Litestar) -> AsyncGenerator[None]:
    async with billing.running():
        yield


app = Litestar([asgi("/billing", is_mount=True, copy_scope=True)(billing)], lifespan=[lifespan])
