from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from security import require_user

from fastapi_proxy_di import Balancer, Upstream, proxy_router

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing", dependencies=[Depends(require_user)])

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


@app.post("/pay")
async def pay(request: Request, billing: Billing) -> Response:  # forward by hand
    return await billing.forward(request, "/v2/pay", additional_headers={"x-tenant": "acme"})


@app.get("/invoices/{number}/summary")
async def summary(number: int, billing: Billing) -> dict[str, int]:  # or call it as an API
    invoice = (await billing.client.get(f"/invoices/{number}")).json()
    return {"number": number, "total": invoice["total"]}
