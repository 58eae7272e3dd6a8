from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi_reverse_proxy import (
    HealthChecker,
    LoadBalancer,
    close_httpx_client,
    create_httpx_client,
)

checker = HealthChecker(["http://localhost:8080", "http://localhost:8081"])
lb = LoadBalancer(checker)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await create_httpx_client(app)
    async with checker:
        yield
    await close_httpx_client(app)


app = FastAPI(lifespan=lifespan)


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
async def gateway(request: Request, path: str) -> Any:
    return await lb.proxy_pass(request, path=f"/{path}")


@app.websocket("/ws/{path:path}")
async def ws_tunnel(websocket: WebSocket, path: str) -> None:
    await lb.proxy_pass_websocket(websocket, path=f"/{path}")
