"""The smallest gateways: ``app``, which also gives its process id, and ``alone``, with no app."""

import os

from fastapi import FastAPI

from fastapi_proxy_di import proxy_app, proxy_router

__all__ = ["alone", "app"]

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")

alone = proxy_app("billing")


@app.get("/pid")
async def pid() -> int:
    """Give the process id of the worker that responds."""
    return os.getpid()
