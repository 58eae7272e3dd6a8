from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)
Billing = Annotated[Balancer, Depends(Upstream("billing"))]
Archive = Annotated[Balancer, Depends(Upstream("archive"))]


@app.get("/invoices/{number}")
async def invoice(number: int, request: Request, billing: Billing, archive: Archive) -> Response:
    response = await billing.forward(request, f"/invoices/{number}")
    if response.status_code == 404:  # the first response is closed by itself
        response = await archive.forward(request, f"/invoices/{number}")
    return response
