"""The smallest gateway, run as ``uvicorn tests.e2e.gateway:app``; it also gives its process id."""

import os

from fastapi import FastAPI

from fastapi_proxy_di import proxy_router

__all__ = ["app"]

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")


@app.get("/pid")
async def pid() -> int:
    """Give the process id of the worker that responds."""
    return os.getpid()
