from typing import Annotated, Any

from fastapi import Depends, FastAPI

from fastapi_proxy_di import Balancer, Upstream, proxy_router

app = FastAPI()
app.include_router(proxy_router("billing"), prefix="/billing")

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


@app.post("/admin/drain")
async def drain(url: str, billing: Billing) -> None:
    await billing.drain(url)


@app.post("/admin/undrain")
async def undrain(url: str, billing: Billing) -> None:
    billing.undrain(url)


@app.get("/admin/status")
async def status(billing: Billing) -> Any:
    return billing.status()
