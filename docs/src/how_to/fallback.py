from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)
Billing = Annotated[Balancer, Depends(Upstream("billing"))]
Archive = Annotated[Balancer, Depends(Upstream("archive"))]


@app.get("/invoices/{number}")
async def invoice(number: int, request: Request, billing: Billing, archive: Archive) -> Response:
    answer = await billing.forward(request, f"/invoices/{number}")
    if answer.status_code == 404:  # the unsent answer is closed for you
        answer = await archive.forward(request, f"/invoices/{number}")
    return answer
