"""Apps under test, as users of the test kit write them."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response, WebSocket

from fastapi_proxy_di import Balancer, Upstream, proxy_router

__all__ = ["Billing", "gateway_app"]

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


def gateway_app() -> FastAPI:
    """Build an app that mounts, injects, calls and tunnels the upstream ``billing``."""
    app = FastAPI()

    @app.post("/pay")
    async def pay(request: Request, billing: Billing) -> Response:
        return await billing.forward(request, "/v2/pay")

    @app.get("/summary")
    async def summary(billing: Billing) -> Any:
        return (await billing.client.get("/invoices/7")).json()

    @app.get("/available")
    async def available(billing: Billing) -> list[str]:
        return [one.url for one in billing.available]

    @app.websocket("/live")
    async def live(websocket: WebSocket, billing: Billing) -> None:
        await billing.forward_websocket(websocket, "/feed")

    app.include_router(proxy_router("billing"), prefix="/billing")
    return app
