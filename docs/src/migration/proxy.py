from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response, WebSocket

from fastapi_proxy_di import (
    Balancer,
    Destinations,
    Upstream,
    UpstreamSettings,
    proxy_lifespan,
)


class BackendSettings(UpstreamSettings, name="backend"):
    destinations: Destinations = ["http://localhost:8080"]


app = FastAPI(lifespan=proxy_lifespan)

Backend = Annotated[Balancer, Depends(Upstream(BackendSettings))]


@app.websocket("/ws/feed")
async def feed(websocket: WebSocket, backend: Backend) -> None:
    await backend.forward_websocket(websocket, "/feed", open_timeout=5)


@app.post("/pay")
async def pay(request: Request, backend: Backend) -> Response:
    return await backend.forward(request, "/v2/pay", override_host="pay.example")


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
async def gateway(request: Request, backend: Backend) -> Response:
    return await backend.forward(request)
