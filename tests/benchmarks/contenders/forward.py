"""This package injected: an endpoint of the app that calls `Balancer.forward`."""

from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response, WebSocket

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)

Origin = Annotated[Balancer, Depends(Upstream("origin"))]


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
async def gateway(request: Request, origin: Origin) -> Response:
    """Forward the request as it is."""
    return await origin.forward(request)


@app.websocket("/{path:path}")
async def tunnel(websocket: WebSocket, origin: Origin) -> None:
    """Tunnel the WebSocket as it is."""
    await origin.forward_websocket(websocket)
