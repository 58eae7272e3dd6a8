from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, Upstream, proxy_router

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


@app.post("/pay")
async def pay(request: Request, billing: Billing) -> Response:
    return await billing.forward(request, "/v2/pay", additional_headers={"x-tenant": "acme"})
