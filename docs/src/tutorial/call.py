from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

from fastapi_proxy_di import Balancer, Upstream, proxy_router

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


@app.get("/invoices/{number}/summary")
async def summary(number: int, billing: Billing) -> dict[str, int]:
    response = await billing.client.get(f"/invoices/{number}")
    if response.status_code == 404:
        raise HTTPException(404, "no such invoice")
    if response.is_error:
        raise HTTPException(502, "billing is in trouble")
    return {"number": number, "total": response.json()["total"]}
