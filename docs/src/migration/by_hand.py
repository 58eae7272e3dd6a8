# --8<-- [start:http]
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response, WebSocket
from quick_start import Backend as BackendSettings

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)

Backend = Annotated[Balancer, Depends(Upstream(BackendSettings))]


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
async def gateway(request: Request, backend: Backend) -> Response:
    return await backend.forward(request)


# --8<-- [end:http]
# --8<-- [start:websocket]
@app.websocket("/ws/feed")
async def feed(websocket: WebSocket, backend: Backend) -> None:
    await backend.forward_websocket(websocket, "/feed")


# --8<-- [end:websocket]
