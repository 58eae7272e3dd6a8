from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response, WebSocket

from fastapi_proxy_di import Balancer, Upstream, proxy_router

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


@app.post("/pay")
async def pay(request: Request, billing: Billing) -> Response:
    return await billing.forward(request, "/v2/pay", additional_headers={"x-tenant": "acme"})


@app.get("/total")
async def total(billing: Billing) -> Any:
    return (await billing.client.get("/invoices/7")).json()["total"]


@app.websocket("/live")
async def live(websocket: WebSocket, billing: Billing) -> None:
    await billing.forward_websocket(websocket, "/feed")
