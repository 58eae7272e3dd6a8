from typing import Annotated

from fastapi import Depends
from listen import app

from fastapi_proxy_di import Balancer, Upstream

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


# --8<-- [start:configure]
@app.post("/admin/limit")
async def limit(url: str, billing: Billing, max_requests: int | None = None) -> None:
    billing.configure_destination(url, max_requests=max_requests)


@app.post("/admin/probe")
async def probe(path: str, interval: float, billing: Billing) -> None:
    billing.configure_health(path=path, interval=interval)


# --8<-- [end:configure]
@app.post("/admin/destinations")
async def replace(urls: list[str], billing: Billing) -> None:
    billing.replace_destinations(urls)
