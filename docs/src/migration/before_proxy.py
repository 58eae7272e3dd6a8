from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi_reverse_proxy import Proxy, proxy_pass, proxy_pass_websocket

BACKEND = "http://localhost:8080"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Proxy(app):
        yield


app = FastAPI(lifespan=lifespan)


@app.websocket("/ws/feed")
async def feed(websocket: WebSocket) -> None:
    await proxy_pass_websocket(websocket, BACKEND, "/feed", timeout=5)


@app.post("/pay")
async def pay(request: Request) -> Any:
    return await proxy_pass(request, BACKEND, "/v2/pay", override_host="pay.example")


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
async def gateway(request: Request) -> Any:
    return await proxy_pass(request, BACKEND)
