from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)
Billing = Annotated[Balancer, Depends(Upstream("billing"))]


@app.websocket("/live/{room}")
async def live(websocket: WebSocket, room: str, billing: Billing) -> None:
    await billing.forward_websocket(
        websocket,
        "/live",
        subprotocols=["billing.v1"],
        additional_headers={"x-room": room},
    )
