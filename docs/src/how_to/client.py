# --8<-- [start:imports]
from typing import Annotated
from urllib.parse import quote

import httpx
from fastapi import Depends, FastAPI, HTTPException

from fastapi_proxy_di import Balancer, NoAvailableDestination, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)
Billing = Annotated[Balancer, Depends(Upstream("billing"))]


# --8<-- [end:imports]
# --8<-- [start:call]
@app.get("/invoices/{number}/summary")
async def summary(number: int, billing: Billing) -> dict[str, int]:
    response = await billing.client.get(f"/invoices/{number}")
    response.raise_for_status()
    return {"number": number, "total": response.json()["total"]}


# --8<-- [end:call]
# --8<-- [start:quote]
@app.get("/files/{name}/size")
async def size(name: str, billing: Billing) -> int:
    if name in (".", ".."):
        raise HTTPException(404, "no such file")
    response = await billing.client.get(f"/files/{quote(name, safe='')}")
    return len(response.content)


# --8<-- [end:quote]
# --8<-- [start:stream]
@app.get("/first-event")
async def first_event(billing: Billing) -> str:
    async with billing.client.stream("GET", "/events") as response:
        async for line in response.aiter_lines():
            return line  # leaving ends the upstream's side at once
    return "nothing happened"


# --8<-- [end:stream]
# --8<-- [start:errors]
@app.get("/invoices/{number}/total")
async def total(number: int, billing: Billing) -> int:
    try:
        response = await billing.client.get(f"/invoices/{number}", timeout=2)
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        if error.response.status_code == 404:
            raise HTTPException(404, "no such invoice") from error
        raise HTTPException(502, "billing is in trouble") from error
    except NoAvailableDestination as error:
        raise HTTPException(503, f"{error.upstream} is down for a moment") from error
    found: int = response.json()["total"]
    return found


# --8<-- [end:errors]
