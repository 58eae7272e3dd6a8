import asyncio
from typing import Annotated
from urllib.request import urlopen

from fastapi import Depends, FastAPI

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)
Billing = Annotated[Balancer, Depends(Upstream("billing"))]


def vendor_health(url: str) -> str:  # stands for an SDK with its own client
    with urlopen(f"{url}/health", timeout=5) as response:
        return str(response.read(), "utf-8")


@app.get("/vendor")
async def vendor(billing: Billing) -> str:
    async with billing.lease() as lease:
        try:
            return await asyncio.to_thread(vendor_health, lease.url)
        except OSError as error:
            lease.failed(error)
            raise
