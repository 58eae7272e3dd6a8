from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, ProxyError, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)
Billing = Annotated[Balancer, Depends(Upstream("billing"))]
Archive = Annotated[Balancer, Depends(Upstream("archive"))]


@app.post("/invoices")
async def create(request: Request, billing: Billing, archive: Archive) -> Response:
    try:
        return await billing.forward(request)
    except ProxyError as error:
        if error.request_sent:  # it may have been done
            raise
    return await archive.forward(request)
