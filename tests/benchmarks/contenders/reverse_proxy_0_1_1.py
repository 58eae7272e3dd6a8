"""fastapi-reverse-proxy 0.1.1, mounted as its README says: client in the lifespan, `proxy_pass`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request, WebSocket
from fastapi_reverse_proxy import (
    close_httpx_client,
    create_httpx_client,
    proxy_pass,
    proxy_pass_websocket,
)

_ORIGIN: Final = os.environ["BENCH_ORIGIN"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep the library's client for the app's life."""
    await create_httpx_client(app)
    yield
    await close_httpx_client(app)


app = FastAPI(lifespan=lifespan)


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
async def gateway(request: Request) -> Any:
    """Forward the request."""
    return await proxy_pass(request, _ORIGIN)


@app.websocket("/{path:path}")
async def tunnel(websocket: WebSocket, path: str) -> None:
    """Tunnel the WebSocket."""
    await proxy_pass_websocket(websocket, f"{_ORIGIN}/{path}")
