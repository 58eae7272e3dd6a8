import json
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

Billing = Annotated[Balancer, Depends(Upstream("billing"))]

app = FastAPI(lifespan=proxy_lifespan)


@app.get("/invoices/{number:int}")
async def invoice(request: Request, number: int, billing: Billing) -> Response:
    response = await billing.forward(request)
    if response.status_code == 200:
        found = json.loads(await response.read(limit=100_000))
        response.headers["x-total"] = str(found["total"])
    return response  # the client gets the body as it came
